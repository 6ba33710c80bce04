"""AtomPay messages: the JSON we send, and what we read out of the JSON we get.

Replies vary in shape (object or array, text or number, list or text): read by name, both taken.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import msgspec

from tillgate.domain.errors import Declined
from tillgate.domain.money import Money, MoneyError
from tillgate.providers.atompay_in import signing, wire
from tillgate.providers.atompay_in.codes import MODES, Outcome, outcome
from tillgate.providers.atompay_in.config import Config
from tillgate.spi import Order, RefundOrder

CURRENCY: Final = "INR"
_EMAIL: Final = re.compile(r"[^@\s<>\"]{1,64}@[^@\s<>\"]{1,60}")
_MOBILE: Final = re.compile(r"\+?[0-9][0-9 -]{5,18}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


# --- what we send -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Product:
    """One line of a split payment."""

    name: str
    amount_minor: int


def customer(order: Order, config: Config) -> tuple[str, str, str]:
    """E-mail and mobile, which the gateway insists on, and a name. Raises `Declined`."""
    email = _first(order.metadata, "email", "customer_email", "cust_email") or config.email
    mobile = _first(order.metadata, "mobile", "phone", "customer_mobile", "cust_mobile") or config.mobile
    if not _EMAIL.fullmatch(email) or len(email) > 100:
        raise Declined("AtomPay needs the payer's e-mail address: metadata.email")
    if not _MOBILE.fullmatch(mobile):
        raise Declined("AtomPay needs the payer's mobile number: metadata.mobile")
    return email, mobile, _first(order.metadata, "name", "customer_name")[:45]


def products(order: Order, config: Config) -> tuple[Product, ...]:
    """`metadata.products`, lines of {"name", "amount": "100.00"}, or the account's one. Raises `Declined`."""
    lines = order.metadata.get("products")
    if lines is None:
        return (Product(config.product, order.amount.minor),)
    if not isinstance(lines, list) or not 1 <= len(lines) <= 20:
        raise Declined("metadata.products is a list of one to twenty lines")
    split = tuple(_product(line) for line in lines)
    if len({line.name for line in split}) != len(split):
        raise Declined("metadata.products names a product twice")
    if sum(line.amount_minor for line in split) != order.amount.minor:
        raise Declined("metadata.products do not add up to the amount")
    return split


def auth(order: Order, config: Config) -> dict[str, Any]:
    """AUTH: asks for the token that opens the checkout. Not signed in any kit. Raises `Declined`."""
    amount = _payable(order.amount)
    email, mobile, name = customer(order, config)
    pay: dict[str, Any] = {"amount": amount, "txnCurrency": CURRENCY, "clientCode": config.client_code}
    if order.metadata.get("products") is None:
        pay["product"] = config.product
    else:
        pay["prodDetails"] = [
            {"prodName": line.name, "prodAmount": wire.rupees(line.amount_minor)}
            for line in products(order, config)
        ]
    account = _first(order.metadata, "cust_acc_no")
    if account:  # third-party validation only: the gateway checks that this account pays
        pay["custAccNo"] = account[:45]
    message: dict[str, Any] = {
        "headDetails": {"version": "OTSv1.1", "api": "AUTH", "platform": "FLASH"},
        "merchDetails": {
            "merchId": config.merch_id,
            "userId": "",
            "password": config.password,
            "merchTxnId": order.operation_id,
            "merchTxnDate": wire.stamp(order.created_at),
        },
        "payDetails": pay,
        "custDetails": {"custEmail": email, "custMobile": mobile} | ({"custFirstName": name} if name else {}),
        "extras": _udfs(order.metadata),
    }
    mode = _first(order.metadata, "mode") or config.mode
    if mode:
        if mode not in MODES:
            raise Declined(f"metadata.mode is one of {' '.join(MODES)}")
        message["payModeSpecificData"] = {"subChannel": mode}
    return {"payInstrument": message}


def requery(order: Order, day: str, config: Config) -> dict[str, Any]:
    """TXNVERIFICATION in the account's version; the gateway finds by transaction, date and amount."""
    amount = wire.rupees(order.amount.minor)
    merchant = {"merchId": config.merch_id, "merchTxnId": order.operation_id, "merchTxnDate": day}
    if config.requery == "v2":
        parts = signing.requery_v2(config.merch_id, order.operation_id, amount, CURRENCY)
    else:
        parts = signing.requery_v1(config.merch_id, config.password, order.operation_id, amount, CURRENCY)
    message: dict[str, Any] = {
        "merchDetails": merchant,
        "payDetails": {
            "amount": wire.literal(order.amount.minor),
            "txnCurrency": CURRENCY,
            "signature": signing.sign(config.req_hash_key, *parts),
        },
    }
    if config.requery == "v1":
        merchant["password"] = config.password
        message["headDetails"] = {"api": "TXNVERIFICATION", "source": "OTS"}
    return {"payInstrument": message}


