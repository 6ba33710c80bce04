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
from time import monotonic
from typing import Any, Final

from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.errors import InDoubt, Unavailable
from tillgate.store import statements
from tillgate.store.database import Conflict, Taken, Unfit, Wanted
from tillgate.store.statements import Row

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
)
_WAIT_S: Final = 5.0
"""For another process's transaction."""

_KEYS: Final = 256
"""Looked up in one statement."""

_UNIQUE: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    }
)
_UNFIT: Final = (
    UnicodeEncodeError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)

# Half of what is bound is None, bytes or a boolean. The module adapts these by looking for `__conform__` and
# failing, which costs more than binding them; told what they adapt to, it finds that in a dictionary.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]  # it answers None
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(bool, int)


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
                self._path,
                timeout=_WAIT_S,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            # The writer waits for other processes in `_begin`, where the loop goes on meanwhile.
            connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA busy_timeout = 0")
        except sqlite3.Error as error:
            raise Unavailable(f"the database file cannot be opened: {error}") from error
        return connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[_Tx]:
        async with self._free:
            connection = self._write or self._connect(read_only=False)
            self._write = connection
            committing = False
            try:
                await _begin(connection)
                yield _Tx(connection)
                committing = True
                # The fsync is the wait: it leaves the loop, so the next batch gathers meanwhile.
                await _shielded(self._committer, connection.commit)
            except BaseException as error:
                raised = _rolled_back(connection, error)
                if raised is None:
                    raise
                if isinstance(raised, Unavailable):
                    self._write = None
                    raised = InDoubt() if committing else raised
                raise raised from error

    async def read(self, statement: ClauseElement, params: Mapping[str, Any] | None = None) -> list[Row]:
        made = statements.compiled("sqlite", statement)
        connection = self._read or self._connect(read_only=True)
        self._read = connection
        try:
            return connection.execute(made.text, made.bind(params or {})).fetchall()
        except (UnicodeEncodeError, OverflowError):
            return []
        except sqlite3.Error as error:
            self._read = None
            with suppress(sqlite3.Error):
                connection.close()
            raise _translated(error) from error

    @asynccontextmanager
    async def view(self) -> AsyncIterator[_Tx]:
        connection = self._read or self._connect(read_only=True)
        self._read = connection
        try:
            connection.execute("BEGIN")
            yield _Tx(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            raised = _rolled_back(connection, error)
            if raised is None:
                raise
            if isinstance(raised, Unavailable):
                self._read = None
            raise raised from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[_Tx]:
        connection = self._connect(read_only=True)
        # Whoever looks for damage must be able to read it.
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            connection.execute("BEGIN")
            yield _Tx(connection)
        finally:
            connection.close()


async def _begin(connection: sqlite3.Connection) -> None:
    ends = monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > ends:
                raise
        await asyncio.sleep(0.002)


async def _shielded(executor: ThreadPoolExecutor, work: Any) -> None:
    """Wait for a commit to its end even when the waiting task is cancelled: half a commit cannot be left."""
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _rolled_back(connection: sqlite3.Connection, error: BaseException) -> Exception | None:
    """What a failure of SQLite's is in our words; None for anybody else's. `Unavailable`: it is closed, too,
    because a connection after an I/O error is not to be trusted."""
    with suppress(sqlite3.Error):
        connection.rollback()
    if not isinstance(error, (sqlite3.Error, *_UNFIT)):
        return None
    raised = _translated(error)
    if isinstance(raised, Unavailable):
        with suppress(sqlite3.Error):
            connection.close()
    return raised


def _translated(error: Exception) -> Exception:
    if isinstance(error, sqlite3.IntegrityError):
        return Taken(str(error)) if error.sqlite_errorcode in _UNIQUE else Unfit(str(error))
    return Unfit(str(error)) if isinstance(error, _UNFIT) else Unavailable()


class _Tx:
    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def select(
        self, table: Table, by: tuple[str, ...], keys: Sequence[Row], lock: bool = False
    ) -> list[Row]:
        execute = self._connection.execute
        found: list[Row] = []
        if len(by) > 1:
            text = statements.select_by("sqlite", table, by)
            for key in keys:
                found += execute(text, key)
            return found
        wanted = [key[0] for key in keys]
        for first in range(0, len(wanted), _KEYS):
            some = wanted[first : first + _KEYS]
            # Filled up to a power of two, so that there are few texts to keep prepared.
            size = 1 << (len(some) - 1).bit_length()
            text = statements.select_by("sqlite", table, by, keys_count=size)
            found += execute(text, some + some[-1:] * (size - len(some)))
        return found

    async def known(self, wanted: Sequence[Wanted]) -> list[bool]:
        return [True] * len(wanted)  # there is no trip to save

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        given, blanks = statements.without_blanks(rows)
        text = statements.insert("sqlite", table, blanks)
        self._connection.executemany(text, zip(*given, strict=True))

    async def upsert(self, table: Table, rows: Sequence[Row], added: str | None = None) -> None:
        self._connection.executemany(statements.upsert("sqlite", table, added), rows)

    async def update(
        self, table: Table, rows: Sequence[Row], guard: str | None = None, strict: bool = True
    ) -> None:
        done = self._connection.executemany(statements.update("sqlite", table, guard), rows).rowcount
        if strict and done != len(rows):
            raise Conflict(f"{table.name}: {len(rows) - done} rows changed under us")

    async def delete(self, table: Table, keys: Sequence[Row]) -> None:
        self._connection.executemany(statements.delete("sqlite", table), keys)

    async def execute(self, statement: ClauseElement, params: Mapping[str, Any]) -> list[Row]:
        made = statements.compiled("sqlite", statement)
        return self._connection.execute(made.text, made.bind(params)).fetchall()

    async def execute_many(self, statement: ClauseElement, params: Sequence[Mapping[str, Any]]) -> None:
        made = statements.compiled("sqlite", statement)
        self._connection.executemany(made.text, [made.bind(one) for one in params])
