"""What providers say to us, in our words: an Ask (may be refused), a Tell (evidence), a Hint (go and look).

`decide()` rules over asks; it needs neither a store nor a clock, so that the hub and a host application's own
tables are ruled by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, TypeAlias

from tillgate.domain.errors import (
    AlreadyClosed,
    AlreadyPaid,
    Busy,
    NotCancellable,
    Refusal,
    UnknownReference,
    UnknownTransaction,
    WrongAmount,
)
from tillgate.domain.money import Money
from tillgate.domain.payment import (
    LIVE,
    Attempt,
    Closed,
    Fact,
    Paid,
    Payment,
    Questioned,
    Refunded,
    RefundFact,
    StandingOrder,
    advance,
    follow,
)
from tillgate.domain.record import record, replace

# --- asks ---------------------------------------------------------------------------------------------------


@record
class Check:
    """May this order be paid with this amount?"""

    reference: str
    amount: Money


@record
class Reserve:
    """Open a transaction for this order: nothing is paid yet, nothing else may open one.

    `payment_number`: the provider's own, of what the payer does, where a repeat of one payment may come as
    another transaction: one number is booked once under a standing order, whatever it comes as."""

    external_id: str
    reference: str
    amount: Money
    provider_at: int | None = None  # the provider's own time, epoch ms
    expires_at: int | None = None  # when the transaction dies by the provider's rules
    details: str | None = None  # JSON that the dialect wants back word for word
    payment_number: str | None = None


@record
class Settle:
    """The payer's money was taken: book it. `amount` and `reference` where the dialect repeats them.

    `debited`: the provider has the money already, so that our no to a transaction that was given up leaves
    it in doubt; where it only asks whether it may take the money (Payme), nothing is. `linked`: False where
    it names another reservation than this transaction's."""

    external_id: str
    amount: Money | None = None
    paid_with: str | None = None
    reference: str | None = None
    debited: bool = False
    linked: bool = True
    payment_number: str | None = None


@record
class Cancel:
    """Give the transaction up, or give its money back if it was settled."""

    external_id: str
    reason: str


@record
class Look:
    """How does this transaction stand?"""

    external_id: str


@record
class Statement:
    """All transactions with `from_ms <= provider_at <= to_ms`, oldest first."""

    from_ms: int
    to_ms: int


@record
class Note:
    """Something to keep with a transaction that moves no money: a fiscal receipt."""

    external_id: str
    key: str
    value: str  # JSON


TIMEOUT: Final = "timeout"
"""Why a transaction that outlived its time was closed."""

Ask: TypeAlias = Check | Reserve | Settle | Cancel | Look | Statement | Note

# --- tells and hints ----------------------------------------------------------------------------------------


@record
class Tell:
    """Evidence about one attempt or one refund, named by our operation id or by the provider's id."""

    facts: tuple[Fact | RefundFact, ...]
    operation_id: str | None = None
    external_id: str | None = None
    event_id: str | None = None  # the provider's own, where it has one: a repeat of it is skipped
    references: tuple[str, ...] = ()  # orders of ours that it may be about, where its own names are not known
    details: str | None = None  # JSON object that is kept with the attempt


@record
class Hint:
    """A message that proves nothing: look this operation up.

    `clues` are names that it mentions (a provider's payment id): kept with the attempt, so that a look can
    ask about them, and believed by nobody."""

    operation_id: str | None = None
    external_id: str | None = None
    event_id: str | None = None
    clues: tuple[str, ...] = ()


@record
class Noise:
    """A genuine message that concerns no payment (a ping, a test): acknowledged and kept."""

    why: str = ""


# --- answers ------------------------------------------------------------------------------------------------


@record
class Record:
    """What we answer from: how a transaction stands. `attempt` is None for `Check`."""

    attempt: Attempt | None = None
    payment: Payment | None = None
    standing: StandingOrder | None = None
    rows: tuple[Record, ...] = ()


@record
class Facts:
    """All that `decide` may look at."""

    payment: Payment | None = None  # by reference, or the attempt's own
    standing: StandingOrder | None = None  # by reference
    attempt: Attempt | None = None  # by external id
    live: Attempt | None = None  # the payment's live attempt


