"""What becomes of payments that a kiosk collects: taken once, reported as they go, wished for, given up.

A kiosk fetches its orders, so what decides who asks a terminal is the commit that gives an attempt its
external id: after it the attempt is that kiosk's, and neither time nor a merchant closes it. Only a report
does, or an operator.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tillgate.domain import ledger
from tillgate.domain.errors import InvalidRequest, NotAllowed, NotFound
from tillgate.domain.payment import (
    LIVE,
    Accepted,
    Attempt,
    Closed,
    Doubted,
    Fact,
    Paid,
    Payment,
    Questioned,
    Reversed,
    advance,
    derived,
    follow,
)
from tillgate.domain.record import record, replace
from tillgate.hub.kit import order_key, shown, targets
from tillgate.hub.moves import commit, event_kind, move
from tillgate.schemas_kiosk import Decision, Held, Report, ReportOut, TakeOut, Wish, kept_of
from tillgate.spi import Show
from tillgate.store.book import Command, Needs, Plan
from tillgate.store.directory import Account, Merchant

HELD_MS: Final = 10 * 60_000
"""A terminal's longest way through a payment; a kiosk that is silent for longer has lost it, or its link."""
OWN_TTL_MS: Final = 15 * 60_000
SHOW: Final = shown(Show("terminal"))


def held(attempt: Attempt) -> Held:
    return kept_of(attempt.details) or Held()


def noted(attempt: Attempt, kept: Held) -> Attempt:
    return replace(attempt, details=msgspec.json.encode(kept).decode())


@record
class Takes:
    """The kiosk wants to ask a terminal for it. Repeating it with the same id changes nothing."""

    merchant: Merchant
    account: Account
    attempt_id: str
    txn_id: str

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(attempts=(self.attempt_id,), externals=((self.account.id, self.txn_id),))

    def decide(self, plan: Plan) -> TakeOut:
        attempt = plan.attempt(self.attempt_id)
        if attempt is None or attempt.account_id != self.account.id:
            raise NotFound("There is no such order")
        known = plan.external(self.account.id, self.txn_id)
        if known is not None and known.id != attempt.id:
            raise NotAllowed("This txn_id was used for another order")
        payment = plan.payment(attempt.payment_id)
        assert payment is not None
        if attempt.external_id is None and attempt.phase == "pending":
            if plan.now >= payment.expires_at:
                return TakeOut(False, False, "its time is over")
            payment, attempt = move(
                plan, self.merchant, noted(attempt, Held(at=plan.now)), Accepted(self.txn_id)
            )
        if attempt.external_id != self.txn_id:
            why = "somebody else has it" if attempt.external_id else f"it is {payment.status}"
            return TakeOut(False, False, why)
        if attempt.phase != "pending" or plan.now >= payment.expires_at:
            return TakeOut(True, False, "its time is over" if attempt.phase in LIVE else "it is over")
        if (wish := held(attempt).wish) is not None:
            return TakeOut(True, False, wish.reason or "it was cancelled")
        return TakeOut(True, True)


