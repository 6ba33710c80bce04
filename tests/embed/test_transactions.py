"""One ruling is one transaction: what is committed when, what is tried again, and what is done afterwards."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import String, create_engine, event, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from tillgate.providers.payme.handler import PaymeWebhookHandler
from tillgate.providers.payme.tests.payme_kit import (
    HOMES,
    KEY,
    PRICE_TIYIN,
    AsyncHandler,
    Base,
    Host,
    Order,
    SyncHandler,
    calling,
    code,
    creation,
    host_on,
)
from tillgate.spi import Inbound


class Bonus(Base):
    __tablename__ = "bonuses"

    phone: Mapped[str] = mapped_column(String(20), primary_key=True)


def asked(method: str, params: Any) -> Inbound:
    """A request as a framework hands it over."""
    basic = base64.b64encode(f"Paycom:{KEY}".encode()).decode()
    body = json.dumps({"method": method, "params": params, "id": 1}).encode()
    return Inbound("POST", "/", "", {"authorization": f"Basic {basic}"}, body, "127.0.0.1", 0)


@contextlib.asynccontextmanager
async def beside(host: Host) -> AsyncIterator[Any]:
    """A plain connection of somebody else's."""
    engine = create_engine(host.url.replace("+asyncpg", "+psycopg").replace("+aiosqlite", ""))
    try:
        yield engine
    finally:
        engine.dispose()


# --- what the host did before us ----------------------------------------------------------------------------


@pytest.mark.parametrize("home", HOMES)
async def test_the_first_request_keeps_the_hosts_changes_with_its_ruling(
    home: str, request: pytest.FixtureRequest
) -> None:
    """A process's first request looks at the table, which was made long ago: no reason to commit."""

    class Failing(PaymeWebhookHandler):
        def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
            raise RuntimeError("no")

    async with host_on(home, request, handler=Failing) as host:
        for number in (100, 101):
            wanted = asked("CreateTransaction", creation())
            if host.is_async:
                async with host.sessions() as db:
                    db.add(Order(id=number, amount=1))
                    assert b"-32400" in (await host.made(db).answer(wanted)).body
            else:
                with host.sessions() as db:
                    db.add(Order(id=number, amount=1))
                    assert b"-32400" in (await host.made(db).answer(wanted)).body
        assert len(await host.rows(Order.__table__.select())) == host.orders


async def test_the_first_request_commits_once(request: pytest.FixtureRequest) -> None:
    commits: list[Session] = []
    async with host_on("sqlite-sync", request) as host, calling(host) as payme:
        event.listen(host.sessions, "after_commit", commits.append)
        await payme.created()
        assert len(commits) == 1
        await payme.created(2)
        assert len(commits) == 2


@pytest.mark.parametrize("home", ["sqlite-sync", "postgresql-sync"])
async def test_an_unflushed_change_of_the_hosts_is_kept(home: str, request: pytest.FixtureRequest) -> None:
    """`autoflush=False`, as the document's session has it."""
    async with host_on(home, request) as host:
        for number in (1, 2):  # not only a process's first request
            with host.sessions() as db:
                db.get(Order, number).phone = "changed before"
                reply = await host.made(db).answer(asked("CreateTransaction", creation(number)))
                assert b'"state":1' in reply.body
            order = await host.order(number)
            assert (order.phone, order.reserved) == ("changed before", 1)


