"""What every use case works with: the store, the merchants' connectors and the way out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from tillgate.domain.errors import InvalidRequest, Misconfigured, NoProvider, TillgateError
from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt, Payment, Refund, StandingOrder
from tillgate.domain.record import record
from tillgate.hub.pushed import Pushed
from tillgate.spi import (
    Channel,
    Connector,
    Fetched,
    HttpCall,
    HttpReply,
    Invites,
    Order,
    Provider,
    RefundOrder,
    Send,
    Show,
    Starts,
)
from tillgate.store.book import Target
from tillgate.store.directory import Account, Directory, Merchant
from tillgate.store.ids import digest
from tillgate.store.journal import Journal
from tillgate.store.reads import Reads

log = structlog.get_logger("tillgate.hub")

CALLBACK_KINDS: Final = frozenset(
    {
        "payment.paid",
        "payment.failed",
        "payment.expired",
        "payment.cancelled",
        "refund.succeeded",
        "refund.failed",
    }
)
"""What a `callback_url` is told. Not `pending`: an old client may take any call for money."""

_STANDING_MS: Final = 100 * 365 * 86_400_000
"""A standing order has no end; a connector wants one."""


Invite: TypeAlias = Callable[[Payment, str], str | None]
"""From a payment and an operation id."""


def order_key(merchant_id: str, order_id: str) -> bytes:
    """What makes an order unique: per merchant, not global."""
    return digest("order", merchant_id, order_id)


def targets(merchant: Merchant, payment: Payment, kind: str) -> tuple[Target, ...]:
    """Where an event of this kind goes."""
    found = [Target(one.id, one.url) for one in merchant.endpoints if one.wants(kind)]
    url = payment.callback_url or merchant.settings.callback_url
    if url and kind in CALLBACK_KINDS:
        found.append(Target(None, url))
    return tuple(found)


def serving(merchant: Merchant, channel: str) -> list[Account]:
    """The merchant's accounts in the order in which they serve a channel: those it prefers there, then the
    others by priority."""
    preferred = merchant.settings.preferences.get(channel, ())
    named = [one for name in preferred for one in merchant.accounts if one.name == name]
    return named + [one for one in merchant.accounts if one not in named]


@record
class Choice:
    """How a merchant's payments through one channel begin."""

    merchant: Merchant
    account: Account
    channel: Channel
    invite: Invite | None  # the payer is invited at once
    starts: bool  # the provider can be told
    fetched: bool = False  # a kiosk fetches it


