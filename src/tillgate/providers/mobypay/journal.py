"""The kiosk's own memory: one SQLite file, one writer, written before bytes leave and before a frame is
acted on.

Whoever needs something kept hands over rows and waits; everything waiting is written in one transaction and
synced once, so the cost of the disk is shared and nothing is believed before it is on it. No timer holds
anything back.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from tillgate.providers.mobypay.errors import JournalUnavailable
from tillgate.providers.mobypay.journal_rows import EnrolledTerminal, HubEntry, Row
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, UNSETTLED, Payment

SCHEMA_VERSION: Final = 2
MOST_PER_COMMIT: Final = 256
CHECKPOINT_COMMITS: Final = 64
LATEST_CHECKPOINT_COMMITS: Final = 1024
PAGE_LIMIT: Final = 200

_SCHEMA: Final = """
CREATE TABLE payments (
  n INTEGER PRIMARY KEY AUTOINCREMENT, txn_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, amount_sen INTEGER
  NOT NULL, reference TEXT, created_ms INTEGER NOT NULL, idempotency_key TEXT UNIQUE, request_digest BLOB,
  record BLOB NOT NULL
) STRICT;
CREATE INDEX payments_open ON payments (state)
  WHERE state IN ('pending','processing','awaiting_plan','cancelling','unknown','requires_review');