# --- what is tried again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("home", ["sqlite-sync", "postgresql-sync"])
async def test_a_hooks_own_conflict_is_not_tried_again(
    home: str, flushed: bool, request: pytest.FixtureRequest
) -> None:
    runs: list[str] = []

    class Giving(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            runs.append(transaction.transaction_id)
            self.db.add(Bonus(phone="1"))
            if flushed:
                self.db.commit()

    async with host_on(home, request, handler=Giving) as host, calling(host) as payme:
        with host.sessions.begin() as db:
            db.add(Bonus(phone="1"))
        name = await payme.created()
        assert code(await payme("PerformTransaction", {"id": name})) == -32400
        assert runs == [name]
        assert [row.state for row in await host.transactions()] == [1]


async def test_a_hook_that_waits_for_our_lock_waits_once(request: pytest.FixtureRequest) -> None:
    """It works through a session of its own, which on SQLite waits for ours until it fails."""
    runs: list[float] = []
    patience = 0.3

    class Beside(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            runs.append(time.monotonic())
            with Session(self.db.get_bind()) as own:
                own.execute(update(Order).values(status="paid"))

    settings = {"connect_args": {"timeout": patience}}
    async with (
        host_on("sqlite-sync", request, handler=Beside, engine_settings=settings) as host,
        calling(host) as payme,
    ):
        name = await payme.created()
        began = time.monotonic()
        answers = await asyncio.gather(
            payme("PerformTransaction", {"id": name}),
            payme("CheckPerformTransaction", {"amount": PRICE_TIYIN, "account": {"order_id": "2"}}),
        )
        took = time.monotonic() - began
    assert (len(runs), code(answers[0]), code(answers[1])) == (1, -32400, None)
    assert patience <= took < 3 * patience


@pytest.mark.parametrize("home", ["postgresql-sync", "postgresql-async"])
@pytest.mark.parametrize("whose", ["ours", "its own"])
async def test_only_our_own_transaction_is_tried_again_when_the_database_gives_it_up(
    home: str, whose: str, request: pytest.FixtureRequest
) -> None:
    """A row changed under a transaction that reads repeatably: 40001, and the hook's work is void with it."""
    runs: list[str] = []

    def disturbed(db: Session, rival: Any) -> None:
        runs.append(whose)
        with contextlib.ExitStack() as stack:
            if whose == "its own":
                db = stack.enter_context(Session(rival.execution_options(isolation_level="REPEATABLE READ")))
            seen = db.get_one(Order, 7)
            if len(runs) == 1 or whose == "its own":
                with rival.begin() as connection:
                    connection.execute(text("UPDATE orders SET phone = phone || 'x' WHERE id = 7"))
            seen.paid += 1
            db.flush()

    class Sync(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            disturbed(self.db, rival)

    class Async(AsyncHandler):
        async def successfully_payment(self, params: Any, transaction: Any) -> None:
            await self.db.run_sync(disturbed, rival)

    kind = Async if home.endswith("async") else Sync
    settings = {"isolation_level": "REPEATABLE READ"}
    async with host_on(home, request, handler=kind, engine_settings=settings) as host, beside(host) as rival:
        async with calling(host) as payme:
            name = await payme.created()
            answer = await payme("PerformTransaction", {"id": name})
        if whose == "ours":
            assert answer["result"]["state"] == 2
            assert (len(runs), (await host.order(7)).paid) == (2, 1)
        else:
            assert (code(answer), len(runs)) == (-32400, 1)


# --- afterwards ---------------------------------------------------------------------------------------------


async def until(done: list[Any], count: int) -> None:
    for _ in range(200):
        if len(done) >= count:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("home", HOMES)
async def test_after_the_commit_a_message_is_sent_once_on_the_loop(
    home: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    loop = asyncio.get_running_loop()

    def plain(state: int) -> None:
        assert (asyncio.get_running_loop(), threading.current_thread()) == (loop, threading.main_thread())
        told.append(("plain", state))

    async def slow(state: int) -> None:
        (row,) = await host.transactions()  # as others see it: it was committed
        told.append(("slow", state, row.state))

    async def failing() -> None:
        raise RuntimeError("the bot is away")

    def telling(handler: Any, transaction: Any) -> None:
        for function, arguments in (
            (plain, (transaction.state,)), (slow, (transaction.state,)), (failing, ()), (int, ("no number",)),
        ):  # fmt: skip
            handler.after_commit(function, *arguments)

    class Sync(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            super().successfully_payment(params, transaction)
            telling(self, transaction)
            assert told == []

    class Async(AsyncHandler):
        async def successfully_payment(self, params: Any, transaction: Any) -> None:
            await super().successfully_payment(params, transaction)
            telling(self, transaction)
            assert told == []

    kind = Async if home.endswith("async") else Sync
    with caplog.at_level(logging.ERROR, "tillgate"):
        async with host_on(home, request, handler=kind) as host, calling(host) as payme:
            name = await payme.created()
            for _ in range(3):
                assert (await payme("PerformTransaction", {"id": name}))["result"]["state"] == 2
            await until(told, 2)
            await asyncio.sleep(0.05)
    assert told == [("plain", 2), ("slow", 2, 2)]
    assert caplog.text.count("after_commit") == 2


async def test_an_attempt_that_was_undone_sends_nothing(request: pytest.FixtureRequest) -> None:
    told: list[str] = []
    fails = [True]

    class Telling(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            self.after_commit(told.append, "paid")
            if fails.pop():
                raise RuntimeError("no")

    async with host_on("sqlite-sync", request, handler=Telling) as host, calling(host) as payme:
        name = await payme.created()
        assert code(await payme("PerformTransaction", {"id": name})) == -32400
        assert told == []
        fails.append(False)
        assert (await payme("PerformTransaction", {"id": name}))["result"]["state"] == 2
        assert told == ["paid"]


async def test_a_hook_that_runs_again_sends_its_message_once(request: pytest.FixtureRequest) -> None:
    runs: list[int] = []
    told: list[int] = []

    class Telling(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            runs.append(1)
            seen = self.db.get(Order, 7)
            if len(runs) == 1:
                with rival.begin() as connection:
                    connection.execute(text("UPDATE orders SET phone = 'x' WHERE id = 7"))
            self.after_commit(told.append, len(runs))
            seen.paid += 1

    settings = {"isolation_level": "REPEATABLE READ"}
    async with (
        host_on("postgresql-sync", request, handler=Telling, engine_settings=settings) as host,
        beside(host) as rival,
        calling(host) as payme,
    ):
        await payme.performed()
    assert (len(runs), told) == (2, [2])


async def test_who_hangs_up_while_the_hook_works_is_told_all_the_same(
    request: pytest.FixtureRequest,
) -> None:
    """What was begun is finished, and what was committed is said."""
    told: list[str] = []
    inside = threading.Event()

    class Telling(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            inside.set()
            self.after_commit(told.append, "paid")
            time.sleep(0.1)

    async with host_on("sqlite-sync", request, handler=Telling) as host:
        params = creation()
        with host.sessions() as db:
            await host.made(db).answer(asked("CreateTransaction", params))
            task = asyncio.create_task(
                host.made(db).answer(asked("PerformTransaction", {"id": params["id"]}))
            )
            await asyncio.to_thread(inside.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [row.state for row in await host.transactions()] == [2]
    assert told == ["paid"]
