"""Learn from a hub's own database what one request writes, so that a C program can write the same.

The floor must not drift away from the hub: so its statements are not written down anywhere. A few creates
are made one by one against a running hub; the difference between two looks at its SQLite file is what a
create writes. A column whose values grow evenly is a counter, one that always holds the same is a constant,
and one that differs becomes a slot: the last value seen, with other characters at the places that differed.
Values that were equal in several columns stay equal.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Value = int | float | str | bytes | None
LOOKS = 8
_YEAR_S = 366 * 86400


class ShapeError(BenchError):
    """The requests did not all write the same rows, so no single shape describes them."""


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]  # the primary key, or rowid
    parents: frozenset[str]


@dataclass(frozen=True)
class Write:
    """One row that a request inserts, or one that it updates: column → its value in each look."""

    table: str
    key: tuple[Value, ...] | None  # of the updated row; None for an insert
    key_columns: tuple[str, ...]
    series: dict[str, tuple[Value, ...]]


@dataclass
class Shape:
    """What one request writes."""

    writes: list[Write]
    _slots: dict[tuple[Value, ...], int] = field(default_factory=dict, init=False, repr=False)

    def summary(self) -> str:
        counts = Counter(f"{w.table} {'insert' if w.key is None else 'update'}" for w in self.writes)
        return ", ".join(f"{what}{f' x{n}' if n > 1 else ''}" for what, n in counts.items())

    def script(self, *, postpone: bool = False) -> bytes:
        """The script of `native/floor.c`.

        `postpone` moves every time that lay ahead when it was learned (something due) a year on: five million
        payments that all fall due while one measures would measure the worker.
        """
        self._slots = {}
        statements = [self._statement(write, postpone) for write in self.writes]
        slots = [_slot(series) for series in self._slots]
        return b"".join(slots + statements)

    def _statement(self, write: Write, postpone: bool) -> bytes:
        columns = [f'"{c}"' for c in write.series]
        if write.key is None:
            places = ", ".join("?" * len(columns))
            sql = f'INSERT INTO "{write.table}" ({", ".join(columns)}) VALUES ({places})'
        else:
            sets = ", ".join(f"{c} = ?" for c in columns)
            sql = f'UPDATE "{write.table}" SET {sets} WHERE ' + " AND ".join(
                f"{c} = ?" for c in write.key_columns
            )
        parameters = [self._parameter(series, postpone) for series in write.series.values()]
        parameters += [_constant(value) for value in write.key or ()]
        head = f"STMT {len(sql.encode())} {len(parameters)}\n{sql}\n".encode()
        return head + b"".join(parameter + b"\n" for parameter in parameters)

    def _parameter(self, series: tuple[Value, ...], postpone: bool) -> bytes:
        last = series[-1]
        numbers = [value for value in series if isinstance(value, int)]
        if isinstance(last, int) and len(numbers) == len(series):
            delay = _postponement(last) if postpone else 0
            steps = {b - a for a, b in pairwise(numbers)}
            if steps == {0}:
                return _constant(last + delay)
            # A clock's steps differ: let it tick by one, it is still ordered.
            return b"C %d %d" % (last + delay, steps.pop() if len(steps) == 1 else 1)
        if len(set(series)) == 1 or len({type(v) for v in series}) > 1 or isinstance(last, float):
            return _constant(last)
        if len({len(_raw(v)) for v in series}) > 1:
            return _constant(last)  # JSON with a growing number in it: its size is what matters
        return b"S %d" % self._slots.setdefault(series, len(self._slots))


def learn(database: Path, create: Callable[[], object]) -> Shape:
    """Watch `create` write to a SQLite file; the server may be running.

    Raises ShapeError when two requests wrote different sets of rows.
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        tables = _tables(db)
        create()  # the first one may also make what later ones only update
        before = _look(db, tables)
        steps = []
        for _ in range(LOOKS):
            create()
            after = _look(db, tables)
            steps.append(_difference(tables, before, after))
            before = after
    kinds = {tuple((table, key) for table, key, _ in step) for step in steps}
    if len(kinds) != 1:
        found = "\n".join(sorted(str(Counter(table for table, _ in kind)) for kind in kinds))
        raise ShapeError(f"requests write different rows:\n{found}")
    if not steps[0]:
        raise ShapeError("a request writes nothing")
    by_name = {t.name: t for t in tables}
    writes = []
    for parts in zip(*steps, strict=True):
        table, key, _ = parts[0]
        rows = [row for _, _, row in parts]
        columns = [c for c in by_name[table].columns if any(c in row for row in rows)]
        series = {c: tuple(row.get(c) for row in rows) for c in columns}
        if key is not None:
            # A column that an update once left alone has no value in that look: keep what always moved.
            series = {c: values for c, values in series.items() if all(c in row for row in rows)}
        writes.append(Write(table, key, by_name[table].key, series))
    return Shape(writes)