@record
class Verdict:
    """A record or a refusal, and what changed either way: an expired transaction closes *and* is refused."""

    outcome: Record | Refusal
    change: tuple[Attempt | None, Attempt, Fact | None] | None = None
    payment: Payment | None = None  # the payment after it
    before: Payment | None = None  # and before; None where the payment is new


@record
class Opening:
    """How to make what a reservation needs; ids and keys come from outside, because they are not pure."""

    attempt_id: str
    payment_id: str
    order_key: bytes
    account_id: str
    provider: str
    extra: Mapping[str, str] = field(default_factory=dict)


def decide(ask: Ask, facts: Facts, now: int, opening: Opening) -> Verdict:
    """Rule on one ask. Never raises a `Refusal`: it is in the verdict."""
    try:
        match ask:
            case Check(_, amount):
                _payable(facts, amount, now)
                return Verdict(Record(None, facts.payment, facts.standing))
            case Reserve():
                return _reserve(ask, facts, now, opening)
            case Settle():
                return _settle(ask, facts, now)
            case Cancel():
                return _cancel(ask, facts, now)
            case Look() | Note():
                return _lapsed(facts, now) or Verdict(_record(facts))
            case Statement():
                raise AssertionError("a statement is a read, not a decision")
    except Refusal as refusal:
        return Verdict(refusal)


def _record(facts: Facts) -> Record:
    if facts.attempt is None:
        raise UnknownTransaction()
    return Record(facts.attempt, facts.payment, facts.standing)


def _payable(facts: Facts, amount: Money, now: int) -> None:
    standing, payment = facts.standing, facts.payment
    if standing is not None:
        if standing.closed_at is not None:
            raise AlreadyClosed()
        if (
            amount.currency != standing.currency
            or not standing.min_minor <= amount.minor <= standing.max_minor
        ):
            raise WrongAmount()
        return
    if payment is None:
        raise UnknownReference()
    if amount != Money(payment.amount_minor, payment.currency):
        raise WrongAmount()
    if payment.paid_minor or payment.hold:
        raise AlreadyPaid()
    if payment.closed or now >= payment.expires_at:
        raise AlreadyClosed()
    if facts.live is not None and not expired(facts.live, now):
        raise Busy()


def _reserve(ask: Reserve, facts: Facts, now: int, opening: Opening) -> Verdict:
    known = facts.attempt
    if known is not None:
        asked_for = facts.standing or facts.payment
        if asked_for is not None and asked_for.order_id != ask.reference:
            raise UnknownReference()  # the same transaction for another account
        lapsed = _lapsed(facts, now)
        if lapsed is not None:
            return replace(lapsed, outcome=AlreadyClosed())
        if known.phase not in LIVE:
            raise AlreadyPaid() if known.phase == "paid" else AlreadyClosed()
        if ask.amount != Money(known.amount_minor, known.currency):
            raise WrongAmount()
        return Verdict(_record(facts))
    _payable(facts, ask.amount, now)
    if ask.expires_at is not None and now >= ask.expires_at:
        raise AlreadyClosed()
    payment = facts.payment if facts.standing is None else _child(facts.standing, ask, now, opening)
    assert payment is not None
    attempt = Attempt(
        id=opening.attempt_id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        account_id=opening.account_id,
        provider=opening.provider,
        channel=payment.channel,
        external_id=ask.external_id,
        asked=True,
        phase="pending",
        currency=ask.amount.currency,
        amount_minor=ask.amount.minor,
        details=ask.details,
        created_at=now,
        provider_at=ask.provider_at,
        expires_at=ask.expires_at,
        live_of=payment.id,
        version=1,
    )
    after = follow(payment, None, attempt)
    record = Record(attempt, after, facts.standing)
    before = None if facts.standing is not None else facts.payment
    return Verdict(record, (None, attempt, None), after, before)


