"""A kiosk payment's life: all that can change one is in `NEXT`. No I/O, no clock, no socket.

The rules in three lines. Only `success`, `approved` and `failed`, spelled exactly, are outcomes. Silence is
not one: a lost link, a timer or a restart makes a payment *unknown*, and it stays that until a result or a
person says otherwise. Evidence of money is never dropped: where it contradicts what we had said, a person
has to look.
"""

from enum import StrEnum
from typing import Final

import msgspec

from tillgate.providers.mobypay import messages
from tillgate.providers.mobypay.errors import NotAllowed
from tillgate.providers.mobypay.messages import PaymentMode


class State(StrEnum):
    """Where a payment stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    AWAITING_PLAN = "awaiting_plan"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    REQUIRES_REVIEW = "requires_review"


IN_FLIGHT: Final = frozenset({State.PENDING, State.PROCESSING, State.AWAITING_PLAN, State.CANCELLING})
UNSETTLED: Final = frozenset({State.UNKNOWN, State.REQUIRES_REVIEW})


class Fact(StrEnum):
    """What can happen to a payment."""

    NOT_SENT = "not_sent"  # we know that no byte of the request left us
    ACK = "ack"  # of the request or of a plan's choice
    CANCEL_ACK = "cancel_ack"
    PLANS = "plans"
    PLAN_CHOSEN = "plan_chosen"
    CANCEL_ASKED = "cancel_asked"
    SUCCESS = "success"
    MISMATCH = "mismatch"  # a success, but of another amount or a second charge
    FAILURE = "failure"
    REPEAT = "repeat"  # what we were told before, told again
    ERROR = "error"
    UNLISTED = "unlisted"  # a result whose status nobody defined
    LINK_CUT = "link_cut"
    RESTART = "restart"
    ACK_DUE = "ack_due"
    RESULT_DUE = "result_due"
    PLAN_DUE = "plan_due"
    CANCEL_DUE = "cancel_due"
    GRACE_OVER = "grace_over"
    SETTLED_PAID = "settled_paid"
    SETTLED_UNPAID = "settled_unpaid"


COMMANDS: Final = frozenset({Fact.PLAN_CHOSEN, Fact.CANCEL_ASKED, Fact.SETTLED_PAID, Fact.SETTLED_UNPAID})

_ALWAYS = dict.fromkeys((Fact.UNLISTED, Fact.LINK_CUT, Fact.RESTART), State.UNKNOWN)
_PROCESSING, _PLAN, _CANCELLING = State.PROCESSING, State.AWAITING_PLAN, State.CANCELLING
_SUCCEEDED, _FAILED, _CANCELLED = State.SUCCEEDED, State.FAILED, State.CANCELLED
_UNKNOWN, _REVIEW = State.UNKNOWN, State.REQUIRES_REVIEW

# A fact that a row does not name leaves the state as it is; a command that it does not name is refused.
NEXT: Final[dict[State, dict[Fact, State]]] = {
    State.PENDING: {
        **_ALWAYS,
        Fact.NOT_SENT: _FAILED,
        Fact.ACK: _PROCESSING,
        Fact.PLANS: _PLAN,
        Fact.CANCEL_ASKED: _CANCELLING,
        Fact.SUCCESS: _SUCCEEDED,  # a result may overtake its ack
        Fact.MISMATCH: _REVIEW,
        Fact.FAILURE: _FAILED,
        Fact.ERROR: _FAILED,
        Fact.ACK_DUE: _UNKNOWN,
    },
    State.PROCESSING: {
        **_ALWAYS,
        Fact.PLANS: _PLAN,
        Fact.CANCEL_ASKED: _CANCELLING,
        Fact.SUCCESS: _SUCCEEDED,
        Fact.MISMATCH: _REVIEW,
        Fact.FAILURE: _FAILED,
        Fact.ERROR: _FAILED,
        Fact.RESULT_DUE: _UNKNOWN,
    },
    State.AWAITING_PLAN: {
        **_ALWAYS,
        Fact.PLAN_CHOSEN: _PROCESSING,
        Fact.CANCEL_ASKED: _CANCELLING,
        Fact.SUCCESS: _SUCCEEDED,  # the payer may have chosen on the terminal
        Fact.MISMATCH: _REVIEW,
        Fact.FAILURE: _FAILED,
        Fact.ERROR: _FAILED,
        Fact.PLAN_DUE: _UNKNOWN,
    },
    State.CANCELLING: {
        **_ALWAYS,
        Fact.CANCEL_ASKED: _CANCELLING,
        Fact.SUCCESS: _SUCCEEDED,  # the payer was faster: that is the outcome
        Fact.MISMATCH: _REVIEW,
        Fact.FAILURE: _CANCELLED,
        Fact.ERROR: _UNKNOWN,  # "cannot cancel" and "went wrong" look alike
        Fact.CANCEL_DUE: _UNKNOWN,
        Fact.GRACE_OVER: _CANCELLED,
    },
    State.SUCCEEDED: {Fact.MISMATCH: _REVIEW, Fact.FAILURE: _REVIEW},
    State.FAILED: {Fact.SUCCESS: _REVIEW, Fact.MISMATCH: _REVIEW},
    State.CANCELLED: {Fact.SUCCESS: _REVIEW, Fact.MISMATCH: _REVIEW},
    State.UNKNOWN: {
        Fact.CANCEL_ASKED: _UNKNOWN,  # worth asking, but an ack to it would prove nothing
        Fact.SUCCESS: _SUCCEEDED,
        Fact.MISMATCH: _REVIEW,
        Fact.FAILURE: _FAILED,
        Fact.SETTLED_PAID: _SUCCEEDED,
        Fact.SETTLED_UNPAID: _FAILED,
    },
    State.REQUIRES_REVIEW: {Fact.SETTLED_PAID: _SUCCEEDED, Fact.SETTLED_UNPAID: _FAILED},
}


class Timers(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds we wait. The documents name none; these follow what established terminal protocols do."""

    ack_s: float = 10.0
    result_s: float = 180.0
    plan_s: float = 180.0
    cancel_s: float = 10.0
    """For the ack of a cancel; then the outcome is unknown."""
    grace_s: float = 10.0
    """After that ack, for a result that was already on its way; then the payment counts as cancelled."""


