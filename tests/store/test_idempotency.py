"""An `Idempotency-Key` has one answer, kept with what it answers, and heals when its process died."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from support.till import Clock, Till, open_till
from tillgate.domain.errors import IdempotencyMismatch, InFlight
from tillgate.hub import Key
from tillgate.hub.endpoints import Endpoint, Wanted
from tillgate.store.directory import Merchant
from tillgate.store.ids import digest


def key(name: str = "k", content: str = "c") -> Key:
    return Key(digest("key", name), digest("content", content), 201)


async def cut_off(till: Till, shop: Merchant, order_id: str) -> None:
    """A request whose process dies while the bank is asked."""
    till.bank.fail("start", "died")
    before = till.bank.calls["start"]
    asked = asyncio.create_task(till.open(shop, order_id, channel="calling_qr", key=key()))
    while till.bank.calls["start"] == before:
        await asyncio.sleep(0.01)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked


async def test_in_flight_until_nobody_can_be_waiting_any_more(
    till: Till, shop: Merchant, clock: Clock
) -> None:
    await cut_off(till, shop, "A")
    with pytest.raises(InFlight):
        await till.open(shop, "A", channel="calling_qr", key=key())
    clock.on(s=59)
    with pytest.raises(InFlight):
        await till.open(shop, "A", channel="calling_qr", key=key())

    clock.on(s=2)
    healed = await till.open(shop, "A", channel="calling_qr", key=key())
    assert (healed.payment.status, healed.stored) == ("unsure", None)
    again = await till.open(shop, "A", channel="calling_qr", key=key())
    assert again.stored == (201, f"{healed.payment.id} unsure None".encode())
    assert till.bank.calls["start"] == 1  # it was never sent a second time

    clock.on(s=10)
    await till.worker.drain()
    found = await till.kit.reads.payment(healed.payment.id)
    assert found is not None
    assert found.status == "pending"  # the bank has it, and says so when it is looked at
    assert (await till.open(shop, "A", channel="calling_qr", key=key())).stored == again.stored


async def test_a_look_that_was_quicker_gives_the_answer(till: Till, shop: Merchant, clock: Clock) -> None:
    await cut_off(till, shop, "A")
    clock.on(s=61)
    await till.worker.drain()

    healed = await till.open(shop, "A", channel="calling_qr", key=key())
    assert healed.payment.status == "pending"
    again = await till.open(shop, "A", channel="calling_qr", key=key())
    assert again.stored is not None
    assert again.stored[1].startswith(f"{healed.payment.id} pending".encode())


async def test_who_comes_back_late_changes_no_answer(till: Till, shop: Merchant, clock: Clock) -> None:
    till.bank.fail("start", "pause")
    slow = asyncio.create_task(till.open(shop, "A", channel="calling_qr", key=key()))
    while not till.bank.calls["start"]:
        await asyncio.sleep(0.01)
    clock.on(s=61)
    healed = await till.open(shop, "A", channel="calling_qr", key=key())
    till.bank.go_on.set()

    late = await slow
    again = await till.open(shop, "A", channel="calling_qr", key=key())
    assert healed.payment.status == "unsure"
    assert late.stored == again.stored == (201, f"{healed.payment.id} unsure None".encode())
    found = await till.kit.reads.payment(healed.payment.id)
    assert found is not None
    assert found.status == "pending"  # what the provider said is kept all the same


async def test_another_key_for_an_order_in_flight_waits_too(till: Till, shop: Merchant) -> None:
    await cut_off(till, shop, "A")
    with pytest.raises(InFlight):
        await till.open(shop, "A", channel="calling_qr", key=key("other"))
    shown = await till.open(shop, "A", channel="calling_qr")  # without a key: how it stands
    assert (shown.replayed, shown.payment.status) == (True, "pending")


async def test_the_same_key_for_something_else_is_refused(till: Till, shop: Merchant) -> None:
    await till.open(shop, "A", key=key())
    with pytest.raises(IdempotencyMismatch):
        await till.open(shop, "B", key=key(content="other"))
    assert await till.kit.reads.payment("B") is None


async def test_one_answer_however_many_ask_at_once_from_several_processes(
    database_url: str, clock: Clock
) -> None:
    async with open_till(database_url, clock=clock) as one, open_till(database_url, clock=clock) as two:
        shop = await one.merchant("shop")
        asked = [
            till.open(shop, "A", key=key())
            for till in ((one, two) if one.database.engine == "postgresql" else (one,))
            for _ in range(20)
        ]
        opened = await asyncio.gather(*asked)
        first = [one for one in opened if one.stored is None]
        assert len(first) == 1
        answers = {other.stored for other in opened if other.stored is not None}
        assert len(answers) == 1
        rows = await one.kit.reads.events(shop.id, 0, 100)
        assert [row[3] for row in rows] == ["payment.pending"]


async def test_a_secret_in_an_answer_is_kept_sealed(till: Till, shop: Merchant) -> None:
    def show(endpoint: Endpoint) -> bytes:
        return endpoint.secrets[0].encode()

    sealed = replace(key(), sealer=till.directory.sealer)
    wanted = Wanted("https://shop.example/hook")
    made = await till.hub.endpoints.create(shop, wanted, sealed, show)
    secret = made.endpoint.secrets[0]
    fresh = await till.directory.merchant(shop.id)
    again = await till.hub.endpoints.create(fresh, wanted, sealed, show)

    assert made.answer is None
    assert again.answer == (201, secret.encode())
    assert len((await till.directory.merchant(shop.id)).endpoints) == 1
    async with till.database.begin() as tx:
        from tillgate.store import tables

        [row] = await tx.select(tables.idempotency, ("digest",), [(sealed.digest,)])
        assert secret.encode() not in bytes(row[4])


async def test_two_who_rotate_at_once_do_not_lose_a_secret(database_url: str, clock: Clock) -> None:
    """The one who decided on what is no longer there is told so."""
    from tillgate.domain.errors import NotAllowed

    async with open_till(database_url, clock=clock) as till:
        shop = await till.merchant("shop")
        await till.hub.endpoints.create(shop, Wanted("https://shop.example/"), None, lambda _: b"")
        shop = await till.directory.merchant(shop.id)
        [endpoint] = shop.endpoints
        tries = await asyncio.gather(
            *(till.hub.endpoints.rotate(shop, endpoint.id, 60, None, lambda _: b"") for _ in range(2)),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in tries) == ["Made", NotAllowed.__name__]
        [now] = (await till.directory.merchant(shop.id)).endpoints
        won = next(one for one in tries if not isinstance(one, BaseException))
        assert now.secrets == won.endpoint.secrets
        assert len(now.secrets) == 2
