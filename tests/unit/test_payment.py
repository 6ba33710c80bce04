"""The life of payments, attempts and refunds.

The tables are written here again, by hand: a test that read the code's own would let a lost row through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import NOW, attempt, payment, refund
from tillgate.domain import payment as life
from tillgate.domain.errors import OutOfOrder, RefundNotAllowed
from tillgate.domain.payment import (
    Accepted,
    AnswerLost,
    Attempt,
    Closed,
    Doubted,
    Paid,
    Payment,
    Questioned,
    RefundAccepted,
    RefundAnswerLost,
    Refunded,
    RefundFailed,
    RefundSucceeded,
    Reversed,
)

ATTEMPT_TABLE = """
           accepted  lost      doubted   question  closed    paid      refunded  reversed
created    pending   unsure    unsure    created   closed    paid      -         -
pending    pending   pending   unsure    pending   closed    paid      -         -
unsure     pending   unsure    unsure    unsure    closed    paid      -         -
closed     closed    closed    closed    closed    closed    paid      -         -
paid       paid      paid      paid      paid      paid      paid      paid      paid
"""

REFUND_TABLE = """
           accepted   lost       succeeded  failed
created    pending    unsure     succeeded  failed
pending    pending    pending    succeeded  failed
unsure     pending    unsure     succeeded  failed
succeeded  succeeded  succeeded  succeeded  -
failed     failed     failed     succeeded  failed
"""

FACTS = {
    "accepted": Accepted("ext-1", '{"type":"qr"}', NOW + 60_000),
    "lost": AnswerLost(),
    "doubted": Doubted(),
    "question": Questioned(),
    "closed": Closed("failed", "declined"),
    "paid": Paid(10_000, "IDR"),
    "refunded": Refunded(4_000),
    "reversed": Reversed(10_000),
}

REFUND_FACTS = {
    "accepted": RefundAccepted("r-1"),
    "lost": RefundAnswerLost(),
    "succeeded": RefundSucceeded("r-1"),
    "failed": RefundFailed("no"),
}


def cells(table: str) -> list[tuple[str, str, str]]:
    head, *rows = (line.split() for line in table.strip().splitlines())
    return [(row[0], column, after) for row in rows for column, after in zip(head, row[1:], strict=True)]


def open_payment(phase: str = "pending", **changes: Any) -> tuple[Payment, Attempt]:
    """A payment with one live attempt."""
    live = attempt(phase, **changes)
    return life.follow(payment(), None, live), live


def after(start: Payment, before: Attempt, fact: life.Fact, now: int = NOW) -> tuple[Payment, Attempt]:
    moved = life.advance(before, fact, now)
    return life.follow(start, before, moved, fact), moved


# --- every cell ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "fact", "expected"), cells(ATTEMPT_TABLE))
def test_every_cell_of_an_attempts_life(phase: str, fact: str, expected: str) -> None:
    before = attempt(phase)
    if expected == "-":
        with pytest.raises(OutOfOrder):
            life.advance(before, FACTS[fact], NOW)
        return
    moved = life.advance(before, FACTS[fact], NOW)
    assert moved.phase == expected
    assert (moved.live_of is not None) == (expected in ("created", "pending", "unsure"))


@pytest.mark.parametrize(("phase", "fact", "expected"), cells(REFUND_TABLE))
def test_every_cell_of_a_refunds_life(phase: str, fact: str, expected: str) -> None:
    before = refund(phase)
    if expected == "-":
        with pytest.raises(OutOfOrder):
            life.advance_refund(before, REFUND_FACTS[fact], NOW)
        return
    assert life.advance_refund(before, REFUND_FACTS[fact], NOW).phase == expected


def test_the_tables_have_no_other_rows() -> None:
    assert set(life.ATTEMPT) == {phase for phase, _, _ in cells(ATTEMPT_TABLE)}
    assert set(life.REFUND) == {phase for phase, _, _ in cells(REFUND_TABLE)}


@pytest.mark.parametrize(("phase", "fact", "expected"), cells(ATTEMPT_TABLE))
def test_an_attempt_is_told_twice(phase: str, fact: str, expected: str) -> None:
    """The second telling moves nothing, neither the attempt nor its payment."""
    if expected == "-":
        return
    start = life.follow(payment(), None, attempt())
    start = replace(start, paid_minor=10_000, status="paid") if phase == "paid" else start
    once, moved = after(start, attempt(phase), FACTS[fact])
    assert after(once, moved, FACTS[fact], NOW + 5) == (once, moved)


@pytest.mark.parametrize(("phase", "fact", "expected"), cells(REFUND_TABLE))
def test_a_refund_is_told_twice(phase: str, fact: str, expected: str) -> None:
    if expected == "-":
        return
    moved = life.advance_refund(refund(phase), REFUND_FACTS[fact], NOW)
    assert life.advance_refund(moved, REFUND_FACTS[fact], NOW + 5) == moved


# --- what a fact keeps --------------------------------------------------------------------------------------


def test_acceptance_keeps_the_first_names() -> None:
    first = life.advance(attempt("created"), Accepted("ext-1", "show-1", 5), NOW)
    assert (first.external_id, first.show, first.expires_at) == ("ext-1", "show-1", 5)
    second = life.advance(first, Accepted("ext-2", "show-2", 6), NOW)
    assert second == first


def test_closing_keeps_the_first_reason_and_time() -> None:
    first = life.advance(attempt(), Closed("failed", "declined"), NOW)
    assert (first.reason, first.closed_at) == ("declined", NOW)
    assert life.advance(first, Closed("expired", "too late"), NOW + 9) == first
    assert life.advance(attempt(), Closed("expired"), NOW).reason == "expired"


def test_paid_stays_paid_whatever_is_said_later() -> None:
    start, live = open_payment()
    paid, moved = after(start, live, Paid(10_000, "IDR"))
    for late in (Closed("failed", "declined"), Closed("expired"), AnswerLost(), Accepted()):
        assert after(paid, moved, late)[0].status == "paid"


def test_money_totals_are_cumulative() -> None:
    start, live = open_payment()
    half, moved = after(start, live, Paid(6_000, "IDR", tip_minor=500))
    assert (half.paid_minor, half.tip_minor) == (6_000, 500)
    whole, moved = after(half, moved, Paid(10_000, "IDR", tip_minor=500))
    assert (whole.paid_minor, whole.tip_minor) == (10_000, 500)
    again, _ = after(whole, moved, Paid(6_000, "IDR"))  # the older notice, late
    assert (again.paid_minor, again.tip_minor) == (10_000, 500)


def test_the_providers_time_of_payment_is_kept() -> None:
    start, live = open_payment()
    assert after(start, live, Paid(10_000, "IDR", at=123))[0].paid_at == 123
    assert after(start, live, Paid(10_000, "IDR"), NOW + 7)[0].paid_at == NOW + 7


# --- status -------------------------------------------------------------------------------------------------


STATUSES: list[tuple[dict[str, Any], str]] = [
    ({}, "pending"),
    ({"live_attempt_id": "a", "live_phase": "created"}, "pending"),
    ({"live_attempt_id": "a", "live_phase": "pending"}, "pending"),
    ({"live_attempt_id": "a", "live_phase": "unsure"}, "unsure"),
    ({"live_attempt_id": "a", "live_phase": "pending", "closed": "failed"}, "pending"),
    ({"closed": "failed"}, "failed"),
    ({"closed": "expired"}, "expired"),
    ({"closed": "cancelled"}, "cancelled"),
    ({"paid_minor": 10_000}, "paid"),
    ({"paid_minor": 1}, "paid"),
    ({"paid_minor": 10_000, "closed": "expired"}, "paid"),
    ({"paid_minor": 10_000, "live_attempt_id": "a", "live_phase": "unsure"}, "paid"),
    ({"paid_minor": 10_000, "refunded_minor": 10_000}, "paid"),
    ({"paid_minor": 10_000, "reversed_minor": 9_999}, "paid"),
    ({"paid_minor": 10_000, "reversed_minor": 10_000}, "failed"),
    ({"paid_minor": 10_000, "hold": "overpaid"}, "review"),
    ({"paid_minor": 0, "hold": "currency_mismatch"}, "review"),
    ({"closed": "expired", "hold": "operator"}, "review"),
]


@pytest.mark.parametrize(("facts", "status"), STATUSES)
def test_a_status_is_derived(facts: dict[str, Any], status: str) -> None:
    assert life.derived(payment(**facts)).status == status


# --- evidence that does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 9_999, 10_001, 20_000])
def test_a_wrong_amount_is_booked_and_held(total: int) -> None:
    start, live = open_payment()
    held, _ = after(start, live, Paid(total, "IDR"))
    assert (held.status, held.hold, held.paid_minor) == ("review", "amount_mismatch", total)


def test_foreign_money_is_held_and_not_added_up() -> None:
    start, live = open_payment()
    held, moved = after(start, live, Paid(10_000, "MYR", tip_minor=300, fee_minor=20))
    assert (held.status, held.hold) == ("review", "currency_mismatch")
    assert (held.paid_minor, held.tip_minor, held.fee_minor) == (0, 0, 0)
    assert (moved.paid_minor, moved.tip_minor, moved.fee_minor) == (0, 0, 0)


def test_two_attempts_that_both_bring_the_money_are_held() -> None:
    start, first = open_payment()
    gone, closed = after(start, first, Closed("failed"))
    second = attempt("pending", id="att_2")
    again = life.follow(gone, None, second)
    assert again.closed is None
    paid, _ = after(again, second, Paid(10_000, "IDR"))
    assert paid.status == "paid"
    twice, _ = after(paid, closed, Paid(10_000, "IDR"))
    assert (twice.status, twice.hold, twice.paid_minor, twice.late) == ("review", "overpaid", 20_000, True)


@pytest.mark.parametrize("fact", [Paid(9_000, "IDR"), Paid(10_000, "MYR")])
def test_what_an_operator_let_pass_is_not_held_again(fact: Paid) -> None:
    start, live = open_payment()
    held, moved = after(start, live, fact)
    accepted = life.derived(replace(held, hold=None))
    assert after(accepted, moved, fact, NOW + 60_000) == (accepted, moved)


def test_a_new_mismatch_after_an_accepted_one_is_held() -> None:
    start, live = open_payment()
    held, moved = after(start, live, Paid(9_000, "IDR"))
    accepted = life.derived(replace(held, hold=None))
    assert after(accepted, moved, Paid(12_000, "IDR"))[0].hold == "amount_mismatch"


def test_late_money_is_paid_and_marked() -> None:
    start, live = open_payment()
    gone, closed = after(start, live, Closed("expired"))
    assert (gone.status, gone.late) == ("expired", False)
    paid, _ = after(gone, closed, Paid(10_000, "IDR"))
    assert (paid.status, paid.late, paid.paid_minor) == ("paid", True, 10_000)


def test_money_in_time_is_not_late() -> None:
    start, live = open_payment()
    assert after(start, live, Paid(10_000, "IDR"))[0].late is False


def test_late_money_leaves_the_second_attempt_live() -> None:
    start, first = open_payment()
    gone, closed = after(start, first, Closed("failed"))
    second = attempt("pending", id="att_2")
    again = life.follow(gone, None, second)
    paid, _ = after(again, closed, Paid(10_000, "IDR"))
    assert (paid.status, paid.live_attempt_id) == ("paid", "att_2")
    done, _ = after(paid, second, Closed("cancelled"))
    assert (done.status, done.live_attempt_id, done.closed) == ("paid", None, None)


# --- closing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["failed", "expired", "cancelled"])
def test_an_attempt_of_ours_closes_its_payment(why: Any) -> None:
    start, live = open_payment()
    gone, _ = after(start, live, Closed(why))
    assert (gone.status, gone.closed, gone.live_attempt_id, gone.live_phase) == (why, why, None, None)


def test_a_transaction_of_the_providers_leaves_its_payment_payable() -> None:
    start, live = open_payment(asked=True)
    gone, _ = after(start, live, Closed("cancelled", "5"))
    assert (gone.status, gone.closed, gone.live_attempt_id) == ("pending", None, None)


def test_a_payment_is_closed_once() -> None:
    first = life.close(payment(), "expired")
    assert (first.status, first.closed) == ("expired", "expired")
    assert life.close(first, "cancelled") == first


# --- refunds ------------------------------------------------------------------------------------------------


def paid_payment(**changes: Any) -> Payment:
    return life.derived(payment(**{"paid_minor": 10_000, **changes}))


@pytest.mark.parametrize(
    ("facts", "amount_minor", "allowed"),
    [
        ({}, 1, True),
        ({}, 10_000, True),
        ({}, 10_001, False),
        ({}, 0, False),
        ({}, -1, False),
        ({"refunded_minor": 6_000}, 4_000, True),
        ({"refunded_minor": 6_000}, 4_001, False),
        ({"refunding_minor": 6_000}, 4_001, False),
        ({"refunding_minor": 6_000, "refunded_minor": 4_000}, 1, False),
        ({"reversed_minor": 3_000}, 7_000, True),
        ({"reversed_minor": 3_000}, 7_001, False),
        ({"reversed_minor": 10_000}, 1, False),
        ({"tip_minor": 500}, 10_001, False),  # a tip is no part of what was paid
        ({"paid_minor": 0}, 1, False),
        ({"hold": "amount_mismatch"}, 1, False),
        ({"paid_minor": 0, "closed": "expired"}, 1, False),
    ],
)
def test_never_more_goes_back_than_came(facts: dict[str, Any], amount_minor: int, allowed: bool) -> None:
    if allowed:
        life.refund_allowed(paid_payment(**facts), amount_minor)
    else:
        with pytest.raises(RefundNotAllowed):
            life.refund_allowed(paid_payment(**facts), amount_minor)


def test_a_refund_holds_its_amount_until_it_ends() -> None:
    new = refund("created")
    asked = life.follow_refund(paid_payment(), None, new)
    assert (asked.refunding_minor, asked.refunded_minor, asked.refundable_minor) == (4_000, 0, 6_000)
    done = life.advance_refund(new, RefundSucceeded(), NOW)
    given = life.follow_refund(asked, new, done)
    assert (given.refunding_minor, given.refunded_minor, given.refundable_minor) == (0, 4_000, 6_000)
    assert given.status == "paid"


def test_a_failed_refund_gives_its_amount_free() -> None:
    new = refund("created")
    asked = life.follow_refund(paid_payment(), None, new)
    failed = life.advance_refund(new, RefundFailed("no"), NOW)
    free = life.follow_refund(asked, new, failed)
    assert (free.refunding_minor, free.refunded_minor, free.refundable_minor) == (0, 0, 10_000)


def test_a_failed_refund_that_came_through_after_all_is_counted() -> None:
    failed = refund("failed", failure="no", done_at=NOW)
    done = life.advance_refund(failed, RefundSucceeded(), NOW + 9)
    assert (done.phase, done.done_at) == ("succeeded", NOW + 9)
    after_ = life.follow_refund(paid_payment(refunded_minor=8_000), failed, done)
    assert (after_.refunded_minor, after_.status, after_.hold) == (12_000, "review", "over_refunded")


def test_a_reversal_on_top_of_a_refund_is_held() -> None:
    start, live = open_payment()
    paid, moved = after(start, live, Paid(10_000, "IDR"))
    back, moved = after(paid, moved, Refunded(4_000))
    assert (back.status, back.refunded_minor) == ("paid", 4_000)
    taken, moved = after(back, moved, Reversed(10_000))
    assert (taken.status, taken.hold) == ("review", "over_refunded")
    let_pass = life.derived(replace(taken, hold=None))
    assert after(let_pass, moved, Reversed(10_000))[0] == let_pass


def test_a_reversal_of_all_fails_the_payment() -> None:
    start, live = open_payment()
    paid, moved = after(start, live, Paid(10_000, "IDR"))
    part, moved = after(paid, moved, Reversed(2_500))
    assert (part.status, part.refundable_minor) == ("paid", 7_500)
    whole, _ = after(part, moved, Reversed(10_000))
    assert (whole.status, whole.reversed_minor, whole.refundable_minor) == ("failed", 10_000, 0)


# --- everything at once -------------------------------------------------------------------------------------

facts = st.one_of(
    st.builds(Accepted, st.sampled_from([None, "e1", "e2"]), st.none(), st.none()),
    st.just(AnswerLost()),
    st.builds(Closed, st.sampled_from(["failed", "expired", "cancelled"])),
    st.builds(Paid, st.sampled_from([1, 9_000, 10_000, 15_000]), st.sampled_from(["IDR", "MYR"])),
    st.builds(Refunded, st.sampled_from([1, 5_000, 10_000])),
    st.builds(Reversed, st.sampled_from([1, 5_000, 10_000])),
)


@given(st.lists(facts, max_size=12), st.booleans())
def test_whatever_is_said_in_whatever_order(said: list[life.Fact], asked: bool) -> None:
    now, live = open_payment(asked=asked)
    for fact in said:
        before = now
        try:
            now, live = after(now, live, fact)
        except OutOfOrder:
            assert before.paid_minor == 0 or isinstance(fact, Refunded | Reversed)
            continue
        # Totals never go back, nor does what was paid become unpaid.
        for total in ("paid_minor", "tip_minor", "refunded_minor", "reversed_minor"):
            assert getattr(now, total) >= getattr(before, total)
        assert live.phase == "paid" or before.status not in ("paid", "review")
        assert (now.live_attempt_id is None) == (live.live_of is None)
        assert now.refundable_minor >= 0 or now.hold is not None
