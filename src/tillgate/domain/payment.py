"""The life of a payment: its attempts and its refunds. All that can change one is here.

Facts are cumulative totals, so a repeat moves nothing; a status is derived from them. Times are epoch
milliseconds and are always given, never read. Two tables say every legal move; evidence of money is legal
everywhere, because a payment may be refused before money moves but never after.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from tillgate.domain.errors import OutOfOrder, RefundNotAllowed
from tillgate.domain.record import record, replace, row

Phase: TypeAlias = Literal["created", "pending", "unsure", "paid", "closed"]
"""created: stored, the provider not known to have it · pending: the provider holds it, unpaid ·
unsure: we told the provider and lost its answer · paid · closed: failed, cancelled or expired."""

RefundPhase: TypeAlias = Literal["created", "pending", "unsure", "succeeded", "failed"]
Status: TypeAlias = Literal["pending", "paid", "failed", "expired", "cancelled", "unsure", "review"]
Closing: TypeAlias = Literal["failed", "expired", "cancelled"]
Hold: TypeAlias = Literal[
    "amount_mismatch",
    "currency_mismatch",
    "overpaid",
    "late_money",
    "over_refunded",
    "contradicted",
    "operator",
]


@row
class Payment:
    """What a merchant wants to collect for an `order_id`; totals are sums over its attempts."""

    id: str
    merchant_id: str
    order_id: str
    order_key: bytes  # 16-byte digest: what makes it unique; see `tillgate.hub.keys`
    standing_id: str | None = None  # the standing order, or the payment link, that it came from
    channel: str
    account_id: str
    currency: str
    amount_minor: int
    status: Status
    closed: Closing | None = None  # why nothing can be tried any more; None while something can
    hold: Hold | None = None  # why an operator must look before anything is fulfilled
    late: bool = False  # money came after we had closed it
    paid_minor: int = 0
    tip_minor: int = 0
    fee_minor: int = 0
    refunding_minor: int = 0  # asked for, not yet known to be back
    refunded_minor: int = 0
    reversed_minor: int = 0  # taken back by the provider without our asking
    live_attempt_id: str | None = None
    live_phase: Phase | None = None
    paid_with: str | None = None
    callback_url: str | None = None
    metadata: str | None = None  # JSON object, as the merchant sent it
    created_at: int
    expires_at: int
    paid_at: int | None = None
    version: int

    @property
    def refundable_minor(self) -> int:
        return self.paid_minor - self.reversed_minor - self.refunded_minor - self.refunding_minor

    @property
    def of_link(self) -> bool:
        """Whether it came from a payment link; the id of what it came from says which."""
        return self.standing_id is not None and self.standing_id.startswith("lnk_")

    @property
    def of_one_attempt(self) -> bool:
        """Whether a provider's transaction made it under a standing order: no other can ever pay it."""
        return self.standing_id is not None and not self.of_link


@row
class Attempt:
    """One try to collect a payment through a provider. Its id is the operation id the provider is given."""

    id: str
    payment_id: str
    merchant_id: str
    account_id: str
    provider: str
    channel: str
    external_id: str | None = None  # the provider's own id
    asked: bool = False  # the provider opened it by asking (Payme); its end leaves an order payable
    phase: Phase
    reason: str | None = None  # why it closed, in the provider's or our words
    currency: str
    amount_minor: int
    paid_minor: int = 0
    tip_minor: int = 0
    fee_minor: int = 0
    refunded_minor: int = 0
    reversed_minor: int = 0
    show: str | None = None  # JSON: what the payer is shown (`Started.show`)
    details: str | None = None  # JSON: what a dialect must answer again word for word
    created_at: int
    provider_at: int | None = None  # the provider's own creation time
    expires_at: int | None = None
    paid_at: int | None = None
    closed_at: int | None = None
    live_of: str | None = None  # its payment while it is live: a unique column, so that two cannot be
    version: int


