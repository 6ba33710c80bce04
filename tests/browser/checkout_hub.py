"""A hub on a real socket for tests of pages, with a provider that has every way to pay."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Unsure
from tillgate.domain.payment import Closed, Fact, Payment
from tillgate.http.app import create_app
from tillgate.http.server import Server
from tillgate.hub import Intent
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.spi import Channel, Order, Provider, Send, Show, Started
from tillgate.store.directory import Account, Merchant

# Published by EMVCo's QR specification as an example; what matters here is that it comes back unchanged.
QR_TEXT = (
    "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115802CN5914"
    "BEST TRANSPORT6007BEIJING64200002ZH0104最佳运输0202北京540523.7253031565502016233030412340603***"
    "0708A60086670902ME91320016A0112233449988770708123456786304A13A"
)
ACCOUNT = {"bank": "BCA", "virtual_account": "88 0812 3456 7890"}
SHOWS: dict[str, Show | None] = {
    "code": Show("qr", qr_string=QR_TEXT),
    "code-and-app": Show("qr", qr_string=QR_TEXT, url="examplewallet://pay?id=1"),
    "page": Show("redirect", url="https://wallet.example/pay/1"),
    "app": Show("app", url="examplewallet://pay?id=1&a=<b>"),
    "account": Show("account", account=ACCOUNT),
    "terminal": Show("terminal"),
    "push": Show("wait"),
    "script": Show("redirect", url="javascript:document.title='owned'"),
    "too-long": Show("qr", qr_string="7" * 3000),
    "lost": None,
}


class Config(msgspec.Struct, frozen=True):
    pass


class Bank:
    """Invites by channel; the answer of the channel `lost` is lost."""

    def invite(self, order: Order) -> Show | None:
        return SHOWS[order.channel]

    async def start(self, order: Order, send: Send) -> Started:
        raise Unsure("the answer was lost")

    async def cancel(self, order: Order, send: Send) -> Tell:
        return Tell((Closed("cancelled", "taken back"),), operation_id=order.operation_id)


BANK: Provider[Any] = Provider(
    name="bank",
    title="Bank",
    config=Config,
    channels=tuple(Channel(one, f"{one.title()} Pay", "IDR") for one in SHOWS),
    connect=lambda _config: Bank(),
)


@dataclass
class CheckoutHub:
    url: str
    runtime: Runtime
    merchant: Merchant
    web: aiohttp.ClientSession
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def open(
        self,
        channel: str = "gopay",
        amount_minor: int = 15_000_000,
        currency: str = "IDR",
        ttl_s: int = 900,
        account: str | None = None,
    ) -> Payment:
        order_id = f"ORD-{next(self.numbers)}"
        intent = Intent(order_id, amount_minor, currency, channel, account, ttl_s=ttl_s)
        return (await self.runtime.hub.open(self.merchant, intent)).payment

    async def again(self, payment: Payment, channel: str) -> None:
        """A cashier tries the same order with another wallet."""
        intent = Intent(payment.order_id, payment.amount_minor, payment.currency, channel, ttl_s=900)
        assert (await self.runtime.hub.open(self.merchant, intent)).payment.id == payment.id

    async def tell(self, payment: Payment, *facts: Fact) -> Payment:
        """What the provider says of the payment's latest attempt."""
        attempt = (await self.runtime.kit.reads.attempts(payment.id))[-1]
        account = self.account(attempt.provider)
        await self.runtime.hub.told(self.merchant, account, Tell(facts, operation_id=attempt.id))
        found = await self.runtime.kit.reads.payment(payment.id)
        assert found is not None
        return found

    def account(self, provider: str) -> Account:
        return next(one for one in self.merchant.accounts if one.provider == provider)

    def at(self, payment: Payment, rest: str = "") -> str:
        return f"{self.url}/pay/{payment.id}{rest}"


@contextlib.asynccontextmanager
async def open_checkout(
    directory: Path,
    *,
    sandbox: bool = True,
    worker: bool = False,
    merchant: str = "Kopi Senja",
    public_url: str = "",
    page_rate_limit: int = 0,
) -> AsyncIterator[CheckoutHub]:
    """A hub on a free port of 127.0.0.1, with one merchant that has accounts with bank, Payme and sandbox."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    settings = Settings(
        database_url=f"sqlite:///{directory}/hub.db",
        port=port,
        public_url=public_url,
        sandbox=sandbox,
        page_rate_limit=page_rate_limit,
        secret_key="an example of a key that is long enough for a test",
    )
    app = create_app(settings, worker=worker)
    runtime: Runtime = app.state.runtime
    runtime.providers["bank"] = BANK
    started = asyncio.Event()
    server = Server(app, started=started.set)
    serving = asyncio.create_task(server.serve([listening]))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        made = await runtime.create_merchant(merchant)
        for name in ("bank", "payme"):
            example, now = runtime.providers[name].example, runtime.kit.clock()
            await runtime.directory.create_account(made.merchant_id, name, name, example, now)
        async with aiohttp.ClientSession() as web:
            yield CheckoutHub(
                f"http://127.0.0.1:{port}", runtime, await runtime.directory.merchant(made.merchant_id), web
            )
    finally:
        waiting.cancel()
        server.stop()
        await serving
