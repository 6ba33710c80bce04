"""Standing orders: payables with no fixed amount. The provider opens each of their payments by asking."""

from __future__ import annotations

from collections.abc import Callable

from tillgate.domain.errors import InvalidRequest, NotAllowed, NotFound, OrderConflict
from tillgate.domain.payment import StandingOrder
from tillgate.domain.record import record, replace
from tillgate.hub.configuring import endpoint_targets
from tillgate.hub.keys import Key, recall, remembered, stored
from tillgate.hub.kit import Kit, order_key
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Merchant
from tillgate.store.ids import new_id

Render = Callable[[StandingOrder], bytes]


@record
class StandingIntent:
    """What may be paid again and again under one `order_id`; the limits are of each payment."""

    order_id: str
    currency: str
    channel: str
    account: str | None = None
    min_minor: int | None = None
    max_minor: int | None = None
    callback_url: str | None = None
    metadata: str | None = None  # JSON object


@record
class StandingOpened:
    standing: StandingOrder
    replayed: bool = False
    stored: tuple[int, bytes] | None = None


@record
class OpenStanding:
    merchant: Merchant
    wanted: StandingOrder
    key: Key | None
    render: Render

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(orders=(self.wanted.order_key,), idempotency=(self.key.digest,) if self.key else ())

    def decide(self, plan: Plan) -> StandingOpened:
        answer = recall(plan, self.key)
        known = plan.standing_order(self.wanted.order_key)
        if answer is not None:
            return StandingOpened(known or self.wanted, True, stored(answer))
        if plan.order(self.wanted.order_key) is not None:
            raise OrderConflict("This order_id belongs to a payment")
        if known is not None:
            same = replace(
                self.wanted,
                id=known.id,
                created_at=known.created_at,
                version=known.version,
                callback_url=known.callback_url,
                metadata=known.metadata,
            )
            if same != known:
                raise OrderConflict()
            return self._answered(plan, StandingOpened(known, True))
        saved = plan.save(None, self.wanted)
        kind = "standing_order.created"
        plan.standing_event(kind, saved, endpoint_targets(self.merchant, kind))
        return self._answered(plan, StandingOpened(saved))

    def _answered(self, plan: Plan, opened: StandingOpened) -> StandingOpened:
        if self.key is not None:
            body, status = self.render(opened.standing), 200 if opened.replayed else None
            plan.answers.append(remembered(self.key, opened.standing.id, body, plan.now, status))
        return opened


@record
class CloseStanding:
    """Take no further payments; those that are open at the provider may still be settled."""

    merchant: Merchant
    standing_id: str
    key: Key | None
    render: Render

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        return Needs(standing=(self.standing_id,), idempotency=(self.key.digest,) if self.key else ())

    def decide(self, plan: Plan) -> StandingOpened:
        answer = recall(plan, self.key)
        standing = plan.standing(self.standing_id)
        if standing is None or standing.merchant_id != self.merchant.id:
            raise NotFound("There is no such standing order")
        if answer is not None:
            return StandingOpened(standing, True, stored(answer))
        if standing.closed_at is None:
            standing = plan.save(standing, replace(standing, closed_at=plan.now))
            kind = "standing_order.closed"
            plan.standing_event(kind, standing, endpoint_targets(self.merchant, kind))
        if self.key is not None:
            plan.answers.append(remembered(self.key, standing.id, self.render(standing), plan.now))
        return StandingOpened(standing)


class Standing:
    """`Hub.standing`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def open(
        self, merchant: Merchant, intent: StandingIntent, key: Key | None, render: Render
    ) -> StandingOpened:
        """Raises `InvalidRequest`, `NotAllowed` for a channel whose provider cannot, `OrderConflict`."""
        kit = self._kit
        choice = kit.choose(merchant, intent.channel, intent.account)
        channel = choice.channel
        if not kit.asks(choice.account):
            raise NotAllowed(f"{channel.name} cannot take standing orders")
        if intent.currency != channel.currency:
            raise InvalidRequest(f"{channel.name} takes {channel.currency}", param="currency")
        low = channel.min_minor if intent.min_minor is None else intent.min_minor
        high = channel.max_minor if intent.max_minor is None else intent.max_minor
        if not channel.min_minor <= low <= channel.max_minor:
            raise InvalidRequest(f"min_minor is outside what {channel.name} takes", param="min_minor")
        if not low <= high <= channel.max_minor:
            raise InvalidRequest(
                f"max_minor is below min_minor or above what {channel.name} takes", param="max_minor"
            )
        now = kit.clock()
        wanted = StandingOrder(
            id=new_id("so_", now),
            merchant_id=merchant.id,
            order_id=intent.order_id,
            order_key=order_key(merchant.id, intent.order_id),
            channel=channel.id,
            account_id=choice.account.id,
            currency=channel.currency,
            min_minor=low,
            max_minor=high,
            callback_url=intent.callback_url,
            metadata=intent.metadata,
            created_at=now,
            closed_at=None,
            version=1,
        )
        kit.standing_invitation(wanted, choice.account)  # raises where the payer could not be shown how
        return await kit.journal.submit(OpenStanding(merchant, wanted, key, render))

    async def close(
        self, merchant: Merchant, standing_id: str, key: Key | None, render: Render
    ) -> StandingOpened:
        """Raises `NotFound`."""
        return await self._kit.journal.submit(CloseStanding(merchant, standing_id, key, render))
