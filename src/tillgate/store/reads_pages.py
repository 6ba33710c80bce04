"""Lists, by key: a page costs the same at any depth.

What has no index of its own is looked for among so many rows and no more; such a page may be shorter than
was asked for, or empty, and says where to go on. So no list can hold up the hub, however rare what it seeks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import ge, gt, le, lt
from typing import Any, Final

from sqlalchemy import FromClause, Select, and_, asc, bindparam, desc, or_, select, text
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from tillgate.store import tables as t
from tillgate.store.database import Database
from tillgate.store.ids import event_seq
from tillgate.store.statements import Row, columns

WINDOW: Final = 2_000
"""Rows that are looked at in one go at most…"""
WINDOWS: Final = (100, 400, 1_500, WINDOW, WINDOW, WINDOW, WINDOW)
"""… and in each go for one page: what is common is found in the first, what is rare not before the last."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "payments": ("id",),
    "refunds": ("id",),
    "standing_orders": ("id",),
    "payment_links": ("id",),
    "reconciliations": ("id",),
    "findings": ("id",),
    "inbound": ("id",),
    "events": ("seq",),
    "deliveries": ("seq", "id"),
    "postings": ("seq", "line"),
}
"""What each list is ordered by, the newest first unless the oldest are wanted first."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One page of a merchant's rows of `table`.

    `found` columns are equal to something and have an index; `sifted` ones have none. `low` and `high` bound
    the first key column (at or above, below). `after` is the last key of the page before. `oldest_first`
    turns the order round."""

    table: str
    merchant_id: str
    limit: int
    after: Key | None = None
    found: Mapping[str, Any] = field(default_factory=dict)
    sifted: Mapping[str, Any] = field(default_factory=dict)
    low: Any = None
    high: Any = None
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """`next`: the key to go on behind; None where there is no more."""

    rows: Sequence[Mapping[str, Any]]
    next: Key | None


class Pages:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Wanted) -> Page:
        """Rows by column name (of `postings` with their event's id, subject and time)."""
        rows: list[Mapping[str, Any]] = []
        after = wanted.after
        for size in WINDOWS:
            missing = wanted.limit - len(rows)
            got, edge = await self._window(wanted, after, missing, max(size, min(2 * missing, WINDOW)))
            rows += got[:missing]
            if len(got) > missing:
                return Page(rows, _key(wanted.table, rows[-1]))
            if edge is None:
                return Page(rows, None)
            after = edge
            await asyncio.sleep(0)  # a long search lets others through
        return Page(rows, after)

    async def _window(
        self, wanted: Wanted, after: Key | None, missing: int, size: int
    ) -> tuple[Sequence[Mapping[str, Any]], Key | None]:
        """At most `missing + 1` of the next `size` rows, and the last one's key where it may go on behind."""
        shape = _Shape(
            wanted.table,
            tuple(wanted.found),
            tuple(wanted.sifted),
            after is not None,
            wanted.low is not None,
            wanted.high is not None,
            wanted.found.get("status") if "status" in wanted.found else None,
            wanted.oldest_first,
        )
        params: dict[str, Any] = {"owner": wanted.merchant_id, "low": wanted.low, "high": wanted.high}
        params |= {f"is_{name}": value for name, value in {**wanted.found, **wanted.sifted}.items()}
        params |= {f"key_{number}": value for number, value in enumerate(after or ())}
        params |= {"page": missing + 1, "limit": size if wanted.sifted else missing + 1}
        params["edge"] = size - 1
        names = _names(wanted.table)
        rows = [dict(zip(names, row, strict=True)) for row in await self._database.read(_rows(shape), params)]
        if not wanted.sifted or len(rows) > missing:
            return rows, None
        edge = await self._database.read(_edge(shape), params)
        return rows, tuple(edge[0]) if edge else None

    async def one(self, table: str, merchant_id: str, row_id: str) -> Mapping[str, Any] | None:
        """A merchant's own row by its id."""
        rows = await self._database.read(_one(table), {"owner": merchant_id, "row_id": row_id})
        return dict(zip(columns(t.metadata.tables[table]), rows[0], strict=True)) if rows else None

    async def event(self, merchant_id: str, event_id: str) -> Mapping[str, Any] | None:
        seq = event_seq(event_id)
        found = await self.event_at(merchant_id, seq) if seq else None
        return found if found and found["id"] == event_id else None

    async def event_at(self, merchant_id: str, seq: int) -> Mapping[str, Any] | None:
        rows = await self._database.read(_EVENT, {"owner": merchant_id, "seq": seq})
        return dict(zip(columns(t.events), rows[0], strict=True)) if rows else None

    async def seq_at(self, merchant_id: str, at: int) -> int:
        """The number of a merchant's first event at or after a time, or one above the last.

        By halves: events are numbered without a gap, and in the order of their times."""
        rows = await self._database.read(_HEAD, {"owner": merchant_id})
        low, high = 1, (rows[0][0] if rows else 0) + 1
        while low < high:
            middle = (low + high) // 2
            found = await self._database.read(_EVENT, {"owner": merchant_id, "seq": middle})
            if not found or found[0][5] >= at:
                high = middle
            else:
                low = middle + 1
        return low

    async def tries(self, delivery_id: str) -> list[Row]:
        """`delivery_tries`, oldest first."""
        return await self._database.read(_TRIES, {"id": delivery_id})

    async def standing_by_order(self, merchant_id: str, key: bytes) -> str | None:
        rows = await self._database.read(_STANDING_BY_ORDER, {"owner": merchant_id, "key": key})
        return str(rows[0][0]) if rows else None


