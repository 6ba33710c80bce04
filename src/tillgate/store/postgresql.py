"""PostgreSQL over asyncpg: two writer connections per process: one gathers while the other commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.errors import InDoubt, Unavailable
from tillgate.store import statements
from tillgate.store.database import Conflict, Taken, Unfit, Wanted
from tillgate.store.statements import Row

_AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_UNFIT = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_AWAY = (asyncpg.PostgresError, *_BROKEN)
_WAIT_S = 5.0
"""For a free connection."""

_SETTINGS = {
    "application_name": "tillgate",
    # A merchant's lock is held for one commit. A process that stops while holding it (a lost network, a
    # paused machine) must not stop the others for longer than this: the server ends its transaction.
    "idle_in_transaction_session_timeout": "10000",
    "lock_timeout": "5000",
}


_BY_INDEX = {
    # The writers ask for few rows by key, or for the first of many in an index's order. Statistics that are
    # older than a backlog (or a table that was small) make the planner read all of it each time instead.
    f"enable_{way}": "off"
    for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort")
}


_VIEW = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; " + "; ".join(
    f"SET LOCAL {name} = {value}" for name, value in _BY_INDEX.items()
)
"""One trip. What is looked up is what the writers look up."""


class PostgresDatabase:
    engine: statements.Engine = "postgresql"
    writers = 2

    def __init__(self, url: str) -> None:
        self._url = url
        self._writing: asyncpg.Pool | None = None
        self._reading: asyncpg.Pool | None = None

    async def open(self) -> None:
        try:
            self._writing = await self._pool(0, self.writers, **_BY_INDEX)
            self._reading = await self._pool(0, 4, default_transaction_read_only="on")
            async with self._writing.acquire():
                pass
        except _AWAY as error:
            raise Unavailable("the database cannot be reached") from error

    async def _pool(self, low: int, high: int, **settings: str) -> asyncpg.Pool:
        return await asyncpg.create_pool(
            self._url,
            min_size=low,
            max_size=high,
            timeout=_WAIT_S,
            command_timeout=15,
            max_inactive_connection_lifetime=0,
            reset=_as_is,
            server_settings=_SETTINGS | settings,
        )

    async def close(self) -> None:
        for pool in (self._writing, self._reading):
            if pool is not None:
                pool.terminate() if pool.is_closing() else await pool.close()
        self._writing = self._reading = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[_Tx]:
        assert self._writing is not None, "open() first"
        committing = False
        try:
            async with self._writing.acquire(timeout=_WAIT_S) as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    tx = _Tx(connection)
                    yield tx
                    await tx.flush()
                    committing = True
                    await transaction.commit()
                except BaseException as error:
                    if committing or isinstance(error, _BROKEN):
                        connection.terminate()  # not asked to roll back: it may never answer
                    else:
                        await transaction.rollback()
                    raise
        except asyncpg.UniqueViolationError as error:
            raise Taken(str(error)) from error
        except _AGAIN as error:
            raise Conflict(str(error)) from error
        except _UNFIT as error:
            raise Unfit(str(error)) from error
        except _AWAY as error:
            raise (InDoubt() if committing else Unavailable()) from error

    async def read(self, statement: ClauseElement, params: Mapping[str, Any] | None = None) -> list[Row]:
        assert self._reading is not None, "open() first"
        made = statements.compiled("postgresql", statement)
        try:
            async with self._reading.acquire(timeout=_WAIT_S) as connection:
                return [tuple(row) for row in await connection.fetch(made.text, *made.bind(params or {}))]
        except asyncpg.DataError:
            return []
        except _AWAY as error:
            raise Unavailable() from error

    @asynccontextmanager
    async def view(self) -> AsyncIterator[_Tx]:
        assert self._reading is not None, "open() first"
        try:
            async with self._reading.acquire(timeout=_WAIT_S) as connection:
                try:
                    await connection.execute(_VIEW)
                    yield _Tx(connection)
                    await connection.execute("COMMIT")
                except BaseException:
                    connection.terminate()  # not asked to roll back: it may never answer
                    raise
        except _UNFIT as error:
            raise Unfit(str(error)) from error
        except _AWAY as error:
            raise Unavailable() from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[_Tx]:
        settings = {"application_name": "tillgate", "default_transaction_read_only": "on"}
        try:
            connection = await asyncpg.connect(self._url, timeout=_WAIT_S, server_settings=settings)
        except _AWAY as error:
            raise Unavailable("the database cannot be reached") from error
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield _Tx(connection)
        except _AWAY as error:
            raise Unavailable() from error
        finally:
            connection.terminate()


class _Tx:
    """Writes wait, and go out together in one statement before the next read or the commit: a round trip
    costs as much as a dozen rows."""

    __slots__ = ("_connection", "_waiting")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._waiting: list[_Write] = []

    async def select(
        self, table: Table, by: tuple[str, ...], keys: Sequence[Row], lock: bool = False
    ) -> list[Row]:
        if not keys:
            return []
        await self.flush()
        text = statements.select_by("postgresql", table, by, lock)
        return await self._connection.fetch(text, *_arrays(keys))  # type: ignore[no-any-return]

    async def known(self, wanted: Sequence[Wanted]) -> list[bool]:
        if not wanted:
            return []
        await self.flush()
        text = statements.any_of(tuple((table, name) for table, name, _ in wanted))
        [found] = await self._connection.fetch(text, *(keys for _, _, keys in wanted))
        return list(found.values())

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        given, blanks = statements.without_blanks(rows)
        await self._later(table, statements.insert("postgresql", table, blanks), given)

    async def upsert(self, table: Table, rows: Sequence[Row], added: str | None = None) -> None:
        await self._later(table, statements.upsert("postgresql", table, added), _arrays(rows))

    async def update(
        self, table: Table, rows: Sequence[Row], guard: str | None = None, strict: bool = True
    ) -> None:
        text = statements.update("postgresql", table, guard)
        await self._later(table, text, _arrays(rows), all_of_them=strict)

    async def delete(self, table: Table, keys: Sequence[Row]) -> None:
        await self._later(table, statements.delete("postgresql", table), _arrays(keys))

    async def execute(self, statement: ClauseElement, params: Mapping[str, Any]) -> list[Row]:
        await self.flush()
        made = statements.compiled("postgresql", statement)
        return [tuple(row) for row in await self._connection.fetch(made.text, *made.bind(params))]

    async def execute_many(self, statement: ClauseElement, params: Sequence[Mapping[str, Any]]) -> None:
        await self.flush()
        made = statements.compiled("postgresql", statement)
        await self._connection.executemany(made.text, [made.bind(one) for one in params])

    async def _later(
        self, table: Table, text: str, arrays: list[Sequence[Any]], all_of_them: bool = False
    ) -> None:
        # Parts of one statement do not see each other and run in no order: a table is written once in it.
        if any(one.table is table for one in self._waiting):
            await self.flush()
        self._waiting.append(_Write(table, text, arrays, len(arrays[0]) if all_of_them else None))

    async def flush(self) -> None:
        """Send what waits. Raises `Conflict` where a row was not as it was."""
        writes, self._waiting = self._waiting, []
        if not writes:
            return
        text = statements.together(tuple(one.text for one in writes))
        [counts] = await self._connection.fetch(text, *(array for one in writes for array in one.arrays))
        for one, done in zip(writes, counts, strict=True):
            if one.rows is not None and done != one.rows:
                raise Conflict(f"{one.table.name}: {one.rows - done} rows changed under us")


@dataclass(frozen=True, slots=True)
class _Write:
    table: Table
    text: str
    arrays: list[Sequence[Any]]
    rows: int | None  # how many must be changed


async def _as_is(_connection: Any) -> None:
    """Our transactions leave nothing to reset, and a reset costs a round trip per batch."""


def _arrays(rows: Sequence[Row]) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True))