class Payment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One payment as the journal keeps it. Amounts in whole sen of MYR, times in epoch milliseconds."""

    txn_id: str
    mode: PaymentMode
    amount_sen: int
    terminal: str
    connection: int
    state: State = State.PENDING
    version: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    reference: str | None = None
    hub_attempt: str | None = None
    """The hub's name for it, where the hub asked for it."""
    acks_due: int = 1
    """Which the terminal owes for the request and for plans that were chosen, so ahead of a cancel's."""
    cancel_asked_ms: int | None = None
    cancel_acked: bool = False
    plans: str | None = None
    plan_id: str | None = None
    reason: str | None = None
    """Why the state is what it is, for people."""
    told_status: str | None = None
    told_amount: str | None = None
    transaction_id: str | None = None
    authorization_code: str | None = None
    card_last4: str | None = None
    error_message: str | None = None
    settled_because: str | None = None


class Alert(msgspec.Struct, frozen=True):
    """Something a person has to see. `kind` is stable, `text` is for reading."""

    kind: str
    text: str


class Step(msgspec.Struct, frozen=True):
    """What a fact did: the payment after it, and what people must be told."""

    payment: Payment
    alerts: tuple[Alert, ...] = ()


def classify(payment: Payment, result: messages.TransactionResult) -> Fact:
    """Which fact a result is. Exact words only: "unsuccessful" is not a kind of success."""
    if payment.told_status is not None and _same(payment, result):
        return Fact.REPEAT
    if result.status == messages.PLANS_STATUS:
        return Fact.PLANS if payment.mode is PaymentMode.IPP else Fact.UNLISTED
    if result.status in messages.FAILURE_STATUSES:
        return Fact.FAILURE
    if result.status not in messages.SUCCESS_STATUSES:
        return Fact.UNLISTED
    if result.amount is not None and result.amount_sen != payment.amount_sen:
        return Fact.MISMATCH
    known = payment.transaction_id if payment.told_status in messages.SUCCESS_STATUSES else None
    if known and result.transaction_id and known != result.transaction_id:
        return Fact.MISMATCH
    return Fact.SUCCESS


