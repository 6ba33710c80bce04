"""The database fails: a full disk, a dead server, a lost answer to COMMIT, a process that stands still.

Whatever was answered is true, whatever was refused is not there, and nothing needs a restart afterwards.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from sqlalchemy import text

from support.disk import no_file_may_grow
from support.fixtures import fresh_database
from support.postgres import Server
from support.till import Till, open_till
from tillgate.domain.errors import InDoubt, TillgateError, Unavailable
from tillgate.hub import Opened
from tillgate.store import audit
from tillgate.store.directory import Merchant


async def answered(till: Till, shop: Merchant, made: list[Opened | BaseException]) -> None:
    """All that was answered is there once, and all else is not."""
    rows = await till.kit.reads.events(shop.id, 0, 10_000)
    opened = [row[4] for row in rows if row[3] == "payment.pending"]
    good = [one.payment.id for one in made if isinstance(one, Opened) and not one.replayed]
    assert sorted(opened) == sorted(good)
    report = await audit.verify(till.database)
    assert report.clean, report.text()


# --- SQLite -------------------------------------------------------------------------------------------------


async def test_a_full_disk(sqlite_url: str) -> None:
    async with open_till(sqlite_url) as till:
        shop = await till.merchant()
        before = await till.open(shop, "BEFORE")
        write = till.database._write
        assert isinstance(write, sqlite3.Connection)
        [pages] = write.execute("PRAGMA page_count").fetchone()
        write.execute(f"PRAGMA max_page_count = {pages + 3}")
        made: list[Opened | BaseException] = [before]
        made += await asyncio.gather(
            *(till.open(shop, f"ORD-{number}", metadata=f'"{"x" * 3_000}"') for number in range(20)),
            return_exceptions=True,
        )
        refused = [one for one in made if not isinstance(one, Opened)]
        assert refused
        assert all(isinstance(one, Unavailable) and not isinstance(one, InDoubt) for one in refused)
        assert await till.kit.reads.payment(before.payment.id) is not None  # reading goes on
        # A connection that met an error is not used again, so there is room now.
        made += await asyncio.gather(*(till.open(shop, f"AFTER-{number}") for number in range(20)))
        await answered(till, shop, made)


async def test_a_write_ahead_log_that_cannot_grow(sqlite_url: str) -> None:
    """Here it is the COMMIT that fails, at any of its writes."""
    async with open_till(sqlite_url) as till:
        shop = await till.merchant()
        made: list[Opened | BaseException] = []
        log = Path(f"{sqlite_url.removeprefix('sqlite:///')}-wal")
        for room in range(0, 300_000, 12_000):
            with no_file_may_grow(log.stat().st_size + room):
                made += await asyncio.gather(
                    *(till.open(shop, f"ORD-{room}-{number}") for number in range(3)),
                    return_exceptions=True,
                )
            made.append(await till.open(shop, f"AFTER-{room}"))
        refused = [one for one in made if not isinstance(one, Opened)]
        assert refused
        assert all(isinstance(one, Unavailable) for one in refused)
        assert len(made) - len(refused) > 40
        await answered(till, shop, made)


async def test_another_process_holds_the_lock(sqlite_url: str) -> None:
    """We wait, and the loop goes on meanwhile."""
    async with open_till(sqlite_url) as till:
        shop = await till.merchant()
        path, ready, enough = sqlite_url.removeprefix("sqlite:///"), threading.Event(), threading.Event()

        def hold() -> None:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            ready.set()
            enough.wait(4)
            other.execute("COMMIT")
            other.close()

        holder = threading.Thread(target=hold)
        holder.start()
        await asyncio.to_thread(ready.wait)
        opening = asyncio.create_task(till.open(shop, "ORD-1"))
        for _ in range(40):  # a loop that stood still would not get round before the lock is given back
            await asyncio.sleep(0.005)
            assert not opening.done()
        enough.set()
        assert (await opening).payment.status == "pending"
        holder.join()


async def test_a_lock_that_is_never_given_back(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tillgate.store.sqlite._WAIT_S", 0.2)
    async with open_till(sqlite_url) as till:
        shop = await till.merchant()
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await till.open(shop, "ORD-1")
        other.execute("ROLLBACK")
        other.close()
        opened = await till.open(shop, "ORD-1")
        await answered(till, shop, [opened])


# --- PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture
async def till(pg_till_url: str) -> AsyncIterator[Till]:
    async with open_till(pg_till_url) as opened:
        yield opened


@pytest.fixture
async def shop(till: Till) -> Merchant:
    return await till.merchant()


async def until_healed(till: Till, shop: Merchant, order: str) -> Opened:
    for _ in range(200):
        try:
            return await till.open(shop, order)
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("it did not heal")


async def test_connections_are_cut_under_load(till: Till, shop: Merchant) -> None:
    """Whoever got an error may ask again: what was refused did not happen."""
    stop, made = asyncio.Event(), list[Opened | BaseException]()

    async def trade(name: str) -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            try:
                made.append(await till.open(shop, f"{name}-{number}"))
            except TillgateError as error:
                made.append(error)

    traders = [asyncio.create_task(trade(f"T{number}")) for number in range(8)]
    admin = await asyncpg.connect(till.url)
    try:
        for _ in range(25):
            await asyncio.sleep(0.05)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'tillgate' AND datname = current_database()"
            )
    finally:
        await admin.close()
        stop.set()
    await asyncio.gather(*traders)
    refused = [one for one in made if not isinstance(one, Opened)]
    assert refused, "no connection was cut while it was used"
    assert {type(one) for one in refused} == {Unavailable}, refused
    made.append(await until_healed(till, shop, "AFTER"))
    await answered(till, shop, made)


async def test_the_server_dies_and_comes_back(own_pg: Server) -> None:
    with fresh_database(own_pg.url) as url:
        async with open_till(url) as till:
            shop = await till.merchant()
            made: list[Opened | BaseException] = [await till.open(shop, "BEFORE")]
            for round_, end in enumerate((own_pg.kill, lambda: own_pg.stop("immediate"), own_pg.stop)):
                trading = [
                    asyncio.create_task(till.open(shop, f"ORD-{round_}-{number}")) for number in range(300)
                ]
                await asyncio.sleep(0.01)
                await asyncio.to_thread(end)
                with pytest.raises(Unavailable):
                    await till.open(shop, f"WHILE-{round_}")
                with pytest.raises(Unavailable):
                    await till.kit.reads.payment(made[0].payment.id)
                await asyncio.to_thread(own_pg.start)
                # Those that were caught in their commit were waiting to see what became of it.
                made += await asyncio.gather(*trading, return_exceptions=True)
                made.append(await until_healed(till, shop, f"AFTER-{round_}"))
            refused = [one for one in made if not isinstance(one, Opened)]
            assert all(type(one) is Unavailable for one in refused), refused
            await answered(till, shop, made)


class Wire:
    """A proxy before PostgreSQL that cuts connections when `cut(bytes from us)` says `before` or `after`."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.cut: Callable[[bytes], str | None] = lambda _: None
        self.refuse = False
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        name = f"{self._target.username}:{self._target.password}@127.0.0.1:{port}"
        try:
            yield urlunsplit(self._target._replace(netloc=name))
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        ours = asyncio.create_task(self._ours(reader, back, writer))
        theirs = asyncio.create_task(self._theirs(there, writer))
        for task in (ours, theirs):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ours(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            when = self.cut(data)
            if when != "before":
                back.write(data)
                await back.drain()
            if when is not None:
                writer.transport.abort()
                if when == "before":
                    back.transport.abort()
                    return
        back.close()

    async def _theirs(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            if writer.is_closing():
                continue
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_answer_to_a_commit_is_lost(pg_till_url: str, when: str) -> None:
    """`after`: it happened, and we find that out. `before`: it did not, and we say so."""
    wire = Wire(pg_till_url)
    async with wire.open() as url, open_till(url) as till:
        shop = await till.merchant()
        cuts = []

        def cut(data: bytes) -> str | None:
            if b"COMMIT" in data and len(cuts) < 1:
                cuts.append(data)
                return when
            return None

        made: list[Opened | BaseException] = []
        for number in range(5):
            cuts.clear()
            wire.cut = cut
            made += await asyncio.gather(
                *(till.open(shop, f"ORD-{number}-{n}") for n in range(5)), return_exceptions=True
            )
            assert cuts
            wire.cut = lambda _: None
        good = [one for one in made if isinstance(one, Opened)]
        if when == "after":
            assert len(good) == 25
        else:
            assert {type(one) for one in made if not isinstance(one, Opened)} == {Unavailable}
        await answered(till, shop, made)


async def test_a_commit_that_stays_in_doubt_is_called_so(
    pg_till_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database does not come back in time: we neither claim nor deny it, and the repeat finds it."""
    monkeypatch.setattr("tillgate.store.journal._DOUBTS", 4)
    wire = Wire(pg_till_url)
    async with wire.open() as url, open_till(url) as till:
        shop = await till.merchant()

        def cut(data: bytes) -> str | None:
            if b"COMMIT" in data:
                wire.refuse = True
                return "after"
            return None

        wire.cut = cut
        with pytest.raises(InDoubt):
            await till.open(shop, "ORD-1")
        wire.refuse, wire.cut = False, lambda _: None
        again = await until_healed(till, shop, "ORD-1")
        assert again.replayed
        assert len(await till.kit.reads.events(shop.id, 0, 10)) == 1


async def test_a_process_that_stands_still_with_a_merchants_lock(till: Till, shop: Merchant) -> None:
    """Others of its kind wait a while and are refused; other merchants go on; later all is well."""
    other = await till.merchant("other")
    stuck = await asyncpg.connect(till.url)
    held = stuck.transaction()
    await held.start()
    await stuck.execute("SELECT 1 FROM heads WHERE merchant_id = $1 FOR UPDATE", shop.id)
    waiting = asyncio.create_task(till.open(shop, "ORD-1"))
    await asyncio.sleep(0.05)
    await till.open(other, "ORD-2")
    assert not waiting.done()
    with pytest.raises(Unavailable):
        await waiting
    await held.rollback()
    await stuck.close()
    opened = await till.open(shop, "ORD-1")
    await answered(till, shop, [opened])


async def test_a_hub_that_stands_still_loses_its_lock(pg_till_url: str) -> None:
    """The server ends a transaction of ours that does nothing; its lock cannot outlive us for long."""
    async with open_till(pg_till_url) as till:
        async with till.database.begin() as tx:
            [[timeout]] = await tx.execute(text("SHOW idle_in_transaction_session_timeout"), {})
            [[lock]] = await tx.execute(text("SHOW lock_timeout"), {})
        assert timeout == "10s"
        assert lock == "5s"


async def test_a_hub_that_starts_before_its_database(own_pg: Server) -> None:
    own_pg.stop()
    with pytest.raises(Unavailable):
        async with open_till(own_pg.url):
            pass