@row
class Refund:
    """Money going back, partial or whole, through the attempt that brought it."""

    id: str
    payment_id: str
    attempt_id: str
    merchant_id: str
    external_id: str | None = None
    phase: RefundPhase
    reason: str  # the merchant's
    failure: str | None = None  # the provider's
    currency: str
    amount_minor: int
    created_at: int
    done_at: int | None = None
    version: int


@row
class StandingOrder:
    """A payable with no fixed amount that may be paid many times; every success is a payment of its own."""

    id: str
    merchant_id: str
    order_id: str
    order_key: bytes
    channel: str
    account_id: str
    currency: str
    min_minor: int
    max_minor: int
    callback_url: str | None = None
    metadata: str | None = None
    created_at: int
    closed_at: int | None = None
    version: int


# --- what happens to an attempt ----------------------------------------------------------------------------


@record
class Accepted:
    """The provider has it. `show` is the JSON of what the payer is shown."""

    external_id: str | None = None
    show: str | None = None
    expires_at: int | None = None


@record
class AnswerLost:
    """We sent the request and lost the answer."""


@record
class Doubted:
    """Whoever holds it does not know, or no longer says, how it ended: a kiosk that lost its terminal."""


@record
class Questioned:
    """Whoever holds it wants an operator to look before anything is fulfilled."""

    hold: Hold = "operator"


@record
class Closed:
    """`of_paid`: whoever says it of what is paid takes its word back, and an operator must look. Without,
    such a message was overtaken by the money, as a notice of failure may be."""

    why: Closing
    reason: str | None = None
    of_paid: bool = False


@record
class Paid:
    """Cumulative totals, so that a repeat moves nothing. `tip_minor` is not part of `total_minor`."""

    total_minor: int
    currency: str
    tip_minor: int = 0
    fee_minor: int = 0
    paid_with: str | None = None
    external_id: str | None = None
    at: int | None = None


@record
class Refunded:
    """The provider gave money back; the total includes what we asked for ourselves."""

    total_minor: int


@record
class Reversed:
    """The provider took money back without our asking: auto-reversal, chargeback."""

    total_minor: int


Fact: TypeAlias = Accepted | AnswerLost | Doubted | Questioned | Closed | Paid | Refunded | Reversed

_MONEY: Final[dict[type, Phase]] = {Paid: "paid", Refunded: "paid", Reversed: "paid"}
_OPEN_END: Final[dict[type, Phase]] = {Doubted: "unsure", Closed: "closed", Paid: "paid"}
ATTEMPT: Final[dict[Phase, dict[type, Phase]]] = {
    "created": {Accepted: "pending", AnswerLost: "unsure", Questioned: "created", **_OPEN_END},
    "pending": {Accepted: "pending", AnswerLost: "pending", Questioned: "pending", **_OPEN_END},
    "unsure": {Accepted: "pending", AnswerLost: "unsure", Questioned: "unsure", **_OPEN_END},
    "closed": {**dict.fromkeys((Accepted, AnswerLost, Doubted, Questioned, Closed), "closed"), Paid: "paid"},
    "paid": {**dict.fromkeys((Accepted, AnswerLost, Doubted, Questioned, Closed), "paid"), **_MONEY},
}
LIVE: Final[frozenset[Phase]] = frozenset({"created", "pending", "unsure"})


