"""An open hub on a test's own database: journal, directory, use cases, a worker, a merchant's endpoint."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from support.tinybank import Bank, Charge, notice, providers
from tillgate.domain.errors import Unreachable, Unsure
from tillgate.hub import Hub, Intent, Key, Kit, Opened
from tillgate.spi import HttpCall, HttpReply, Reply, Send
from tillgate.store import schema
from tillgate.store.database import Database, open_database
from tillgate.store.directory import Directory, Merchant, MerchantSettings
from tillgate.store.journal import Journal
from tillgate.store.reads import Reads
from tillgate.store.sealing import Sealer
from tillgate.worker import Worker

SECRET_KEY = "a key that seals this test's secrets"
CALLBACK = "https://shop.example/callback"


class Clock:
    """Epoch milliseconds that stand still until a test moves them."""

    def __init__(self, now: int = 1_790_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def on(self, *, ms: int = 0, s: int = 0) -> None:
        self.now += ms + 1000 * s


@dataclass
class Sink:
    """A merchant's endpoint: keeps what it was sent, and answers as told (200 where nothing was)."""

    got: list[tuple[str, str, bytes]] = field(default_factory=list)  # url, webhook-id, body
    answers: dict[str, deque[int | str]] = field(default_factory=lambda: defaultdict(deque))

    async def __call__(self, call: HttpCall) -> HttpReply:
        await asyncio.sleep(0)
        answer = self.answers[call.url].popleft() if self.answers[call.url] else 200
        if answer == "unreachable":
            raise Unreachable("no connection")
        if answer == "broken":
            raise ValueError("a bug in the client")
        self.got.append((call.url, call.headers["webhook-id"], call.body))
        if answer == "lost":
            raise Unsure("no answer")
        assert isinstance(answer, int)
        return HttpReply(answer, {}, b"thanks")

    def ids(self) -> list[str]:
        return [message_id for _, message_id, _ in self.got]


@dataclass
class Till:
    """One process's worth of hub."""

    url: str
    clock: Callable[[], int]
    bank: Bank
    sink: Sink
    database: Database
    journal: Journal
    directory: Directory
    kit: Kit
    hub: Hub
    worker: Worker

    async def merchant(self, name: str = "shop", settings: MerchantSettings | None = None) -> Merchant:
        """A merchant with an account at each kind of tiny bank."""
        now = self.clock()
        settings = settings or MerchantSettings(callback_url=CALLBACK)
        made = await self.directory.create_merchant(name, now, settings=settings)
        for kind in self.kit.providers:
            await self.directory.create_account(made.merchant_id, kind, kind, {}, now)
        return await self.directory.merchant(made.merchant_id)

    async def open(
        self,
        merchant: Merchant,
        order_id: str,
        amount_minor: int = 10_000,
        channel: str = "inviting_qr",
        *,
        key: Key | None = None,
        **more: Any,
    ) -> Opened:
        intent = Intent(order_id, amount_minor, "IDR", channel, **more)
        return await self.hub.open(merchant, intent, key, render)

    async def told(
        self, merchant: Merchant, operation_id: str, said: Charge | str, event_id: str | None = None
    ) -> Reply:
        """The bank's notice comes in."""
        attempt = await self.kit.reads.attempt(operation_id)
        refund = None if attempt else await self.kit.reads.refund(operation_id)
        if refund is not None:
            attempt = await self.kit.reads.attempt(refund.attempt_id)
        account = merchant.account(attempt.account_id) if attempt else merchant.accounts[0]
        assert account is not None
        call = notice(operation_id, said, event_id, at=self.clock())
        return await self.hub.receive(merchant, account, call)

    async def pay(self, merchant: Merchant, opened: Opened, event_id: str | None = None) -> Reply:
        """The payer pays at the bank, and its notice arrives."""
        assert opened.attempt is not None
        charge = self.bank.pay(opened.attempt.id)
        return await self.told(merchant, opened.attempt.id, charge, event_id)

    async def paid(self, merchant: Merchant, order_id: str, amount_minor: int = 10_000) -> Opened:
        """A payment that is opened and paid."""
        opened = await self.open(merchant, order_id, amount_minor)
        assert (await self.pay(merchant, opened)).status == 200
        return opened


def render(payment: Any, attempt: Any) -> bytes:
    """What the answer to a request shows of a payment."""
    shown = attempt.show if attempt is not None else None
    return f"{payment.id} {payment.status} {shown}".encode()


@asynccontextmanager
async def open_till(
    url: str,
    *,
    bank: Bank | None = None,
    sink: Sink | None = None,
    clock: Callable[[], int] | None = None,
    known: Mapping[str, Any] | None = None,
    send: Send | None = None,
) -> AsyncIterator[Till]:
    """A hub on `url`, its tables made if they are missing; several on one `url` are several processes."""
    await asyncio.to_thread(schema.upgrade, url)
    bank, sink, clock = bank or Bank(), sink or Sink(), clock or Clock()
    database = open_database(url)
    await database.open()
    journal = Journal(database, clock)
    await journal.start()
    try:
        directory = Directory(database, journal, Sealer([SECRET_KEY]), clock)
        kit = Kit(
            Reads(database),
            journal,
            directory,
            known or providers(bank),
            send or _nowhere,
            clock,
            "https://till.example",
        )
        hub = Hub(kit)
        worker = Worker(hub, sink, idle_s=0.02)
        yield Till(url, clock, bank, sink, database, journal, directory, kit, hub, worker)
    finally:
        await journal.stop()
        await database.close()


async def _nowhere(call: HttpCall) -> HttpReply:
    raise AssertionError(f"a tiny bank has no wire: {call.url}")


async def begun_look(till: Till) -> asyncio.Task[None]:
    """A worker whose look has its answer, and gets it when the bank may `go_on`."""
    seen = till.bank.calls["look"]
    till.bank.fail("look", "pause")
    looking = asyncio.create_task(till.worker.drain())
    while till.bank.calls["look"] == seen:
        await asyncio.sleep(0.001)
    return looking