def _child(standing: StandingOrder, ask: Reserve, now: int, opening: Opening) -> Payment:
    return Payment(
        id=opening.payment_id,
        merchant_id=standing.merchant_id,
        order_id=standing.order_id,
        order_key=opening.order_key,
        standing_id=standing.id,
        channel=standing.channel,
        account_id=opening.account_id,
        currency=standing.currency,
        amount_minor=ask.amount.minor,
        status="pending",
        callback_url=standing.callback_url,
        metadata=standing.metadata,
        created_at=now,
        expires_at=ask.expires_at or now + 86_400_000,
        version=1,
    )


def _settle(ask: Settle, facts: Facts, now: int) -> Verdict:
    record = _record(facts)
    attempt = facts.attempt
    assert attempt is not None
    payment = facts.payment
    if ask.reference is not None and payment is not None and payment.order_id != ask.reference:
        raise UnknownReference()  # the same transaction for another order
    if ask.amount is not None and ask.amount != Money(attempt.amount_minor, attempt.currency):
        raise WrongAmount()
    if not ask.linked:
        raise AlreadyPaid() if attempt.phase == "paid" else UnknownTransaction()
    if attempt.phase == "paid":
        if attempt.refunded_minor or attempt.reversed_minor:
            raise AlreadyClosed()
        return Verdict(record)
    lapsed = _lapsed(facts, now)
    if lapsed is not None or attempt.phase == "closed":
        return _too_late(ask, facts, lapsed)
    fact = Paid(attempt.amount_minor, attempt.currency, paid_with=ask.paid_with)
    return _moved(facts, fact, now)


def _too_late(ask: Settle, facts: Facts, lapsed: Verdict | None) -> Verdict:
    """Refused, and held where the payer's money may be gone: nobody pays it until a person has looked.
    `lapsed`: its time ran out just now."""
    before, fact = facts.attempt, Questioned("contradicted")
    assert before is not None
    change = lapsed.change if lapsed else (before, before, fact)
    payment = lapsed.payment if lapsed else facts.payment
    assert change is not None
    assert payment is not None
    after = follow(payment, change[1], change[1], fact) if ask.debited else payment
    if after == facts.payment:
        raise AlreadyClosed()
    return Verdict(AlreadyClosed(), change, after, facts.payment)


def _cancel(ask: Cancel, facts: Facts, now: int) -> Verdict:
    record = _record(facts)
    attempt = facts.attempt
    assert attempt is not None
    assert facts.payment is not None
    if attempt.phase == "closed" or attempt.refunded_minor >= attempt.paid_minor > 0:
        return Verdict(record)  # the first reason and time are kept
    if attempt.phase != "paid":
        return _moved(facts, Closed("cancelled", ask.reason), now)
    if facts.payment.refunding_minor or facts.payment.refunded_minor or facts.payment.reversed_minor:
        raise NotCancellable()  # part of it went back another way
    given_back = replace(
        advance(attempt, Refunded(attempt.paid_minor), now),
        reason=ask.reason,
        closed_at=attempt.closed_at or now,
    )
    fact = Refunded(attempt.paid_minor)
    after = follow(facts.payment, attempt, given_back, fact)
    record = Record(given_back, after, facts.standing)
    return Verdict(record, (attempt, given_back, fact), after, facts.payment)


def expired(attempt: Attempt, now: int) -> bool:
    """Whether it outlived its provider's time and was not closed yet."""
    return attempt.phase in LIVE and attempt.expires_at is not None and now >= attempt.expires_at


def lapse_live(facts: Facts, now: int) -> Verdict | None:
    """Close the transaction that holds an order but has outlived its time, so that another may open."""
    if facts.live is None:
        return None
    return _lapsed(replace(facts, attempt=facts.live), now)


def _lapsed(facts: Facts, now: int) -> Verdict | None:
    """A transaction that outlived its time is closed by whoever sees it first."""
    if facts.attempt is None or not facts.attempt.asked or not expired(facts.attempt, now):
        return None
    return _moved(facts, Closed("expired", TIMEOUT), now)


def _moved(facts: Facts, fact: Fact, now: int) -> Verdict:
    attempt, payment = facts.attempt, facts.payment
    assert attempt is not None
    assert payment is not None
    moved = advance(attempt, fact, now)
    after = follow(payment, attempt, moved, fact)
    return Verdict(Record(moved, after, facts.standing), (attempt, moved, fact), after, payment)
