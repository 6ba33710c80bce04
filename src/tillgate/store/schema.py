"""Bring a database to this version's tables, and say whether it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from tillgate.domain.errors import Misconfigured, Unavailable
from tillgate.store.tables import metadata

T = TypeVar("T")
_LOCK = 0x7111_6A7E  # two processes that migrate at once take turns


def upgrade(url: str) -> str:
    """Run what is missing; the revision the database is at now. Safe to run twice and by two at once."""

    def work(connection: Connection) -> str:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()  # the lock is the session's
        else:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            # Nobody begins by himself here: one transaction for all, so that a kill leaves nothing half-made.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(_config(connection), "head")
        connection.commit()
        return MigrationContext.configure(connection).get_current_revision() or ""

    return _with(url, work)


def state(url: str) -> tuple[str | None, str]:
    """The database's revision (None: it is empty) and this version's."""
    return _with(url, lambda one: MigrationContext.configure(one).get_current_revision()), head()


def differences(url: str) -> list[object]:
    """What a migrated database and the tables in the code disagree on; for tests."""
    return _with(url, lambda one: list(compare_metadata(MigrationContext.configure(one), metadata)))


def head() -> str:
    return ScriptDirectory.from_config(_config(None)).get_current_head() or ""


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _with(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` on a short-lived connection of its own; Alembic is synchronous."""
    try:
        if url.startswith("sqlite:///"):
            engine = create_engine(
                url, poolclass=pool.NullPool, connect_args={"timeout": 30, "isolation_level": None}
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
