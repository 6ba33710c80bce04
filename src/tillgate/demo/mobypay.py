"""Card terminals: a kiosk enrols with the hub and takes payments at a virtual terminal, by real frames."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from tillgate.demo.scene import Came, Scene
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money
from tillgate.providers.mobypay.config import PUBLISHED_SECRETS, KioskConfig
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.simulator import VirtualTerminal
from tillgate.providers.mobypay.terminal_http import serve_page
from tillgate.providers.mobypay.uplink import Uplink, enrol

PATIENCE_S = 10.0
LUNCH = Money(2_550, "MYR")
PHONE = Money(120_000, "MYR")
TERMINAL = "POS001"


async def scenes(stage: Stage) -> list[Scene]:
    [secret] = PUBLISHED_SECRETS
    account_id = (await stage.account("mobypay", {})).rpartition("/")[2]
    merchant, account = await stage.runtime.directory.account(account_id)
    code, _ = await stage.runtime.hub.kiosks.invite(merchant, account)

    config = KioskConfig(
        journal=stage.folder / "kiosk.db", host="127.0.0.1", port=0, shared_secret=secret, sandbox=True
    )
    server = KioskServer(config)
    await server.start()
    stage.stack.push_async_callback(server.stop)
    _spawn(stage, Uplink(server, await enrol(server, stage.url, code)).run())

    terminal = VirtualTerminal(
        "127.0.0.1", server.port or 0, secret, pos_id=TERMINAL, auto="approve", ping=True
    )
    _spawn(stage, terminal.run())
    page = await stage.stack.enter_async_context(serve_page(terminal, 0))
    stage.places["the card terminal"] = f"http://127.0.0.1:{page}/"

    async def card(order_id: str) -> str:
        made = await stage.shop.invite(order_id, "card", LUNCH, terminal=TERMINAL)
        return str(made["id"])

    async def instalments(order_id: str) -> str:
        made = await stage.shop.invite(order_id, "ipp", PHONE)
        plans = await _offered(stage, made["id"])
        path = f"/v1/payments/{made['id']}/plan"
        await stage.shop.call("POST", path, {"plan_id": plans[-1]["planId"]})
        return str(made["id"])

    paid = Came("success", "paid", ("payment.success",))
    return [
        Scene("paid by card at a terminal", "card", LUNCH, card, paid),
        Scene("paid in instalments at a terminal", "ipp", PHONE, instalments, paid),
    ]


async def _offered(stage: Stage, payment_id: str) -> list[dict[str, Any]]:
    """The plans that the terminal offers, once it does."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while asyncio.get_running_loop().time() < deadline:
        found = await stage.shop.call("GET", f"/v1/payments/{payment_id}")
        plans: list[dict[str, Any]] | None = ((found["next_action"] or {}).get("terminal") or {}).get("plans")
        if plans:
            return plans
        await asyncio.sleep(0.05)
    raise TimeoutError("the terminal offered no plan")


def _spawn(stage: Stage, work: Any) -> None:
    """Run it until the show is over."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stage.stack.push_async_callback(end)
