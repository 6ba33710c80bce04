"""The table of a payment's life, stated again by hand, and what the words of a result mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillgate.providers.mobypay.errors import NotAllowed
from tillgate.providers.mobypay.lifecycle import (
    Fact,
    Payment,
    State,
    Timers,
    advance,
    answered,
    classify,
    timer,
)
from tillgate.providers.mobypay.messages import Ack, PaymentMode, TransactionResult

SHORT = {
    "P": "pending", "R": "processing", "A": "awaiting_plan", "C": "cancelling", "S": "succeeded",
    "F": "failed", "X": "cancelled", "U": "unknown", "V": "requires_review",
}  # fmt: skip

# "-" refuses a command; a letter is the state afterwards.
TABLE = """
                P R A C S F X U V
not_sent        F R A C S F X U V
ack             R R A C S F X U V
cancel_ack      P R A C S F X U V
plans           A A A C S F X U V
plan_chosen     - - R - - - - - -
cancel_asked    C C C C - - - U -
success         S S S S S V V S V
mismatch        V V V V V V V V V
failure         F F F X V F X F V
repeat          P R A C S F X U V
error           F F F U S F X U V
unlisted        U U U U S F X U V
link_cut        U U U U S F X U V
restart         U U U U S F X U V
ack_due         U R A C S F X U V
result_due      P U A C S F X U V
plan_due        P R U C S F X U V
cancel_due      P R A U S F X U V
grace_over      P R A X S F X U V
settled_paid    - - - - - - - S S
settled_unpaid  - - - - - - - F F
"""


def cells() -> list[tuple[str, str, str]]:
    header, *rows = TABLE.strip("\n").splitlines()
    columns = header.split()
    return [
        (row.split()[0], column, to)
        for row in rows
        for column, to in zip(columns, row.split()[1:], strict=True)
    ]


def payment(state: str = "pending", mode: PaymentMode = PaymentMode.CARD) -> Payment:
    return Payment(
        txn_id="TXN1", mode=mode, amount_sen=5000, terminal="POS001", connection=1, state=State(state)
    )


def told(status: str, **members: object) -> TransactionResult:
    return TransactionResult(txn_id="TXN1", status=status, **members)


def test_the_table_names_every_fact_and_every_state() -> None:
    assert {fact for fact, _, _ in cells()} == set(Fact)
    assert {SHORT[state] for _, state, _ in cells()} == set(State)


@pytest.mark.parametrize(("fact", "before", "after"), cells())
def test_every_cell(fact: str, before: str, after: str) -> None:
    result = told("success") if fact in ("success", "mismatch") else None
    if after == "-":
        with pytest.raises(NotAllowed):
            advance(payment(SHORT[before]), Fact(fact), 1, result)
    else:
        assert advance(payment(SHORT[before]), Fact(fact), 1, result).payment.state == SHORT[after]


@pytest.mark.parametrize("status", ["success", "approved"])
def test_these_words_and_no_others_are_a_success(status: str) -> None:
    assert classify(payment(), told(status)) is Fact.SUCCESS


@pytest.mark.parametrize(
    "status",
    ["unsuccessful", "disapproved", "not_approved", "Success", "SUCCESS", "success ",
     "", "declined", "cancelled",
     "timeout", "reversed", "ok", "approved!", "failure", "Failed", "(true)"],
)  # fmt: skip
def test_unlisted_words_are_no_outcome(status: str) -> None:
    step = advance(payment("processing"), classify(payment("processing"), told(status)), 1, told(status))
    assert step.payment.state is State.UNKNOWN
    assert [alert.kind for alert in step.alerts] == ["unlisted_status"]


def test_plans_belong_to_instalment_payments() -> None:
    assert classify(payment(mode=PaymentMode.IPP), told("ipp_plans")) is Fact.PLANS
    assert classify(payment(), told("ipp_plans")) is Fact.UNLISTED


@pytest.mark.parametrize(
    ("amount", "sen", "fact"),
    [
        ("50.0", 5000, Fact.SUCCESS),
        (None, None, Fact.SUCCESS),  # the written document's results carry no amount
        ("1.00", 100, Fact.MISMATCH),
        ("50.01", 5001, Fact.MISMATCH),
        ("50.000000001", None, Fact.MISMATCH),
        ('"50.00"', None, Fact.MISMATCH),
        ("-50.0", -5000, Fact.MISMATCH),
    ],
)
def test_a_success_is_of_the_amount_that_was_asked(amount: str | None, sen: int | None, fact: Fact) -> None:
    assert classify(payment(), told("success", amount=amount, amount_sen=sen)) is fact


def settle_with(before: Payment, *results: TransactionResult) -> tuple[Payment, list[str]]:
    kinds = []
    for result in results:
        step = advance(before, classify(before, result), 1, result)
        before = step.payment
        kinds += [alert.kind for alert in step.alerts]
    return before, kinds


def test_a_repeated_success_changes_nothing() -> None:
    success = told("success", transaction_id="000410")
    after, alerts = settle_with(payment("processing"), success, success, success)
    assert (after.state, after.transaction_id, alerts) == (State.SUCCEEDED, "000410", [])


def test_a_second_reference_is_a_second_charge() -> None:
    after, alerts = settle_with(
        payment("processing"),
        told("success", transaction_id="000410"),
        told("success", transaction_id="000411"),
    )
    assert (after.state, after.transaction_id, alerts) == (State.REQUIRES_REVIEW, "000410", ["second_charge"])


def test_a_fuller_repeat_fills_the_gaps() -> None:
    after, alerts = settle_with(
        payment("processing"), told("success"), told("approved", transaction_id="000410")
    )
    assert (after.state, after.transaction_id, alerts) == (State.SUCCEEDED, "000410", [])


@pytest.mark.parametrize(("state", "kind"), [("failed", "late_success"), ("cancelled", "late_success")])
def test_a_late_success_is_for_a_person(state: str, kind: str) -> None:
    after, alerts = settle_with(payment(state), told("success", transaction_id="000410"))
    assert (after.state, after.transaction_id, alerts) == (State.REQUIRES_REVIEW, "000410", [kind])
    assert after.reason


def test_success_then_failure_conflict() -> None:
    after, alerts = settle_with(payment("processing"), told("success", transaction_id="1"), told("failed"))
    assert (after.state, after.transaction_id, alerts) == (State.REQUIRES_REVIEW, "1", ["conflicting_result"])


def test_a_settled_review_is_not_reopened_by_a_repeat_of_the_same_evidence() -> None:
    success = told("success", transaction_id="000410")
    after, _ = settle_with(payment("cancelled"), success)
    after = advance(after, Fact.SETTLED_UNPAID, 2, note="refunded at the counter").payment
    assert (after.state, after.settled_because) == (State.FAILED, "refunded at the counter")
    after, alerts = settle_with(after, success)
    assert (after.state, alerts) == (State.FAILED, [])
    after, alerts = settle_with(after, told("success", transaction_id="000999"))
    assert after.state is State.REQUIRES_REVIEW


@pytest.mark.parametrize(
    "fact", ["link_cut", "restart", "ack_due", "result_due", "plan_due", "cancel_due", "unlisted", "error"]
)
def test_the_unknown_says_why(fact: str) -> None:
    before = {"ack_due": "pending", "plan_due": "awaiting_plan"}.get(fact, "processing")
    before = "cancelling" if fact in ("cancel_due", "error") else before
    step = advance(payment(before), Fact(fact), 1)
    assert step.payment.state is State.UNKNOWN
    assert step.payment.reason
    assert len(step.alerts) == 1


@pytest.mark.parametrize(
    ("story", "acknowledged"),
    [
        # without plans
        ("cancel", False),
        ("cancel processing", False),  # it answers the request
        ("cancel processing received", True),
        ("processing cancel received", True),
        ("processing cancel processing", True),  # some samples say so of everything
        ("processing cancel -", True),  # and some nothing
        ("processing cancel rejected", False),  # nobody defined that
        ("processing processing cancel", False),
        ("processing cancel cancel received", True),
        # plans offered and not chosen
        ("processing plans cancel", False),
        ("processing plans cancel received", True),
        ("plans cancel processing", False),  # plans may overtake the request's ack
        ("plans cancel processing received", True),
        ("cancel processing plans received", True),
        ("cancel processing received plans", False),  # it offers plans, so it has not stopped
        ("cancel processing received plans received", True),
        # a plan chosen: its ack comes first, whatever it says
        ("processing plans plan cancel", False),
        ("processing plans plan cancel plan_received", False),
        ("processing plans plan cancel processing", False),
        ("processing plans plan cancel received", False),
        ("processing plans plan cancel plan_received received", True),
        ("processing plans plan cancel processing processing", True),
        ("processing plans plan plan_received cancel", False),
        ("processing plans plan plan_received cancel received", True),
        ("processing plans plan plan_received cancel plan_received", False),  # it says so twice
        ("plans plan cancel processing plan_received", False),
        ("plans processing plan cancel plan_received", False),
        ("plans plan cancel processing processing", False),
        ("plans plan cancel processing processing received", True),
        # chosen again
        ("processing plans plan plans plan cancel plan_received", False),
        ("processing plans plan plans plan cancel processing processing", False),
        ("processing plans plan plan_received plans plan cancel plan_received received", True),
    ],
)
def test_an_ack_is_the_cancels_once_nothing_else_is_due_one(story: str, acknowledged: bool) -> None:
    now = payment(mode=PaymentMode.IPP)
    for at, word in enumerate(story.split()):
        fact = {"cancel": Fact.CANCEL_ASKED, "plan": Fact.PLAN_CHOSEN, "plans": Fact.PLANS}.get(word)
        fact = fact or answered(now, Ack(txn_id="TXN1", status=word.strip("-")))
        now = advance(now, fact, at + 1, told("ipp_plans", plans="[]") if word == "plans" else None).payment
    assert now.state is State.CANCELLING
    due = (Fact.GRACE_OVER, 10) if acknowledged else (Fact.CANCEL_DUE, 10)
    assert timer(now, Timers()) == due


def test_the_timers() -> None:
    expected = {
        "pending": ("ack_due", 10),
        "processing": ("result_due", 180),
        "awaiting_plan": ("plan_due", 180),
    }
    for state in State:
        if state is not State.CANCELLING:
            assert timer(payment(state), Timers()) == expected.get(state)


def test_an_error_text_does_not_colour_a_success() -> None:
    assert advance(payment("succeeded"), Fact.ERROR, 1, note="boom").payment.error_message is None
    assert advance(payment("processing"), Fact.ERROR, 1, note="boom").payment.error_message == "boom"


@given(st.lists(st.sampled_from(["success", "failed", "odd", "plans", *sorted(Fact)]), max_size=12))
def test_whatever_happens_no_success_is_lost(story: list[str]) -> None:
    """Once a terminal has reported a success, only a person can make it anything but paid or disputed."""
    now, charged, settled = payment("processing", PaymentMode.IPP), False, False
    for word in story:
        result = {
            "success": told("success", transaction_id="1"), "failed": told("failed"), "odd": told("declined"),
            "plans": told("ipp_plans"),
        }.get(word)  # fmt: skip
        fact = classify(now, result) if result else Fact(word)
        if fact in (Fact.SUCCESS, Fact.MISMATCH, Fact.FAILURE, Fact.REPEAT) and result is None:
            continue  # these facts are only ever carried by a result
        try:
            now = advance(now, fact, 1, result).payment
        except NotAllowed:
            continue
        charged = charged or word == "success"
        settled = settled or fact in (Fact.SETTLED_PAID, Fact.SETTLED_UNPAID)
        if charged and not settled:
            assert now.state in (State.SUCCEEDED, State.REQUIRES_REVIEW)
            assert now.transaction_id == "1"
        if not charged and fact is not Fact.SETTLED_PAID and not settled:
            assert now.state is not State.SUCCEEDED
