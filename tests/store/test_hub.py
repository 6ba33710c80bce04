"""The use cases on both databases, through the hub's own front door, against a bank outside of it."""

from __future__ import annotations

from support.till import Till
from tillgate.store.directory import Merchant


async def test_a_payment_is_opened_paid_and_told(till: Till, shop: Merchant) -> None:
    opened = await till.open(shop, "ORD-1")
    assert opened.payment.status == "pending"
    await till.pay(shop, opened, "evt-1")
    payment = await till.kit.reads.payment(opened.payment.id)
    assert payment.status == "paid"
    assert {name: amount for name, _, amount in await till.kit.reads.balances(shop.id)} == {
        "memo:open": 0,
        "memo:due": 0,
        "merchant": 10_000,
        f"provider:{opened.payment.account_id}": -10_000,
    }
    await till.worker.drain()
    assert len(till.sink.got) == 1
