"""Click: its simulator sends signed Prepare and Complete forms to Click's documented path."""

from __future__ import annotations

import secrets
from typing import Final

from tillgate.demo.scene import Came, Scene
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money
from tillgate.providers.click.simulator import ClickSimulator, build_app

SERVICE: Final = 12345
BREAD: Final = Money(700_000, "UZS")


async def scenes(stage: Stage) -> list[Scene]:
    key = secrets.token_urlsafe(12)
    click = ClickSimulator(f"{stage.url}/payments/click/webhook", service_id=SERVICE, secret_key=key)
    await stage.stack.enter_async_context(click)
    stage.places["Click's payments"] = page = await stage.serve(build_app(click))
    config = {
        "service_id": SERVICE,
        "merchant_id": 54321,
        "secret_key": key,
        "pay_url": f"{page}/services/pay",
    }
    await stage.account("click", config, default=True)

    async def pay(order_id: str, fault: str = "none") -> str:
        made = await stage.shop.invite(order_id, "click", BREAD)
        await click.follow(made["next_action"]["url"], fault=fault)
        return str(made["id"])

    async def pay_after_a_lost_answer(order_id: str) -> str:
        return await pay(order_id, "lost_complete")

    paid = Came("success", "paid", ("payment.success",))
    return [
        Scene("paid by Click", "click", BREAD, pay, paid),
        Scene("Click loses our answer", "click", BREAD, pay_after_a_lost_answer, paid),
    ]