@dataclass(slots=True)
class Kit:
    reads: Reads
    journal: Journal
    directory: Directory
    providers: Mapping[str, Provider[Any]]
    send: Send
    clock: Callable[[], int]
    public_url: str
    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # provider → the host's function

    _connectors: dict[str, tuple[Account, Connector]] = field(default_factory=dict)
    _chosen: dict[tuple[str, str, str | None], Choice] = field(default_factory=dict)
    _simulators: dict[str, Send] = field(default_factory=dict)
    _bells: dict[str, asyncio.Event] = field(default_factory=dict)

    def connector(self, account: Account) -> Connector:
        """Raises `Misconfigured`."""
        known = self._connectors.get(account.id)
        if known is not None and (known[0] is account or known[0].config == account.config):
            return known[1]
        provider = self.providers.get(account.provider)
        if provider is None:
            raise Misconfigured(f"account {account.name}: there is no provider {account.provider}")
        try:
            config = msgspec.convert(account.config, provider.config)
        except msgspec.ValidationError as error:
            raise Misconfigured(f"account {account.name}: {error}") from None
        made = provider.connect(config)
        self._connectors[account.id] = account, made
        return made

    def choose(self, merchant: Merchant, channel: str, named: str | None = None) -> Choice:
        """The account that serves a channel: the named one, else the first by preference and priority.

        Raises `InvalidRequest` for a channel that nobody has, `NoProvider` where none can take it now."""
        known = self._chosen.get((merchant.id, channel, named))
        if known is not None and known.merchant is merchant:
            return known
        account, found = self._choose(merchant, channel, named)
        connector = self.connector(account)
        invite = None if self.asks(account) else self._inviter(account, connector)
        if len(self._chosen) > 10_000:
            self._chosen.clear()
        made = Choice(
            merchant, account, found, invite, isinstance(connector, Starts), isinstance(connector, Fetched)
        )
        self._chosen[merchant.id, channel, named] = made
        return made

    def _choose(self, merchant: Merchant, channel: str, named: str | None) -> tuple[Account, Channel]:
        for account in serving(merchant, channel):
            if account.disabled or (named is not None and named not in (account.id, account.name)):
                continue
            provider = self.providers.get(account.provider)
            found = provider and next((one for one in provider.channels if one.id == channel), None)
            if found:
                return account, found
        if any(one.id == channel for provider in self.providers.values() for one in provider.channels):
            raise NoProvider()
        raise InvalidRequest("Unknown wallet_id", param="wallet_id")

    def channels(self, merchant: Merchant) -> list[Channel]:
        """What this merchant's payers can choose, each once, in the order of its accounts."""
        found: dict[str, Channel] = {}
        for account in merchant.accounts:
            provider = self.providers.get(account.provider)
            if provider and not account.disabled:
                for channel in provider.channels:
                    found.setdefault(channel.id, channel)
        return list(found.values())

    def bell(self, account_id: str) -> asyncio.Event:
        """What rings, in this process, when there may be something for an account's kiosk."""
        return self._bells.setdefault(account_id, asyncio.Event())

    def notify_url(self, account: Account) -> str:
        provider = self.providers.get(account.provider)
        base = "sandbox://hub" if provider and provider.simulator else self.public_url
        return f"{base}/in/{account.id}"

    def asks(self, account: Account) -> bool:
        provider = self.providers.get(account.provider)
        return provider is not None and provider.asks

    def _inviter(self, account: Account, connector: Connector) -> Invite | None:
        """What makes the stored `show` of a new attempt without a call, where the connector can."""
        if not isinstance(connector, Invites):
            return None

        def invite(payment: Payment, operation_id: str) -> str | None:
            show = connector.invite(self._new_order(payment, operation_id, account))
            return None if show is None else shown(show)

        return invite

    def pushed(self, payment: Payment, operation_id: str, account: Account) -> Pushed | None:
        """The name by which a provider that `Names` will know a new attempt, where it is none of ours."""
        name = self.connector(account).named(self._new_order(payment, operation_id, account))
        return None if name is None else Pushed(account.id, name)

    def invitation(self, payment: Payment, account: Account) -> Show | None:
        """How a payer gets to a provider that opens attempts itself."""
        connector = self.connector(account)
        if not isinstance(connector, Invites):
            return None
        return connector.invite(self._new_order(payment, payment.id, account))

    def standing_invitation(self, standing: StandingOrder, account: Account) -> Show | None:
        """How a payer gets to a standing order: the same as to a payment, with the amount left to them."""
        connector = self.connector(account)
        if not isinstance(connector, Invites):
            return None
        return connector.invite(
            Order(
                operation_id=standing.id,
                payment_id=standing.id,
                order_id=standing.order_id,
                channel=standing.channel,
                amount=Money(0, standing.currency),
                created_at=standing.created_at,
                expires_at=standing.created_at + _STANDING_MS,
                metadata=msgspec.json.decode(standing.metadata) if standing.metadata else {},
                notify_url=self.notify_url(account),
            )
        )

    def _new_order(self, payment: Payment, operation_id: str, account: Account) -> Order:
        return Order(
            operation_id=operation_id,
            payment_id=payment.id,
            order_id=payment.order_id,
            channel=payment.channel,
            amount=Money(payment.amount_minor, payment.currency),
            created_at=payment.created_at,
            expires_at=payment.expires_at,
            metadata=msgspec.json.decode(payment.metadata) if payment.metadata else {},
            notify_url=self.notify_url(account),
            return_url=f"{self.public_url}/pay/{payment.id}",
        )

    def order(self, payment: Payment, attempt: Attempt, account: Account) -> Order:
        return Order(
            operation_id=attempt.id,
            payment_id=payment.id,
            order_id=payment.order_id,
            channel=attempt.channel,
            amount=Money(attempt.amount_minor, attempt.currency),
            created_at=attempt.created_at,
            expires_at=attempt.expires_at or payment.expires_at,
            external_id=attempt.external_id,
            metadata=msgspec.json.decode(payment.metadata) if payment.metadata else {},
            show=msgspec.json.decode(attempt.show) if attempt.show else {},
            details=attempt.details,
            notify_url=self.notify_url(account),
            return_url=f"{self.public_url}/pay/{payment.id}",
        )

    async def refund_order(
        self, payment: Payment, attempt: Attempt, refund: Refund, account: Account
    ) -> RefundOrder:
        return RefundOrder(
            operation_id=refund.id,
            payment=self.order(payment, attempt, account),
            amount=Money(refund.amount_minor, refund.currency),
            reason=refund.reason,
            external_id=refund.external_id,
            before_minor=await self._asked_before(attempt, refund),
        )

    async def _asked_before(self, attempt: Attempt, refund: Refund) -> int:
        """The same whenever it is asked: of what was opened earlier, all that had not failed by then."""
        if refund.amount_minor >= attempt.paid_minor:
            return 0  # it is the whole, so there was none
        return sum(
            one.amount_minor
            for one in await self.reads.refunds(refund.payment_id)
            if one.attempt_id == refund.attempt_id
            and (one.created_at, one.id) < (refund.created_at, refund.id)
            and not (one.phase == "failed" and one.done_at and one.done_at <= refund.created_at)
        )

    async def out(self, call: HttpCall) -> HttpReply:
        """What connectors are given as `send`: simulators answer in process, everyone else over the wire."""
        if not call.url.startswith("sandbox://"):
            return await self.send(call)
        name = call.url.removeprefix("sandbox://").partition("/")[0]
        simulator = self._simulators.get(name)
        if simulator is None:
            raise Misconfigured(f"there is no simulator at {name}")
        return await simulator(call)

    def simulate(self, name: str, simulator: Send) -> None:
        self._simulators[name] = simulator


def shown(show: Show) -> str:
    """What the payer is shown, as it is stored."""
    return msgspec.json.encode(show).decode()


def found_nothing(account: Account, operation_id: str, error: TillgateError) -> None:
    log.info("a look brought nothing", provider=account.provider, operation=operation_id, why=str(error))
