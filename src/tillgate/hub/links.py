"""Payment links: addresses at which payers open payments of a merchant, once or again and again.

Each use is a payment of its own. What may not happen twice is held by the order's unique key: the uses of a
`once` link share an order id while there is something to collect, and a form that is sent twice says the
same `use`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from tillgate.domain.errors import InvalidRequest, NotAllowed, NotFound, OrderConflict, TillgateError
from tillgate.domain.payment import Payment
from tillgate.domain.record import record, replace
from tillgate.hub.configuring import Configures, configure
from tillgate.hub.keys import Key
from tillgate.hub.kit import Kit
from tillgate.hub.opening import Intent, Opening
from tillgate.hub.upkeep import Upkeep
from tillgate.spi import Channel
from tillgate.store.directory import Merchant
from tillgate.store.ids import digest, new_id
from tillgate.store.links import Links as Rows
from tillgate.store.links import PaymentLink, disable_link, new_link

State: TypeAlias = Literal["open", "paid", "expired", "disabled"]
Render = Callable[[PaymentLink], bytes]

CODE_CHARS: Final = 12
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else; 59 bits
ENDED: Final = frozenset({"failed", "expired", "cancelled"})
MAX_TRIES: Final = 100
"""Payments that a `once` link may have before one is paid."""


class LinkClosed(NotAllowed):
    """This payment link takes no more payments"""

    code = "link_closed"


@record
class LinkIntent:
    """What a merchant asks of a link."""

    title: str
    currency: str
    reference: str | None = None
    amount_minor: int | None = None
    min_minor: int | None = None
    max_minor: int | None = None
    channels: tuple[str, ...] = ()
    once: bool = False
    ttl_s: int | None = None
    expires_at: int | None = None
    callback_url: str | None = None
    metadata: str | None = None  # JSON object


@record
class LinkMade:
    link: PaymentLink
    replayed: bool = False
    stored: tuple[int, bytes] | None = None


class PaymentLinks:
    """`Hub.links`. What is another merchant's is `NotFound`."""

    def __init__(self, kit: Kit, rows: Rows, opening: Opening, upkeep: Upkeep) -> None:
        self._kit, self.rows = kit, rows
        self._opening, self._upkeep = opening, upkeep

    async def create(
        self, merchant: Merchant, intent: LinkIntent, key: Key | None, render: Render
    ) -> LinkMade:
        """Raises `InvalidRequest`, `OrderConflict` for a reference that another link has."""
        kit, now = self._kit, self._kit.clock()
        code = "".join(secrets.choice(_ALPHABET) for _ in range(CODE_CHARS))
        wanted = PaymentLink(
            id=new_id("lnk_", now),
            merchant_id=merchant.id,
            code=code,
            reference=intent.reference or code,
            title=intent.title,
            currency=intent.currency,
            amount_minor=intent.amount_minor,
            min_minor=intent.min_minor,
            max_minor=intent.max_minor,
            channels=intent.channels,
            once=intent.once,
            ttl_s=intent.ttl_s,
            callback_url=intent.callback_url,
            metadata=intent.metadata,
            created_at=now,
            expires_at=intent.expires_at,
        )
        self._check(merchant, wanted, now)
        known = await self.rows.by_reference(merchant.id, wanted.reference)
        if known is not None and key is None:
            return _same(known, wanted)
        command = Configures(
            merchant.id,
            () if known else (new_link(wanted),),
            key,
            render(known or wanted),
            taken="another link has this reference",
            refused=None if known is None or _is_same(known, wanted) else _taken(),
        )
        answer = await configure(kit, command)
        return LinkMade(known or wanted, known is not None, answer)

    def _check(self, merchant: Merchant, link: PaymentLink, now: int) -> None:
        offered = self.channels(merchant, link)
        for name in link.channels:
            if all(one.id != name for one in offered):
                raise InvalidRequest(f"you have no channel {name} for {link.currency}", param="channels")
        if not offered:
            raise InvalidRequest(f"none of your channels takes {link.currency}", param="currency")
        if link.amount_minor is not None:
            if link.min_minor is not None or link.max_minor is not None:
                raise InvalidRequest("a fixed amount has no bounds", param="min_minor")
            if not any(one.min_minor <= link.amount_minor <= one.max_minor for one in offered):
                raise InvalidRequest("none of the channels takes this amount", param="amount_minor")
        else:
            low, high = self.bounds(merchant, link)
            if low > high:
                raise InvalidRequest("none of the channels takes an amount between them", param="max_minor")
        if link.expires_at is not None and link.expires_at <= now:
            raise InvalidRequest("it would be over before it began", param="expires_at")

    async def one(self, merchant: Merchant, link_id: str) -> PaymentLink:
        link = await self.rows.by_id(link_id)
        if link is None or link.merchant_id != merchant.id:
            raise NotFound("There is no such payment link")
        return link

    async def disable(self, merchant: Merchant, link_id: str, key: Key | None, render: Render) -> LinkMade:
        """Take no further payments; those that are open can still be paid. A second time changes nothing."""
        link, now = await self.one(merchant, link_id), self._kit.clock()
        after = link if link.disabled_at is not None else replace(link, disabled_at=now)
        changes = () if link.disabled_at is not None else (disable_link(link.id, now),)
        answer = await configure(self._kit, Configures(merchant.id, changes, key, render(after)))
        return LinkMade(after, stored=answer)

    # --- for payers ---

    def channels(self, merchant: Merchant, link: PaymentLink) -> list[Channel]:
        """What a payer can choose, in the order of the merchant's accounts."""
        return [
            one
            for one in self._kit.channels(merchant)
            if one.currency == link.currency and (not link.channels or one.id in link.channels)
        ]

    def bounds(self, merchant: Merchant, link: PaymentLink) -> tuple[int, int]:
        """The least and the most that a payer may enter."""
        offered = self.channels(merchant, link)
        low = max(link.min_minor or 0, min((one.min_minor for one in offered), default=1))
        high = max((one.max_minor for one in offered), default=0)
        return low, high if link.max_minor is None else min(link.max_minor, high)

    async def latest(self, link: PaymentLink) -> Payment | None:
        """The payment that a `once` link is about now."""
        found = await self.rows.payments(link.id, 1) if link.once else []
        return found[0] if found else None

    def state(self, link: PaymentLink, latest: Payment | None) -> State:
        if latest is not None and latest.status not in ENDED and latest.status != "pending":
            return "paid"  # or held, or unsure: nobody may be asked to pay it again
        if link.disabled_at is not None:
            return "disabled"
        if link.expires_at is not None and self._kit.clock() >= link.expires_at:
            return "expired"
        return "open"

    async def use(
        self, merchant: Merchant, link: PaymentLink, channel: str, amount_minor: int | None, use: str
    ) -> Payment:
        """The payment that the payer is sent to: a new one, or the one that there is already.

        `use` is the form's own word for itself. Raises `LinkClosed`, `InvalidRequest` (`param` is `channel`
        or `amount`), and what `Hub.open` raises."""
        latest = await self.latest(link)
        state = self.state(link, latest)
        if state == "paid" and latest is not None:
            return latest
        if state != "open":
            raise LinkClosed
        if all(one.id != channel for one in self.channels(merchant, link)):
            raise InvalidRequest("Choose one of the channels", param="channel")
        amount = link.amount_minor if link.amount_minor is not None else amount_minor
        low, high = self.bounds(merchant, link)
        if amount is None or (link.amount_minor is None and not low <= amount <= high):
            raise InvalidRequest("The amount is outside what this link takes", param="amount")
        if link.once:
            return await self._use_once(merchant, link, latest, channel, amount)
        order_id = f"{link.reference}-{digest('use', link.id, use)[:6].hex()}"
        try:
            return await self._payment(merchant, link, order_id, channel, amount)
        except OrderConflict:  # the same form, with another amount or channel: another payment
            fresh = f"{link.reference}-{secrets.token_hex(6)}"
            return await self._payment(merchant, link, fresh, channel, amount)

    async def _use_once(
        self, merchant: Merchant, link: PaymentLink, latest: Payment | None, channel: str, amount: int
    ) -> Payment:
        if latest is not None and latest.status == "pending":
            if (latest.channel, latest.amount_minor) == (channel, amount):
                return latest
            try:
                why = "the payer chose another way"
                latest = await self._upkeep.cancel(merchant, latest.id, why, only_if_gone=True)
            except TillgateError:
                return latest  # it was paid meanwhile, or cannot be taken back: no second one beside it
        if latest is not None and latest.status not in ENDED:
            return latest
        order_id = link.reference if latest is None else latest.order_id
        if latest is not None and latest.amount_minor != amount:
            count = len(await self.rows.payments(link.id, MAX_TRIES))
            if count >= MAX_TRIES:
                raise LinkClosed
            order_id = f"{link.reference}-{count + 1}"
        try:
            return await self._payment(merchant, link, order_id, channel, amount)
        except OrderConflict:  # somebody with the same link was quicker: theirs it is
            now = await self.latest(link)
            if now is None:
                raise
            return now

    async def _payment(
        self, merchant: Merchant, link: PaymentLink, order_id: str, channel: str, amount: int
    ) -> Payment:
        intent = Intent(
            order_id=order_id,
            amount_minor=amount,
            currency=link.currency,
            channel=channel,
            callback_url=link.callback_url,
            metadata=link.metadata,
            ttl_s=link.ttl_s,
            standing_id=link.id,
        )
        return (await self._opening.open(merchant, intent)).payment


def _same(known: PaymentLink, wanted: PaymentLink) -> LinkMade:
    if not _is_same(known, wanted):
        raise _taken()
    return LinkMade(known, True)


def _is_same(known: PaymentLink, wanted: PaymentLink) -> bool:
    own = replace(
        wanted, id=known.id, code=known.code, created_at=known.created_at, disabled_at=known.disabled_at,
        callback_url=known.callback_url, metadata=known.metadata, expires_at=known.expires_at,
    )  # fmt: skip
    return own == known


def _taken() -> OrderConflict:
    return OrderConflict("Another payment link has this reference")
