"""Failover: an order whose first provider could not be reached goes on with the next one.

Only where nothing was sent: the first attempt is closed as never begun and the next one opened in the same
commit, so that there is never more than one that a payer could pay, and nobody hears of a failure.
"""

from __future__ import annotations

from tillgate.domain import ledger
from tillgate.domain.errors import Misconfigured, RequestError
from tillgate.domain.payment import Attempt, Closed, Payment, advance, follow
from tillgate.domain.record import record, replace
from tillgate.hub.kit import Choice, Kit, log, serving, targets
from tillgate.hub.moves import event_kind
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Merchant


def next_choice(kit: Kit, merchant: Merchant, payment: Payment, attempt: Attempt) -> Choice | None:
    """The account that serves this channel after the attempt's own. Never the sandbox: what was meant for a
    real wallet must not be paid in a pretended one."""
    accounts = serving(merchant, payment.channel)
    ids = [one.id for one in accounts]
    if attempt.account_id not in ids:
        return None
    for account in accounts[ids.index(attempt.account_id) + 1 :]:
        provider = kit.providers.get(account.provider)
        if account.disabled or provider is None or provider.asks or provider.sandbox_only:
            continue
        found = next((one for one in provider.channels if one.id == payment.channel), None)
        if found is None or found.currency != payment.currency:
            continue
        if not found.min_minor <= payment.amount_minor <= found.max_minor:
            continue
        try:
            return kit.choose(merchant, payment.channel, account.id)
        except Misconfigured as error:
            log.error("an account cannot take over", account=account.id, why=str(error))
    return None


@record
class Reroutes:
    """Close an attempt that never left us and open the next; None where the order has gone on without us."""

    merchant: Merchant
    attempt_id: str
    why: str
    choice: Choice
    next_id: str
    look_after_ms: int

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(attempts=(self.attempt_id,))

    def decide(self, plan: Plan) -> tuple[Payment, Attempt] | None:
        attempt = plan.attempt(self.attempt_id)
        assert attempt is not None
        payment = plan.payment(attempt.payment_id)
        assert payment is not None
        if attempt.phase != "created" or payment.live_attempt_id != attempt.id:
            return None
        account = self.choice.account
        closed = advance(attempt, Closed("failed", self.why), plan.now)
        moved = replace(follow(payment, attempt, closed), account_id=account.id)  # open still
        try:
            show = self.choice.invite(moved, self.next_id) if self.choice.invite else None
        except RequestError:  # not for this amount, or not without what the merchant did not give
            return None
        opened = replace(
            attempt,
            id=self.next_id,
            account_id=account.id,
            provider=account.provider,
            phase="created" if show is None else "pending",
            show=show,
            details=None,
            created_at=plan.now,
            version=1,
        )
        closed = plan.save(attempt, closed)
        moved = self._say(plan, payment, moved, closed)
        saved = self._say(plan, moved, follow(moved, None, opened), plan.save(None, opened))
        plan.done("look", attempt.id)
        if opened.phase == "created":
            plan.at("look", opened.id, opened.merchant_id, plan.now + self.look_after_ms)
        return saved, opened

    def _say(self, plan: Plan, before: Payment, after: Payment, attempt: Attempt) -> Payment:
        saved = plan.save(before, after)
        kind = event_kind(before, saved)
        postings = ledger.postings(before, saved, attempt.account_id)
        plan.event(kind, saved, attempt, None, postings, targets(self.merchant, saved, kind))
        return saved
