"""`decide()`: every question, in every state that an order and its transaction can be in.

The expectations are one table written by hand. A verb of two letters stands for a change: `+open`, `+paid`,
`+shut`, `+back` (given back); `=` repeats the answer and changes nothing; anything else is a refusal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.records import NOW, attempt, payment, standing
from tillgate.domain import errors
from tillgate.domain.dialogue import (
    Ask,
    Cancel,
    Check,
    Facts,
    Look,
    Note,
    Opening,
    Record,
    Reserve,
    Settle,
    Verdict,
    decide,
    lapse_live,
)
from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt, Payment, derived

PRICE = Money(10_000, "IDR")
LATER = NOW + 60_000
OPENING = Opening("att_new", "pay_new", b"c" * 16, "acc_1", "payme")

ASKS: dict[str, Ask] = {
    "check": Check("ORD-1", PRICE),
    "reserve": Reserve("ext-1", "ORD-1", PRICE, provider_at=NOW, expires_at=NOW + 43_200_000),
    "reserve2": Reserve("ext-2", "ORD-1", PRICE, provider_at=NOW, expires_at=NOW + 43_200_000),
    "settle": Settle("ext-1"),
    "cancel": Cancel("ext-1", "3"),
    "look": Look("ext-1"),
    "note": Note("ext-1", "receipt", "{}"),
}

# Which transaction (ext-1) there is, and how its order stands.
TABLE = """
            check             reserve           reserve2          settle              cancel              look                note
