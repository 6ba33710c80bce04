"""Open a payment: one commit where the payer can be invited at once, two around a call where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tillgate.domain import ledger
from tillgate.domain.errors import (
    Declined,
    InFlight,
    InvalidRequest,
    OrderConflict,
    Unreachable,
    Unsure,
)
from tillgate.domain.payment import LIVE, Accepted, AnswerLost, Attempt, Closed, Fact, Payment, follow
from tillgate.domain.record import record, replace
from tillgate.hub.keys import Key, known_answer, remembered, stored
from tillgate.hub.kit import Choice, Invite, Kit, log, order_key, shown, targets
from tillgate.hub.moves import event_kind, hinted, move
from tillgate.hub.pushed import Pushed
from tillgate.hub.rerouting import Reroutes, next_choice
from tillgate.hub.watching import first_look_ms
from tillgate.spi import Channel, Names, can
from tillgate.store.book import Needs, Plan, Remembered
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import new_id

LOOK_AFTER_START_MS: Final = 60_000


@record
class Intent:
    """What a merchant asks to collect."""

    order_id: str
    amount_minor: int
    currency: str
    channel: str
    account: str | None = None
    callback_url: str | None = None
    metadata: str | None = None  # JSON object
    ttl_s: int | None = None
    standing_id: str | None = None  # the payment link that it is of


@record
class Opened:
    payment: Payment
    attempt: Attempt | None
    replayed: bool = False
    stored: tuple[int, bytes] | None = None  # the first answer to the same Idempotency-Key


Render = Callable[[Payment, Attempt | None], bytes]


@record
class Open:
    """The payment and its first attempt, or a new attempt for a payment that failed."""

    merchant: Merchant
    account: Account
    intent: Intent
    order_key: bytes
    payment_id: str
    attempt_id: str
    invite: Invite | None  # the payer is invited at once, where it can
    starts: bool  # the provider can be told
    expires_at: int
    key: Key | None
    render: Render | None
    pushed: Pushed | None = None  # what the provider will call it

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(
            orders=(self.order_key,),
            idempotency=(self.key.digest,) if self.key else (),
            named=(self.pushed.digest,) if self.pushed else (),
        )

    def decide(self, plan: Plan) -> Opened:
        known = plan.order(self.order_key)
        answer = known_answer(plan, self.key)
        if answer is not None and known is not None:
            return self._repeated(plan, answer, known)
        if known is None and plan.standing_order(self.order_key) is not None:
            raise OrderConflict("This order_id belongs to a standing order")
        if known is None:
            return self._answered(plan, self._begin(plan, None, self._new()))
        if not self._same(known):
            raise OrderConflict()
        if self.intent.standing_id not in (None, known.standing_id):
            raise OrderConflict("An order with the reference of this payment link was opened without it")
        if known.closed is None or known.paid_minor or known.hold or known.live_attempt_id:
            if known.channel != self.intent.channel:
                raise OrderConflict()
            return self._answered(plan, Opened(known, self._latest(plan, known), True))
        again = replace(
            known,
            channel=self.intent.channel,
            account_id=self.account.id,
            callback_url=self.intent.callback_url or known.callback_url,
            metadata=self.intent.metadata or known.metadata,
            expires_at=self.expires_at,
        )
        return self._answered(plan, self._begin(plan, known, again))

    def _repeated(self, plan: Plan, answer: Remembered, known: Payment) -> Opened:
        """The same request again: its first answer, or what the payment itself says became of it.

        Raises `InFlight` while the first may still be waiting for the provider."""
        if answer.status is not None:
            return Opened(known, None, True, stored(answer))
        attempt = self._latest(plan, known)
        if attempt is not None and attempt.phase == "created":
            if plan.now - attempt.created_at < LOOK_AFTER_START_MS:
                raise InFlight()
            # Its process died during the call: nobody else will ever hear the provider's answer.
            known, attempt = move(plan, self.merchant, attempt, AnswerLost())
        opened = Opened(known, attempt)
        assert self.key is not None
        plan.answers.append(remembered(self.key, known.id, self._body(opened), plan.now))
        return opened

    def _same(self, known: Payment) -> bool:
        return (known.amount_minor, known.currency) == (self.intent.amount_minor, self.intent.currency)

    def _latest(self, plan: Plan, payment: Payment) -> Attempt | None:
        attempts = sorted(plan.attempts(payment.id), key=lambda one: one.id)
        return plan.attempt(payment.live_attempt_id) or (attempts[-1] if attempts else None)

    def _begin(self, plan: Plan, known: Payment | None, payment: Payment) -> Opened:
        if self.pushed is not None:
            self.pushed.take(plan, self.attempt_id)
        attempt = self._attempt(payment, plan.now)
        after = payment if known is None else replace(payment, closed=None, status="pending")
        if attempt is not None and (known is not None or attempt.phase != "pending"):
            after = follow(after, None, attempt)
        saved = plan.save(known, after)
        if attempt is not None:
            plan.save(None, attempt)
        kind = event_kind(known, saved)
        postings = ledger.postings(known, saved, self.account.id)
        plan.event(kind, saved, attempt, None, postings, targets(self.merchant, saved, kind))
        plan.at("expire", saved.id, saved.merchant_id, self.expires_at)
        if attempt is not None and attempt.phase == "created":
            plan.at("look", attempt.id, saved.merchant_id, plan.now + LOOK_AFTER_START_MS)
        return Opened(saved, attempt)

    def _answered(self, plan: Plan, opened: Opened) -> Opened:
        if self.key is not None:
            in_flight = opened.attempt is not None and opened.attempt.phase == "created"
            if in_flight and opened.replayed:
                raise InFlight()  # of another request for this order
            body = None if in_flight else self._body(opened)
            status = 200 if opened.replayed else None
            plan.answers.append(remembered(self.key, opened.payment.id, body, plan.now, status))
        return opened

    def _body(self, opened: Opened) -> bytes:
        assert self.render is not None
        return self.render(opened.payment, opened.attempt)

    def _new(self) -> Payment:
        """The payment as it is most often: its payer is invited at once."""
        intent = self.intent
        invited = self.invite is not None or self.starts
        return Payment(
            id=self.payment_id,
            merchant_id=self.merchant.id,
            order_id=intent.order_id,
            order_key=self.order_key,
            standing_id=intent.standing_id,
            channel=intent.channel,
            account_id=self.account.id,
            currency=intent.currency,
            amount_minor=intent.amount_minor,
            status="pending",
            live_attempt_id=self.attempt_id if invited else None,
            live_phase="pending" if invited else None,
            callback_url=intent.callback_url,
            metadata=intent.metadata,
            created_at=self.expires_at - (intent.ttl_s or self.merchant.settings.payment_ttl_s) * 1000,
            expires_at=self.expires_at,
            version=1,
        )

    def _attempt(self, payment: Payment, now: int) -> Attempt | None:
        """None where the provider itself opens attempts, by asking."""
        if self.invite is None and not self.starts:
            return None
        show = self.invite(payment, self.attempt_id) if self.invite else None
        return Attempt(
            id=self.attempt_id,
            payment_id=payment.id,
            merchant_id=self.merchant.id,
            account_id=self.account.id,
            provider=self.account.provider,
            channel=self.intent.channel,
            phase="created" if show is None else "pending",
            currency=self.intent.currency,
            amount_minor=self.intent.amount_minor,
            show=show,
            created_at=now,
            expires_at=self.expires_at,
            live_of=payment.id,
            version=1,
        )


@record
class Concluded:
    """What the call to the provider brought, and the answer that its request gets."""

    merchant: Merchant
    payment_id: str
    attempt_id: str
    fact: Fact
    key: Key | None
    render: Render | None
    look_after_ms: int | None = None  # how long to wait for a notice before looking without one

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(payments=(self.payment_id,), idempotency=(self.key.digest,) if self.key else ())

    def decide(self, plan: Plan) -> Opened:
        attempt = plan.attempt(self.attempt_id)
        assert attempt is not None
        payment, attempt = move(plan, self.merchant, attempt, self.fact)
        if isinstance(self.fact, Accepted) and self.look_after_ms is None:
            plan.done("look", attempt.id)
        elif isinstance(self.fact, Accepted) and attempt.phase in LIVE and not hinted(attempt):
            # A hint that overtook this answer has its look already, and sooner.
            plan.at("look", attempt.id, self.merchant.id, plan.now + (self.look_after_ms or 0))
        answer = known_answer(plan, self.key)
        if answer is not None and answer.status is not None:  # a repeat gave up waiting for us
            return Opened(payment, attempt, True, stored(answer))
        if self.key is not None:
            assert self.render is not None
            body = self.render(payment, attempt)
            plan.answers.append(remembered(self.key, payment.id, body, plan.now))
        return Opened(payment, attempt)


class Opening:
    """`Hub.open`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def open(
        self, merchant: Merchant, intent: Intent, key: Key | None = None, render: Render | None = None
    ) -> Opened:
        """Open a payment, or find the one that this order already has.

        Raises `InvalidRequest`, `OrderConflict`, `NoProvider`, `IdempotencyMismatch`, `InFlight`,
        `Unavailable`. An answer that was lost on the way is no error: the payment is `unsure`."""
        kit = self._kit
        choice = kit.choose(merchant, intent.channel, intent.account)
        _within(intent, choice.channel)
        now = kit.clock()
        command = Open(
            merchant=merchant,
            account=choice.account,
            intent=intent,
            order_key=order_key(merchant.id, intent.order_id),
            payment_id=new_id("pay_", now),
            attempt_id=new_id("att_", now),
            invite=choice.invite,
            starts=choice.starts,
            expires_at=now + (intent.ttl_s or merchant.settings.payment_ttl_s) * 1000,
            key=key,
            render=render,
        )
        if can(kit.connector(choice.account), Names):
            pushed = kit.pushed(command._new(), command.attempt_id, choice.account)
            command = replace(command, pushed=pushed)
        if kit.asks(choice.account):
            kit.invitation(command._new(), choice.account)  # raises where the payer could not be shown how
        opened = await kit.journal.submit(command)
        if choice.fetched:
            kit.bell(choice.account.id).set()
        if opened.replayed or opened.attempt is None or opened.attempt.phase != "created":
            return opened
        return await self._start(merchant, choice.account, opened, key, render, intent.account is None)

    async def _start(
        self,
        merchant: Merchant,
        account: Account,
        opened: Opened,
        key: Key | None,
        render: Render | None,
        failover: bool,
    ) -> Opened:
        attempt = opened.attempt
        assert attempt is not None
        order = self._kit.order(opened.payment, attempt, account)
        connector = self._kit.connector(account)
        look_after_ms = first_look_ms(connector, attempt, self._kit.clock())
        fact: Fact
        try:
            started = await connector.start(order, self._kit.out)
            fact = Accepted(started.external_id, shown(started.show), started.expires_at)
        except Declined as error:
            fact = Closed("failed", str(error)[:300])
        except Unreachable as error:
            fact = Closed("failed", str(error)[:300])
            choice = next_choice(self._kit, merchant, opened.payment, attempt) if failover else None
            moved = choice and await self._reroute(merchant, attempt, choice, str(error)[:300])
            if choice and moved:
                opened = Opened(*moved)
                if moved[1].phase == "created":
                    return await self._start(merchant, choice.account, opened, key, render, failover)
                attempt, fact = moved[1], Accepted()
        except Unsure:
            fact = AnswerLost()
        except Exception:  # noqa: BLE001 - whatever broke after the call may have left us
            log.error(
                "a connector failed", provider=account.provider, payment=order.payment_id, exc_info=True
            )
            fact = AnswerLost()
        done = Concluded(merchant, opened.payment.id, attempt.id, fact, key, render, look_after_ms)
        return await self._kit.journal.submit(done)

    async def _reroute(
        self, merchant: Merchant, attempt: Attempt, choice: Choice, why: str
    ) -> tuple[Payment, Attempt] | None:
        kit = self._kit
        next_id = new_id("att_", kit.clock())
        reroutes = Reroutes(merchant, attempt.id, why, choice, next_id, LOOK_AFTER_START_MS)
        return await kit.journal.submit(reroutes)


def _within(intent: Intent, channel: Channel) -> None:
    if intent.currency != channel.currency:
        raise InvalidRequest(f"{channel.name} takes {channel.currency}", param="currency")
    if not channel.min_minor <= intent.amount_minor <= channel.max_minor:
        raise InvalidRequest(f"amount is outside what {channel.name} takes", param="amount")
