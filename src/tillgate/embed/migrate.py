"""Makes the `payments` table, or adopts one that another library made: no row is lost, no amount changes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any, Final

from sqlalchemy import Connection, Engine, bindparam, func, inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tillgate.domain.errors import Misconfigured
from tillgate.embed.accounts import kind_of
from tillgate.embed.models import TABLE, PaymentTransaction, to_ms, to_tiyin

log = logging.getLogger("tillgate.embed")

OURS: Final = ("amount_tiyin", "provider_time", "expires_at", "account_kind", "order_hold")
LIFETIME_MS: Final = {"payme": 43_200_000}
"""How long a transaction of a gateway lives where its row does not say."""
OTHER_LIFETIME_MS: Final = 86_400_000
BATCH: Final = 500
PAUSES_S: Final = (0.05, 0.2, 0.8, None)
_LOCK: Final = 0x74696C6C  # one number for all of us, so that workers starting together wait for each other


def run_migrations(engine: Engine, account_model: Any = None) -> None:
    """Bring the `payments` table up to date; may be called at every start, by several processes at once.

    `account_model`: the one that every row belongs to which says none, as older rows do.
    Raises `Misconfigured` where `payments` is a table of something else; it is then left as it is."""
    for pause in PAUSES_S:
        try:
            with engine.begin() as connection:
                _prepare(connection, account_model)
            return
        except DBAPIError:
            if pause is None:
                raise
        time.sleep(pause)  # another process may be doing the same


async def run_async_migrations(engine: AsyncEngine, account_model: Any = None) -> None:
    """The same for an `AsyncEngine`."""
    for pause in PAUSES_S:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_prepare, account_model)
            return
        except DBAPIError:
            if pause is None:
                raise
        await asyncio.sleep(pause)


def _prepare(connection: Connection, account_model: Any) -> None:
    migrate(connection)
    kind = TABLE.c.account_kind
    if (
        account_model is not None
        and connection.execute(select(TABLE.c.id).where(kind.is_(None)).limit(1)).first()
    ):
        change = update(TABLE).where(kind.is_(None))
        connection.execute(change.values(account_kind=kind_of(account_model), updated_at=TABLE.c.updated_at))


def complete(connection: Connection) -> bool:
    """Is there nothing left to do?"""
    looked = inspect(connection)
    if not looked.has_table(TABLE.name):
        return False
    columns = {column["name"] for column in looked.get_columns(TABLE.name)}
    indexes = {index["name"] for index in looked.get_indexes(TABLE.name)}
    return columns.issuperset(OURS) and indexes.issuperset(index.name for index in _unique())


def migrate(connection: Connection) -> None:
    """The work itself, in the caller's transaction. Raises `Misconfigured` for a table of something else."""
    if complete(connection):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    looked = inspect(connection)
    if not looked.has_table(TABLE.name):
        TABLE.create(connection, checkfirst=True)
        return
    there = {column["name"] for column in looked.get_columns(TABLE.name)}
    if missing := sorted(set(TABLE.c.keys()) - there - set(OURS)):
        named = ", ".join(missing)
        raise Misconfigured(f"{TABLE.name} is not a table of gateways' transactions: it has no {named}")
    for name in OURS:
        if name not in there:
            kind = TABLE.c[name].type.compile(connection.dialect)
            connection.execute(text(f"ALTER TABLE {TABLE.name} ADD COLUMN {name} {kind}"))
    _fill(connection)
    _part(connection)
    known = {index["name"] for index in inspect(connection).get_indexes(TABLE.name)}
    for index in TABLE.indexes:
        if index.name not in known and index.name in {ours.name for ours in _ours()}:
            index.create(connection)


def _fill(connection: Connection) -> None:
    """Give old rows what we decide by: a state, the exact amount, the gateway's time, when they die."""
    t = TABLE.c
    stateless = update(TABLE).where(t.state.is_(None))
    connection.execute(stateless.values(state=PaymentTransaction.CREATED, updated_at=t.updated_at))
    wanted = select(t.id, t.gateway, t.amount, t.extra_data, t.created_at, t.provider_time)
    wanted = wanted.where(t.amount_tiyin.is_(None)).order_by(t.id).limit(BATCH)
    change = update(TABLE).where(t.id == bindparam("row_id"))
    change = change.values(
        amount_tiyin=bindparam("tiyin"),
        provider_time=bindparam("made_at"),
        expires_at=bindparam("dies_at"),
        updated_at=t.updated_at,
    )
    seen = 0
    while rows := connection.execute(wanted.where(t.id > seen)).all():
        connection.execute(change, [_filled(row) for row in rows])
        seen = rows[-1].id


def _filled(row: Any) -> dict[str, Any]:
    made_at = row.provider_time or _provider_time(row.extra_data) or to_ms(row.created_at)
    lifetime = LIFETIME_MS.get(row.gateway or "", OTHER_LIFETIME_MS)
    try:
        tiyin = None if row.amount is None else to_tiyin(row.amount)
    except ValueError:
        log.warning("payments: row %d holds no amount: %r", row.id, row.amount)
        tiyin = None
    dies_at = None if made_at is None else made_at + lifetime
    return {"row_id": row.id, "tiyin": tiyin, "made_at": made_at, "dies_at": dies_at}


def _part(connection: Connection) -> None:
    """Where a transaction has several rows, one keeps its id; the others keep everything but that.

    A performed row is kept before a refunded, a waiting, a cancelled one, and an older before a younger.
    """
    t = TABLE.c
    doubled = (
        select(t.gateway, t.transaction_id)
        .where(t.transaction_id.is_not(None))
        .group_by(t.gateway, t.transaction_id)
        .having(func.count() > 1)
    )
    worth = {2: 0, -2: 1, 1: 2, -1: 3}
    for gateway, transaction_id in connection.execute(doubled).all():
        same = select(t.id, t.state).where(t.gateway == gateway, t.transaction_id == transaction_id)
        rows = sorted(connection.execute(same).all(), key=lambda row: (worth.get(row.state, 4), row.id))
        for row in rows[1:]:
            renamed = f"{transaction_id}#{row.id}"
            change = update(TABLE).where(t.id == row.id)
            connection.execute(change.values(transaction_id=renamed, updated_at=t.updated_at))
        log.warning(
            "payments: %s transaction %s had %d rows; row %d keeps the id, the others are renamed",
            gateway,
            transaction_id,
            len(rows),
            rows[0].id,
        )


def _provider_time(extra: Any) -> int | None:
    """Older rows kept Payme's own time in `extra_data`."""
    if isinstance(extra, str):
        try:
            extra = json.loads(extra)
        except ValueError:
            return None
    found = extra.get("create_time") if isinstance(extra, dict) else None
    return found if type(found) is int and 10**12 <= found < 10**13 else None


def _ours() -> list[Any]:
    return [index for index in TABLE.indexes if index.name and "account_id" not in index.name]


def _unique() -> list[Any]:
    return [index for index in _ours() if index.unique]
