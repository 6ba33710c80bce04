"""Between a row of `payments` and the facts that `decide` rules by."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from tillgate.domain.payment import Attempt, Payment, StandingOrder
from tillgate.embed.models import PaymentTransaction, to_ms, to_tiyin

log = logging.getLogger("tillgate.embed")

MAX_TIYIN: Final = 10**15
FAR: Final = 2**62  # an order of the host's has no end that we know of
TIMEOUT_REASON: Final = 4


def attempt_of(row: PaymentTransaction, currency: str = "UZS", *, whole: bool = False) -> Attempt:
    """State 0 and 1 wait, 2 is paid, -1 was closed before it was paid, -2 was given back after.

    `whole`: with the account that the gateway named, which no rule looks at."""
    amount = row.amount_tiyin if row.amount_tiyin is not None else _tiyin(row)
    moved = amount or 1  # what is not known was paid, and given back, all the same
    was_paid = row.state in (PaymentTransaction.SUCCESSFULLY, PaymentTransaction.CANCELLED)
    ended = row.state in (PaymentTransaction.CANCELLED, PaymentTransaction.CANCELLED_DURING_INIT)
    updated_at, created_at = to_ms(row.updated_at) or 0, to_ms(row.created_at) or 0
    live = not was_paid and not ended
    return Attempt(
        id=str(row.id),
        payment_id=row.account_id or "",
        merchant_id="",
        account_id="",
        provider=row.gateway or "",
        channel=row.gateway or "",
        external_id=row.transaction_id,
        asked=True,
        phase="paid" if was_paid else "closed" if ended else "pending",
        reason=None if row.reason is None else str(row.reason),
        currency=currency,
        amount_minor=amount,
        paid_minor=moved if was_paid else 0,
        refunded_minor=moved if was_paid and ended else 0,
        details=json.dumps({"account": _account(row.extra_data or {})}) if whole else None,
        created_at=created_at,
        provider_at=row.provider_time,
        expires_at=row.expires_at,
        paid_at=(to_ms(row.performed_at) or updated_at or created_at) if was_paid else None,
        closed_at=(to_ms(row.cancelled_at) or updated_at or created_at) if ended else None,
        live_of=(row.account_id or "") if live else None,
        version=1,
    )


def payment_of(attempt: Attempt) -> Payment:
    """The payment of one transaction alone, for what concerns only that."""
    return order_of(attempt.payment_id, attempt.amount_minor, attempt.currency, attempt, attempt.paid_minor)


def order_of(
    order_id: str, amount_minor: int, currency: str, live: Attempt | None, paid_minor: int
) -> Payment:
    """A host's order as a payment."""
    is_live = live is not None and live.phase == "pending"
    return Payment(
        id=order_id,
        merchant_id="",
        order_id=order_id,
        order_key=b"",
        channel="",
        account_id="",
        currency=currency,
        amount_minor=amount_minor,
        status="paid" if paid_minor else "pending",
        paid_minor=paid_minor,
        refunded_minor=live.refunded_minor if live is not None else 0,
        live_attempt_id=live.id if is_live and live is not None else None,
        live_phase="pending" if is_live else None,
        created_at=0,
        expires_at=FAR,
        version=1,
    )


def standing_of(order_id: str, currency: str) -> StandingOrder:
    """An account of the host's that may be paid any amount, many times."""
    return StandingOrder(
        id=order_id,
        merchant_id="",
        order_id=order_id,
        order_key=b"",
        channel="",
        account_id="",
        currency=currency,
        min_minor=1,
        max_minor=MAX_TIYIN,
        created_at=0,
        version=1,
    )


def state_of(attempt: Attempt) -> int:
    if attempt.phase == "paid":
        given_back = attempt.refunded_minor >= attempt.paid_minor > 0
        return PaymentTransaction.CANCELLED if given_back else PaymentTransaction.SUCCESSFULLY
    return PaymentTransaction.CANCELLED_DURING_INIT if attempt.phase == "closed" else 1


def reason_of(attempt: Attempt) -> int | None:
    """The number that a gateway gave, 4 for a transaction that outlived its time; the column is a number."""
    if attempt.reason in ("timeout", "expired"):
        return TIMEOUT_REASON
    try:
        return int(attempt.reason or "")
    except ValueError:
        return None


def _tiyin(row: PaymentTransaction) -> int:
    """Older code kept what was no amount, too: nothing, which is no order's price."""
    try:
        return to_tiyin(row.amount or 0)
    except ValueError:
        log.warning("payments: row %d holds no amount: %r", row.id, row.amount)
        return 0


def _account(extra: dict[str, Any]) -> dict[str, Any]:
    """Ours are kept whole; older rows have one field, or only the request as it came."""
    whole = extra.get("account")
    if isinstance(whole, dict):
        return whole
    raw = extra.get("raw_params")
    if isinstance(raw, dict) and isinstance(raw.get("account"), dict):
        found: dict[str, Any] = raw["account"]
        return found
    field, value = extra.get("account_field"), extra.get("account_value")
    return {field: value} if isinstance(field, str) and value is not None else {}
