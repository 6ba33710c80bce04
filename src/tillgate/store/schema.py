"""Bring a database to this version's tables, and say whether it is there.

Alembic is loaded only where there is something to migrate: it brings twenty megabytes and every dialect of
SQL, and a hub that starts on a migrated database needs none of it.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, create_engine, inspect, pool, text
from sqlalchemy.exc import DBAPIError, OperationalError

from tillgate.domain.errors import Misconfigured, Unavailable
from tillgate.store.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x7111_6A7E  # two processes that migrate at once take turns
_WAIT_S = 30.0


def upgrade(url: str) -> str:
    """Run what is missing; the revision the database is at now. Safe to run twice and by two at once.

    A database that a newer version has migrated is left as it is: migrations only add, so that the version
    before goes on working beside it. Raises `Misconfigured` where one says that it does not."""

    def work(connection: Connection) -> str:
        from alembic import command

        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()  # the lock is the session's
        else:
            _keep_a_log(connection)
            # Nobody begins by himself here: one transaction for all, so that a kill leaves nothing half-made.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        if not _newer(connection):
            command.upgrade(_config(connection), "head")
        connection.commit()
        return _revision(connection) or ""

    found, wanted = state(url)
    return wanted if found == wanted else _with(url, work)


def state(url: str) -> tuple[str | None, str]:
    """The database's revision (None: it is empty) and this version's."""
    return _with(url, _revision), head()


def usable(url: str) -> bool:
    """Whether this version can work on the database: it is at this version's revision, or at a newer one.

    Raises `Misconfigured` where a newer one says that this version cannot."""
    return _with(url, lambda one: _revision(one) == head() or _newer(one))


def differences(url: str) -> list[object]:
    """What a migrated database and the tables in the code disagree on; for tests."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    return _with(url, lambda one: list(compare_metadata(MigrationContext.configure(one), metadata)))


def head() -> str:
    """The revision that no other follows; a test holds it to what Alembic says."""
    texts = [path.read_text(encoding="utf-8") for path in (_MIGRATIONS / "versions").glob("*.py")]
    revisions = {found[1] for text in texts if (found := _REVISION.search(text))}
    followed = {found[1] for text in texts if (found := _FOLLOWS.search(text))}
    [last] = revisions - followed
    return last


def known(revision: str) -> bool:
    """Whether this version has that revision, and so can go on from it."""
    texts = [path.read_text(encoding="utf-8") for path in (_MIGRATIONS / "versions").glob("*.py")]
    return revision in {found[1] for text in texts if (found := _REVISION.search(text))}


_REVISION = re.compile(r"^revision = [\"'](\w+)[\"']", re.MULTILINE)
_FOLLOWS = re.compile(r"^down_revision = [\"'](\w+)[\"']", re.MULTILINE)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _keep_a_log(connection: Connection) -> None:
    """SQLite needs the file alone to switch, and does not wait for that by itself."""
    ends = monotonic() + _WAIT_S
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0)
            if code & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > ends:
                raise
        sleep(0.01)


def _newer(connection: Connection) -> bool:
    """Whether a newer version has been here. It says in `meta` which revision one must know to go on."""
    revision = _revision(connection)
    if revision is None or known(revision):
        return False
    needed = connection.execute(text("SELECT value FROM meta WHERE key = 'usable_from'")).scalar()
    if needed is not None and not known(needed):
        raise Misconfigured("the database was migrated beyond what this version can use: install a newer one")
    return True


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _with(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` on a short-lived connection of its own; Alembic is synchronous."""
    try:
        if url.startswith("sqlite:///"):
            engine = create_engine(
                url, poolclass=pool.NullPool, connect_args={"timeout": _WAIT_S, "isolation_level": None}
            )
            with engine.connect() as connection:
                return work(connection)
        if url.startswith(("postgresql://", "postgres://")):
            # A thread with a loop of its own: the caller may stand in one already.
            with ThreadPoolExecutor(1) as executor:
                return executor.submit(asyncio.run, _postgres(url.split("://", 1)[1], work)).result()
    except (DBAPIError, OSError) as error:
        raise Unavailable(f"the database cannot be reached or changed: {type(error).__name__}") from error
    raise Misconfigured("the database URL must start with sqlite:/// or postgresql://")


async def _postgres(address: str, work: Callable[[Connection], T]) -> T:
    from sqlalchemy.ext.asyncio import create_async_engine  # slow to load, and SQLite needs it never

    engine = create_async_engine(f"postgresql+asyncpg://{address}", poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()
