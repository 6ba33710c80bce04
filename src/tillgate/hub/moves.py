"""How facts become rows, events, postings and due work: the one place where a plan is written."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tillgate.domain import ledger
from tillgate.domain.errors import OutOfOrder
from tillgate.domain.payment import (
    LIVE,
    OPEN_REFUND,
    Attempt,
    Closed,
    Fact,
    Paid,
    Payment,
    Refund,
    Refunded,
    RefundFact,
    advance,
    advance_refund,
    follow,
    follow_refund,
)
from tillgate.domain.record import replace
from tillgate.hub.kit import targets
from tillgate.store.book import Plan
from tillgate.store.directory import Merchant

LOOK_AFTER_LOSS_MS: Final = 5_000
CONTRADICTIONS_KEPT: Final = 8


def move(plan: Plan, merchant: Merchant, attempt: Attempt, fact: Fact) -> tuple[Payment, Attempt]:
    """Apply one fact to an attempt and its payment. A repeat changes nothing. Raises `OutOfOrder`."""
    payment = plan.payment(attempt.payment_id)
    assert payment is not None
    if isinstance(fact, Refunded) and payment.refunding_minor and fact.total_minor > attempt.refunded_minor:
        raise OutOfOrder("a refund of ours is on its way: look which one this is")
    moved = advance(attempt, fact, plan.now)
    after = follow(payment, attempt, moved, fact)
    if isinstance(fact, Closed) and attempt.phase == "paid":
        moved = contradicted(moved, f"said to be {fact.why} ({fact.reason or fact.why}), is paid")
    if after.late and not payment.late and merchant.settings.late_money == "review":
        after = replace(after, hold=after.hold or "late_money", status="review")
    return commit(plan, merchant, payment, after, attempt, moved, fact)


def commit(
    plan: Plan,
    merchant: Merchant,
    payment: Payment,
    after: Payment,
    attempt: Attempt,
    moved: Attempt,
    fact: Fact | None,
) -> tuple[Payment, Attempt]:
    """Write what changed between two states of a payment and of one of its attempts."""
    if moved == attempt and after == payment:
        return payment, attempt
    postings = ledger.postings(payment, after, attempt.account_id)
    if isinstance(fact, Paid) and fact.currency != payment.currency and payment.hold != "currency_mismatch":
        postings += ledger.foreign(fact, attempt.account_id)
    saved_attempt = plan.save(attempt, moved) if moved != attempt else attempt
    saved = plan.save(payment, after) if after != payment else payment
    kind = event_kind(payment, saved)
    if isinstance(fact, Closed) and attempt.phase == "paid" and kind == "payment.updated":
        kind = "payment.discrepancy"
    plan.event(kind, saved, saved_attempt, None, postings, targets(merchant, saved, kind))
    schedule(plan, attempt, saved, saved_attempt)
    return saved, saved_attempt


def contradicted(attempt: Attempt, words: str) -> Attempt:
    """The attempt with what was said against it, once for each saying: moves no money, must not vanish."""
    details: dict[str, Any] = msgspec.json.decode(attempt.details) if attempt.details else {}
    known: list[str] = details.get("contradictions", [])
    if words in known or len(known) >= CONTRADICTIONS_KEPT:
        return attempt
    details["contradictions"] = [*known, words]
    return replace(attempt, details=msgspec.json.encode(details).decode())


def event_kind(before: Payment | None, after: Payment) -> str:
    if before is None or after.status != before.status:
        return f"payment.{after.status}"
    if after.refunded_minor > before.refunded_minor:
        return "refund.succeeded"
    if after.reversed_minor > before.reversed_minor:
        return "payment.reversed"
    return "payment.updated"


def hinted(attempt: Attempt) -> bool:
    """Whether a hint about it left clues to look at."""
    return attempt.details is not None and '"clues"' in attempt.details


def schedule(plan: Plan, before: Attempt, payment: Payment, attempt: Attempt) -> None:
    """The due work that follows from how an attempt stands now."""
    if attempt.phase == "unsure" and before.phase != "unsure":
        plan.at("look", attempt.id, attempt.merchant_id, plan.now + LOOK_AFTER_LOSS_MS)
    if before.phase == "unsure" and attempt.phase == "pending" and payment.live_attempt_id == attempt.id:
        # Its time may have come while nobody knew: what is unsure does not expire, what is open does.
        plan.at("expire", payment.id, payment.merchant_id, payment.expires_at)
    if before.phase in LIVE and (
        attempt.phase == "paid" or (attempt.phase == "closed" and before.phase == "created")
    ):
        # What is given up after a provider had it keeps its look, the last one: a hint may have asked for it
        # while we decided, and a payer may have been quicker.
        plan.done("look", attempt.id)
    if payment.live_attempt_id is None and (payment.paid_minor or payment.closed):
        plan.done("expire", payment.id)
    elif payment.live_attempt_id is None and attempt.asked and plan.now >= payment.expires_at:
        # Its end waited for the transaction that held it (`Closes`), which let go before its own time.
        plan.at("expire", payment.id, payment.merchant_id, payment.expires_at)
    if payment.paid_minor and payment.live_attempt_id not in (None, attempt.id):
        # Late money paid the order while another attempt is open: nobody may pay it a second time.
        plan.at("withdraw", str(payment.live_attempt_id), payment.merchant_id, plan.now)


def move_refund(plan: Plan, merchant: Merchant, refund: Refund, fact: RefundFact) -> tuple[Payment, Refund]:
    """Apply one fact to a refund, its attempt and its payment. A repeat changes nothing."""
    payment, attempt = plan.payment(refund.payment_id), plan.attempt(refund.attempt_id)
    assert payment is not None
    assert attempt is not None
    try:
        moved = advance_refund(refund, fact, plan.now)
    except OutOfOrder:
        return _contradicted(plan, merchant, payment, refund)
    after = follow_refund(payment, refund, moved)
    if moved == refund:
        return payment, refund
    succeeded = moved.phase == "succeeded" and refund.phase != "succeeded"
    postings = ledger.postings(payment, after, attempt.account_id)
    if succeeded:
        attempt = plan.save(
            attempt, replace(attempt, refunded_minor=attempt.refunded_minor + refund.amount_minor)
        )
    saved_refund = plan.save(refund, moved)
    saved = plan.save(payment, after) if after != payment else payment
    kind = f"refund.{moved.phase}" if moved.phase != refund.phase else "refund.updated"
    plan.event(
        kind, saved, attempt if succeeded else None, saved_refund, postings, targets(merchant, saved, kind)
    )
    if moved.phase == "unsure":
        plan.at("look_refund", refund.id, refund.merchant_id, plan.now + LOOK_AFTER_LOSS_MS)
    elif moved.phase not in OPEN_REFUND:
        plan.done("refund", refund.id)
        plan.done("look_refund", refund.id)
    return saved, saved_refund


def _contradicted(plan: Plan, merchant: Merchant, payment: Payment, refund: Refund) -> tuple[Payment, Refund]:
    """A refund that succeeded is said to have failed: an operator must look."""
    if payment.hold is not None:
        return payment, refund
    held = replace(payment, hold="over_refunded", status="review")
    postings = ledger.postings(payment, held, payment.account_id)
    saved = plan.save(payment, held)
    plan.event("payment.review", saved, None, refund, postings, targets(merchant, saved, "payment.review"))
    return saved, refund
