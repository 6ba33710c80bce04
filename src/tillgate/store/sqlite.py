"""SQLite: statements run on the event loop (microseconds each), only COMMIT waits in a helper thread.

WAL with synchronous=FULL: a commit has reached the disk before anyone is answered. Reads go to a separate
read-only connection and never wait for the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.errors import Unavailable
from tillgate.store import statements
from tillgate.store.database import Conflict
from tillgate.store.statements import Row

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
)


class SqliteDatabase:
    engine: statements.Engine = "sqlite"
    writers = 1

    def __init__(self, path: str) -> None:
        self._path = path
        self._free = asyncio.Lock()
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._write: sqlite3.Connection | None = None
        self._read: sqlite3.Connection | None = None

    async def open(self) -> None:
        self._write = self._connect(read_only=False)
        self._read = self._connect(read_only=True)

    async def close(self) -> None:
        async with self._free:
            for connection in (self._read, self._write):
                if connection is not None:
                    connection.close()
            self._read = self._write = None
        self._committer.shutdown()

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            if read_only:
                connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise Unavailable(f"the database file cannot be opened: {error}") from error
        return connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[_Tx]:
        async with self._free:
            connection = self._write or self._connect(read_only=False)
            self._write = connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield _Tx(connection)
                # The fsync is the wait: it leaves the loop, so the next batch gathers meanwhile.
                await _shielded(self._committer, connection.commit)
            except BaseException as error:
                with suppress(sqlite3.Error):
                    connection.rollback()
                if isinstance(error, sqlite3.Error):
                    raise _translated(error) from error
                raise

    async def read(self, statement: ClauseElement, params: Mapping[str, Any] | None = None) -> list[Row]:
        made = statements.compiled("sqlite", statement)
        connection = self._read or self._connect(read_only=True)
        self._read = connection
        try:
            return connection.execute(made.text, made.bind(params or {})).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error


async def _shielded(executor: ThreadPoolExecutor, work: Any) -> None:
    """Wait for a commit to its end even when the waiting task is cancelled: half a commit cannot be left."""
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _translated(error: sqlite3.Error) -> Exception:
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(str(error))
    return Unavailable()


class _Tx:
    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def select(
        self, table: Table, by: tuple[str, ...], keys: Sequence[Row], lock: bool = False
    ) -> list[Row]:
        text, execute = statements.select_by("sqlite", table, by), self._connection.execute
        found: list[Row] = []
        for key in keys:
            found += execute(text, key)
        return found

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self._connection.executemany(statements.insert("sqlite", table), rows)

    async def upsert(self, table: Table, rows: Sequence[Row], added: str | None = None) -> None:
        self._connection.executemany(statements.upsert("sqlite", table, added), rows)

    async def update(self, table: Table, rows: Sequence[Row], guarded: bool = False) -> None:
        done = self._connection.executemany(statements.update("sqlite", table, guarded), rows).rowcount
        if done != len(rows):
            raise Conflict(f"{table.name}: {len(rows) - done} rows changed under us")

    async def delete(self, table: Table, keys: Sequence[Row]) -> None:
        self._connection.executemany(statements.delete("sqlite", table), keys)

    async def execute(self, statement: ClauseElement, params: Mapping[str, Any]) -> list[Row]:
        made = statements.compiled("sqlite", statement)
        return self._connection.execute(made.text, made.bind(params)).fetchall()
