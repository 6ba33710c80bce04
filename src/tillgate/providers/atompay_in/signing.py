"""HMAC-SHA512 signatures of every AtomPay message kind: parts joined by nothing, UTF-8, lower-case hex.

Which parts, in which order, under which key: AtomPay facts, signatures. Requests are signed with the request
hash key, responses with the response hash key. Amounts are given as the text that stands in the message.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable


def sign(key: str, *parts: str) -> str:
    return hmac.new(key.encode(), "".join(parts).encode(), hashlib.sha512).hexdigest()


def genuine(signature: object, keys: Iterable[str], *parts: str) -> bool:
    """Whether one of `keys` made `signature`, in constant time; nothing and null are never genuine."""
    if not isinstance(signature, str) or not signature or not signature.isascii():
        return False
    given = signature.lower().encode()
    found = False
    for key in keys:  # no early end: how long it takes must not say which key it was
        found |= hmac.compare_digest(given, sign(key, *parts).encode())
    return found


def payment_response(
    merch_id: str,
    atom_txn_id: str,
    merch_txn_id: str,
    total_amount: str,
    status_code: str,
    sub_channel: str,
    bank_txn_id: str,
) -> tuple[str, ...]:
    """Return and callback. `amount`, currency, UDFs, dates and customer are not covered."""
    return (merch_id, atom_txn_id, merch_txn_id, total_amount, status_code, sub_channel, bank_txn_id)


def refund_request(
    merch_id: str, password: str, merch_txn_id: str, total_refund_amount: str, currency: str
) -> tuple[str, ...]:
    return (merch_id, password, merch_txn_id, total_refund_amount, currency, "REFUNDINIT")


def requery_v1(
    merch_id: str, password: str, merch_txn_id: str, amount: str, currency: str
) -> tuple[str, ...]:
    """`/ots/payment/status` and the otsv2 one."""
    return (merch_id, password, merch_txn_id, amount, currency, "TXNVERIFICATION")


def requery_v2(merch_id: str, merch_txn_id: str, amount: str, currency: str) -> tuple[str, ...]:
    """`/ots/v2/payment/status`, as documented; no printed sample reproduces it."""
    return (merch_id, merch_txn_id, amount, currency)


def sale_request(
    merch_id: str, password: str, merch_txn_id: str, pay_mode: str, amount: str, currency: str, stage: str
) -> tuple[str, ...]:
    """The older SALE redirect."""
    return (merch_id, password, merch_txn_id, pay_mode, amount, currency, stage)


def paynetz_request(
    login: str, password: str, ttype: str, product: str, txn_id: str, amount: str, currency: str
) -> tuple[str, ...]:
    """Legacy Paynetz."""
    return (login, password, ttype, product, txn_id, amount, currency)


def paynetz_response(
    mmp_txn: str, mer_txn: str, f_code: str, product: str, discriminator: str, amount: str, bank_txn: str
) -> tuple[str, ...]:
    """Legacy Paynetz."""
    return (mmp_txn, mer_txn, f_code, product, discriminator, amount, bank_txn)
