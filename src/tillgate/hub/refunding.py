"""Send money back. The promise is committed with the row locked; the call to the provider is due work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tillgate.domain import ledger
from tillgate.domain.errors import (
    Declined,
    InvalidRequest,
    NotFound,
    RefundNotAllowed,
    RequestError,
    Unreachable,
    Unsure,
)
from tillgate.domain.payment import (
    OPEN_REFUND,
    Attempt,
    Payment,
    Refund,
    RefundAccepted,
    RefundAnswerLost,
    RefundFact,
    RefundFailed,
    follow_refund,
    refund_allowed,
)
from tillgate.domain.record import record, replace
from tillgate.hub.closing import LOOKS_AFTER_END
from tillgate.hub.keys import Key, recall, remembered, stored
from tillgate.hub.kit import Kit, found_nothing, log, targets
from tillgate.hub.listening import Listening
from tillgate.hub.moves import move_refund
from tillgate.spi import Looks, RefundRules, Refunds
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import new_id
from tillgate.store.work import Due

_PATIENCE_MS: Final = (5_000, 15_000, 60_000, 300_000, 1_800_000, 7_200_000)
"""Between two tries to send or to look up a refund."""

LOOKS_AFTER_LOSS: Final = 5
"""How often a refund whose answer was lost must be seen not to have happened, over some forty minutes, before
a provider's refusal to take it again ends it."""

RenderRefund = Callable[[Payment, Refund], bytes]


def patience_ms(tries: int) -> int:
    return _PATIENCE_MS[min(tries, len(_PATIENCE_MS) - 1)]


@record
class RefundOpened:
    payment: Payment
    refund: Refund | None
    stored: tuple[int, bytes] | None = None


@record
class OpenRefund:
    """Promise a refund: it counts against what is left from this commit on."""

    merchant: Merchant
    payment_id: str
    amount_minor: int
    reason: str
    refund_id: str
    rules: Callable[[Attempt], RefundRules | None]
    key: Key | None
    render: RenderRefund | None

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(payments=(self.payment_id,), idempotency=(self.key.digest,) if self.key else ())

    def decide(self, plan: Plan) -> RefundOpened:
        payment = plan.payment(self.payment_id)
        if payment is None or payment.merchant_id != self.merchant.id:
            raise NotFound("Payment not found")
        answer = recall(plan, self.key)
        if answer is not None:
            return RefundOpened(payment, None, stored(answer))
        refund_allowed(payment, self.amount_minor)
        attempt = self._source(plan, payment)
        refund = Refund(
            id=self.refund_id,
            payment_id=payment.id,
            attempt_id=attempt.id,
            merchant_id=self.merchant.id,
            external_id=None,
            phase="created",
            reason=self.reason,
            failure=None,
            currency=payment.currency,
            amount_minor=self.amount_minor,
            created_at=plan.now,
            done_at=None,
            version=1,
        )
        after = follow_refund(payment, None, refund)
        postings = ledger.postings(payment, after, attempt.account_id)
        saved = plan.save(payment, after)
        plan.save(None, refund)
        plan.event(
            "refund.created", saved, None, refund, postings, targets(self.merchant, saved, "refund.created")
        )
        plan.at("refund", refund.id, self.merchant.id, plan.now)
        if self.key is not None:
            assert self.render is not None
            plan.answers.append(remembered(self.key, refund.id, self.render(saved, refund), plan.now))
        return RefundOpened(saved, refund)

    def _source(self, plan: Plan, payment: Payment) -> Attempt:
        """The attempt whose money goes back: one that brought enough, and whose provider can."""
        refusal: RequestError = RefundNotAllowed()
        for attempt in plan.attempts(payment.id):
            left = attempt.paid_minor - attempt.refunded_minor - attempt.reversed_minor
            if left < self.amount_minor:
                continue
            rules = self.rules(attempt)
            if rules is None:
                refusal = RefundNotAllowed("This provider cannot send money back by itself")
            elif rules.window_s is not None and plan.now - (attempt.paid_at or 0) > rules.window_s * 1000:
                refusal = RefundNotAllowed("The time for refunds of this payment is over")
            elif not rules.partial and self.amount_minor != attempt.paid_minor:
                refusal = RefundNotAllowed("This provider refunds whole payments only")
            elif self.amount_minor % rules.step_minor:
                refusal = InvalidRequest(
                    f"This provider refunds multiples of {rules.step_minor} minor units", param="amount_minor"
                )
            else:
                return attempt
        raise refusal


@record
class RefundMoves:
    """Book what due work about a refund brought, and what is due next."""

    merchant: Merchant
    due: Due
    fact: RefundFact | None  # None: nothing new
    again_at: int  # when to look or to try again
    in_vain: bool = False  # a look that nobody answered

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(refunds=(self.due.subject,))

    def decide(self, plan: Plan) -> None:
        refund = plan.refund(self.due.subject)
        assert refund is not None
        if self.fact is not None:
            _, refund = move_refund(plan, self.merchant, refund, self.fact)
        if refund.phase not in OPEN_REFUND and self.in_vain and self.due.tries < LOOKS_AFTER_END:
            plan.conclude(self.due, self.again_at)  # a hint about it was answered, and is not repeated
        elif refund.phase not in OPEN_REFUND:
            plan.done("refund", refund.id)
            plan.done("look_refund", refund.id)
        elif refund.phase == "created":  # nothing left us, so the next try is the first
            plan.at("refund", refund.id, refund.merchant_id, self.again_at)
        elif self.due.kind == "look_refund":
            plan.conclude(self.due, self.again_at)
        else:
            plan.conclude(self.due, None)
            plan.at("look_refund", refund.id, refund.merchant_id, self.again_at)