CREATE INDEX payments_reference ON payments (reference) WHERE reference IS NOT NULL;
CREATE TABLE changes (
  n INTEGER PRIMARY KEY AUTOINCREMENT, txn_id TEXT NOT NULL, version INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  fact TEXT NOT NULL, state TEXT NOT NULL, record BLOB NOT NULL, UNIQUE (txn_id, version)
) STRICT;
CREATE TABLE frames (
  n INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, direction TEXT NOT NULL, terminal TEXT NOT
  NULL, connection INTEGER NOT NULL, txn_id TEXT, verdict TEXT NOT NULL, raw BLOB NOT NULL
) STRICT;
CREATE INDEX frames_txn ON frames (txn_id) WHERE txn_id IS NOT NULL;
CREATE TABLE nonces (
  scope TEXT NOT NULL, nonce TEXT NOT NULL, expires_ms INTEGER NOT NULL, PRIMARY KEY (scope, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_expiry ON nonces (expires_ms);
CREATE TABLE alerts (
  n INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, txn_id TEXT, terminal TEXT,
  text TEXT NOT NULL, closed_ms INTEGER
) STRICT;
CREATE INDEX alerts_open ON alerts (txn_id) WHERE closed_ms IS NULL;
CREATE TABLE terminals (
  pos_id TEXT PRIMARY KEY, sealed_secret BLOB NOT NULL, port INTEGER, amount_form TEXT NOT NULL,
  forms TEXT NOT NULL, configured INTEGER NOT NULL, enrolled_ms INTEGER NOT NULL
) STRICT;
"""
_SECOND: Final = """
CREATE TABLE hub (
  one INTEGER PRIMARY KEY CHECK (one = 1), url TEXT NOT NULL, account TEXT NOT NULL, sealed_key BLOB NOT NULL,
  cursor INTEGER NOT NULL
) STRICT;
CREATE TABLE hub_orders (
  attempt TEXT PRIMARY KEY, txn_id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL
) STRICT;
"""


class Change(msgspec.Struct, frozen=True):
    """One entry of the feed: what happened to a payment, numbered without gaps that matter."""

    number: int
    txn_id: str
    version: int
    at_ms: int
    fact: str
    payment: Payment


class OpenAlert(msgspec.Struct, frozen=True):
    """Something a person has not dealt with yet."""

    number: int
    at_ms: int
    kind: str
    txn_id: str | None
    terminal: str | None
    text: str


class Journal:
    """Writes in one thread, group by group; reads beside it."""

    def __init__(self, path: Path):
        """Opens or creates the file. Raises JournalUnavailable when it cannot, or when another process has
        it.
        """
        self.path = path
        self._commits = 0
        """Since the last checkpoint."""
        self._waiting: list[tuple[Sequence[Row], asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kiosk-journal")
        with contextlib.ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                opened.callback(_only_one(path.with_name(path.name + ".lock")).close)
                self._writer = opened.enter_context(contextlib.closing(_open(path)))
                self._writer.execute("PRAGMA wal_autocheckpoint = 0")  # not inside anybody's commit
                _migrate(self._writer)
                self._reader = opened.enter_context(contextlib.closing(_open(path)))
                self._reader.execute("PRAGMA query_only = ON")
            except (OSError, sqlite3.Error) as error:
                raise JournalUnavailable(f"cannot use the journal {path.name}: {error}") from error
            self._opened = opened.pop_all()

    async def write(self, rows: Sequence[Row]) -> None:
        """Keep these rows, all or none; they are on the disk when this returns. Raises JournalUnavailable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(done)

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        if self._flushing is not None:
            await self._flushing
        self.let_go()

    def let_go(self) -> None:
        """Close the file; nothing may be waiting to be written."""
        self._thread.shutdown()
        self._opened.close()

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting or self._commits >= CHECKPOINT_COMMITS:
                if not self._waiting or self._commits >= LATEST_CHECKPOINT_COMMITS:
                    await loop.run_in_executor(self._thread, self._checkpoint)
                    self._commits = 0
                    continue
                self._commits += 1
                batch, self._waiting = self._waiting[:MOST_PER_COMMIT], self._waiting[MOST_PER_COMMIT:]
                errors = await loop.run_in_executor(self._thread, self._commit, [rows for rows, _ in batch])
                for (_, done), error in zip(batch, errors, strict=True):
                    if done.done():
                        continue
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
        finally:
            self._flushing = None

    def _checkpoint(self) -> None:
        """Move what is in the write-ahead log into the database, when nobody waits: it costs several
        syncs.
        """
        with contextlib.suppress(sqlite3.Error):  # busy or full now; the log keeps it until the next time
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _commit(self, batch: list[Sequence[Row]]) -> list[JournalUnavailable | None]:
        try:
            self._transaction(batch)
        except sqlite3.Error as error:
            if len(batch) == 1:
                return [JournalUnavailable(f"the journal was not written: {error}")]
            # One bad group must not take its neighbours along: each is tried by itself.
            return [self._commit([rows])[0] for rows in batch]
        return [None] * len(batch)

    def _transaction(self, batch: list[Sequence[Row]]) -> None:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        try:
            for rows in batch:
                for sql, values in rows:
                    execute(sql, values)
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise

    # --- reading, on a connection of its own

    def payment(self, txn_id: str) -> Payment | None:
        """One payment by its id."""
        return next(self._payments("WHERE txn_id = ?", txn_id), None)

    def open_payments(self) -> list[Payment]:
        """Everything in flight, unknown or under review, oldest first."""
        states = ",".join(f"'{state}'" for state in sorted(IN_FLIGHT | UNSETTLED))
        return list(self._payments(f"WHERE state IN ({states}) ORDER BY n"))

    def payments_of(self, reference: str) -> list[Payment]:
        """Every payment for a merchant's reference, newest first."""
        return list(self._payments("WHERE reference = ? ORDER BY n DESC LIMIT 50", reference))

    def answered(self, idempotency_key: str) -> tuple[bytes, Payment] | None:
        """The digest of the request that came with this key, and the payment it made."""
        row = self._reader.execute(
            "SELECT request_digest, record FROM payments WHERE idempotency_key = ?", (idempotency_key,)
        ).fetchone()
        return (row[0], _payment(row[1])) if row else None

    def page(
        self, limit: int, before: int | None = None, state: str | None = None
    ) -> list[tuple[int, Payment]]:
        """Payments newest first, with their numbers; `before` continues after an earlier page."""
        rows = self._reader.execute(
            "SELECT n, record FROM payments WHERE n < ? AND (? IS NULL OR state = ?) ORDER BY n DESC LIMIT ?",
            (before if before is not None else 2**62, state, state, min(limit, PAGE_LIMIT)),
        )
        return [(number, _payment(record)) for number, record in rows]

    def changes(self, after: int, limit: int) -> list[Change]:
        """The feed of what happened to payments, oldest first: how a hub follows this kiosk."""
        rows = self._reader.execute(
            "SELECT n, txn_id, version, at_ms, fact, record FROM changes WHERE n > ? ORDER BY n LIMIT ?",
            (after, min(limit, PAGE_LIMIT)),
        )
        return [
            Change(n, txn, version, at, fact, _payment(record)) for n, txn, version, at, fact, record in rows
        ]

    def history(self, txn_id: str) -> list[tuple[int, str, str]]:
        """When, what and the state after it, for one payment."""
        rows = self._reader.execute(
            "SELECT at_ms, fact, state FROM changes WHERE txn_id = ? ORDER BY version", (txn_id,)
        )
        return [(at_ms, fact, state) for at_ms, fact, state in rows]

    def open_alerts(self, limit: int = PAGE_LIMIT) -> list[OpenAlert]:
        """What nobody has dealt with yet, newest first."""
        rows = self._reader.execute(
            "SELECT n, at_ms, kind, txn_id, terminal, text FROM alerts WHERE closed_ms IS NULL"
            " ORDER BY n DESC LIMIT ?",
            (limit,),
        )
        return [OpenAlert(*row) for row in rows]

    def frames(self, txn_id: str) -> list[tuple[str, str, bytes]]:
        """Direction, verdict and bytes of every frame about a payment, oldest first."""
        rows = self._reader.execute(
            "SELECT direction, verdict, raw FROM frames WHERE txn_id = ? ORDER BY n", (txn_id,)
        )
        return [(direction, verdict, raw) for direction, verdict, raw in rows]

    def nonces(self, now_ms: int) -> list[tuple[str, str, int]]:
        """Scope, nonce and expiry of every nonce that could still be replayed, oldest expiry first."""
        rows = self._reader.execute(
            "SELECT scope, nonce, expires_ms FROM nonces WHERE expires_ms >= ? ORDER BY expires_ms", (now_ms,)
        )
        return [(scope, nonce, expires_ms) for scope, nonce, expires_ms in rows]

    def terminals(self) -> list[EnrolledTerminal]:
        """Every enrolled terminal."""
        rows = self._reader.execute(
            "SELECT pos_id, sealed_secret, port, amount_form, forms, configured FROM terminals"
        )
        return [
            EnrolledTerminal(pos_id, sealed, port, form, tuple(forms.split()), bool(configured))
            for pos_id, sealed, port, form, forms, configured in rows
        ]

    def hub(self) -> HubEntry | None:
        """The hub that this kiosk reports to."""
        row = self._reader.execute("SELECT url, account, sealed_key, cursor FROM hub").fetchone()
        return HubEntry(*row) if row else None

    def last_change(self) -> int:
        """The number of the newest change; 0 before any."""
        found: int = self._reader.execute("SELECT coalesce(max(n), 0) FROM changes").fetchone()[0]
        return found

    def hub_order(self, attempt: str) -> str | None:
        """The txn_id under which an order of the hub's was or is to be taken."""
        row = self._reader.execute("SELECT txn_id FROM hub_orders WHERE attempt = ?", (attempt,)).fetchone()
        return row[0] if row else None

    def _payments(self, where: str, *values: object) -> Iterator[Payment]:
        sql = f"SELECT record FROM payments {where}"  # noqa: S608  (only our own clauses)
        rows = self._reader.execute(sql, values)
        return (_payment(record) for (record,) in rows)


_decode_payment = msgspec.json.Decoder(Payment).decode


def _payment(record: bytes) -> Payment:
    return _decode_payment(record)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    os.chmod(path, 0o600)
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version not in (0, 1):
        raise JournalUnavailable(f"the journal is of version {version}; this kiosk knows {SCHEMA_VERSION}")
    missing = _SECOND if version else _SCHEMA + _SECOND
    connection.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def _only_one(path: Path) -> Any:
    """Two kiosks on one journal would each believe they own its terminals."""
    handle = path.open("a")
    try:
        import fcntl
    except ImportError:  # pragma: no cover  (not a POSIX system)
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise JournalUnavailable("another kiosk is running on this journal") from error
    return handle