def advance(attempt: Attempt, fact: Fact, now: int) -> Attempt:
    """The attempt after `fact`. Raises `OutOfOrder` for evidence that cannot be true yet."""
    phase = ATTEMPT[attempt.phase].get(type(fact))
    if phase is None:
        raise OutOfOrder(f"{type(fact).__name__.lower()} before anything was paid")
    live_of = attempt.payment_id if phase in LIVE else None
    match fact:
        case Accepted(external_id, show, expires_at):
            return replace(
                attempt,
                phase=phase,
                external_id=attempt.external_id or external_id,
                show=attempt.show or show,
                expires_at=attempt.expires_at or expires_at,
            )
        case AnswerLost() | Doubted() | Questioned():
            return replace(attempt, phase=phase)
        case Closed(why, reason, _):
            if phase != "closed" or attempt.phase == "closed":
                return attempt  # paid stays paid; the first reason and time are kept
            return replace(attempt, phase=phase, reason=reason or why, closed_at=now, live_of=None)
        case Paid():
            known = fact.currency == attempt.currency  # foreign money is held, not added up
            return replace(
                attempt,
                phase=phase,
                external_id=attempt.external_id or fact.external_id,
                paid_minor=max(attempt.paid_minor, fact.total_minor) if known else attempt.paid_minor,
                tip_minor=max(attempt.tip_minor, fact.tip_minor) if known else attempt.tip_minor,
                fee_minor=(fact.fee_minor or attempt.fee_minor) if known else attempt.fee_minor,
                paid_at=attempt.paid_at or fact.at or now,
                live_of=live_of,
            )
        case Refunded(total):
            return replace(attempt, phase=phase, refunded_minor=max(attempt.refunded_minor, total))
        case Reversed(total):
            return replace(attempt, phase=phase, reversed_minor=max(attempt.reversed_minor, total))


def follow(payment: Payment, before: Attempt | None, after: Attempt, fact: Fact | None = None) -> Payment:
    """The payment after one of its attempts went from `before` (None: it is new) to `after` by `fact`."""
    if before is None:
        status: Status = "unsure" if after.phase == "unsure" else "pending"
        return replace(payment, live_attempt_id=after.id, live_phase=after.phase, closed=None, status=status)
    changes: dict[str, Any] = {
        "paid_minor": payment.paid_minor + after.paid_minor - before.paid_minor,
        "tip_minor": payment.tip_minor + after.tip_minor - before.tip_minor,
        "fee_minor": payment.fee_minor + after.fee_minor - before.fee_minor,
        "refunded_minor": payment.refunded_minor + after.refunded_minor - before.refunded_minor,
        "reversed_minor": payment.reversed_minor + after.reversed_minor - before.reversed_minor,
    }
    if isinstance(fact, Paid):
        changes["paid_with"] = fact.paid_with or payment.paid_with
        if before.phase != "paid" or after.paid_minor != before.paid_minor:
            # Only what is new is judged: an operator may have let the rest pass already.
            changes["hold"] = payment.hold or _mismatch(payment, changes["paid_minor"], after, fact)
    if isinstance(fact, Questioned):
        changes["hold"] = payment.hold or fact.hold
    if isinstance(fact, Closed) and fact.of_paid and _kept(after):
        changes["hold"] = payment.hold or "contradicted"
    if changes["paid_minor"] > payment.paid_minor:
        late = before.phase == "closed" or payment.closed is not None
        changes |= {"late": payment.late or late, "paid_at": payment.paid_at or after.paid_at}
    if payment.live_attempt_id == after.id:
        if after.phase in LIVE:
            changes["live_phase"] = after.phase
        else:
            changes |= {"live_attempt_id": None, "live_phase": None}
            last = not after.asked or payment.of_one_attempt
            if isinstance(fact, Closed) and last and not changes["paid_minor"]:
                changes["closed"] = fact.why
    return derived(_overdrawn(payment, replace(payment, **changes)))


def _kept(attempt: Attempt) -> bool:
    """Whether any of its money is still with the merchant."""
    return attempt.paid_minor > attempt.refunded_minor + attempt.reversed_minor


def _overdrawn(before: Payment, after: Payment) -> Payment:
    """More went back than came: held as soon as it does, once."""
    if after.refundable_minor < min(0, before.refundable_minor):
        return replace(after, hold=after.hold or "over_refunded")
    return after


def _mismatch(payment: Payment, paid_minor: int, attempt: Attempt, fact: Paid) -> Hold | None:
    """Evidence of money is always booked; what does not match the order is held, never fulfilled."""
    if fact.currency != payment.currency:
        return "currency_mismatch"
    if attempt.paid_minor != attempt.amount_minor:
        return "amount_mismatch"
    return "overpaid" if paid_minor > payment.amount_minor else None  # two attempts brought it all


