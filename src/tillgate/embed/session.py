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

import sqlalchemy
from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool
from sqlalchemy.util import await_only

from tillgate.domain.errors import Fault
from tillgate.embed.afterwards import Afterwards
from tillgate.embed.migrate import complete, migrate
from tillgate.embed.models import TABLE, PaymentTransaction
from tillgate.embed.statements import MOVE
from tillgate.embed.threads import Threads

T = TypeVar("T")
Db: TypeAlias = Session | AsyncSession

TRIES: Final = 5
MAX_THREADS: Final = 16
# Serialization failure, deadlock, lock not available (PostgreSQL); lock wait and deadlock (MySQL).
_TRANSIENT_STATES: Final = frozenset({"40001", "40P01", "55P03"})
_TRANSIENT_NUMBERS: Final = frozenset({1205, 1213})
_ENDED_STATES: Final = frozenset({"40001", "40P01"})
# Takes SQLite's write lock before anything is read, in every transaction mode, and changes nothing.
_SQLITE_LOCK: Final = update(TABLE).where(TABLE.c.id.is_(None)).values(state=TABLE.c.state)

# What a session's `get_bind` is asked with: a host's own may look at either.
_OURS: Final[dict[str, Any]] = {"mapper": sqlalchemy.inspect(PaymentTransaction), "clause": MOVE}

_threads: weakref.WeakKeyDictionary[Engine, Threads] = weakref.WeakKeyDictionary()
_adopted: weakref.WeakSet[Engine] = weakref.WeakSet()


class HookFailed(Fault):
    """A hook rolled the transaction back: nothing was changed."""


class Moved(Exception):
    """A row changed between our look and our write: look again."""


class Void(Exception):
    """What we saw is no longer so, and the transaction can say no more: begin another."""


def unwrapped(db: Any) -> Any:
    """The session itself where the host hands over a `scoped_session`, which a thread would not share."""
    return db() if isinstance(db, scoped_session | async_scoped_session) else db


async def in_session(
    db: Db, work: Callable[[Session], T], *, reads: bool = False, afterwards: Afterwards | None = None
) -> T:
    """Run `work` and commit, or roll back and raise. A lost race with another process is run again.

    `reads`: it seldom changes anything, so that its commit is not worth telling others before it.
    `afterwards`: what `work` wants done when it is committed."""
    wishes = afterwards or Afterwards()
    try:
        if isinstance(db, AsyncSession):
            return await db.run_sync(lambda session: _transact(session, work, wishes, _async_pause, _nobody))
        engine = engine_of(db)
        if isinstance(engine.pool, StaticPool | SingletonThreadPool):
            # One connection for everybody, or one per thread: an in-memory database, which stays here.
            return _transact(db, work, wishes, lambda _: None, _nobody)
        threads = _threads_of(engine)
        return await threads.run(_transact, db, work, wishes, time.sleep, _nobody if reads else threads.tell)
    finally:
        wishes.run()  # also where the caller was cancelled while the thread committed


def _transact(
    session: Session,
    work: Callable[[Session], T],
    afterwards: Afterwards,
    pause: Callable[[float], None],
    tell: Callable[[], None],
) -> T:
    """`tell` is called before the disk is waited for."""
    try:
        return _tried(session, work, afterwards, pause, tell)
    except BaseException:
        afterwards.forget()
        raise


def _tried(
    session: Session,
    work: Callable[[Session], T],
    afterwards: Afterwards,
    pause: Callable[[float], None],
    tell: Callable[[], None],
) -> T:
    # What the host did before us in its transaction must not be thrown away to try again.
    alone = not (session.in_transaction() or session.new or session.dirty or session.deleted)
    for attempt in range(TRIES):
        afterwards.forget()
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
        except (Moved, Void):
            session.rollback()
            if not alone or attempt == TRIES - 1:
                raise
        except BaseException:
            session.rollback()
            raise
        pause(random.uniform(0.002, 0.02) * 2**attempt)  # noqa: S311
    raise AssertionError("unreachable")


def engine_of(session: Session) -> Engine:
    return session.get_bind(**_OURS).engine


def connection_of(session: Session) -> Connection:
    """Of our table. A session that routes by the statement is told that we write."""
    return session.connection(bind_arguments=dict(_OURS))


def _adopt(session: Session, alone: bool) -> None:
    """The table is made, or adopted, when it is first used; looked at once per engine."""
    engine = engine_of(session)
    if engine in _adopted:
        return
    connection = connection_of(session)
    if not complete(connection):
        try:
            migrate(connection)
        except DBAPIError as error:
            if _made_meanwhile(error):
                raise Void from error
            raise
        if not alone:
            return  # not ours to commit: the next one looks again
        session.commit()
    _adopted.add(engine)


def _transient(error: DBAPIError) -> bool:
    if failed_in_hook(error):
        return False
    cause: Any = error.orig
    state = _state(error)
    number = cause.args[0] if getattr(cause, "args", None) else None
    return state in _TRANSIENT_STATES or number in _TRANSIENT_NUMBERS or " is locked" in str(cause).lower()


def failed_in_hook(error: Exception) -> bool:
    """Whether this is a hook's own fault, and none of the transaction's."""
    return not isinstance(error, Moved | DBAPIError) or getattr(error, "__tillgate_of_hook__", False)


def _made_meanwhile(error: DBAPIError) -> bool:
    """Whether another process made the same table, column or index, or wrote to it."""
    said = str(error.orig).lower()
    return isinstance(error, IntegrityError) or "already exists" in said or "duplicate column" in said


def _state(error: DBAPIError) -> Any:
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


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
        connection_of(session).execute(_SQLITE_LOCK)
    elif name == "postgresql":
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big", signed=True)
        connection_of(session).execute(select(func.pg_advisory_xact_lock(number)))


def empty(method: T) -> T:
    """Marks a hook that does nothing: what it would be given is not even loaded."""
    method.__tillgate_empty__ = method  # type: ignore[attr-defined]
    return method


def is_empty(method: Any) -> bool:
    """`functools.wraps` copies the mark onto what does something: the mark says whose it is."""
    mark = getattr(method, "__tillgate_empty__", None)
    return mark is not None and mark is getattr(method, "__func__", method)


def call_hook(session: Session, is_async: bool, hook: Callable[..., Any], *arguments: Any) -> Any:
    """Run a hook inside our transaction; a coroutine is awaited where the session is an async one.

    Raises `HookFailed` if the hook rolled back, and whatever the hook raises.
    """
    with joined(session) as aborted:
        try:
            result = hook(*arguments)
            if inspect.isawaitable(result):
                if not is_async:
                    if inspect.iscoroutine(result):
                        result.close()
                    raise TypeError("an async hook needs an AsyncSession")
                result = await_only(_awaited(result))
        except DBAPIError as error:
            # The hook's own fault would only come again, and its own wait for a lock be waited again.
            if _state(error) not in _ENDED_STATES or not _ended(session):
                error.__tillgate_of_hook__ = True  # type: ignore[attr-defined]
            raise
    if aborted:
        raise HookFailed()
    return result


def _ended(session: Session) -> bool:
    """Whether the database gave our own transaction up, and not one that the hook opened beside it."""
    try:
        connection_of(session).execute(select(1))
    except SQLAlchemyError:
        return True
    return False


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