@record
class Reports:
    """Book what a kiosk says of one payment; of one that it took by itself, a payment of its own is made."""

    merchant: Merchant
    account: Account
    report: Report
    payment_id: str
    attempt_id: str

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def _order_id(self) -> str:
        return f"{self.account.name}-{self.report.txn_id}"

    def needs(self) -> Needs:
        return Needs(
            attempts=(self.report.attempt,) if self.report.attempt else (),
            externals=((self.account.id, self.report.txn_id),),
            orders=(order_key(self.merchant.id, self._order_id()),),
        )

    def decide(self, plan: Plan) -> ReportOut:
        report = self.report
        attempt = plan.external(self.account.id, report.txn_id) or plan.attempt(report.attempt)
        if attempt is None and report.attempt is None:
            attempt = self._made(plan)
        strange = attempt is not None and (
            attempt.account_id != self.account.id
            or attempt.external_id not in (None, report.txn_id)
            or report.attempt not in (None, attempt.id)
        )
        if attempt is None or strange:
            return ReportOut(report.txn_id, report.version, "foreign")
        kept = held(attempt)
        if kept.report is not None and kept.report.version >= report.version:
            return ReportOut(report.txn_id, report.version, "repeated", attempt.payment_id)
        payment = plan.payment(attempt.payment_id)
        assert payment is not None
        self._book(plan, payment, attempt, kept)
        return ReportOut(report.txn_id, report.version, "applied", attempt.payment_id)

    def _book(self, plan: Plan, payment: Payment, attempt: Attempt, kept: Held) -> None:
        report = self.report
        if report.state != "awaiting_plan" and report.plans is not None:
            report = msgspec.structs.replace(report, plans=None)  # of use only to who has to choose
        before = kept.report.settled_because if kept.report else None
        kept = Held(plan.now, report, _left(kept.wish, report), kept.decision)
        moved, after, last = noted(attempt, kept), payment, None
        for fact in self._facts(attempt, kept):
            step = advance(moved, fact, plan.now)
            after = follow(after, moved, step, fact)
            moved, last = step, fact if isinstance(fact, Paid) else last
        if after.late and not payment.late and self.merchant.settings.late_money == "review":
            after = replace(after, hold=after.hold or "late_money", status="review")
        settled = report.settled_because is not None
        if settled and payment.hold is not None and not _asks_a_person(report):
            after = derived(replace(after, hold=None))
        saved, _ = commit(plan, self.merchant, payment, after, attempt, moved, last)
        if settled and before != report.settled_because:
            outcome = "paid" if report.state == "succeeded" else "failed"
            by = kept.decision.by if kept.decision else f"kiosk {self.account.name}"
            note = {"resolved": outcome, "reason": report.settled_because, "by": by}
            kind = "payment.resolved"
            plan.event(kind, saved, None, None, (), targets(self.merchant, saved, kind), note)

    def _facts(self, attempt: Attempt, kept: Held) -> list[Fact]:
        report = self.report
        charged = report.paid_minor or report.amount_minor
        paid = Paid(charged, report.currency, paid_with=_paid_with(report), external_id=report.txn_id)
        facts: list[Fact] = [] if attempt.external_id else [Accepted(report.txn_id)]
        match report.state:
            case "succeeded":
                facts.append(paid)
                if kept.decision is not None and not kept.decision.paid and not report.settled_because:
                    facts.append(Questioned("late_money"))  # an operator had said that nothing was paid
            case "failed" | "cancelled":
                if attempt.phase != "paid":
                    facts.append(Closed("failed" if report.state == "failed" else "cancelled", report.reason))
                elif report.settled_because:
                    facts.append(Reversed(attempt.paid_minor))
                else:
                    facts.append(Questioned())
            case "unknown":
                facts.append(Doubted())
            case "requires_review":
                facts += [paid, Questioned("late_money" if attempt.phase == "closed" else "operator")]
        return facts

    def _made(self, plan: Plan) -> Attempt:
        """A payment that the kiosk took without being asked: its order is named by the kiosk."""
        report, order_id = self.report, self._order_id()
        if plan.order(order_key(self.merchant.id, order_id)) is not None:
            order_id = f"{order_id}-{self.attempt_id}"
        metadata = {"kiosk": self.account.name, "terminal": report.terminal}
        if report.reference is not None:
            metadata["reference"] = report.reference
        payment = Payment(
            id=self.payment_id,
            merchant_id=self.merchant.id,
            order_id=order_id,
            order_key=order_key(self.merchant.id, order_id),
            channel=report.mode,
            account_id=self.account.id,
            currency=report.currency,
            amount_minor=report.amount_minor,
            status="pending",
            live_attempt_id=self.attempt_id,
            live_phase="pending",
            metadata=msgspec.json.encode(metadata).decode(),
            created_at=plan.now,
            expires_at=plan.now + OWN_TTL_MS,
            version=1,
        )
        attempt = Attempt(
            id=self.attempt_id,
            payment_id=payment.id,
            merchant_id=self.merchant.id,
            account_id=self.account.id,
            provider=self.account.provider,
            channel=report.mode,
            external_id=report.txn_id,
            phase="pending",
            currency=report.currency,
            amount_minor=report.amount_minor,
            show=SHOW,
            created_at=plan.now,
            expires_at=payment.expires_at,
            live_of=payment.id,
            version=1,
        )
        saved = plan.save(None, payment)
        plan.save(None, attempt)
        kind = event_kind(None, saved)
        posted = ledger.postings(None, saved, self.account.id)
        plan.event(kind, saved, attempt, None, posted, targets(self.merchant, saved, kind))
        plan.at("expire", saved.id, saved.merchant_id, saved.expires_at)
        return attempt