def close(payment: Payment, why: Closing) -> Payment:
    """The payment with nothing left to try; only where no attempt is live."""
    assert payment.live_attempt_id is None
    return payment if payment.closed else derived(replace(payment, closed=why))


def derived(payment: Payment) -> Payment:
    status = _status(payment)
    return payment if status == payment.status else replace(payment, status=status)


def _status(payment: Payment) -> Status:
    if payment.hold is not None:
        return "review"
    if payment.paid_minor:
        return "failed" if payment.reversed_minor >= payment.paid_minor else "paid"
    if payment.live_phase is not None:
        return "unsure" if payment.live_phase == "unsure" else "pending"
    return payment.closed or "pending"


# --- what happens to a refund ------------------------------------------------------------------------------


@record
class RefundAccepted:
    external_id: str | None = None


@record
class RefundAnswerLost:
    pass


@record
class RefundSucceeded:
    external_id: str | None = None


@record
class RefundFailed:
    failure: str


RefundFact: TypeAlias = RefundAccepted | RefundAnswerLost | RefundSucceeded | RefundFailed

_OPEN: Final[dict[type, RefundPhase]] = {RefundSucceeded: "succeeded", RefundFailed: "failed"}
REFUND: Final[dict[RefundPhase, dict[type, RefundPhase]]] = {
    "created": {RefundAccepted: "pending", RefundAnswerLost: "unsure", **_OPEN},
    "pending": {RefundAccepted: "pending", RefundAnswerLost: "pending", **_OPEN},
    "unsure": {RefundAccepted: "pending", RefundAnswerLost: "unsure", **_OPEN},
    "succeeded": {RefundAccepted: "succeeded", RefundAnswerLost: "succeeded", RefundSucceeded: "succeeded"},
    "failed": {RefundAccepted: "failed", RefundAnswerLost: "failed", **_OPEN},
}
OPEN_REFUND: Final[frozenset[RefundPhase]] = frozenset({"created", "pending", "unsure"})


def refund_allowed(payment: Payment, amount_minor: int) -> None:
    """Raises `RefundNotAllowed`. The sum of refunds asked for and done never passes what was paid."""
    if payment.status != "paid":
        raise RefundNotAllowed()
    if not 0 < amount_minor <= payment.refundable_minor:
        raise RefundNotAllowed()


def advance_refund(refund: Refund, fact: RefundFact, now: int) -> Refund:
    """The refund after `fact`. Raises `OutOfOrder` where a success is said to have failed after all."""
    phase = REFUND[refund.phase].get(type(fact))
    if phase is None:
        raise OutOfOrder(f"refund {refund.id} succeeded, and now is said to have failed")
    done_at = refund.done_at if phase == refund.phase else None if phase in OPEN_REFUND else now
    match fact:
        case RefundAccepted(external_id) | RefundSucceeded(external_id):
            return replace(
                refund,
                phase=phase,
                external_id=refund.external_id or external_id,
                done_at=done_at,
            )
        case RefundFailed(failure):
            return replace(
                refund,
                phase=phase,
                failure=refund.failure or failure,
                done_at=done_at,
            )
        case RefundAnswerLost():
            return replace(refund, phase=phase)


def follow_refund(payment: Payment, before: Refund | None, after: Refund) -> Payment:
    """The payment after one of its refunds went from `before` (None: it is new) to `after`."""
    asked = (after.phase in OPEN_REFUND) - (before is not None and before.phase in OPEN_REFUND)
    done = (after.phase == "succeeded") - (before is not None and before.phase == "succeeded")
    changed = replace(
        payment,
        refunding_minor=payment.refunding_minor + asked * after.amount_minor,
        refunded_minor=payment.refunded_minor + done * after.amount_minor,
    )
    return derived(_overdrawn(payment, changed))
