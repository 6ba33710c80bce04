"""One ruling = one transaction on the host's session, sync or async, without ever blocking its event loop.

A sync session is worked on in a helper thread from the first statement to the commit, so no pool connection
is held while the loop does something else; an async one in SQLAlchemy's own greenlet.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool
from sqlalchemy.util import await_only

from tillgate.domain.errors import Fault
from tillgate.embed.migrate import complete, migrate
from tillgate.embed.models import TABLE, PaymentTransaction
from tillgate.embed.threads import Threads

T = TypeVar("T")
Db: TypeAlias = Session | AsyncSession

TRIES: Final = 5
MAX_THREADS: Final = 16
# Serialization failure, deadlock, lock not available (PostgreSQL); lock wait and deadlock (MySQL).
_TRANSIENT_STATES: Final = frozenset({"40001", "40P01", "55P03"})
_TRANSIENT_NUMBERS: Final = frozenset({1205, 1213})
# Takes SQLite's write lock before anything is read, in every transaction mode, and changes nothing.
_SQLITE_LOCK: Final = update(TABLE).where(TABLE.c.id.is_(None)).values(state=TABLE.c.state)

_threads: weakref.WeakKeyDictionary[Engine, Threads] = weakref.WeakKeyDictionary()
_adopted: weakref.WeakSet[Engine] = weakref.WeakSet()


class HookFailed(Fault):
    """A hook rolled the transaction back: nothing was changed."""


class Moved(Exception):
    """A row changed between our look and our write: look again."""


def unwrapped(db: Any) -> Any:
    """The session itself where the host hands over a `scoped_session`, which a thread would not share."""
    return db() if isinstance(db, scoped_session) else db


async def in_session(db: Db, work: Callable[[Session], T], *, reads: bool = False) -> T:
    """Run `work` and commit, or roll back and raise. A lost race with another process is run again.

    `reads`: it seldom changes anything, so that its commit is not worth telling others before it."""
    if isinstance(db, AsyncSession):
        return await db.run_sync(lambda session: _transact(session, work, _async_pause, _nobody))
    engine = engine_of(db)
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        # One connection for everybody, or one per thread: an in-memory database, which stays on this thread.
        return _transact(db, work, lambda _: None, _nobody)
    threads = _threads_of(engine)
    return await threads.run(_transact, db, work, time.sleep, _nobody if reads else threads.tell)


def _transact(
    session: Session,
    work: Callable[[Session], T],
    pause: Callable[[float], None],
    tell: Callable[[], None],
) -> T:
    """`tell` is called before the disk is waited for."""
    # What the host did before us in its transaction must not be thrown away to try again.
    alone = not (session.in_transaction() or session.new or session.dirty or session.deleted)
    for attempt in range(TRIES):
        try:
            _adopt(session, alone)
            outcome = work(session)
            tell()
            session.commit()
            return outcome
        except DBAPIError as error:
            session.rollback()
            if not alone or attempt == TRIES - 1 or not _transient(error):
                raise
        except Moved:
            session.rollback()
            if not alone or attempt == TRIES - 1:
                raise
        except BaseException:
            session.rollback()
            raise
        pause(random.uniform(0.002, 0.02) * 2**attempt)  # noqa: S311
    raise AssertionError("unreachable")


def engine_of(session: Session) -> Engine:
    return session.get_bind(PaymentTransaction).engine


def _adopt(session: Session, alone: bool) -> None:
    """The table is made, or adopted, when it is first used; looked at once per engine."""
    engine = engine_of(session)
    if engine in _adopted:
        return
    connection = session.connection(bind_arguments={"mapper": PaymentTransaction})
    if not complete(connection):
        migrate(connection)
        if not alone:
            return  # not ours to commit: the next one looks again
    session.commit()
    _adopted.add(engine)


def _transient(error: DBAPIError) -> bool:
    if isinstance(error, IntegrityError):
        return True  # a row that was not there when we looked
    cause: Any = error.orig
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    number = cause.args[0] if getattr(cause, "args", None) else None
    text = str(cause).lower()
    return (
        state in _TRANSIENT_STATES
        or number in _TRANSIENT_NUMBERS
        or " is locked" in text
        or "already exists" in text  # another process made the same table or index
        or "duplicate column" in text
    )


def _nobody() -> None:
    """Nobody waits for what this thread did before."""


def _async_pause(seconds: float) -> None:
    await_only(asyncio.sleep(seconds))


def _threads_of(engine: Engine) -> Threads:
    """As many threads as can have a connection; one for SQLite, whose writers only wait for each other."""
    found = _threads.get(engine)
    if found is None:
        limit = MAX_THREADS
        if engine.dialect.name == "sqlite":
            limit = 1
        elif isinstance(engine.pool, QueuePool):
            overflow = engine.pool._max_overflow
            limit = MAX_THREADS if overflow < 0 else max(1, min(MAX_THREADS, engine.pool.size() + overflow))
        found = _threads.setdefault(engine, Threads(engine, limit))
    return found


# --- locks and hooks ----------------------------------------------------------------------------------------


def take_turns(session: Session, key: str) -> None:
    """From here to the commit nobody else rules over the same account (`key`).

    On PostgreSQL an advisory lock: a hook that works through a session of its own may still write the
    account's row. Elsewhere the unique columns and guarded updates alone decide.
    """
    name = engine_of(session).dialect.name
    if name == "sqlite":
        session.execute(_SQLITE_LOCK)
    elif name == "postgresql":
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        session.execute(select(func.pg_advisory_xact_lock(int.from_bytes(digest, "big", signed=True))))


def empty(method: T) -> T:
    """Marks a hook that does nothing: what it would be given is not even loaded."""
    method.__tillgate_empty__ = True  # type: ignore[attr-defined]
    return method


def is_empty(method: Any) -> bool:
    return getattr(method, "__tillgate_empty__", False)


def call_hook(session: Session, is_async: bool, hook: Callable[..., Any], *arguments: Any) -> Any:
    """Run a hook inside our transaction; a coroutine is awaited where the session is an async one.

    Raises `HookFailed` if the hook rolled back, and whatever the hook raises.
    """
    with joined(session) as aborted:
        result = hook(*arguments)
        if inspect.isawaitable(result):
            if not is_async:
                if inspect.iscoroutine(result):
                    result.close()
                raise TypeError("an async hook needs an AsyncSession")
            result = await_only(_awaited(result))
    if aborted:
        raise HookFailed()
    return result


@contextlib.contextmanager
def joined(session: Session) -> Iterator[list[bool]]:
    """While a hook runs, its `commit()` writes but leaves the commit to us: row and hook commit together."""
    aborted: list[bool] = []

    def rollback() -> None:
        aborted.append(True)
        type(session).rollback(session)

    vars(session).update(commit=session.flush, close=session.flush, rollback=rollback)
    try:
        yield aborted
    finally:
        for name in ("commit", "close", "rollback"):
            vars(session).pop(name, None)


async def _awaited(value: Awaitable[T]) -> T:
    return await value
