"""Two providers: the first by priority takes the payment, the second where nothing was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from support.postgres import free_port
from support.wallets import Shop, wallet_shop
from tillgate.hub import Intent
from tillgate.hub.endpoints import Endpoints
from tillgate.hub.keys import Key


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    """Xendit is preferred and its address is one where nobody listens."""
    nowhere = {"xendit": {"base_url": f"http://127.0.0.1:{free_port()}"}}
    async with wallet_shop(database_url, ["xendit", "midtrans"], nowhere) as opened:
        yield opened
        await opened.audited()


async def test_the_next_takes_what_the_first_was_never_sent(shop: Shop) -> None:
    key = Key(b"k" * 16, b"f" * 16, 200)

    def render(payment: object, attempt: object) -> bytes:
        return f"{payment} {attempt}".encode()

    intent = Intent("ORD-1", 150_000_00, "IDR", "dana")
    opened = await shop.till.hub.open(shop.merchant, intent, key, render)
    assert opened.payment.status == "pending"
    assert opened.payment.account_id == shop.accounts["midtrans"].id
    first, second = sorted(await shop.attempts(opened), key=lambda one: one.phase)
    assert (first.provider, first.phase) == ("xendit", "closed")
    assert "no connection" in (first.reason or "")
    assert (second.provider, second.phase) == ("midtrans", "pending")
    assert opened.attempt is not None
    assert opened.attempt.id == second.id
    assert json.loads(second.show or "{}")["qr_string"]
    again = await shop.till.hub.open(shop.merchant, intent, key, render)
    assert again.stored is not None  # the same answer, and nobody called
    assert len(shop.midtrans.desk.transactions) == 1

    [one] = shop.midtrans.desk.transactions.values()
    await shop.midtrans.pay(one.id)
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor, payment.late) == ("paid", 150_000_00, False)
    books = await shop.books()
    assert books["merchant"] == 150_000_00 == -books[f"provider:{shop.accounts['midtrans'].id}"]
    assert (await shop.refunded(await shop.refund(opened, 50_000))).phase == "succeeded"


async def test_a_named_account_is_the_one_and_nothing_goes_on(shop: Shop) -> None:
    opened = await shop.open("dana", account="xendit")
    assert opened.payment.status == "failed"
    assert shop.midtrans.desk.transactions == {}


async def test_what_the_second_loses_is_unsure(shop: Shop) -> None:
    opened = await shop.open("dana")
    assert opened.payment.status == "pending"
    shop.midtrans.down = True  # it takes the connection and breaks it: something was sent
    lost = await shop.open("dana")
    assert lost.payment.status == "unsure"
    assert {one.provider for one in await shop.attempts(lost)} == {"xendit", "midtrans"}


@pytest.mark.parametrize("fault", ["lost", "never", "500", "503", "429", "html"])
async def test_nothing_goes_on_once_something_was_sent(sqlite_url: str, fault: str) -> None:
    """Also a clear refusal: whoever said no may have shown the payer something; a merchant decides."""
    async with wallet_shop(sqlite_url, ["xendit", "midtrans"]) as shop:
        shop.xendit.fail("create", fault)
        opened = await shop.open("gopay")
        assert opened.payment.status == ("failed" if fault in ("503", "429") else "unsure")
        assert [one.provider for one in await shop.attempts(opened)] == ["xendit"]
        assert shop.midtrans.desk.transactions == {}
        await shop.audited()


async def test_a_channel_has_an_order_of_its_own(sqlite_url: str) -> None:
    """Nobody listens at the second account's address: who is asked first shows in who was tried."""
    nowhere = {"midtrans": {"base_url": f"http://127.0.0.1:{free_port()}"}}
    async with wallet_shop(sqlite_url, ["xendit", "midtrans"], nowhere) as shop:

        async def prefer(**preferences: tuple[str, ...]) -> None:
            settings = msgspec.structs.replace(shop.merchant.settings, preferences=preferences)
            await Endpoints(shop.till.kit).settings(shop.merchant, settings)
            shop.merchant = await shop.till.directory.merchant(shop.merchant.id)

        async def tried(channel: str) -> list[str]:
            opened = await shop.open(channel)
            assert opened.payment.status == "pending"  # the other one took over
            return sorted(one.provider for one in await shop.attempts(opened))

        both = ["midtrans", "xendit"]
        assert await tried("gopay") == ["xendit"]
        await prefer(gopay=("midtrans", "xendit"), ovo=("midtrans",), shopeepay=("gone", "midtrans"))
        assert await tried("gopay") == await tried("ovo") == await tried("shopeepay") == both
        assert await tried("dana") == ["xendit"]
        await prefer(gopay=())
        assert await tried("gopay") == await tried("ovo") == ["xendit"]
        await shop.audited()


async def test_many_at_once_go_on_together(shop: Shop) -> None:
    opened = await asyncio.gather(*(shop.open("ovo") for _ in range(12)))
    assert {one.payment.status for one in opened} == {"pending"}
    assert len(shop.midtrans.desk.transactions) == 12
    assert len({one.attempt.id for one in opened if one.attempt}) == 12