def _key(table: str, row: Mapping[str, Any]) -> Key:
    return tuple(row[name] for name in KEYS[table])


@dataclass(frozen=True, slots=True)
class _Shape:
    table: str
    found: tuple[str, ...]
    sifted: tuple[str, ...]
    after: bool
    low: bool
    high: bool
    status: str | None
    rising: bool = False


_STUCK: Final = ("unsure", "review")
_EVENT_COLUMNS: Final = ("id", "subject", "occurred_at")


@cache
def _names(table: str) -> tuple[str, ...]:
    own = columns(t.metadata.tables[table])
    return (*own, *(f"event_{name}" for name in _EVENT_COLUMNS)) if table == "postings" else own


def _selection(shape: _Shape) -> Select[Any]:
    table, keys = t.metadata.tables[shape.table], KEYS[shape.table]
    first = table.c[keys[0]]
    wanted: list[Any] = [table.c.merchant_id == bindparam("owner")]
    wanted += [table.c[name] == bindparam(f"is_{name}") for name in shape.found]
    if shape.status in _STUCK:
        wanted.append(text("status IN ('unsure', 'review')"))  # the words of the partial index
    if shape.low:
        wanted.append(first >= bindparam("low"))
    if shape.high:
        wanted.append(first < bindparam("high"))
    behind, at_or_behind = (gt, ge) if shape.rising else (lt, le)
    if shape.after and len(keys) == 1:
        wanted.append(behind(first, bindparam("key_0")))
    elif shape.after:
        # A row value, written out: the first comparison is for the index, the second for the truth.
        here = and_(first == bindparam("key_0"), behind(table.c[keys[1]], bindparam("key_1")))
        wanted += [at_or_behind(first, bindparam("key_0")), or_(behind(first, bindparam("key_0")), here)]
    return select(table).where(*wanted).order_by(*_order(shape, table))


def _order(shape: _Shape, table: FromClause) -> list[ColumnElement[Any]]:
    turned = asc if shape.rising else desc
    return [turned(table.c[name]) for name in KEYS[shape.table]]


@cache
def _rows(shape: _Shape) -> ClauseElement:
    made = _selection(shape).limit(bindparam("limit"))
    if not shape.sifted and shape.table != "postings":
        return made
    inner = made.subquery("scanned")
    outer = select(inner)
    if shape.table == "postings":
        events = t.events
        same = and_(events.c.merchant_id == inner.c.merchant_id, events.c.seq == inner.c.seq)
        outer = select(inner, *(events.c[name] for name in _EVENT_COLUMNS)).join(events, same)
    outer = outer.where(*(inner.c[name] == bindparam(f"is_{name}") for name in shape.sifted))
    return outer.order_by(*_order(shape, inner)).limit(bindparam("page"))


@cache
def _edge(shape: _Shape) -> ClauseElement:
    """The last key of a full window."""
    table = t.metadata.tables[shape.table]
    keys = [table.c[name] for name in KEYS[shape.table]]
    return _selection(shape).with_only_columns(*keys).limit(1).offset(bindparam("edge"))


@cache
def _one(table: str) -> ClauseElement:
    found = t.metadata.tables[table]
    return select(found).where(found.c.id == bindparam("row_id"), found.c.merchant_id == bindparam("owner"))


_EVENT: Final = select(t.events).where(
    t.events.c.merchant_id == bindparam("owner"), t.events.c.seq == bindparam("seq")
)
_HEAD: Final = select(t.heads.c.seq).where(t.heads.c.merchant_id == bindparam("owner"))
_TRIES: Final = (
    select(t.delivery_tries)
    .where(t.delivery_tries.c.delivery_id == bindparam("id"))
    .order_by(t.delivery_tries.c.number)
    .limit(200)
)
_STANDING_BY_ORDER: Final = select(t.standing_orders.c.id).where(
    t.standing_orders.c.merchant_id == bindparam("owner"),
    t.standing_orders.c.order_key == bindparam("key"),
)
