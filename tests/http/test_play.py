"""The payer of a simulated provider is played by the same calls as the sandbox's own."""

from __future__ import annotations

import pytest

from support.serving import Served, client, new_merchant
from support.wallets import account_at


@pytest.mark.parametrize("provider", ["xendit", "midtrans"])
async def test_playing_the_payer_at_a_provider(served: Served, provider: str) -> None:
    made = new_merchant(served.database_url)
    async with (
        account_at(provider, served.url, served.database_url, made.merchant_id) as simulator,
        client(served.url, made) as shop,
    ):
        failed = await shop.open("fails")
        assert (await shop.act(failed, "fail")).json["status_detail"] == "failed"
        assert (await shop.act(failed, "pay")).status == 409
        again = await shop.open("fails", wallet_id="ovo")  # another try, with another wallet
        assert again == failed
        assert (await shop.act(again, "pay")).json["status"] == "success"
        assert (await shop.status(again))["paid_with"] == "OVO"

        expired = await shop.open()
        assert (await shop.act(expired, "expire")).json["status_detail"] == "expired"
        late = await shop.open()
        assert (await shop.act(late, "pay-late")).json["status_detail"] == "paid_late"
        short = await shop.open()
        assert (await shop.act(short, "pay", "wrong_amount")).json["status_detail"] == "review"
        for fault, status in (("twice", 200), ("nonsense", 409), ("a/../b", 400), ("x" * 41, 400)):
            assert (await shop.act(await shop.open(), "pay", fault)).status == status, fault

        phone = await shop.ask(
            "POST",
            "/payments",
            {
                "wallet_id": "ovo", "amount": 1000, "currency": "IDR", "order_id": "phone",
                "customer_phone": "+62812\n",
            },
        )  # fmt: skip
        assert (phone.status, phone.json["param"]) == (400, "customer_phone")
        simulator.down = True
        assert (await shop.act(await shop.open(), "pay")).status in (404, 409)
