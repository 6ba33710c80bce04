"""The faults known of the handler that this one replaces, each as a test that it cannot happen here.

The numbers are those of the list in the documentation page "Moving from PayTechUZ".
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update
from starlette.requests import Request

from tillgate.embed import BadSettings, PaymentTransaction
from tillgate.integrations.fastapi import PaymeWebhookHandler
from tillgate.providers.payme.links import checkout_link
from tillgate.providers.payme.simulator import read_link
from tillgate.providers.payme.tests.payme_kit import (
    KEY,
    PRICE_TIYIN,
    Caller,
    FloatOrder,
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


@pytest.fixture
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    async with host_on("sqlite-sync", request) as made:
        yield made


@pytest.fixture
async def payme(host: Host) -> AsyncIterator[Caller]:
    async with calling(host) as made:
        yield made


# --- money-losing -------------------------------------------------------------------------------------------


async def test_01_a_cancelled_or_refunded_transaction_is_never_performed(host: Host, payme: Caller) -> None:
    given_up = await payme.created(1)
    await payme("CancelTransaction", {"id": given_up, "reason": 3})
    refunded = await payme.performed(2)
    await payme("CancelTransaction", {"id": refunded, "reason": 5})

    for transaction, number, state in ((given_up, 1, -1), (refunded, 2, -2)):
        assert code(await payme("PerformTransaction", {"id": transaction})) == -31008
        assert (await payme("CheckTransaction", {"id": transaction}))["result"]["state"] == state
        assert (await host.order(number)).status == "cancelled"
    assert [(await host.order(number)).paid for number in (1, 2)] == [0, 1]


async def test_02_the_hook_runs_once_however_often_perform_comes(host: Host, payme: Caller) -> None:
    transaction = await payme.created()
    answers = [await payme.bytes("PerformTransaction", {"id": transaction}) for _ in range(5)]
    answers += await asyncio.gather(
        *(payme.bytes("PerformTransaction", {"id": transaction}) for _ in range(20))
    )

    assert len(set(answers)) == 1
    order = await host.order(1)
    assert (order.paid, order.balance) == (1, PRICE_TIYIN)


async def test_03_a_paid_one_time_order_cannot_be_paid_again(host: Host, payme: Caller) -> None:
    await payme.performed()
    check = {"amount": PRICE_TIYIN, "account": {"order_id": "1"}}

    assert code(await payme("CheckPerformTransaction", check)) == -31051
    assert code(await payme("CreateTransaction", creation())) == -31008
    assert (await host.order(1)).paid == 1


async def test_03_nor_after_its_money_went_back(payme: Caller) -> None:
    await payme("CancelTransaction", {"id": await payme.performed(), "reason": 5})
    assert code(await payme("CreateTransaction", creation())) == -31008


async def test_04_a_transaction_dies_twelve_hours_after_paymes_time(host: Host, payme: Caller) -> None:
    old = creation(time=now_ms() - TWELVE_HOURS_MS - 1)
    assert code(await payme("CreateTransaction", old)) == -31008
    assert await host.transactions() == []

    dying = await payme.created(1, time=now_ms() - TWELVE_HOURS_MS + 300)
    await asyncio.sleep(0.35)
    assert code(await payme("PerformTransaction", {"id": dying})) == -31008
    found = (await payme("CheckTransaction", {"id": dying}))["result"]
    assert (found["state"], found["reason"], found["perform_time"]) == (-1, 4, 0)
    order = await host.order(1)
    assert (order.paid, order.cancelled) == (0, 1)


async def test_04_an_abandoned_transaction_frees_its_order(host: Host, payme: Caller) -> None:
    dying = await payme.created(1, time=now_ms() - TWELVE_HOURS_MS + 300)
    assert code(await payme("CreateTransaction", creation())) == -31008
    await asyncio.sleep(0.35)
    await payme.performed()

    assert [row.state for row in await host.transactions()] == [-1, 2]
    assert (await host.order(1)).cancelled == 1
    assert (await payme("CancelTransaction", {"id": dying, "reason": 4}))["result"]["state"] == -1
    assert (await host.order(1)).cancelled == 1


async def test_04_a_timer_closes_what_nobody_asks_for(host: Host, payme: Caller) -> None:
    await payme.created(1, time=now_ms() - TWELVE_HOURS_MS + 300)
    await payme.created(2)
    await asyncio.sleep(0.35)
    with host.sessions() as db:
        assert await host.made(db).expire() == 1
        assert await host.made(db).expire() == 0
    assert [row.state for row in await host.transactions()] == [-1, 1]
    assert [(await host.order(number)).cancelled for number in (1, 2)] == [1, 0]


async def test_05_the_database_itself_forbids_doubles(host: Host, payme: Caller) -> None:
    from sqlalchemy.exc import IntegrityError

    await payme.created()
    (row,) = await host.transactions()
    for column in ("transaction_id", "order_hold"):
        twin = PaymentTransaction(gateway="payme", **{column: getattr(row, column)})
        with host.sessions() as db:
            db.add(twin)
            with pytest.raises(IntegrityError):
                db.commit()


class Failing(SyncHandler):
    """Its hook commits and then fails, once."""

    left = 1

    def successfully_payment(self, params: dict[str, Any], transaction: Any) -> None:
        super().successfully_payment(params, transaction)
        if Failing.left:
            Failing.left -= 1
            raise RuntimeError("the power went out")


async def test_06_row_and_order_move_together_or_not_at_all(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    Failing.left = 1
    async with host_on("sqlite-sync", request, handler=Failing) as host, calling(host) as payme:
        transaction = await payme.created()
        assert code(await payme("PerformTransaction", {"id": transaction})) == -32400
        order, (row,) = await host.order(1), await host.transactions()
        assert (order.status, order.paid, row.state, row.performed_at) == ("new", 0, 1, None)

        assert (await payme("PerformTransaction", {"id": transaction}))["result"]["state"] == 2
        order, (row,) = await host.order(1), await host.transactions()
        assert (order.status, order.paid, row.state) == ("paid", 1, 2)
    assert "the power went out" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("reason", [1, 2, 3, 4, 5, 10])
async def test_07_a_performed_transaction_goes_to_minus_two_whatever_the_reason(
    payme: Caller, reason: int
) -> None:
    transaction = await payme.performed()
    answer = await payme("CancelTransaction", {"id": transaction, "reason": reason})
    assert answer["result"]["state"] == -2
    assert (await payme("CheckTransaction", {"id": transaction}))["result"]["reason"] == reason


@pytest.mark.parametrize("key", [None, "", "  ", 5])
def test_08_an_empty_or_missing_key_refuses_to_start(host: Host, key: Any) -> None:
    with host.sessions() as db, pytest.raises(ValueError, match="payme_key is empty or missing") as refused:
        PaymeWebhookHandler(db, "id", key, Order)
    assert isinstance(refused.value, BadSettings)


async def test_08_the_login_counts_too(payme: Caller) -> None:
    import base64

    for login in ("", "paycom", "Somebody"):
        header = "Basic " + base64.b64encode(f"{login}:{KEY}".encode()).decode()
        answer = await payme("CheckTransaction", {"id": "a" * 24}, Authorization=header)
        assert code(answer) == -32504


@pytest.mark.parametrize("som", ["1.15", "19.99", "0.29", "1234567.89", "4.35", "1000"])
async def test_09_and_10_amounts_are_exact_from_the_link_to_the_row(
    request: pytest.FixtureRequest, som: str
) -> None:
    tiyin = int(Decimal(som) * 100)
    async with host_on("sqlite-sync", request, model=FloatOrder, handler=PaymeWebhookHandler) as host:
        with host.sessions() as db:
            db.add(FloatOrder(id=1, amount=float(som)))
            db.commit()
        from tillgate.embed import to_tiyin

        asked = read_link(checkout_link("m", {"order_id": "1"}, to_tiyin(float(som))))
        assert asked.amount == tiyin
        async with calling(host) as payme:
            transaction = await payme.performed(1, asked.amount)
            row = (await payme("GetStatement", {"from": 0, "to": 10**13}))["result"]["transactions"][0]
            assert (row["id"], row["amount"]) == (transaction, tiyin)
            (stored,) = await host.transactions()
            assert (stored.amount_tiyin, stored.amount) == (tiyin, float(som))


@pytest.mark.parametrize("amount", [True, "100", "1e5", 1.5, "Infinity", None, 0, -1, 10**40])
async def test_10_only_a_positive_integer_is_an_amount_of_an_open_account(
    request: pytest.FixtureRequest, amount: Any
) -> None:
    async with host_on("sqlite-sync", request, one_time=False) as host, calling(host) as payme:
        assert code(await payme("CreateTransaction", creation(1, amount))) == -31001
        assert await host.transactions() == []


def test_11_times_are_utc_on_a_machine_in_tashkent(tmp_path: Any) -> None:
    program = """