def refund(order: RefundOrder, lines: Sequence[RefundLine], config: Config) -> dict[str, Any]:
    total, merch_txn_id = order.amount.minor, order.payment.operation_id
    parts = signing.refund_request(
        config.merch_id, config.password, merch_txn_id, wire.rupees(total), CURRENCY
    )
    return {
        "payInstrument": {
            "headDetails": {"api": "REFUNDINIT", "source": "OTS"},
            "merchDetails": {
                "merchId": config.merch_id,
                "password": config.password,
                "merchTxnId": merch_txn_id,
            },
            "payDetails": {
                "atomTxnId": order.payment.external_id,
                "signature": signing.sign(config.req_hash_key, *parts),
                "prodDetails": [
                    {
                        "prodName": line.name,
                        "prodRefundId": line.id,
                        "prodRefundAmount": wire.literal(line.amount_minor),
                    }
                    for line in lines
                ],
                "txnCurrency": CURRENCY,
                "totalRefundAmount": wire.literal(total),
            },
        }
    }


def refund_status(order: RefundOrder, lines: Sequence[RefundLine], config: Config) -> dict[str, Any]:
    """REFUNDSTATUS: unsigned, the password in Base64."""
    return {
        "payInstrument": {
            "headDetails": {"api": "REFUNDSTATUS", "source": "OTS_ARS"},
            "merchDetails": {
                "merchId": config.merch_id,
                "password": base64.b64encode(config.password.encode()).decode(),
                "merchTxnId": order.payment.operation_id,
            },
            "payDetails": {
                "atomTxnId": order.payment.external_id,
                "prodDetails": [{"prodName": line.name} for line in lines],
            },
        }
    }


@dataclass(frozen=True, slots=True)
class RefundLine:
    """`id` is the prodRefundId: ours, one for each line, the same whenever this refund is sent."""

    id: str
    name: str
    amount_minor: int


def refund_lines(order: RefundOrder, config: Config) -> tuple[RefundLine, ...]:
    """The refund over the payment's products, in proportion to what each was paid.

    A refund names no product, so a part of a split payment comes back from all of them alike. Each gives what
    brings it from its share of all that was asked back before to its share of that and this, so that refunds
    of the whole payment give back of each product what it was paid, however they were cut.
    """
    paid = products(order.payment, config)
    if len(paid) == 1:
        return (RefundLine(order.operation_id, paid[0].name, order.amount.minor),)
    amounts = [line.amount_minor for line in paid]
    before = _shares(amounts, order.before_minor)
    after = _shares(amounts, order.before_minor + order.amount.minor)
    return tuple(
        RefundLine(f"{order.operation_id}-{n}", line.name, then - now)
        for n, (line, now, then) in enumerate(zip(paid, before, after, strict=True), 1)
        if then > now
    )


def _shares(amounts: Sequence[int], part: int) -> list[int]:
    """A part of the sum of `amounts` over them, by d'Hondt: of a larger part none of them gets less."""
    whole = sum(amounts)
    shares = [amount * part // whole for amount in amounts]
    for _ in range(part - sum(shares)):
        shares[max(range(len(amounts)), key=lambda n: Fraction(amounts[n], shares[n] + 1))] += 1
    return shares


# --- what we read -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """One transaction, as a callback, a return or a requery tells it. Amounts in paise; None where absent."""

    merch_id: str
    merch_txn_id: str
    atom_txn_id: str
    amount_minor: int | None
    surcharge_minor: int | None
    total_minor: int | None
    currency: str  # "" where absent: a requery reply has none
    signature: object
    status: str
    sub_channel: str
    bank_txn_id: str
    at: int | None  # epoch ms

    @property
    def adds_up(self) -> bool:
        """Only `totalAmount` is signed: an amount that does not follow from it is nobody's word."""
        return (
            self.amount_minor is not None
            and self.total_minor is not None
            and self.amount_minor + (self.surcharge_minor or 0) == self.total_minor
        )


def reports(message: Any) -> tuple[Report, ...]:
    """Every transaction in a decrypted message. Raises `ValueError` where an amount or a currency is none."""
    found = wire.part(message, "payInstrument")
    items = [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, dict)]
    if not 1 <= len(items) <= 100:
        raise ValueError("no transactions")
    return tuple(_report(item) for item in items)


def _report(item: Mapping[str, Any]) -> Report:
    pay, status = wire.part(item, "payDetails"), wire.part(item, "responseDetails")
    mode = wire.part(item, "payModeSpecificData", "subChannel")
    if isinstance(mode, list):
        mode = mode[0] if mode else None
    currency = wire.text(wire.part(pay, "txnCurrency"))
    if currency and not _CURRENCY.fullmatch(currency):
        raise ValueError("no currency")
    return Report(
        merch_id=wire.text(wire.part(item, "merchDetails", "merchId")),
        merch_txn_id=_id(wire.part(item, "merchDetails", "merchTxnId")),
        atom_txn_id=_id(wire.part(pay, "atomTxnId")),
        amount_minor=_amount(pay, "amount"),
        surcharge_minor=_amount(pay, "surchargeAmount"),
        total_minor=_amount(pay, "totalAmount"),
        currency=currency,
        signature=wire.part(pay, "signature"),
        status=wire.text(wire.part(status, "statusCode")),
        sub_channel=wire.text(mode),
        bank_txn_id=wire.text(wire.part(item, "payModeSpecificData", "bankDetails", "bankTxnId")),
        at=wire.moment(wire.part(pay, "txnCompleteDate"))
        or wire.moment(wire.part(item, "merchDetails", "merchTxnDate")),
    )