class Refunding:
    """`Hub.refund`, and the due work behind it."""

    def __init__(self, kit: Kit, listening: Listening) -> None:
        self._kit = kit
        self._listening = listening

    async def refund(
        self,
        merchant: Merchant,
        payment_id: str,
        amount_minor: int,
        reason: str,
        key: Key | None = None,
        render: RenderRefund | None = None,
    ) -> RefundOpened:
        """Raises `NotFound`, `RefundNotAllowed`, `InvalidRequest`, `IdempotencyMismatch`, `Unavailable`."""
        kit = self._kit
        refund_id = new_id("refund_", kit.clock())

        def rules(attempt: Attempt) -> RefundRules | None:
            account = merchant.account(attempt.account_id)
            connector = kit.connector(account) if account else None
            return connector.refund_rules(attempt.channel) if isinstance(connector, Refunds) else None

        opened = await kit.journal.submit(
            OpenRefund(merchant, payment_id, amount_minor, reason, refund_id, rules, key, render)
        )
        return opened

    async def send(
        self,
        merchant: Merchant,
        account: Account,
        payment: Payment,
        attempt: Attempt,
        refund: Refund,
        due: Due,
    ) -> None:
        """Due work `refund`. Above the first try an earlier one was cut off, perhaps behind its call, so that
        we must look before anything is sent."""
        now = self._kit.clock()
        if refund.phase == "created" and due.tries == 1:
            await self._call(merchant, account, payment, attempt, refund, due)
        else:
            lost = RefundAnswerLost() if refund.phase == "created" else None
            await self._book(merchant, due, lost, now)

    async def look(
        self,
        merchant: Merchant,
        account: Account,
        payment: Payment,
        attempt: Attempt,
        refund: Refund,
        due: Due,
    ) -> None:
        """Due work `look_refund`."""
        connector = self._kit.connector(account)
        order = await self._kit.refund_order(payment, attempt, refund, account)
        again, in_vain = self._kit.clock() + patience_ms(due.tries), False
        if isinstance(connector, Looks):
            try:
                tell = await connector.look_refund(order, self._kit.out)
            except (Declined, Unreachable, Unsure) as error:
                found_nothing(account, refund.id, error)
                in_vain = True
            else:
                if tell is not None:
                    await self._listening.told(merchant, account, replace(tell, operation_id=refund.id))
                elif refund.phase == "unsure":
                    # It never arrived, so it is sent under its own id once more.
                    await self._call(merchant, account, payment, attempt, refund, due)
                    return
        await self._book(merchant, due, None, again, in_vain)

    async def _call(
        self,
        merchant: Merchant,
        account: Account,
        payment: Payment,
        attempt: Attempt,
        refund: Refund,
        due: Due,
    ) -> None:
        connector = self._kit.connector(account)
        order = await self._kit.refund_order(payment, attempt, refund, account)
        now = self._kit.clock()
        soon = now + min(max((now - refund.created_at) // 4, 5_000), 1_800_000)
        fact: RefundFact | None
        try:
            rules = connector.refund_rules(attempt.channel)
            if rules and not rules.parallel and await self._another_first(payment, refund):
                await self._book(merchant, due, None, soon)
                return
            tell = await connector.refund(order, self._kit.out)
        except Unreachable:
            await self._book(merchant, due, None, soon)
            return
        except Declined as error:
            if refund.phase == "unsure" and due.tries < LOOKS_AFTER_LOSS:
                # What was lost may be on its way, and be why this one was declined: look again, later.
                await self._book(merchant, due, None, now + patience_ms(due.tries))
                return
            fact = RefundFailed(str(error)[:300])
        except Unsure:
            fact = RefundAnswerLost()
        except Exception:  # noqa: BLE001 - whatever broke after the call may have left us
            log.error(
                "a connector failed",
                provider=account.provider,
                payment=refund.payment_id,
                refund=refund.id,
                exc_info=True,
            )
            fact = RefundAnswerLost()
        else:
            await self._listening.told(merchant, account, replace(tell, operation_id=refund.id))
            fact = RefundAccepted()
        await self._book(merchant, due, fact, now + patience_ms(0))

    async def _another_first(self, payment: Payment, refund: Refund) -> bool:
        """Of several refunds where the provider runs one at a time, the oldest goes first."""
        if payment.refunding_minor <= refund.amount_minor:
            return False
        return await self._kit.reads.oldest_open_refund(payment.id) != refund.id

    async def _book(
        self, merchant: Merchant, due: Due, fact: RefundFact | None, again_at: int, in_vain: bool = False
    ) -> None:
        await self._kit.journal.submit(RefundMoves(merchant, due, fact, again_at, in_vain))
