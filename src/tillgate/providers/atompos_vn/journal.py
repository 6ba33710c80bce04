"""Where IPNs are kept before they are answered: one SQLite file, safe against `kill -9` and loss of power.

WAL with synchronous=FULL. Whatever is waiting is written as one transaction and synced once: statements run
on the event loop (microseconds each), only COMMIT waits in a helper thread, and nobody is answered before it
is on the disk. Any number of processes may share the file; one of them, who holds the lock beside it, runs
the hooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, TypeVar

from tillgate.domain.errors import Unavailable
from tillgate.providers.atompos_vn.cards import scrubbed
from tillgate.providers.atompos_vn.contract import Ipn, read_ipn

T = TypeVar("T")
Kept: TypeAlias = Literal["new", "repeat", "conflict"]
Work: TypeAlias = Callable[[sqlite3.Connection], T]

BATCH: Final = 256
WAITING: Final = 10_000
LOCK_WAIT_S: Final = 2.0
"""How long another process may hold the file before a sender is told to come again."""
KEEP_DAYS: Final = 400
"""How long a requestId is known: a sender may repeat months later."""
REJECTED: Final = 10_000
_KEPT_BYTES: Final = 64 * 1024

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ipn (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, order_key BLOB NOT NULL,
  digest BLOB NOT NULL, partner TEXT NOT NULL, request_id TEXT NOT NULL, body BLOB NOT NULL,
  state TEXT NOT NULL, tries INTEGER NOT NULL, due_at INTEGER NOT NULL, error TEXT,
  received_at INTEGER NOT NULL, done_at INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS ipn_due ON ipn (due_at) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS ipn_order ON ipn (order_key, id) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS ipn_dead ON ipn (id) WHERE state = 'dead';
CREATE TABLE IF NOT EXISTS conflict (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, digest BLOB NOT NULL, request_id TEXT NOT NULL,
  body BLOB NOT NULL, times INTEGER NOT NULL, received_at INTEGER NOT NULL, UNIQUE (key, digest)
) STRICT;
CREATE TABLE IF NOT EXISTS rejected (
  id INTEGER PRIMARY KEY AUTOINCREMENT, partner TEXT NOT NULL, code TEXT NOT NULL, peer TEXT NOT NULL,
  body BLOB NOT NULL, received_at INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""
_RUNNABLE: Final = """
SELECT id, partner, request_id, order_key, body, tries FROM ipn AS one
WHERE state = 'waiting' AND due_at <= ? AND NOT EXISTS (
  SELECT 1 FROM ipn AS earlier
  WHERE earlier.state = 'waiting' AND earlier.order_key = one.order_key AND earlier.id < one.id)