_STATES: Final = {
    Outcome.PAID: "success",
    Outcome.PENDING: "pending",
    Outcome.FAILED: "failed",
    Outcome.REVERSED: "reversed",
}


def details(found: Sequence[Report]) -> str:
    """JSON of what the gateway says of a payment beside its money, from the transaction that counts most."""
    ranked = sorted(found, key=lambda one: list(_STATES).index(outcome(one.status))
                    if outcome(one.status) in _STATES else 9)  # fmt: skip
    best = ranked[0]
    said = {
        "atompay_transaction_id": best.atom_txn_id or None,
        "bank_transaction_id": best.bank_txn_id or None,
        "payment_status": _STATES.get(outcome(best.status), "unknown"),
        "status_code": best.status,
        "surcharge_minor": best.surcharge_minor,
        "total_minor": best.total_minor,
    }
    return msgspec.json.encode({name: value for name, value in said.items() if value is not None}).decode()


def ordered(order: Order, config: Config) -> dict[str, Any]:
    """The Payment record's attributes that the stored order knows, null where it does not; both ids are the
    gateway's."""
    meta = order.metadata
    return {
        "anwesha_id": _first(meta, "anwesha_id", "user") or None,
        "email_id": _first(meta, "email_id", "email", "customer_email") or config.email or None,
        "name": _first(meta, "name", "customer_name") or None,
        "event_id": _first(meta, "event_id") or None,
        "event_type": _first(meta, "event_type", "type") or None,
        "atompay_transaction_id": order.external_id,
        "bank_transaction_id": None,
        "payment_status": "pending",
    }


def signed_parts(report: Report) -> tuple[str, ...] | None:
    """What the response signature covers; None where there is no total to sign."""
    if report.total_minor is None:
        return None
    return signing.payment_response(
        report.merch_id,
        report.atom_txn_id,
        report.merch_txn_id,
        wire.rupees(report.total_minor),
        report.status,
        report.sub_channel,
        report.bank_txn_id,
    )


def refund_items(message: Any) -> tuple[Mapping[str, Any], ...]:
    """The refunds that a refund-status reply lists: both documented shapes of `refundStatusDetails`."""
    details = _somewhere(message, "refundStatusDetails")
    items: list[Any] = []
    if isinstance(details, dict):
        details = details.get("refundDetails")
    for entry in details if isinstance(details, list) else []:
        inner = wire.part(entry, "refundStatus")
        items.extend(inner if isinstance(inner, list) else [entry])
    return tuple(item for item in items if isinstance(item, dict))


def status_code(message: Any) -> str:
    """The overall code: from `responseDetails`, or from the plain JSON of an error."""
    found = wire.part(message, "payInstrument")
    if isinstance(found, list):
        found = found[0] if len(found) == 1 else None
    for place in (found, message):
        for path in (
            ("responseDetails", "statusCode"),
            ("responseDetails", "txnStatusCode"),
            ("txnStatusCode",),
        ):
            code = wire.text(wire.part(place, *path))
            if code:
                return code
    return ""


def _somewhere(message: Any, name: str) -> Any:
    for place in (
        message,
        wire.part(message, "payInstrument"),
        wire.part(message, "payInstrument", "payDetails"),
    ):
        found = wire.part(place, name)
        if found is not None:
            return found
    return None


def _amount(pay: Any, name: str) -> int | None:
    value = wire.part(pay, name)
    return None if value is None else wire.paise(value)


def _id(value: Any) -> str:
    identifier = wire.text(value)
    if len(identifier) > 64 or not identifier.isprintable():
        raise ValueError("no identifier")
    return identifier


def _payable(amount: Money) -> str:
    if amount.currency != CURRENCY:
        raise Declined("AtomPay takes INR only")
    if not 0 < amount.minor < 10**12:
        raise Declined("AtomPay takes amounts of at most ten digits")
    return wire.rupees(amount.minor)


def _product(line: Any) -> Product:
    name, amount = wire.part(line, "name"), wire.part(line, "amount")
    if not isinstance(name, str) or not 1 <= len(name) <= 50 or not isinstance(amount, str):
        raise Declined('a line of metadata.products is {"name": text, "amount": "100.00"}')
    try:
        return Product(name, Money.parse(amount, CURRENCY).minor)
    except MoneyError:
        raise Declined("an amount in metadata.products is not one") from None


def _udfs(metadata: Mapping[str, Any]) -> dict[str, str]:
    """udf1 to udf10, echoed by the gateway and signed by nobody: never to be believed on the way back."""
    names = (f"udf{n}" for n in range(1, 11))
    return {name: str(metadata[name])[:45] for name in names if metadata.get(name) not in (None, "")}


def _first(metadata: Mapping[str, Any], *names: str) -> str:
    return next((str(metadata[name]) for name in names if metadata.get(name) not in (None, "")), "")
