"""AtomPay and ATOM POS: a payer at the gateway whose callback gets lost, and a card at a terminal."""

from __future__ import annotations

import secrets
from typing import Any, Final

import aiohttp

from tillgate.demo.scene import Came, Scene
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money
from tillgate.providers.atompay_in import PROVIDER as ATOMPAY
from tillgate.providers.atompay_in.simulator import Simulator
from tillgate.providers.atompos_vn.simulator import Terminal

TICKET: Final = Money(89_900, "INR")
COFFEE: Final = Money(45_000, "VND")
PAYER: Final = {"email": "payer@example.com", "mobile": "8888888800"}


async def scenes(stage: Stage) -> list[Scene]:
    return [await _atompay(stage), await _atompos(stage)]


async def _atompay(stage: Stage) -> Scene:
    gateway = Simulator()
    gateway.gateway.state["faults"] = ["callback_null_signature"]  # so the hub asks before it believes
    stage.places["AtomPay's gateway"] = url = await stage.serve(gateway.app)
    gateway.callback_url = await stage.account("atompay_in", {**ATOMPAY.example, "base_url": url})
    http = await stage.stack.enter_async_context(aiohttp.ClientSession())

    async def pay(order_id: str) -> str:
        made = await stage.shop.invite(order_id, "atompay", TICKET, metadata=PAYER)
        asked = {"token": made["next_action"]["account"]["atomTokenId"], "mode": "UP"}
        async with http.post(f"{url}/sim/pay", json=asked) as reply:
            reply.raise_for_status()
        return str(made["id"])

    due = Came("success", "paid", ("payment.success",))
    return Scene("AtomPay: an unsigned callback is looked into", "atompay", TICKET, pay, due)


async def _atompos(stage: Stage) -> Scene:
    terminal = Terminal()
    stage.places["ATOM terminal"] = url = await stage.serve(terminal.app)
    password = secrets.token_urlsafe(24)
    config: dict[str, Any] = {
        "jwt_secret": secrets.token_urlsafe(32),
        "user": "atom",
        "password": password,
        "pos_url": url,
        "verify_code": terminal.verify_code,
    }
    await stage.account("atompos_vn", config, default=True)
    terminal.authorize_url, terminal.user, terminal.password = f"{stage.url}/authorize", "atom", password

    async def pay(order_id: str) -> str:
        made = await stage.shop.invite(order_id, "atompos", COFFEE)
        [sale] = [one for one in terminal.sales.values() if one["orderId"] == order_id]
        terminal.approve(sale["requestID"], paymentType="CreditCard", faults={"copies": 20})
        return str(made["id"])

    due = Came("success", "paid", ("payment.success",))
    return Scene("a card at an ATOM terminal, told 20 times", "atompos", COFFEE, pay, due)
