"""What time and operators do to an attempt or a payment, each as one decision: close, lapse, look, withdraw,
resolve."""

from __future__ import annotations

from typing import Final, Literal

from tillgate.domain import dialogue, ledger
from tillgate.domain.errors import NotAllowed, NotFound
from tillgate.domain.payment import LIVE, AnswerLost, Closed, Closing, Paid, Payment, close, derived
from tillgate.domain.record import record, replace
from tillgate.hub.kiosk_orders import decided, wish_for
from tillgate.hub.kit import targets
from tillgate.hub.moves import event_kind, move
from tillgate.hub.watching import rearm
from tillgate.schemas_kiosk import Wish
from tillgate.spi import Connector, Fetched, Looks, Schedules
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Merchant
from tillgate.store.work import Due


@record
class Closes:
    """Close a payment by our own clock or wish, and its live attempt with it."""

    merchant: Merchant
    payment_id: str
    why: Closing
    reason: str
    now_due: bool = True  # False: an operator or merchant wishes it now
    unsure_stays: bool = False  # nobody can say whether the provider has it: only an operator may
    connector: Connector = None

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
        if payment.paid_minor or payment.closed:
            plan.done("expire", payment.id)
            if self.now_due or payment.closed:
                return payment
            raise NotAllowed("This payment is paid; refund it instead")
        if self.now_due and plan.now < payment.expires_at:
            plan.at("expire", payment.id, payment.merchant_id, payment.expires_at)
            return payment
        if attempt is not None:
            if self.unsure_stays and attempt.phase == "unsure":
                if not self.now_due:
                    raise NotAllowed("Nobody can say whether this payment was taken; resolve it")
                plan.done("expire", payment.id)
                return payment
            if self.now_due and attempt.asked and plan.now < (attempt.expires_at or 0):
                # The provider holds it and may still settle it by its own rules.
                plan.at("expire", payment.id, payment.merchant_id, attempt.expires_at or 0)
                return payment
            payment, attempt = move(plan, self.merchant, attempt, Closed(self.why, self.reason))
            rearm(plan, self.connector, attempt)
        if payment.closed is None:
            closed = close(payment, self.why)
            postings = ledger.postings(payment, closed, payment.account_id)
            payment = plan.save(payment, closed)
            kind = event_kind(None, payment)
            plan.event(kind, payment, None, None, postings, targets(self.merchant, payment, kind))
        plan.done("expire", payment.id)
        return payment


@record
class Lapses:
    """Close a transaction that outlived its provider's time (Payme: 12 hours)."""

    merchant: Merchant
    attempt_id: str

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(attempts=(self.attempt_id,))

    def decide(self, plan: Plan) -> None:
        attempt = plan.attempt(self.attempt_id)
        plan.done("lapse", self.attempt_id)
        if attempt is None or attempt.phase not in LIVE:
            return
        if plan.now < (attempt.expires_at or 0):
            plan.at("lapse", attempt.id, attempt.merchant_id, attempt.expires_at or 0)
            return
        move(plan, self.merchant, attempt, Closed("expired", dialogue.TIMEOUT))


LOOKS_AFTER_END: Final = 14
"""How often what is closed or paid is looked at in vain, over some sixteen hours: a hint about it was
answered with 200, so that its provider does not repeat it."""


@record
class LooksAgain:
    """What a look that brought no evidence means, and when to look next."""

    merchant: Merchant
    due: Due
    at: int
    fact: Closed | AnswerLost | None = None
    keep: bool = False  # evidence came that cannot be true yet
    connector: Connector = None
    answered: bool = False

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(attempts=(self.due.subject,))

    def decide(self, plan: Plan) -> None:
        attempt = plan.attempt(self.due.subject)
        assert attempt is not None
        if self.fact is not None:
            _, attempt = move(plan, self.merchant, attempt, self.fact)
        in_vain = isinstance(self.connector, Looks) and not self.answered and self.due.tries < LOOKS_AFTER_END
        at = self.at if self.keep or in_vain or attempt.phase in LIVE else None
        if isinstance(self.connector, Schedules) and attempt.phase not in ("created", "unsure"):
            scheduled = self.connector.next_look(attempt, plan.now)
            if scheduled is None:
                at = self.at if in_vain else None
            else:
                at = scheduled if self.answered and not self.keep else self.at
        plan.conclude(self.due, at)


@record
class Withdrawn:
    """An attempt that nobody may pay any more, because its order was paid another way."""

    merchant: Merchant
    attempt_id: str
    connector: Connector = None

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(attempts=(self.attempt_id,))

    def decide(self, plan: Plan) -> None:
        attempt = plan.attempt(self.attempt_id)
        assert attempt is not None
        if isinstance(self.connector, Fetched) and attempt.external_id and attempt.phase in LIVE:
            wish_for(plan, self.merchant, attempt, Wish("", "cancel", reason="paid another way"))
            plan.done("withdraw", attempt.id)
            return
        _, attempt = move(plan, self.merchant, attempt, Closed("cancelled", "paid another way"))
        rearm(plan, self.connector, attempt)
        plan.done("withdraw", attempt.id)


@record
class Resolves:
    """An operator's word on a payment that is held or unsure, kept with its reason."""

    merchant: Merchant
    payment_id: str
    outcome: Literal["accept", "paid", "failed"]
    reason: str
    by: str = "the merchant"

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(payments=(self.payment_id,))

    def decide(self, plan: Plan) -> Payment:
        payment = plan.payment(self.payment_id)
        if payment is None or payment.merchant_id != self.merchant.id:
            raise NotFound("Payment not found")
        note = {"resolved": self.outcome, "reason": self.reason, "by": self.by}
        if self.outcome == "accept":
            if payment.hold is None:
                raise NotAllowed("This payment is not held for review")
            if not payment.paid_minor:
                raise NotAllowed("Nothing came in this payment's currency that could be accepted")
            saved = self._released(plan, payment, note)
            decided(plan, saved, paid=True, reason=self.reason, by=self.by)
            return saved
        if self.outcome == "failed" and payment.hold is not None and not payment.paid_minor:
            return self._released(plan, payment, note)  # nothing came that could be booked
        attempt = plan.attempt(payment.live_attempt_id)
        if attempt is None or attempt.phase != "unsure":
            raise NotAllowed("This payment is not unsure")
        decided(plan, payment, paid=self.outcome == "paid", reason=self.reason, by=self.by)
        attempt = plan.attempt(attempt.id)
        assert attempt is not None
        kind = "payment.resolved"
        plan.event(kind, payment, None, None, (), targets(self.merchant, payment, kind), note)
        fact = (
            Closed("failed", self.reason)
            if self.outcome == "failed"
            else Paid(attempt.amount_minor, attempt.currency)
        )
        payment, _ = move(plan, self.merchant, attempt, fact)
        return payment

    def _released(self, plan: Plan, payment: Payment, note: dict[str, str]) -> Payment:
        after = derived(replace(payment, hold=None))
        postings = ledger.postings(payment, after, payment.account_id)
        saved = plan.save(payment, after)
        kind = event_kind(payment, saved)
        plan.event(kind, saved, None, None, postings, targets(self.merchant, saved, kind), dict(note))
        return saved
