"""Every Indonesian wallet through Xendit and through Midtrans: a scan of a QRIS code at their simulators."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from tillgate.demo.scene import Came, Scene
from tillgate.demo.shop import Shop
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money
from tillgate.providers.midtrans.simulator import MidtransSimulator
from tillgate.providers.midtrans.simulator import create_app as midtrans_app
from tillgate.providers.xendit.simulator import XenditSimulator
from tillgate.providers.xendit.simulator import create_app as xendit_app

REFUND_S: Final = 0.1

_PAID: Final = Came("success", "paid", ("payment.success",))
_REFUNDED: Final = Came("success", "partially_refunded", ("payment.success", "refund.success"))
_ROWS: Final = (
    # wallet, whole rupiah, fault, how the row goes on; what must come of it
    ("gopay", 150_000, "none", "", _PAID),
    ("ovo", 48_000, "edited", "; a lie came first", _PAID),
    ("dana", 120_000, "twice", "; partly refunded", _REFUNDED),
    ("shopeepay", 64_000, "out_of_order", "; older news after it", _PAID),
)

Scan = Callable[[str, str], Awaitable[None]]
"""A payer's wallet reads a code and pays, with a fault."""


async def scenes(stage: Stage) -> list[Scene]:
    return [*await _xendit(stage), *await _midtrans(stage)]


async def _xendit(stage: Stage) -> list[Scene]:
    key, token = f"xnd_development_{secrets.token_urlsafe(24)}", secrets.token_urlsafe(24)
    xendit = XenditSimulator(secret_key=key, callback_token=token, refund_s=REFUND_S)
    await stage.stack.enter_async_context(xendit)
    xendit.base_url = stage.places["Xendit's wallet"] = await _serve(stage, xendit_app(xendit))
    shop = await stage.merchant("warung by Xendit")
    config = {"secret_key": key, "callback_token": token, "base_url": xendit.base_url}
    xendit.webhook_url = await stage.account("xendit", config, shop=shop)

    async def scan(code: str, fault: str) -> None:
        request = xendit.desk.by_qr(code)
        assert request is not None
        await xendit.act(request.id, "pay", fault)

    return [_scene(shop, "Xendit", scan, *row) for row in _ROWS]


async def _midtrans(stage: Stage) -> list[Scene]:
    key = f"SB-Mid-server-{secrets.token_urlsafe(24)}"
    midtrans = MidtransSimulator(server_key=key, refund_s=REFUND_S)
    await stage.stack.enter_async_context(midtrans)
    midtrans.base_url = stage.places["Midtrans' wallet"] = await _serve(stage, midtrans_app(midtrans))
    shop = await stage.merchant("warung by Midtrans")
    await stage.account("midtrans", {"server_key": key, "base_url": midtrans.base_url}, shop=shop)

    async def scan(code: str, fault: str) -> None:
        transaction = midtrans.desk.by_qr(code)
        assert transaction is not None
        await midtrans.act(transaction.id, "pay", fault)

    return [_scene(shop, "Midtrans", scan, *row) for row in _ROWS]


def _scene(
    shop: Shop, provider: str, scan: Scan, wallet: str, whole: int, fault: str, more: str, due: Came
) -> Scene:
    amount = Money.of_major(whole, "IDR")

    async def played(order_id: str) -> str:
        body: dict[str, Any] = {"wallet_id": wallet, "amount": whole, "currency": "IDR", "order_id": order_id}
        made = await shop.call("POST", "/payments", body | {"callback_url": shop.callback_url})
        payment_id = str(made["payment_id"])
        await scan(made["qr_string"], fault)
        if "refund" in due.detail:
            await shop.until(payment_id, "paid")
            reason = {"amount": 20_000, "reason": "one coffee less"}
            await shop.call("POST", f"/payments/{payment_id}/refund", reason)
        return payment_id

    return Scene(f"QRIS by {provider}{more}", wallet, amount, played, due, shop)


async def _serve(stage: Stage, app: web.Application) -> str:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stage.stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"
