"""What outlived its twelve hours: closed by a timer of the host's, and by a statement that would show it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import delete, update

from tillgate.embed.models import TABLE
from tillgate.providers.click.handler import ClickWebhookHandler
from tillgate.providers.click.tests.conftest import SECRET, SERVICE
from tillgate.providers.payme.tests.payme_kit import (
    HOMES,
    Caller,
    Host,
    Order,
    SyncHandler,
    calling,
    code,
    creation,
    host_on,
    now_ms,
)

TWELVE_HOURS_MS = 43_200_000


async def abandoned(host: Host, payme: Caller, *orders: int) -> list[str]:
    """Transactions of these orders, whose time is over when this returns."""
    made_at = now_ms() - TWELVE_HOURS_MS + 60_000
    names = [await payme.created(number, time=made_at + number) for number in orders]
    over = update(TABLE).where(TABLE.c.transaction_id.in_(names)).values(expires_at=now_ms())
    if host.is_async:
        async with host.engine.begin() as connection:
            await connection.execute(over)
    else:
        with host.engine.begin() as connection:
            connection.execute(over)
    return names


def forgotten(host: Host, number: int) -> None:
    """The host's hooks look the order up, and fail where it is gone."""
    with host.sessions.begin() as db:
        db.execute(delete(Order).where(Order.id == number))


async def test_one_failing_hook_does_not_keep_the_others(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    async with host_on("sqlite-sync", request) as host, calling(host) as payme:
        await abandoned(host, payme, 1, 2, 3)
        forgotten(host, 1)
        with host.sessions() as db, caplog.at_level(logging.ERROR, "tillgate"):
            assert await host.made(db).expire() == 2
            assert await host.made(db).expire() == 0
        assert [row.state for row in await host.transactions()] == [1, -1, -1]
        assert [(await host.order(number)).cancelled for number in (2, 3)] == [1, 1]
    assert caplog.text.count("payments: 1 outlived its time and cannot be closed") == 2


async def test_as_many_failing_as_are_looked_at_do_not_keep_the_next(
    request: pytest.FixtureRequest,
) -> None:
    class Failing(SyncHandler):
        def cancelled_payment(self, params: Any, transaction: Any) -> None:
            if transaction.account_id != "103":
                raise RuntimeError("no")
            self.after_commit(told.append, transaction.account_id)

    told: list[str] = []
    async with host_on("sqlite-sync", request, handler=Failing, orders=104) as host, calling(host) as payme:
        await abandoned(host, payme, *range(1, 105))
        with host.sessions() as db:
            assert await host.made(db).expire() == 1
        assert [row.account_id for row in await host.transactions() if row.state == -1] == ["103"]
    assert told == ["103"]


async def test_click_is_told_of_its_own_transaction(request: pytest.FixtureRequest) -> None:
    told: list[Any] = []

    class Telling(ClickWebhookHandler):
        def cancelled_payment(self, params: Any, transaction: Any) -> None:
            told.append((params["click_trans_id"], params["error"], transaction.state))

    async with host_on("sqlite-sync", request) as host:
        with host.sessions() as db:
            row = {"gateway": "click", "transaction_id": "77", "account_id": "1", "amount": 1, "state": 1}
            db.execute(TABLE.insert().values(**row, amount_tiyin=100, expires_at=1))
            db.commit()
            assert await Telling(db, SERVICE, SECRET, Order).expire() == 1
    assert told == [("77", 4, -1)]


@pytest.mark.parametrize("home", HOMES)
async def test_a_statement_says_of_it_what_a_look_says(home: str, request: pytest.FixtureRequest) -> None:
    async with host_on(home, request) as host, calling(host) as payme:
        first, second = await abandoned(host, payme, 1, 2)
        waiting, earlier = await payme.created(3), await payme.created(4, time=now_ms() - 60_000)
        window = {"from": 0, "to": now_ms() + 1}
        shown = (await payme("GetStatement", window))["result"]["transactions"]
        assert [(row["id"], row["state"], row["reason"]) for row in shown] == [
            (first, -1, 4),
            (second, -1, 4),
            (earlier, 1, None),
            (waiting, 1, None),
        ]
        looked = (await payme("CheckTransaction", {"id": first}))["result"]
        assert (looked["state"], looked["cancel_time"]) == (-1, shown[0]["cancel_time"])
        assert [(await host.order(number)).cancelled for number in (1, 2, 3, 4)] == [1, 1, 0, 0]
        await payme.created(1)


async def test_a_statement_closes_nothing_outside_its_window(request: pytest.FixtureRequest) -> None:
    async with host_on("sqlite-sync", request) as host, calling(host) as payme:
        await abandoned(host, payme, 1)
        await payme("GetStatement", {"from": now_ms() - 60_000, "to": now_ms()})
        assert [row.state for row in await host.transactions()] == [1]


async def test_a_failing_hook_does_not_keep_the_statement(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """It is shown as it is stored, and looked at again by the next one."""
    async with host_on("sqlite-sync", request) as host, calling(host) as payme:
        await abandoned(host, payme, 1, 2)
        forgotten(host, 2)
        window = {"from": 0, "to": now_ms()}
        with caplog.at_level(logging.ERROR, "tillgate"):
            shown = (await payme("GetStatement", window))["result"]["transactions"]
        assert [row["state"] for row in shown] == [1, 1]
        assert (await host.order(1)).cancelled == 0
        assert "payments: 2 outlived its time and cannot be closed" in caplog.text
        assert code(await payme("CreateTransaction", creation(1))) is None
        shown = (await payme("GetStatement", window))["result"]["transactions"]
        assert [row["state"] for row in shown] == [-1, 1]
