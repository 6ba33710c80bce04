"""What is posted for every change of a payment: by hand, then checked against sums over all accounts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import attempt, payment, refund
from tillgate.domain import payment as life
from tillgate.domain.errors import OutOfOrder
from tillgate.domain.ledger import Posting, foreign, postings
from tillgate.domain.payment import Closed, Paid, Payment, Refunded, Reversed

PAID = {"status": "paid", "paid_minor": 10_000}

# before, after → (kind, from, to, amount) lines. `None` before: the payment is new.
CASES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], list[tuple[str, str, str, int]]]] = {
    "opened": (None, {}, [("memo", "memo:open", "memo:due", 10_000)]),
    "nothing happened": ({}, {}, []),
    "unsure is still expected": ({}, {"status": "unsure"}, []),
    "expired": ({}, {"status": "expired"}, [("memo", "memo:due", "memo:open", 10_000)]),
    "tried again": ({"status": "failed"}, {}, [("memo", "memo:open", "memo:due", 10_000)]),
    "paid": (
        {},
        PAID,
        [("memo", "memo:due", "memo:open", 10_000), ("payment", "provider:acc_1", "merchant", 10_000)],
    ),
    "paid with a tip and a fee": (
        {},
        {**PAID, "tip_minor": 500, "fee_minor": 70},
        [
            ("memo", "memo:due", "memo:open", 10_000),
            ("payment", "provider:acc_1", "merchant", 10_000),
            ("tip", "provider:acc_1", "tips", 500),
            ("fee", "merchant", "fees:acc_1", 70),
        ],
    ),
    "paid late": ({"status": "expired"}, PAID, [("payment", "provider:acc_1", "merchant", 10_000)]),
    "paid short, so held": (
        {},
        {"status": "review", "hold": "amount_mismatch", "paid_minor": 9_000},
        [("memo", "memo:due", "memo:open", 10_000), ("payment", "provider:acc_1", "held", 9_000)],
    ),
    "let pass": (
        {"status": "review", "hold": "amount_mismatch", "paid_minor": 9_000, "fee_minor": 50},
        {"status": "paid", "paid_minor": 9_000, "fee_minor": 50},
        [("hold", "held", "merchant", 8_950)],
    ),
    "a fee that was wrong": (
        {**PAID, "fee_minor": 70},
        {**PAID, "fee_minor": 50},
        [("fee", "fees:acc_1", "merchant", 20)],
    ),
    "a refund is promised": (
        PAID,
        {**PAID, "refunding_minor": 4_000},
        [("refund", "merchant", "refunding", 4_000)],
    ),
    "a refund comes through": (
        {**PAID, "refunding_minor": 4_000},
        {**PAID, "refunded_minor": 4_000},
        [("refund", "refunding", "provider:acc_1", 4_000)],
    ),
    "a refund fails": (
        {**PAID, "refunding_minor": 4_000},
        PAID,
        [("refund", "refunding", "merchant", 4_000)],
    ),
    "one of two refunds comes through": (
        {**PAID, "refunding_minor": 7_000},
        {**PAID, "refunding_minor": 3_000, "refunded_minor": 4_000},
        [("refund", "refunding", "provider:acc_1", 4_000)],
    ),
    "the provider gave money back by itself": (
        PAID,
        {**PAID, "refunded_minor": 4_000},
        [("refund", "merchant", "provider:acc_1", 4_000)],
    ),
    "the provider took it all back": (
        PAID,
        {**PAID, "status": "failed", "reversed_minor": 10_000},
        [("reversal", "merchant", "provider:acc_1", 10_000)],
    ),
    "paid twice over, so all is held": (
        PAID,
        {"status": "review", "hold": "overpaid", "paid_minor": 20_000},
        [("hold", "merchant", "held", 10_000), ("payment", "provider:acc_1", "held", 10_000)],
    ),
    "held while a refund is on its way": (
        {**PAID, "refunding_minor": 4_000},
        {**PAID, "status": "review", "hold": "operator", "refunding_minor": 4_000},
        [("hold", "merchant", "held", 6_000)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_posted(name: str) -> None:
    before, after, expected = CASES[name]
    start = None if before is None else payment(**before)
    lines = postings(start, payment(**after), "acc_1")
    assert [(one.kind, one.source, one.destination, one.amount_minor) for one in lines] == expected
    assert all(one.currency == "IDR" for one in lines)


def test_foreign_money_is_held_as_it_came() -> None:
    assert foreign(Paid(700, "MYR", tip_minor=30), "acc_1") == (
        Posting("payment", "provider:acc_1", "held", 730, "MYR"),
    )
    assert foreign(Paid(0, "MYR"), "acc_1") == ()


@pytest.mark.parametrize("amount_minor", [0, -1])
def test_a_posting_moves_something(amount_minor: int) -> None:
    with pytest.raises(AssertionError):
        Posting("payment", "a", "b", amount_minor, "IDR")


def books(payments: list[Payment]) -> Counter[str]:
    """What all lines of a payment's life add up to, by account."""
    total: Counter[str] = Counter()
    for before, after in zip([None, *payments], payments, strict=False):
        for line in postings(before, after, "acc_1"):
            total[line.source] -= line.amount_minor
            total[line.destination] += line.amount_minor
    return total


facts = st.one_of(
    st.builds(Closed, st.sampled_from(["failed", "expired"])),
    st.builds(
        Paid,
        st.sampled_from([1, 9_000, 10_000, 15_000]),
        st.just("IDR"),
        st.sampled_from([0, 300]),
        st.sampled_from([0, 20, 90]),
    ),
    st.builds(Refunded, st.sampled_from([500, 10_000])),
    st.builds(Reversed, st.sampled_from([500, 10_000])),
    st.sampled_from(["refund", "succeeded", "failed", "accept"]),
)


@given(st.lists(facts, max_size=14))
def test_the_books_follow_from_the_totals(said: list[Any]) -> None:
    """Whatever happened in whatever order: each account holds what the payment's totals say."""
    live = attempt()
    now = life.follow(payment(), None, live)
    states, number = [now], 0
    open_refunds: list[life.Refund] = []
    for one in said:
        match one:
            case "refund":
                number += 1
                made = refund("created", id=f"refund_{number}", amount_minor=2_500)
                try:
                    life.refund_allowed(now, 2_500)
                except life.RefundNotAllowed:
                    continue
                open_refunds.append(made)
                now = life.follow_refund(now, None, made)
            case "succeeded" | "failed":
                if not open_refunds:
                    continue
                first = open_refunds.pop(0)
                end = life.RefundSucceeded() if one == "succeeded" else life.RefundFailed("no")
                now = life.follow_refund(now, first, life.advance_refund(first, end, 0))
            case "accept":
                now = life.derived(life.replace(now, hold=None))
            case _:
                try:
                    moved = life.advance(live, one, 0)
                except OutOfOrder:
                    continue
                now, live = life.follow(now, live, moved, one), moved
        states.append(now)
    total = books(states)
    home = now.paid_minor - now.reversed_minor - now.refunded_minor - now.refunding_minor - now.fee_minor
    due = now.amount_minor if now.status in ("pending", "unsure") else 0
    expected = {
        "merchant" if now.hold is None else "held": home,
        "refunding": now.refunding_minor,
        "tips": now.tip_minor,
        "fees:acc_1": now.fee_minor,
        "provider:acc_1": now.refunded_minor + now.reversed_minor - now.paid_minor - now.tip_minor,
        "memo:due": due,
        "memo:open": -due,
    }
    assert {name: amount for name, amount in total.items() if amount} == {
        name: amount for name, amount in expected.items() if amount
    }