def answered(payment: Payment, ack: messages.Ack) -> Fact:
    """Which fact an ack is. A terminal acknowledges in the order in which it was asked, and a cancel is asked
    last: as long as anything before it is due an ack, no ack is the cancel's, and the ack of a plan never is.
    """
    if payment.cancel_asked_ms is None or payment.acks_due or ack.status not in messages.CANCEL_ACK_STATUSES:
        return Fact.ACK
    return Fact.CANCEL_ACK


def _same(payment: Payment, result: messages.TransactionResult) -> bool:
    return (
        payment.told_status == result.status
        and payment.told_amount == result.amount
        and payment.transaction_id == result.transaction_id
        and payment.authorization_code == result.authorization_code
    )


def advance(
    payment: Payment,
    fact: Fact,
    now_ms: int,
    told: messages.TransactionResult | None = None,
    note: str | None = None,
) -> Step:
    """The payment after a fact. `told` is the result that carries it, `note` a plan id, an error text or a
    reason.

    Raises NotAllowed for a command that the state refuses; evidence is never refused.
    """
    after = NEXT[payment.state].get(fact)
    if after is None and fact in COMMANDS:
        raise NotAllowed(f"a payment that is {payment.state} does not take {fact.replace('_', ' ')}")
    state = after or payment.state
    kept = _remember(payment, fact, now_ms, told, note)
    kept = msgspec.structs.replace(kept, state=state, version=payment.version + 1, updated_ms=now_ms)
    alerts = tuple(_alerts(payment, fact, state, told, note))
    if state != payment.state:
        reason = alerts[0].text if alerts else _REASONS.get((fact, state), _REASONS.get(fact, note))
        kept = msgspec.structs.replace(kept, reason=reason)
    return Step(kept, alerts)


def timer(payment: Payment, timers: Timers) -> tuple[Fact, float] | None:
    """What happens, after how many seconds in this situation, if nothing else does."""
    match payment.state:
        case State.PENDING:
            return Fact.ACK_DUE, timers.ack_s
        case State.PROCESSING:
            return Fact.RESULT_DUE, timers.result_s
        case State.AWAITING_PLAN:
            return Fact.PLAN_DUE, timers.plan_s
        case State.CANCELLING if payment.cancel_acked:
            return Fact.GRACE_OVER, timers.grace_s
        case State.CANCELLING:
            return Fact.CANCEL_DUE, timers.cancel_s
    return None


_REASONS: Final[dict[Fact | tuple[Fact, State], str]] = {
    (Fact.FAILURE, State.CANCELLED): "The terminal stopped without a charge, as it was asked to.",
    Fact.PLAN_CHOSEN: "A plan was chosen.",
    Fact.NOT_SENT: "The terminal was gone before the request left; nothing was asked of it.",
    Fact.FAILURE: "The terminal says it failed.",
    Fact.ERROR: "The terminal reported an error.",
    Fact.GRACE_OVER: "The terminal took the cancel and no result followed.",
}

