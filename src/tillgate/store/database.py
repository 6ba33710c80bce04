"""What the store needs of a database engine; `sqlite` and `postgresql` give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.errors import Misconfigured
from tillgate.store.statements import Engine, Row

Wanted: TypeAlias = tuple[Table, str, Sequence[Any]]
"""A table, a column and values of it."""


class Conflict(Exception):
    """Another writer was quicker: a lost version, a serialization failure. Try again."""


class Taken(Conflict):
    """A unique key is there already. Trying again shows whose it is."""


class Unfit(Exception):
    """The database cannot keep this value: a NUL in a text, a number too large, no such parent row."""


class Tx(Protocol):
    """One open transaction. Every failure of it is a `Conflict`, an `Unfit` or an `Unavailable`."""

    async def select(
        self, table: Table, by: tuple[str, ...], keys: Sequence[Row], lock: bool = False
    ) -> list[Row]: ...
    async def known(self, wanted: Sequence[Wanted]) -> list[bool]:
        """Whether it is worth while to select each of these, in one round trip if that saves any."""

    async def insert(self, table: Table, rows: Sequence[Row]) -> None: ...
    async def upsert(self, table: Table, rows: Sequence[Row], added: str | None = None) -> None: ...
    async def update(
        self, table: Table, rows: Sequence[Row], guard: str | None = None, strict: bool = True
    ) -> None:
        """Each row: what varies, then the key, then what the column `guard` was before. Strict: `Conflict`
        unless all rows match."""

    async def delete(self, table: Table, keys: Sequence[Row]) -> None: ...
    async def execute(self, statement: ClauseElement, params: Mapping[str, Any]) -> list[Row]:
        """Run one Core statement; rows of a SELECT or RETURNING."""

    async def execute_many(self, statement: ClauseElement, params: Sequence[Mapping[str, Any]]) -> None:
        """Run one Core statement for each set of parameters, in one go."""


class Database(Protocol):
    engine: Engine
    writers: int  # how many transactions may be open at once

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def begin(self) -> AbstractAsyncContextManager[Tx]:
        """A transaction that commits durably when the block ends well.

        `InDoubt` when the commit was sent and its answer lost; any other error: nothing was changed."""

    async def read(self, statement: ClauseElement, params: Mapping[str, Any] | None = None) -> list[Row]:
        """A committed view, beside the writers. What the database could not keep is not found in it."""

    def view(self) -> AbstractAsyncContextManager[Tx]:
        """One committed view for a moment, beside the writers: for reads that must fit each other."""

    def snapshot(self) -> AbstractAsyncContextManager[Tx]:
        """One committed view for as long as the block lasts, on a connection of its own that cannot write."""


def open_database(url: str) -> Database:
    """`sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://…`. Raises `Misconfigured`."""
    if url.startswith("sqlite:///"):
        from tillgate.store.sqlite import SqliteDatabase

        return SqliteDatabase(url.removeprefix("sqlite:///"))
    if url.startswith(("postgresql://", "postgres://")):
        from tillgate.store.postgresql import PostgresDatabase

        return PostgresDatabase(url)
    raise Misconfigured("the database URL must start with sqlite:/// or postgresql://")