ORDER BY due_at, id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An IPN that a hook must see. `order` says which others it must not overtake."""

    id: int
    partner: str
    request_id: str
    order: bytes
    body: bytes
    tries: int

    @property
    def ipn(self) -> Ipn:
        return read_ipn(self.body)


class Journal:
    """Every method that writes returns when it is on the disk, or raises `Unavailable`: nothing was kept."""

    def __init__(
        self, path: str | Path, *, clock: Callable[[], int] = lambda: time.time_ns() // 10**6
    ) -> None:
        self.path = Path(path)
        self.clock = clock
        self._waiting: deque[tuple[Work[Any], asyncio.Future[Any], float]] = deque()
        self._busy = False
        self._committer: ThreadPoolExecutor | None = None
        self._write: sqlite3.Connection | None = None
        self._read: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None
        self.leads = False

    # --- life -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Raises `Unavailable`, with the reason, where the file cannot be used."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open(f"{self.path}.lock", "ab")  # noqa: SIM115 (held as long as the journal)
            self._write, self._read = self._connect(), self._connect()
            self._write.execute("PRAGMA busy_timeout = 5000")
            self._write.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            self._write.execute("PRAGMA busy_timeout = 0")  # waiting is done without holding the loop
            self._read.execute("PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the IPN journal {self.path.name} cannot be opened: {error}") from error
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="ipn-commit")

    async def close(self) -> None:
        with contextlib.suppress(Unavailable):
            await self.submit(lambda _: None)  # whatever was handed in before it is on the disk now
        for connection in (self._write, self._read):
            if connection is not None:
                connection.close()
        if self._committer is not None:
            self._committer.shutdown()
        if self._lock is not None:
            self._lock.close()  # gives the lead away
        self._write = self._read = self._committer = self._lock = None
        self.leads = False

    def lead(self) -> bool:
        """Whether this process runs the hooks. The system frees the lock of a process that dies."""
        if not self.leads and self._lock is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.leads = True
        return self.leads

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    # --- writing --------------------------------------------------------------------------------------------

    async def keep(self, partner: str, ipn: Ipn, body: bytes, *, split_tender: bool = False) -> Kept:
        """Remember an IPN for the hook, once. A repeat changes nothing; other content is kept apart."""
        parts: tuple[str, ...] = (partner, ipn.requestId)
        if split_tender:  # one request paid in parts: each part is an IPN of its own
            parts += (ipn.amount, ipn.paymentType, ipn.fromAccNo)
        key, now = _digest(*parts), self.clock()
        order = _digest(partner, ipn.orderId)

        def work(db: sqlite3.Connection) -> Kept:
            known = db.execute("SELECT digest FROM ipn WHERE key = ?", (key,)).fetchone()
            if known is None:
                row = (key, order, ipn.digest, partner, ipn.requestId, scrubbed(body), now, now)
                db.execute(
                    "INSERT INTO ipn (key, order_key, digest, partner, request_id, body, due_at, received_at,"
                    " state, tries) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', 0)",
                    row,
                )
                return "new"
            if known[0] == ipn.digest:
                return "repeat"
            db.execute(
                "INSERT INTO conflict (key, digest, request_id, body, received_at, times)"
                " VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (key, digest) DO UPDATE SET times = times + 1",
                (key, ipn.digest, ipn.requestId, scrubbed(body)[:_KEPT_BYTES], now),
            )
            return "conflict"

        return await self.submit(work)

    async def reject(self, partner: str, code: str, peer: str, body: bytes) -> None:
        """Keep what was refused: it may be money. Of these only the newest are kept."""
        row = (partner, code, peer, scrubbed(body[: 2 * _KEPT_BYTES])[:_KEPT_BYTES], self.clock())

        def work(db: sqlite3.Connection) -> None:
            done = db.execute(
                "INSERT INTO rejected (partner, code, peer, body, received_at) VALUES (?, ?, ?, ?, ?)", row
            )
            db.execute("DELETE FROM rejected WHERE id <= ?", ((done.lastrowid or 0) - REJECTED,))

        await self.submit(work)

    async def done(self, ipn_id: int) -> None:
        await self._turn("state = 'done', done_at = ?, error = NULL", (self.clock(), ipn_id))

    async def again(self, ipn_id: int, tries: int, due_at: int, error: str) -> None:
        await self._turn("tries = ?, due_at = ?, error = ?", (tries, due_at, error, ipn_id))

    async def bury(self, ipn_id: int, tries: int, error: str) -> None:
        await self._turn("state = 'dead', tries = ?, error = ?", (tries, error, ipn_id))

    async def replay(self, ipn_id: int) -> bool:
        """Have a dead letter tried again. False: there is none of that number."""
        sql = "UPDATE ipn SET state = 'waiting', tries = 0, due_at = ? WHERE id = ? AND state = 'dead'"
        return await self.submit(lambda db: db.execute(sql, (self.clock(), ipn_id)).rowcount == 1)

    async def prune(self) -> int:
        """Forget what was done more than `KEEP_DAYS` ago, a thousand at a time."""
        old = "SELECT id FROM ipn WHERE state = 'done' AND received_at < ? LIMIT 1000"
        sql = f"DELETE FROM ipn WHERE id IN ({old})"  # noqa: S608 (our own words)
        before = self.clock() - KEEP_DAYS * 86_400_000
        return await self.submit(lambda db: db.execute(sql, (before,)).rowcount)

    async def _turn(self, change: str, values: tuple[Any, ...]) -> None:
        sql = f"UPDATE ipn SET {change} WHERE id = ? AND state = 'waiting'"  # noqa: S608 (our own words)
        await self.submit(lambda db: db.execute(sql, values))

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """Run `work` in the next transaction; its result comes when that is on the disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._write is None or len(self._waiting) >= WAITING:
            future.set_exception(Unavailable())
            return future
        self._waiting.append((work, future, loop.time() + LOCK_WAIT_S))
        if len(self._waiting) == 1 and not self._busy:
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        if self._busy or not self._waiting or self._write is None or self._committer is None:
            return
        loop, db = asyncio.get_running_loop(), self._write
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._blocked(error)
            return
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
        outcomes = [(future, *_guarded(db, work)) for work, future, _ in batch]
        if any(isinstance(error, _Lost) for _, _, error in outcomes):
            _rolled_back(db)
            for future, _, _ in outcomes:
                _settle(future, None, Unavailable())
            loop.call_soon(self._flush)
            return
        self._busy = True
        committed = loop.run_in_executor(self._committer, db.execute, "COMMIT")
        committed.add_done_callback(lambda commit: self._committed(commit, outcomes))

    def _blocked(self, error: sqlite3.Error) -> None:
        """Another process writes: try again soon; whoever has waited long enough is sent away."""
        loop = asyncio.get_running_loop()
        locked = "locked" in str(error) or "busy" in str(error)
        while self._waiting and (not locked or loop.time() >= self._waiting[0][2]):
            _settle(self._waiting.popleft()[1], None, Unavailable())
        if self._waiting:
            loop.call_later(0.01, self._flush)

    def _committed(
        self, commit: asyncio.Future[Any], outcomes: Iterable[tuple[asyncio.Future[Any], Any, Any]]
    ) -> None:
        self._busy = False
        failed = commit.exception()
        if failed is not None and self._write is not None:
            _rolled_back(self._write)
        for future, result, error in outcomes:
            _settle(future, result, Unavailable() if failed is not None else error)
        self._flush()

    # --- reading --------------------------------------------------------------------------------------------

    def runnable(self, running: Sequence[int], limit: int) -> list[Waiting]:
        """The oldest IPNs whose time has come and whose order has none before them, without `running`."""
        rows = self._rows(_RUNNABLE, (self.clock(), limit + len(running)))
        return [Waiting(*row) for row in rows if row[0] not in running][:limit]

    def next_due(self) -> int | None:
        """When the next retry is due (epoch ms)."""
        [row] = self._rows(
            "SELECT min(due_at) FROM ipn WHERE state = 'waiting' AND due_at > ?", (self.clock(),)
        )
        return None if row[0] is None else int(row[0])

    def counts(self) -> dict[str, int]:
        """How many are waiting, done, dead, conflict, rejected."""
        found = dict(self._rows("SELECT state, count(*) FROM ipn GROUP BY state", ()))
        for table in ("conflict", "rejected"):
            [row] = self._rows(f"SELECT count(*) FROM {table}", ())  # noqa: S608 (our own words)
            found[table] = row[0]
        return {state: found.get(state, 0) for state in ("waiting", "done", "dead", "conflict", "rejected")}

    def listed(self, what: str, limit: int = 100) -> list[dict[str, Any]]:
        """The newest `waiting`, `dead`, `conflict` or `rejected`, bodies as text. Raises `KeyError`."""
        columns, source = _LISTS[what]
        rows = self._rows(f"SELECT {columns} FROM {source} ORDER BY id DESC LIMIT ?", (limit,))  # noqa: S608
        names = [name.strip() for name in columns.split(",")]
        return [dict(zip(names, (_shown(value) for value in row), strict=True)) for row in rows]

    def _rows(self, sql: str, values: tuple[Any, ...]) -> Iterator[Any]:
        if self._read is None:
            raise Unavailable
        try:
            return iter(self._read.execute(sql, values).fetchall())
        except sqlite3.Error as error:
            raise Unavailable from error


_LISTS: Final = {
    "waiting": ("id, request_id, tries, error, body", "ipn WHERE state = 'waiting'"),
    "dead": ("id, request_id, tries, error, body", "ipn WHERE state = 'dead'"),
    "conflict": ("id, request_id, times, body", "conflict"),
    "rejected": ("id, code, peer, body", "rejected"),
}


class _Lost(Exception):
    """A full disk ended the whole transaction, and with it what its earlier commands had written."""


def _guarded(db: sqlite3.Connection, work: Work[T]) -> tuple[T | None, Exception | None]:
    """One command's failure is its own: the rest of its batch goes on, if there still is a transaction."""
    if not db.in_transaction:
        return None, _Lost()
    try:
        db.execute("SAVEPOINT one")
        result = work(db)
        db.execute("RELEASE one")
    except Exception as error:  # noqa: BLE001 (whatever it was, its caller is told)
        try:
            db.execute("ROLLBACK TO one")
            db.execute("RELEASE one")
        except sqlite3.Error:
            return None, _Lost()
        return None, Unavailable() if isinstance(error, sqlite3.Error) else error
    return result, None


def _rolled_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _digest(*parts: str) -> bytes:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _shown(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