def _tables(db: sqlite3.Connection) -> list[Table]:
    """All tables, parents before the tables that refer to them."""
    names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = {}
    for name in names:
        if name.startswith("sqlite_") or name == "alembic_version":
            continue
        info = db.execute(f'PRAGMA table_info("{name}")').fetchall()
        key = tuple(c[1] for c in sorted((c for c in info if c[5]), key=lambda c: c[5]))
        parents = {row[2] for row in db.execute(f'PRAGMA foreign_key_list("{name}")')} - {name}
        found[name] = Table(name, tuple(c[1] for c in info), key or ("rowid",), frozenset(parents))
    ordered: list[Table] = []
    while found:
        free = [t for t in found.values() if not t.parents & found.keys()] or list(found.values())[:1]
        ordered.extend(found.pop(table.name) for table in free)
    return ordered


Look = dict[str, dict[tuple[Value, ...], dict[str, Value]]]


def _look(db: sqlite3.Connection, tables: list[Table]) -> Look:
    look: Look = {}
    with db:
        db.execute("BEGIN")
        for table in tables:
            key = ", ".join(f'"{c}"' if c != "rowid" else c for c in table.key)
            width = len(table.key)
            rows = db.execute(f'SELECT {key}, * FROM "{table.name}" ORDER BY {key}')
            look[table.name] = {
                row[:width]: dict(zip(table.columns, row[width:], strict=True)) for row in rows
            }
    return look


def _difference(
    tables: list[Table], before: Look, after: Look
) -> list[tuple[str, tuple[Value, ...] | None, dict[str, Value]]]:
    """Inserted rows whole, then updated rows with their changed columns."""
    inserted: list[tuple[str, tuple[Value, ...] | None, dict[str, Value]]] = []
    updated: list[tuple[str, tuple[Value, ...] | None, dict[str, Value]]] = []
    for table in tables:
        old = before[table.name]
        for key, row in after[table.name].items():
            if key not in old:
                inserted.append((table.name, None, row))
            elif row != old[key]:
                updated.append((table.name, key, {c: v for c, v in row.items() if v != old[key][c]}))
    return inserted + updated


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _constant(value: Value) -> bytes:
    match value:
        case None:
            return b"N"
        case int():
            return b"I %d" % value
        case float():
            return f"R {value!r}".encode()
    raw = _raw(value)
    return b"%b %d\n%b" % (b"B" if isinstance(value, bytes) else b"T", len(raw), raw)


def _slot(series: tuple[Value, ...]) -> bytes:
    raws = [_raw(v) for v in series]
    last = raws[-1]
    moving = [i for i in range(len(last)) if len({raw[i] for raw in raws}) > 1]
    order = "ordered" if all(a < b for a, b in pairwise(raws)) else "random"
    blob = isinstance(series[-1], bytes)
    return b"SLOT %s %s %s %d %d\n%b\n%s\n" % (
        b"blob" if blob else b"text", b"bytes" if blob else _alphabet(raws, moving), order.encode(),
        len(last), len(moving), last, b" ".join(b"%d" % i for i in moving),
    )  # fmt: skip


def _alphabet(raws: list[bytes], moving: list[int]) -> bytes:
    seen = {chr(raw[i]) for raw in raws for i in moving}
    if seen <= set("0123456789"):
        return b"digits"
    if any(c.islower() for c in seen):
        return b"hex"
    return b"HEX" if seen <= set("0123456789ABCDEF") else b"b32"


def _postponement(value: int) -> int:
    """A year, in the unit of a value that looks like a time ahead of us; 0 for anything else."""
    now = time.time()
    for unit in (1, 10**3, 10**6, 10**9):
        if (now + 1) * unit < value < (now + _YEAR_S) * unit:
            return _YEAR_S * unit
    return 0
