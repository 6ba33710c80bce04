"""The demonstration: a hub, its worker and its pretended bank in one process, used over real HTTP."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tillgate import webhooks
from tillgate.domain.errors import Unavailable
from tillgate.domain.money import Money
from tillgate.http.app import create_app
from tillgate.http.server import Server, listen
from tillgate.logs import configure
from tillgate.runtime import Runtime
from tillgate.settings import Settings, load
from tillgate.store import audit

PATIENCE_S = 15.0


@dataclass
class Scene:
    """One payment of the show: what is done, and what must come of it."""

    title: str
    wallet: str
    amount: int
    play: Callable[[Shop, str], Awaitable[None]]
    status: str
    detail: str
    callbacks: list[str]
    payment: dict[str, Any] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        said = (self.payment.get("status"), self.payment.get("status_detail"))
        return said == (self.status, self.detail) and self.heard == self.callbacks


class Shop:
    """A merchant's till, written from the merchant API document alone."""

    def __init__(self, base: str, key: str, secret: str, callback_url: str) -> None:
        self.base, self.callback_url = base, callback_url
        self._key, self._secret, self._token = key, secret, ""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def close(self) -> None:
        await self._http.close()

    async def login(self) -> None:
        body = {"api_key": self._key, "api_secret": self._secret}
        self._token = (await self.call("POST", "/token", body))["access_token"]

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        async with self._http.request(method, self.base + path, json=body, headers=headers) as reply:
            found: dict[str, Any] = await reply.json()
        if "errorCode" in found:
            raise Unavailable(f"{method} {path}: {found['errorMessage']}")
        return found

    async def open(self, order_id: str, wallet: str, amount: int) -> str:
        made = await self.call(
            "POST",
            "/payments",
            {
                "wallet_id": wallet,
                "amount": amount,
                "currency": "IDR",
                "order_id": order_id,
                "callback_url": self.callback_url,
            },
        )
        return str(made["payment_id"])

    async def payer(self, payment_id: str, action: str) -> None:
        await self.call("POST", f"/sandbox/payments/{payment_id}/{action}")

    async def until(self, payment_id: str, detail: str) -> dict[str, Any]:
        """Poll as a till does, until the payment says `detail` or patience ends."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            found = await self.call("GET", f"/payments/{payment_id}")
            if found["status_detail"] == detail or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(0.1)


async def pay(shop: Shop, payment_id: str) -> None:
    await shop.payer(payment_id, "pay")


async def pay_told_twice(shop: Shop, payment_id: str) -> None:
    await shop.payer(payment_id, "pay?fault=twice")


async def decline(shop: Shop, payment_id: str) -> None:
    await shop.payer(payment_id, "fail")


async def expire(shop: Shop, payment_id: str) -> None:
    await shop.payer(payment_id, "expire")


async def pay_late(shop: Shop, payment_id: str) -> None:
    await shop.payer(payment_id, "pay-late")


async def pay_and_refund(shop: Shop, payment_id: str) -> None:
    await pay(shop, payment_id)
    await shop.call("POST", f"/payments/{payment_id}/refund", {"amount": 20_000, "reason": "one coffee less"})


async def short(shop: Shop, payment_id: str) -> None:
    await shop.payer(payment_id, "pay?fault=wrong_amount")


async def pay_when_found(shop: Shop, payment_id: str) -> None:
    await shop.until(payment_id, "pending")  # it was unsure: the worker looked, and the bank has it
    await pay(shop, payment_id)


def scenes() -> list[Scene]:
    paid, failed = "payment.success", "payment.failed"
    return [
        Scene("paid", "gopay", 150_000, pay, "success", "paid", [paid]),
        Scene("paid; the bank tells it twice", "ovo", 48_000, pay_told_twice, "success", "paid", [paid]),
        Scene("the payer declines", "dana", 75_500, decline, "failed", "failed", [failed]),
        Scene("nobody pays", "shopeepay", 32_000, expire, "failed", "expired", ["payment.expired"]),
        Scene(
            "paid after it expired",
            "gopay",
            99_000,
            pay_late,
            "success",
            "paid_late",
            ["payment.expired", paid],
        ),
        Scene(
            "paid, then part of it refunded",
            "dana",
            120_000,
            pay_and_refund,
            "success",
            "partially_refunded",
            [paid, "refund.success"],
        ),
        Scene("the bank's answer is lost", "ovo", 20_901, pay_when_found, "success", "paid", [paid]),
        Scene("paid one rupiah short: held", "shopeepay", 64_000, short, "pending", "review", []),
    ]


async def run(host: str, port: int, *, leave: bool, as_json: bool) -> bool:
    """The show. True if every payment and the books came out as they must."""
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console.width = 120
    with tempfile.TemporaryDirectory(prefix="tillgate-demo-") as folder:
        async with _stage(host, port, Path(folder), console) as (runtime, shop, heard):
            played = scenes()
            console.print("Taking payments…\n")
            await asyncio.gather(*(_play(shop, one, heard) for one in played))
            report = await audit.verify(runtime.database, None)
            balances = await _balances(runtime)
            right = (
                all(one.right for one in played) and report.clean and all(one["sum"] == 0 for one in balances)
            )
            if as_json:
                _print_json(played, balances, report, right)
            else:
                _print(console, shop, runtime, played, balances, report)
            if not leave:
                console.print("\nThe hub goes on until you press Ctrl-C.")
                await _interrupted()
    return right


@asynccontextmanager
async def _stage(
    host: str, port: int, folder: Path, console: Console
) -> AsyncIterator[tuple[Runtime, Shop, dict[str, list[str]]]]:
    listening = listen(host, port)
    sink, sink_port, heard = await _sink()
    settings = load(
        {
            "host": host,
            "port": listening.getsockname()[1],
            "database_url": f"sqlite:///{folder}/demo.db",
            "public_url": "",
            "sandbox": True,
            "rate_limit": 0,
            "callback_allow": f"127.0.0.1:{sink_port}",
            "bootstrap_api_key": "demo",
            "bootstrap_api_secret": secrets.token_urlsafe(24),
        }
    )
    configure("error", "auto")
    app = create_app(settings)
    server = Server(app)
    serving = asyncio.create_task(server.serve([listening]))
    shop = Shop(settings.url, "demo", settings.bootstrap_api_secret.get_secret_value(), "")
    shop.callback_url = f"http://127.0.0.1:{sink_port}/callback"
    try:
        while not server.started:
            if serving.done():
                await serving  # raises why
            await asyncio.sleep(0.02)
        runtime: Runtime = app.state.runtime
        sink["runtime"] = runtime
        console.print(f"[bold]Tillgate[/] runs at {settings.url} on SQLite, with pretended wallets.\n")
        await shop.login()
        yield runtime, shop, heard
    finally:
        await shop.close()
        server.stop()
        with suppress(asyncio.CancelledError):
            await serving
        await sink["runner"].cleanup()


async def _sink() -> tuple[dict[str, Any], int, dict[str, list[str]]]:
    """The shop's own server: takes callbacks, and believes only those that are signed."""
    heard: dict[str, list[str]] = {}
    state: dict[str, Any] = {}

    async def callback(request: web.Request) -> web.Response:
        body = await request.read()
        [merchant] = await state["runtime"].directory.merchants()
        now_s = state["runtime"].kit.clock() // 1000
        headers = {name.lower(): value for name, value in request.headers.items()}
        webhooks.verify(merchant.webhook_secrets, headers, body, now_s=now_s)
        news = json.loads(body)
        heard.setdefault(news["payment_id"], []).append(news["type"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/callback", callback)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state["runner"] = runner
    port: int = runner.addresses[0][1]
    return state, port, heard


async def _play(shop: Shop, scene: Scene, heard: dict[str, list[str]]) -> None:
    payment_id = await shop.open(f"DEMO-{scenes_number(scene)}", scene.wallet, scene.amount)
    await scene.play(shop, payment_id)
    scene.payment = await shop.until(payment_id, scene.detail)
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while heard.get(payment_id, []) != scene.callbacks and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # the shop's server is told from outside, at its own pace
    scene.heard = heard.get(payment_id, [])


def scenes_number(scene: Scene) -> str:
    return f"{next(n for n, one in enumerate(scenes(), 1) if one.title == scene.title):03}"


async def _balances(runtime: Runtime) -> list[dict[str, Any]]:
    found = []
    for merchant in await runtime.directory.merchants():
        names = {one.id: one.name for one in merchant.accounts}
        rows: list[dict[str, Any]] = []
        for account, currency, amount_minor in await runtime.kit.reads.balances(merchant.id):
            kind, _, account_id = account.partition(":")
            shown = f"{kind}:{names.get(account_id, account_id)}" if account_id else kind
            rows.append({"account": shown, "currency": currency, "amount_minor": amount_minor})
        found.append(
            {"merchant": merchant.name, "rows": rows, "sum": sum(one["amount_minor"] for one in rows)}
        )
    return found


def _print(
    console: Console,
    shop: Shop,
    runtime: Runtime,
    played: list[Scene],
    balances: list[dict[str, Any]],
    report: audit.Report,
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what happened", "wallet", "rupiah", "status", "detail", "callbacks received"):
        table.add_column(name, justify="right" if name == "rupiah" else "left")
    for one in played:
        mark = Text("✓", "green") if one.right else Text("✗", "red")
        table.add_row(
            mark,
            one.title,
            one.wallet,
            f"{one.amount:,}",
            one.payment["status"],
            one.payment["status_detail"],
            ", ".join(one.heard) or "none",
        )
    console.print(table)
    for books in balances:
        console.print()
        table = Table(title=f"Books of {books['merchant']}", title_justify="left", box=None, pad_edge=False)
        table.add_column("account")
        table.add_column("balance", justify="right")
        for row in books["rows"]:
            table.add_row(row["account"], str(Money(row["amount_minor"], row["currency"])))
        table.add_row(
            "sum", "0, balanced" if books["sum"] == 0 else f"{books['sum']} minor units: NOT balanced"
        )
        console.print(table)
    console.print(f"\n{report.text()}")
    _print_next(console, shop, runtime.settings, played)


def _print_next(console: Console, shop: Shop, settings: Settings, played: list[Scene]) -> None:
    say = console.out
    paid = played[0].payment["payment_id"]
    say(f"\nWhere to look\n  a checkout page   {shop.base}/pay/{paid}")
    say(f"  the API           {shop.base}/openapi.json")
    secret = settings.bootstrap_api_secret.get_secret_value()
    say("\nTry it")
    json_header = "-H 'Content-Type: application/json'"
    say(f"  TOKEN=$(curl -s {shop.base}/token {json_header} \\")
    say(f"""    -d '{{"api_key":"demo","api_secret":"{secret}"}}' \\""")
    say("""    | sed 's/.*access_token":"\\([^"]*\\).*/\\1/')""")
    say(f'  curl -s {shop.base}/payments {json_header} -H "Authorization: Bearer $TOKEN" \\')
    say("""    -d '{"wallet_id":"gopay","amount":25000,"currency":"IDR","order_id":"MY-1"}'""")
    say("  …then open the qr_url it prints, and play the payer.")


def _print_json(
    played: list[Scene], balances: list[dict[str, Any]], report: audit.Report, right: bool
) -> None:
    shown = [
        {"title": one.title, "payment": one.payment, "callbacks": one.heard, "right": one.right}
        for one in played
    ]
    result = {"payments": shown, "books": balances, "verify": report.as_dict(), "right": right}
    print(json.dumps(result, indent=2, ensure_ascii=False), file=sys.stdout)


async def _interrupted() -> None:
    ended = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    await ended.wait()
