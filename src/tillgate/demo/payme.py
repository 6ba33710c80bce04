"""Payme: its simulator asks the hub at Payme's documented path, as Payme asks a shop."""

from __future__ import annotations

import secrets
from typing import Final

from tillgate.demo.scene import Came, Scene
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money
from tillgate.providers.payme.simulator import PaymeSimulator, create_app

CASH_DESK: Final = "587f72c72cac0d162c722ae2"
TEA: Final = Money(1_500_050, "UZS")


async def scenes(stage: Stage) -> list[Scene]:
    key = secrets.token_urlsafe(27)
    payme = PaymeSimulator.of(f"{stage.url}/payments/payme/webhook", key, merchant_id=CASH_DESK)
    await stage.stack.enter_async_context(payme)
    stage.places["Payme's receipts"] = checkout = await stage.serve(create_app(payme))
    config = {"merchant_id": CASH_DESK, "test_key": key, "sandbox": True, "checkout_url": checkout}
    await stage.account("payme", config, default=True)

    async def pay(order_id: str, fault: str = "none") -> str:
        made = await stage.shop.invite(order_id, "payme", TEA)
        receipt = await payme.pay_link(made["next_action"]["url"], fault)
        await payme.statement(receipt.time, receipt.time)  # Payme reconciles: the payment must be listed
        return str(made["id"])

    async def pay_and_refund(order_id: str) -> str:
        payment_id = await pay(order_id, "crowd")
        await payme.refund(
            next(one for one in payme.receipts.values() if one.account["order_id"] == order_id)
        )
        return payment_id

    return [
        Scene("paid by Payme", "payme", TEA, pay, Came("success", "paid", ("payment.success",))),
        Scene(
            "told 20 times, then refunded",
            "payme",
            TEA,
            pay_and_refund,
            Came("success", "refunded", ("payment.success", "refund.success")),
        ),
    ]