@record
class Wishes:
    """A merchant wants something of a payment at a terminal. What nobody took yet is `otherwise`'s matter.

    `expiring`: nobody wishes it, its time is over; then a kiosk that was silent for long has lost it."""

    merchant: Merchant
    payment_id: str
    wish: Wish
    otherwise: Command[Payment]
    expiring: bool = False

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(payments=(self.payment_id,))

    def decide(self, plan: Plan) -> Payment:
        payment = plan.payment(self.payment_id)
        if payment is None or payment.merchant_id != self.merchant.id:
            raise NotFound("Payment not found")
        attempt = plan.attempt(payment.live_attempt_id)
        if attempt is None or attempt.external_id is None:
            return self.otherwise.decide(plan)
        return (
            self._expired(plan, payment, attempt) if self.expiring else self._wished(plan, payment, attempt)
        )

    def _wished(self, plan: Plan, payment: Payment, attempt: Attempt) -> Payment:
        kept = held(attempt)
        if self.wish.kind == "plan":
            if kept.report is None or kept.report.state != "awaiting_plan":
                raise NotAllowed("No plan is waited for now")
            if self.wish.plan_id not in _offered(kept.report):
                raise InvalidRequest("The terminal did not offer this plan", param="plan_id")
        wish_for(plan, self.merchant, attempt, self.wish)
        return payment

    def _expired(self, plan: Plan, payment: Payment, attempt: Attempt) -> Payment:
        lost_at = max(payment.expires_at, held(attempt).at + HELD_MS)
        if attempt.phase == "pending" and plan.now < lost_at:
            plan.at("expire", payment.id, payment.merchant_id, lost_at)
            return payment
        plan.done("expire", payment.id)
        return move(plan, self.merchant, attempt, Doubted())[0]


@record
class Loses:
    """Another kiosk took this account over: nobody will report of what the one before had."""

    merchant: Merchant
    attempt_id: str

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(attempts=(self.attempt_id,))

    def decide(self, plan: Plan) -> None:
        attempt = plan.attempt(self.attempt_id)
        if attempt is not None and attempt.external_id is not None and attempt.phase in LIVE:
            move(plan, self.merchant, attempt, Doubted())


def wish_for(plan: Plan, merchant: Merchant, attempt: Attempt, wish: Wish) -> None:
    """Keep a wish until a report shows that the kiosk followed it. A cancel is not replaced by anything."""
    kept, payment = held(attempt), plan.payment(attempt.payment_id)
    assert payment is not None
    if kept.wish is not None and kept.wish.kind in (wish.kind, "cancel"):
        return
    wish = msgspec.structs.replace(wish, txn_id=attempt.external_id)
    saved = plan.save(attempt, noted(attempt, Held(kept.at, kept.report, wish, kept.decision)))
    said = {"wished": wish.kind, "reason": wish.reason, "plan_id": wish.plan_id}
    note = {name: value for name, value in said.items() if value is not None}
    kind = "payment.updated"
    plan.event(kind, payment, saved, None, (), targets(merchant, payment, kind), note)


def decided(plan: Plan, payment: Payment, *, paid: bool, reason: str, by: str) -> None:
    """Keep an operator's word with the attempt that it is about, where a kiosk is to follow it."""
    for attempt in plan.attempts(payment.id):
        kept = kept_of(attempt.details)
        if kept is not None and (attempt.id == payment.live_attempt_id or attempt.paid_minor):
            plan.save(attempt, noted(attempt, Held(kept.at, kept.report, None, Decision(paid, reason, by))))


def _offered(report: Report) -> list[str]:
    plans = msgspec.json.decode(report.plans) if report.plans else []
    return [one["planId"] for one in plans if isinstance(one, dict) and isinstance(one.get("planId"), str)]


def _left(wish: Wish | None, report: Report) -> Wish | None:
    """The wish, while it is still open after this report."""
    if wish is None or (wish.kind == "plan" and report.state == "awaiting_plan" and report.plan_id is None):
        return wish
    going = report.state in ("pending", "processing", "awaiting_plan")
    return wish if wish.kind == "cancel" and going else None


def _asks_a_person(report: Report) -> bool:
    return report.state in ("requires_review", "unknown")


def _paid_with(report: Report) -> str:
    return f"{report.mode} ···{report.card_last4}" if report.card_last4 else report.mode
