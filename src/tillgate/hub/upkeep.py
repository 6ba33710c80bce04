"""What time and operators do to payments, calls to providers around the decisions of `closing`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Declined, NotAllowed, NotFound, Unreachable, Unsure
from tillgate.domain.payment import LIVE, Accepted, AnswerLost, Attempt, Closed, Closing, Payment, Refund
from tillgate.domain.record import replace
from tillgate.hub.closing import Closes, Lapses, LooksAgain, Resolves, Withdrawn
from tillgate.hub.keys import Kept, Key, Keyed, Recalls
from tillgate.hub.kiosk_orders import Wishes
from tillgate.hub.kit import Kit, found_nothing, log
from tillgate.hub.listening import Listening
from tillgate.hub.opening import LOOK_AFTER_START_MS
from tillgate.hub.refunding import Refunding, patience_ms
from tillgate.schemas_kiosk import Wish
from tillgate.spi import Cancels, Connector, Fetched, Looks
from tillgate.store.book import Command
from tillgate.store.directory import Account, Merchant
from tillgate.store.work import Due

RenderPayment: TypeAlias = Callable[[Payment], bytes]
Standing: TypeAlias = Literal["gone", "open", "unknown"]
"""How an attempt stands at its provider: closed or paid, still to be paid, or nobody there can be asked."""


class Upkeep:
    """`Hub.cancel`, `Hub.resolve`, and the worker's due work about attempts and payments."""

    def __init__(self, kit: Kit, listening: Listening, refunding: Refunding) -> None:
        self._kit = kit
        self._listening = listening
        self._refunding = refunding
        self.kinds: dict[str, Callable[[Due], Awaitable[None]]] = {
            "expire": self._expire,
            "lapse": self._lapse,
            "look": self._look,
            "withdraw": self._withdraw,
            "refund": self._refund,
            "look_refund": self._look_refund,
        }

    async def cancel(
        self,
        merchant: Merchant,
        payment_id: str,
        reason: str = "cancelled by the merchant",
        *,
        only_if_gone: bool = False,
    ) -> Payment:
        """Raises `NotFound`, `NotAllowed` once it is paid and where it is unsure at a provider that cannot be
        asked, `Unsure` where the provider did not answer.

        `only_if_gone`: and where its payer may still pay it. Without, it is closed here all the same, and
        what comes is booked as late."""
        closes, stands = await self._let_go(merchant, payment_id, reason)
        asked_back = isinstance(closes.connector, Fetched)  # where a kiosk has it: it is not closed meanwhile
        if only_if_gone and stands != "gone" and not asked_back:
            raise NotAllowed("This payment can still be paid")
        payment = await self._kit.journal.submit(_unless_held(closes))
        if asked_back:
            self._kit.bell(payment.account_id).set()
        return payment

    async def resolve(
        self,
        merchant: Merchant,
        payment_id: str,
        outcome: Literal["accept", "paid", "failed"],
        reason: str,
        by: str = "the merchant",
    ) -> Payment:
        """An operator's decision. Raises `NotFound` or `NotAllowed`."""
        return await self._kit.journal.submit(Resolves(merchant, payment_id, outcome, reason, by))

    async def cancel_once(
        self, merchant: Merchant, payment_id: str, reason: str, key: Key, render: RenderPayment
    ) -> Kept[Payment]:
        """`cancel`, with its answer kept. A repeat calls nobody."""
        answer = await self._kit.journal.submit(Recalls(merchant.id, key))
        if answer is not None:
            return Kept(None, answer)
        closes, _ = await self._let_go(merchant, payment_id, reason)
        return await self._kit.journal.submit(Keyed(_unless_held(closes), key, render))

    async def resolve_once(
        self,
        merchant: Merchant,
        payment_id: str,
        outcome: Literal["accept", "paid", "failed"],
        reason: str,
        key: Key,
        render: RenderPayment,
        by: str = "the merchant",
    ) -> Kept[Payment]:
        """`resolve`, with its answer kept."""
        resolves = Resolves(merchant, payment_id, outcome, reason, by)
        return await self._kit.journal.submit(Keyed(resolves, key, render))

    # --- due work: each is safe to run twice, and to be cut off anywhere ---

    async def _expire(self, due: Due) -> None:
        payment_id = due.subject
        payment = await self._kit.reads.payment(payment_id)
        if payment is None:
            return
        merchant = await self._kit.directory.merchant(payment.merchant_id)
        attempt = await self._kit.reads.live_attempt(payment.id)
        knowable = True
        if attempt is not None and self._over(attempt):
            # Its notice may have been lost: whoever paid in the last second has paid.
            stands = await self._withdraw_at_provider(merchant, payment, attempt, "expired")
            knowable = stands != "unknown"
        connector = self._connector(merchant, attempt)
        closes = Closes(merchant, payment_id, "expired", "expired", True, not knowable, connector)
        await self._kit.journal.submit(_unless_held(closes))

    async def _lapse(self, due: Due) -> None:
        found = await self._found(due.subject)
        if found is None:
            return
        merchant, _, payment, attempt = found
        if attempt.phase in LIVE and self._over(attempt):
            # That it was paid may have been said while we could not hear it.
            await self._withdraw_at_provider(merchant, payment, attempt, "expired")
        await self._kit.journal.submit(Lapses(merchant, due.subject))

    async def _withdraw(self, due: Due) -> None:
        """The order was paid another way while this attempt is open."""
        found = await self._found(due.subject)
        if found is None:
            return
        merchant, account, payment, attempt = found
        if attempt.phase in LIVE:
            await self._withdraw_at_provider(merchant, payment, attempt, "cancelled")
        await self._kit.journal.submit(Withdrawn(merchant, attempt.id, self._kit.connector(account)))

    async def _look(self, due: Due) -> None:
        found = await self._found(due.subject)
        if found is None:
            return
        merchant, account, payment, attempt = found
        connector, now = self._kit.connector(account), self._kit.clock()
        again = now + patience_ms(due.tries)
        fact: Closed | AnswerLost | None = None
        keep = answered = False
        if isinstance(connector, Looks):
            try:
                tell = await connector.look(self._kit.order(payment, attempt, account), self._kit.out)
            except (Declined, Unreachable, Unsure) as error:
                found_nothing(account, attempt.id, error)
            else:
                answered = True
                if tell is not None:
                    tell = replace(tell, operation_id=attempt.id)
                    told = await self._listening.told(merchant, account, tell, looking=True)
                    keep = told.verdict == "look"
                elif attempt.phase == "unsure" or (
                    attempt.phase == "created" and now - attempt.created_at >= LOOK_AFTER_START_MS
                ):  # a hint may send us here while the first call is still on its way
                    fact = Closed("failed", "the provider never got it")
        elif attempt.phase == "created":
            fact = AnswerLost()  # we may have stopped on either side of the call
        await self._kit.journal.submit(LooksAgain(merchant, due, again, fact, keep, connector, answered))

    async def _refund(self, due: Due) -> None:
        found = await self._refund_found(due.subject)
        if found is not None:
            await self._refunding.send(*found, due)

    async def _look_refund(self, due: Due) -> None:
        found = await self._refund_found(due.subject)
        if found is not None:
            await self._refunding.look(*found, due)

    # --- helpers ---

    def _over(self, attempt: Attempt) -> bool:
        """Whether it ends with its order; what a provider opened by asking has a time of its own."""
        return not attempt.asked or self._kit.clock() >= (attempt.expires_at or 0)

    async def _let_go(self, merchant: Merchant, payment_id: str, reason: str) -> tuple[Closes, Standing]:
        """Withdraw a merchant's payment at its provider, before it is cancelled here; how, and how it stands
        there."""
        payment = await self._kit.reads.payment(payment_id)
        if payment is None or payment.merchant_id != merchant.id:
            raise NotFound("Payment not found")
        attempt = await self._kit.reads.live_attempt(payment.id)
        stands: Standing = "gone"
        if attempt is not None:
            stands = await self._withdraw_at_provider(merchant, payment, attempt, "cancelled")
        connector = self._connector(merchant, attempt)
        return Closes(
            merchant, payment_id, "cancelled", reason, False, stands == "unknown", connector
        ), stands

    async def _withdraw_at_provider(
        self, merchant: Merchant, payment: Payment, attempt: Attempt, why: Closing
    ) -> Standing:
        """Have the attempt closed there, or learn that it was paid; how it stands there now.

        Raises `Unreachable` or `Unsure`."""
        account = merchant.account(attempt.account_id)
        if account is None:
            return "unknown"
        connector = self._kit.connector(account)
        order = self._kit.order(payment, attempt, account)
        tell: Tell | None = None
        knowable = False
        try:
            if isinstance(connector, Cancels):
                try:
                    tell = _closing(await connector.cancel(order, self._kit.out), why)
                    knowable = True
                except Declined as error:  # too late, or it never had it
                    found_nothing(account, attempt.id, error)
            if not knowable and isinstance(connector, Looks):
                try:
                    tell = await connector.look(order, self._kit.out)
                    knowable = True
                except Declined as error:
                    found_nothing(account, attempt.id, error)
        except (Unreachable, Unsure):
            raise
        except Exception as error:
            log.error("a connector failed", provider=account.provider, payment=payment.id, exc_info=True)
            raise Unsure("whether it was withdrawn is not known") from error
        if tell is not None:
            await self._listening.told(merchant, account, replace(tell, operation_id=attempt.id))
        if not knowable:
            return "unknown"
        return "open" if tell is not None and any(isinstance(one, Accepted) for one in tell.facts) else "gone"

    def _connector(self, merchant: Merchant, attempt: Attempt | None) -> Connector:
        account = merchant.account(attempt.account_id) if attempt else None
        return self._kit.connector(account) if account else None

    async def _found(self, attempt_id: str) -> tuple[Merchant, Account, Payment, Attempt] | None:
        attempt = await self._kit.reads.attempt(attempt_id)
        if attempt is None:
            return None
        payment = await self._kit.reads.payment(attempt.payment_id)
        merchant = await self._kit.directory.merchant(attempt.merchant_id)
        account = merchant.account(attempt.account_id)
        assert payment is not None
        return (merchant, account, payment, attempt) if account else None

    async def _refund_found(
        self, refund_id: str
    ) -> tuple[Merchant, Account, Payment, Attempt, Refund] | None:
        refund = await self._kit.reads.refund(refund_id)
        found = await self._found(refund.attempt_id) if refund else None
        return (*found, refund) if found and refund else None


def _unless_held(closes: Closes) -> Command[Payment]:
    """What a kiosk has taken is not closed, but asked back; a late kiosk makes it unsure."""
    if not isinstance(closes.connector, Fetched):
        return closes
    wish = Wish("", "cancel", reason=closes.reason)
    return Wishes(closes.merchant, closes.payment_id, wish, closes, expiring=closes.now_due)


def _closing(tell: Tell, why: Closing) -> Tell:
    """A provider says "cancelled" of what we closed because its time was over: the reason is ours."""
    facts = tuple(
        replace(fact, why=why) if isinstance(fact, Closed) and fact.why == "cancelled" else fact
        for fact in tell.facts
    )
    return replace(tell, facts=facts)