unknown     UnknownReference  UnknownReference  UnknownReference  UnknownTransaction  UnknownTransaction  UnknownTransaction  UnknownTransaction
fresh       =                 +open             +open             UnknownTransaction  UnknownTransaction  UnknownTransaction  UnknownTransaction
reserved    Busy              =                 Busy              +paid               +shut               =                   =
outlived    =                 AlreadyClosed     +open             AlreadyClosed       =                   =                   =
paid        AlreadyPaid       AlreadyPaid       AlreadyPaid       =                   +back               =                   =
cancelled   =                 AlreadyClosed     +open             AlreadyClosed       =                   =                   =
returned    AlreadyPaid       AlreadyPaid       AlreadyPaid       AlreadyClosed       =                   =                   =
expired     AlreadyClosed     AlreadyClosed     AlreadyClosed     UnknownTransaction  UnknownTransaction  UnknownTransaction  UnknownTransaction
shut        AlreadyClosed     AlreadyClosed     AlreadyClosed     AlreadyClosed       =                   =                   =
held        AlreadyPaid       AlreadyPaid       AlreadyPaid       =                   +back               =                   =
refunding   AlreadyPaid       AlreadyPaid       AlreadyPaid       =                   NotCancellable      =                   =
refunded    AlreadyPaid       AlreadyPaid       AlreadyPaid       AlreadyClosed       NotCancellable      =                   =
reversed    AlreadyPaid       AlreadyPaid       AlreadyPaid       AlreadyClosed       NotCancellable      =                   =
"""  # noqa: E501


def situation(name: str) -> tuple[Payment | None, Attempt | None]:
    asked = {"asked": True, "external_id": "ext-1", "expires_at": NOW + 43_200_000}
    reserved = attempt("pending", **asked)
    live = {"live_attempt_id": "att_1", "live_phase": "pending"}
    paid = {"paid_minor": 10_000, "paid_at": NOW}
    known: dict[str, tuple[Payment | None, Attempt | None]] = {
        "unknown": (None, None),
        "fresh": (payment(), None),
        "reserved": (payment(**live), reserved),
        "outlived": (payment(**live), replace(reserved, expires_at=LATER)),
        "paid": (payment(**paid), attempt("paid", **asked)),
        "cancelled": (payment(), attempt("closed", **asked)),
        "returned": (
            payment(**paid, refunded_minor=10_000),
            attempt("paid", **asked, refunded_minor=10_000, closed_at=NOW, reason="5"),
        ),
        "expired": (payment(expires_at=LATER), None),
        "shut": (payment(closed="cancelled"), attempt("closed", **asked)),
        "held": (payment(**paid, hold="operator"), attempt("paid", **asked)),
        "refunding": (payment(**paid, refunding_minor=1), attempt("paid", **asked)),
        "refunded": (payment(**paid, refunded_minor=1), attempt("paid", **asked, refunded_minor=1)),
        "reversed": (
            payment(**paid, reversed_minor=10_000),
            attempt("paid", **asked, reversed_minor=10_000),
        ),
    }
    order, transaction = known[name]
    return derived(order) if order else None, transaction


def facts(name: str, ask: Ask) -> Facts:
    """What a host gives `decide`: the order by reference or by transaction, the transaction by its id."""
    order, transaction = situation(name)
    found = transaction if getattr(ask, "external_id", None) == "ext-1" else None
    if found is None and not isinstance(ask, Check | Reserve):
        order = None
    live = transaction if transaction is not None and transaction.live_of else None
    return Facts(order, None, found, live)


def ruled(name: str, ask: Ask) -> tuple[str, Verdict]:
    """The word of the table for what `decide` says."""
    given = facts(name, ask)
    lapsed = lapse_live(given, LATER)  # every host does this first
    if lapsed is not None and lapsed.change is not None:
        gone = lapsed.change[1]
        assert (gone.phase, gone.reason) == ("closed", "timeout")
        given = Facts(lapsed.payment, None, gone if given.attempt else None, None)
    verdict = decide(ask, given, LATER, OPENING)
    if not isinstance(verdict.outcome, Record):
        assert verdict.change is None
        return type(verdict.outcome).__name__, verdict
    if verdict.change is None:
        return "=", verdict
    before, after, _ = verdict.change
    if before is None:
        return "+open", verdict
    if after.phase == "closed":
        return "+shut", verdict
    return ("+back" if after.refunded_minor > before.refunded_minor else "+paid"), verdict


def cells() -> list[tuple[str, str, str]]:
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    return [(row[0], verb, word) for row in rows for verb, word in zip(head, row[1:], strict=True)]


@pytest.mark.parametrize(("state", "verb", "expected"), cells())
def test_every_question_in_every_state(state: str, verb: str, expected: str) -> None:
    word, verdict = ruled(state, ASKS[verb])
    assert word == expected
    if isinstance(verdict.outcome, errors.Refusal):
        assert str(verdict.outcome)


@pytest.mark.parametrize(("state", "verb", "expected"), cells())
def test_every_question_asked_twice(state: str, verb: str, expected: str) -> None:
    """What was granted is granted again, in the same words, and moves nothing more."""
    if not expected.startswith("+"):
        return
    _, first = ruled(state, ASKS[verb])
    assert first.change is not None
    assert first.payment is not None
    _, moved, _ = first.change
    live = moved if moved.live_of else None
    again = decide(ASKS[verb], Facts(first.payment, None, moved, live), LATER + 5, OPENING)
    assert again.change is None
    assert isinstance(again.outcome, Record)
    assert (again.outcome.attempt, again.outcome.payment) == (moved, first.payment)


def test_what_a_reservation_opens() -> None:
    _, verdict = ruled("fresh", ASKS["reserve"])
    assert isinstance(verdict.outcome, Record)
    made = verdict.outcome.attempt
    assert made is not None
    assert (made.id, made.external_id, made.phase, made.asked, made.live_of) == (
        "att_new", "ext-1", "pending", True, "pay_1",
    )  # fmt: skip
    assert verdict.payment is not None
    assert (verdict.payment.live_attempt_id, verdict.payment.status) == ("att_new", "pending")


def test_what_a_settlement_books() -> None:
    _, verdict = ruled("reserved", Settle("ext-1", PRICE, paid_with="humo"))
    assert verdict.payment is not None
    assert (verdict.payment.status, verdict.payment.paid_minor, verdict.payment.paid_with) == (
        "paid", 10_000, "humo",
    )  # fmt: skip
    assert verdict.payment.live_attempt_id is None


def test_what_a_cancellation_after_the_settlement_books() -> None:
    _, verdict = ruled("paid", ASKS["cancel"])
    assert verdict.payment is not None
    assert verdict.change is not None
    assert (verdict.payment.paid_minor, verdict.payment.refunded_minor) == (10_000, 10_000)
    assert (verdict.change[1].reason, verdict.change[1].closed_at) == ("3", LATER)


def test_a_cancelled_transaction_leaves_its_order_payable() -> None:
    _, verdict = ruled("reserved", ASKS["cancel"])
    assert verdict.payment is not None
    assert verdict.payment.status == "pending"
    assert isinstance(decide(ASKS["check"], Facts(verdict.payment), LATER, OPENING).outcome, Record)


@pytest.mark.parametrize(
    ("ask", "state", "refusal"),
    [
        (Check("ORD-1", Money(9_999, "IDR")), "fresh", "WrongAmount"),
        (Check("ORD-1", Money(10_001, "IDR")), "fresh", "WrongAmount"),
        (Check("ORD-1", Money(10_000, "MYR")), "fresh", "WrongAmount"),
        (Check("ORD-1", Money(9_999, "IDR")), "paid", "WrongAmount"),
        (Reserve("ext-1", "ORD-1", Money(1, "IDR")), "fresh", "WrongAmount"),
        (Reserve("ext-1", "ORD-1", Money(1, "IDR")), "reserved", "WrongAmount"),
        (Reserve("ext-1", "ORD-2", PRICE), "reserved", "UnknownReference"),
        (Reserve("ext-1", "ORD-1", PRICE, expires_at=LATER), "fresh", "AlreadyClosed"),
        (Settle("ext-1", Money(9_999, "IDR")), "reserved", "WrongAmount"),
        (Settle("ext-1", Money(10_000, "UZS")), "reserved", "WrongAmount"),
        (Settle("ext-1", Money(9_999, "IDR")), "paid", "WrongAmount"),
        (Settle("ext-1", reference="another order"), "reserved", "UnknownReference"),
    ],
)
def test_what_does_not_match_is_refused(ask: Ask, state: str, refusal: str) -> None:
    assert ruled(state, ask)[0] == refusal


@pytest.mark.parametrize("state", ["cancelled", "outlived", "shut"])
def test_money_taken_for_what_was_given_up_is_refused_and_held(state: str) -> None:
    """Where the provider has the money already: nobody else pays the order until a person has looked."""
    given = facts(state, Look("ext-1"))
    lapsed = lapse_live(given, LATER)
    if lapsed is not None and lapsed.change is not None:
        given = Facts(lapsed.payment, None, lapsed.change[1], None)
    verdict = decide(Settle("ext-1", debited=True), given, LATER, OPENING)
    assert isinstance(verdict.outcome, errors.AlreadyClosed)
    assert verdict.payment is not None
    assert (verdict.payment.hold, verdict.payment.status, verdict.payment.paid_minor) == (
        "contradicted", "review", 0,
    )  # fmt: skip
    again = decide(Settle("ext-1", debited=True), replace(given, payment=verdict.payment), LATER, OPENING)
    assert isinstance(again.outcome, errors.AlreadyClosed)
    assert again.change is None
    other = Reserve("ext-2", verdict.payment.order_id, Money(10_000, "IDR"), LATER, LATER + 1)
    busy = decide(other, Facts(verdict.payment), LATER, OPENING)
    assert isinstance(busy.outcome, errors.Refusal)
    assert busy.change is None


# --- standing orders ----------------------------------------------------------------------------------------


def till(amount_minor: int, external_id: str = "ext-1", **changes: Any) -> Verdict:
    ask = Reserve(external_id, "TILL-1", Money(amount_minor, "UZS"), expires_at=NOW + 43_200_000)
    return decide(ask, Facts(standing=standing(**changes)), NOW, OPENING)


@pytest.mark.parametrize(
    ("amount", "refusal"),
    [
        (Money(999, "UZS"), errors.WrongAmount),
        (Money(1_000, "UZS"), None),
        (Money(500_000, "UZS"), None),
        (Money(500_001, "UZS"), errors.WrongAmount),
        (Money(5_000, "IDR"), errors.WrongAmount),
    ],
)
def test_a_standing_order_takes_any_amount_between_its_bounds(
    amount: Money, refusal: type[errors.Refusal] | None
) -> None:
    outcome = decide(Check("TILL-1", amount), Facts(standing=standing()), NOW, OPENING).outcome
    assert isinstance(outcome, refusal or Record)


def test_every_reservation_of_a_standing_order_is_a_payment_of_its_own() -> None:
    verdict = till(70_000)
    made = verdict.payment
    assert made is not None
    assert verdict.before is None
    assert (made.id, made.order_key, made.standing_id, made.amount_minor) == (
        "pay_new", b"c" * 16, "ord_1", 70_000,
    )  # fmt: skip
    assert (made.order_id, made.status, made.live_attempt_id) == ("TILL-1", "pending", "att_new")


def test_a_standing_orders_payment_is_settled_once() -> None:
    made = till(70_000)
    assert made.change is not None
    assert made.payment is not None
    opened = Facts(made.payment, standing(), made.change[1], made.change[1])
    paid = decide(Settle("ext-1"), opened, NOW, OPENING)
    assert paid.payment is not None
    assert paid.change is not None
    assert (paid.payment.status, paid.payment.paid_minor) == ("paid", 70_000)
    again = decide(Settle("ext-1"), Facts(paid.payment, standing(), paid.change[1]), NOW + 5, OPENING)
    assert again.change is None
    same = decide(
        Reserve("ext-1", "TILL-1", Money(70_000, "UZS")),
        Facts(paid.payment, standing(), paid.change[1]),
        NOW + 5,
        OPENING,
    )
    assert isinstance(same.outcome, errors.AlreadyPaid)


def test_a_closed_standing_order_takes_nothing_more() -> None:
    assert isinstance(till(70_000, closed_at=NOW).outcome, errors.AlreadyClosed)