_UNKNOWN_BECAUSE: Final = {
    Fact.LINK_CUT: "the link to the terminal was lost",
    Fact.RESTART: "the kiosk was restarted",
    Fact.ACK_DUE: "the terminal did not acknowledge the request in time",
    Fact.RESULT_DUE: "no result came in time",
    Fact.PLAN_DUE: "no plan was chosen in time",
    Fact.CANCEL_DUE: "the terminal did not acknowledge the cancel",
    Fact.ERROR: "the terminal reported an error while it was asked to cancel",
}


def _remember(
    payment: Payment, fact: Fact, now_ms: int, told: messages.TransactionResult | None, note: str | None
) -> Payment:
    replace = msgspec.structs.replace
    match fact:
        case Fact.ACK:
            return replace(payment, acks_due=max(payment.acks_due - 1, 0))
        case Fact.CANCEL_ACK:
            return replace(payment, cancel_acked=True)
        case Fact.PLAN_CHOSEN:
            return replace(payment, plan_id=note, acks_due=payment.acks_due + 1)
        case Fact.CANCEL_ASKED:
            return replace(payment, cancel_asked_ms=payment.cancel_asked_ms or now_ms)
        case Fact.ERROR if payment.state is not State.SUCCEEDED:
            return replace(payment, error_message=note or payment.error_message)
        case Fact.SETTLED_PAID | Fact.SETTLED_UNPAID:
            return replace(payment, settled_because=note)
    if told is None:
        return payment
    if fact is Fact.PLANS:
        # A terminal that offers plans behind its ack of the cancel has not stopped.
        return replace(payment, plans=told.plans or payment.plans, cancel_acked=False)
    if payment.state in (State.SUCCEEDED, State.REQUIRES_REVIEW) and payment.told_status is not None:
        # A repeat fills gaps and overwrites nothing; what contradicts it stands in the frames and the alerts.
        return replace(
            payment,
            transaction_id=payment.transaction_id or told.transaction_id,
            authorization_code=payment.authorization_code or told.authorization_code,
            card_last4=payment.card_last4 or told.card_last4,
        )
    return replace(
        payment,
        told_status=told.status,
        told_amount=told.amount,
        transaction_id=told.transaction_id or payment.transaction_id,
        authorization_code=told.authorization_code or payment.authorization_code,
        card_last4=told.card_last4 or payment.card_last4,
        error_message=told.error_message or payment.error_message,
        plan_id=payment.plan_id or told.plan_id,
    )


def _alerts(
    before: Payment, fact: Fact, state: State, told: messages.TransactionResult | None, note: str | None
) -> list[Alert]:
    if fact is Fact.MISMATCH and told is not None:
        if told.amount is not None and told.amount_sen != before.amount_sen:
            text = f"The terminal reports a success of {told.amount[:40]}, which is not what was asked."
            return [Alert("amount_mismatch", text)]
        return [Alert("second_charge", f"A second success with another reference ({told.transaction_id}).")]
    if fact is Fact.SUCCESS and before.state in (State.FAILED, State.CANCELLED):
        text = f"The terminal reports a success after the payment was {before.state}: refund it or deliver."
        return [Alert("late_success", text)]
    if fact is Fact.SUCCESS and before.state is State.CANCELLING:
        return [Alert("charged_despite_cancel", "The payment succeeded before the cancel took effect.")]
    if fact is Fact.FAILURE and before.state is State.SUCCEEDED:
        return [Alert("conflicting_result", "The terminal first reported a success and now a failure.")]
    if fact is Fact.UNLISTED:
        status = told.status if told else note
        return [Alert("unlisted_status", f"The terminal reported {status!r}, which is no known outcome.")]
    if fact is Fact.FAILURE and told and told.amount is not None and told.amount_sen != before.amount_sen:
        return [Alert("amount_mismatch", f"The failed result names {told.amount[:40]} instead.")]
    if state is State.UNKNOWN and before.state is not State.UNKNOWN:
        because = _UNKNOWN_BECAUSE.get(fact, "nobody said")
        return [Alert("outcome_unknown", f"The outcome is unknown: {because}.")]
    return []