import asyncio, json, sys, time
from tillgate.providers.payme.tests.payme_kit import Host, calling, creation, now_ms
async def main():
    assert time.timezone == -18000, time.timezone
    host = Host("sqlite-sync", f"sqlite:///{sys.argv[1]}/tashkent.db")
    await host.start()
    async with calling(host) as payme:
        transaction = await payme.performed()
        await payme("CancelTransaction", {"id": transaction, "reason": 5})
        found = (await payme("CheckTransaction", {"id": transaction}))["result"]
        now = now_ms()
        rows = (await payme("GetStatement", {"from": now - 60_000, "to": now}))["result"]["transactions"]
        away = [abs(now - found[n]) for n in ("create_time", "perform_time", "cancel_time")]
        row, = await host.transactions()
        print(json.dumps([max(away), len(rows), rows[0]["perform_time"] == found["perform_time"],
                          row.performed_at.isoformat()]))
asyncio.run(main())
"""
    environment = {**os.environ, "TZ": "Asia/Tashkent"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    away_ms, rows, same, performed_at = json.loads(done.stdout)
    assert away_ms < 60_000
    assert (rows, same) == (1, True)
    utc = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    assert abs(dt.datetime.fromisoformat(performed_at) - utc) < dt.timedelta(minutes=2)


async def test_12_a_hundred_requests_at_once_do_not_freeze_a_small_pool(
    request: pytest.FixtureRequest,
) -> None:
    pool = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5}
    async with host_on("sqlite-sync", request, engine_settings=pool) as host, calling(host) as payme:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        clock = asyncio.create_task(tick())
        answers = await asyncio.gather(*(payme.created(number % 20 + 1) for number in range(20)))
        checks = await asyncio.gather(
            *(payme("CheckTransaction", {"id": answers[number % 20]}) for number in range(100))
        )
        clock.cancel()

        assert {answer["result"]["state"] for answer in checks} == {1}
        assert ticks > 5
        assert host.engine.pool.checkedout() == 0


# --- the specification --------------------------------------------------------------------------------------


async def test_15_unknown_is_31003_and_malformed_is_said_to_be(payme: Caller) -> None:
    for method, params in (
        ("PerformTransaction", {"id": "a" * 24}),
        ("CancelTransaction", {"id": "a" * 24, "reason": 1}),
        ("CheckTransaction", {"id": "a" * 24}),
    ):
        assert code(await payme(method, params)) == -31003
    assert code(json.loads(await payme.raw(b"{"))) == -32700
    assert code(json.loads(await payme.raw(b"[]"))) == -32600
    assert code(json.loads(await payme.raw(b"", method="GET"))) == -32300
    assert code(await payme("CheckPerformTransaction", {"amount": 1, "account": "x"})) == -31050
    assert code(await payme("CheckPerformTransaction", {"amount": 1, "account": {"order_id": "²"}})) == -31050


async def test_16_errors_speak_three_languages_and_echo_the_id(payme: Caller) -> None:
    answer = await payme("CheckPerformTransaction", {"amount": 1, "account": {"order_id": "404"}}, 77)
    assert (answer["id"], answer["error"]["data"]) == (77, "order_id")
    assert set(answer["error"]["message"]) == {"ru", "uz", "en"}
    assert (await payme("CheckTransaction", {"id": "a" * 24}, 78, key="wrong"))["id"] == 78


async def test_17_a_finished_transaction_is_not_created_again_and_keeps_its_first_reason(
    payme: Caller,
) -> None:
    params = creation()
    await payme("CreateTransaction", params)
    await payme("PerformTransaction", {"id": params["id"]})
    assert code(await payme("CreateTransaction", params)) == -31008
    first = await payme.bytes("CancelTransaction", {"id": params["id"], "reason": 3})
    assert await payme.bytes("CancelTransaction", {"id": params["id"], "reason": 10}) == first
    assert (await payme("CheckTransaction", {"id": params["id"]}))["result"]["reason"] == 3
    assert code(await payme("CreateTransaction", params)) == -31008


async def test_17_a_transaction_cannot_change_its_account_or_amount(host: Host, payme: Caller) -> None:
    params = creation(1)
    await payme("CreateTransaction", params)
    assert code(await payme("CreateTransaction", {**params, "account": {"order_id": "2"}})) == -31050
    assert code(await payme("CreateTransaction", {**params, "account": {"order_id": "404"}})) == -31050
    assert code(await payme("CreateTransaction", {**params, "amount": PRICE_TIYIN + 1})) == -31001
    assert [row.account_id for row in await host.transactions()] == ["1"]


async def test_18_ids_times_and_statement_are_our_own_and_exact(payme: Caller) -> None:
    old = creation(1, time=now_ms() - 5000, account={"order_id": 1})
    made = (await payme("CreateTransaction", old))["result"]
    assert made["transaction"] != old["id"]
    assert made["create_time"] > old["time"]
    rows = (await payme("GetStatement", {"from": old["time"], "to": old["time"]}))["result"]["transactions"]
    assert [(row["time"], row["account"], row["transaction"]) for row in rows] == [
        (old["time"], {"order_id": 1}, made["transaction"])
    ]
    everything = await payme("GetStatement", {"from": -(10**40), "to": 10**40})
    assert len(everything["result"]["transactions"]) == 1


async def test_20_the_reason_is_stored_where_code_looks_for_it(host: Host, payme: Caller) -> None:
    await payme("CancelTransaction", {"id": await payme.created(), "reason": 3})
    (row,) = await host.transactions()
    assert row.reason == 3
    assert row.extra_data is not None
    assert row.extra_data["cancel_reason"] == 3


async def test_20_changes_inside_extra_data_are_kept(request: pytest.FixtureRequest) -> None:
    class Noting(SyncHandler):
        def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
            transaction.extra_data["seat"] = "12A"

        def successfully_payment(self, params: Any, transaction: Any) -> None:
            transaction.extra_data["ticket"] = "T-1"

    async with host_on("sqlite-sync", request, handler=Noting) as host, calling(host) as payme:
        await payme.performed()
        (row,) = await host.transactions()
        assert row.extra_data is not None
        assert (row.extra_data["seat"], row.extra_data["ticket"]) == ("12A", "T-1")


# --- what older rows may hold -------------------------------------------------------------------------------


async def test_an_order_that_older_rows_hold_twice_is_paid_once(host: Host, payme: Caller) -> None:
    first = await payme.created(1)
    with host.engine.begin() as connection:
        connection.execute(update(PaymentTransaction).values(order_hold=None, account_kind=None))
        connection.execute(
            PaymentTransaction.__table__.insert().values(
                gateway="payme",
                transaction_id="b" * 24,
                account_id="1",
                amount=15000.5,
                amount_tiyin=PRICE_TIYIN,
                state=1,
                provider_time=now_ms(),
                expires_at=now_ms() + TWELVE_HOURS_MS,
            )
        )
    answers = [await payme("PerformTransaction", {"id": name}) for name in (first, "b" * 24)]
    assert [code(answer) for answer in answers] == [None, -31008]
    assert (await host.order(1)).paid == 1


async def test_what_another_gateway_holds_or_sold_is_not_paymes(host: Host, payme: Caller) -> None:
    for state, number, refusal in ((1, 1, -31008), (2, 2, -31008), (-1, 3, None)):
        with host.engine.begin() as connection:
            connection.execute(
                PaymentTransaction.__table__.insert().values(
                    gateway="click",
                    transaction_id=str(number),
                    account_id=str(number),
                    amount_tiyin=PRICE_TIYIN,
                    state=state,
                    provider_time=now_ms(),
                    expires_at=now_ms() + TWELVE_HOURS_MS,
                )
            )
        assert code(await payme("CreateTransaction", creation(number))) == refusal


async def test_a_request_is_read_no_further_than_it_may_be_long(host: Host) -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        assert sent < 50, "the handler goes on reading"
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    with host.sessions() as db:
        reply = await host.made(db).handle_webhook(Request(scope, receive))
    assert reply.status_code == 200
    assert json.loads(bytes(reply.body))["error"]["code"] == -32504
