"""SQL text for the write path, made once per table and engine from the one definition in `tables`.

SQLite runs a prepared statement once per row (a call is microseconds, in process); PostgreSQL gets all rows
of a batch as arrays in one round trip. Everything else is SQLAlchemy Core, compiled once.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.elements import ClauseElement

Engine: TypeAlias = Literal["sqlite", "postgresql"]
Row: TypeAlias = Sequence[Any]

_DIALECTS: dict[Engine, Any] = {"sqlite": sqlite.dialect(), "postgresql": asyncpg.dialect()}  # type: ignore[no-untyped-call]


@cache
def columns(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns)


@cache
def key(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key.columns)


@cache
def changing(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns if not column.info.get("fixed"))


def _array(table: Table, name: str, number: int) -> str:
    kind = table.columns[name].type.compile(_DIALECTS["postgresql"])
    return f"${number}::{kind}[]"


def _arrays(table: Table, names: Sequence[str]) -> str:
    return ", ".join(_array(table, name, number) for number, name in enumerate(names, 1))


@cache
def any_of(wanted: tuple[tuple[Table, str], ...]) -> str:
    """For PostgreSQL: whether each table has a row with one of the keys in that column."""
    columns = ", ".join(
        f"EXISTS (SELECT 1 FROM {table.name} WHERE {by} = ANY({_array(table, by, number)}))"
        for number, (table, by) in enumerate(wanted, 1)
    )
    return f"SELECT {columns}"


@cache
def select_by(
    engine: Engine, table: Table, by: tuple[str, ...], lock: bool = False, keys_count: int = 1
) -> str:
    """SQLite takes one key, or several of one column; PostgreSQL any number as arrays."""
    wanted = ", ".join(f"t.{name}" for name in columns(table))
    if engine == "sqlite" and keys_count > 1:
        return f"SELECT {wanted} FROM {table.name} t WHERE t.{by[0]} IN ({', '.join('?' * keys_count)})"
    if engine == "sqlite":
        return f"SELECT {wanted} FROM {table.name} t WHERE " + " AND ".join(f"t.{name} = ?" for name in by)
    match = " AND ".join(f"t.{name} = k.{name}" for name in by)
    keys = f"unnest({_arrays(table, by)}) AS k({', '.join(by)})"
    text = f"SELECT {wanted} FROM {table.name} t JOIN {keys} ON {match}"
    # One order everywhere, so that two batches never wait for each other in a circle.
    return f"{text} ORDER BY {', '.join(f't.{name}' for name in by)} FOR UPDATE OF t" if lock else text


Blanks: TypeAlias = tuple[int, ...]
"""Columns, by their place, that are null in every row: half of what is new is not known yet."""


def without_blanks(rows: Sequence[Row]) -> tuple[list[Sequence[Any]], Blanks]:
    """The rows as columns, without those that are blank."""
    given: list[Sequence[Any]] = list(zip(*rows, strict=True))
    blanks = tuple(place for place, values in enumerate(given) if values.count(None) == len(rows))
    return [values for place, values in enumerate(given) if place not in blanks] if blanks else given, blanks


@cache
def insert(engine: Engine, table: Table, blanks: Blanks = ()) -> str:
    names = [name for place, name in enumerate(columns(table)) if place not in blanks]
    head = f"INSERT INTO {table.name} ({', '.join(names)}) "
    if engine == "sqlite":
        return head + f"VALUES ({', '.join('?' * len(names))})"
    return head + f"SELECT * FROM unnest({_arrays(table, names)})"


@cache
def upsert(engine: Engine, table: Table, added: str | None = None) -> str:
    """Insert, or overwrite what varies; `added` names the one column that is added to instead."""
    names = [added] if added else changing(table)
    sets = ", ".join(
        f"{name} = {f'{table.name}.{name} + ' if name == added else ''}excluded.{name}" for name in names
    )
    where = "WHERE true " if engine == "postgresql" else ""  # ends the SELECT before ON CONFLICT
    then = f"UPDATE SET {sets}" if names else "NOTHING"
    return f"{insert(engine, table)} {where}ON CONFLICT ({', '.join(key(table))}) DO {then}"


@cache
def update(engine: Engine, table: Table, guard: str | None = None) -> str:
    """Overwrite what varies, by key; `guard` names a column whose value before is the last parameter: a row
    that has another is left alone."""
    names, keys = changing(table), key(table)
    if engine == "sqlite":
        sets = ", ".join(f"{name} = ?" for name in names)
        where = " AND ".join([f"{name} = ?" for name in keys] + [f"{guard} = ?"] * bool(guard))
        return f"UPDATE {table.name} SET {sets} WHERE {where}"
    given = [*names, *keys]
    sets = ", ".join(f"{name} = v.{name}" for name in names)
    where = " AND ".join(f"t.{name} = v.{name}" for name in keys)
    arrays, aliases = _arrays(table, given), ", ".join(given)
    if guard:
        where += f" AND t.{guard} = v.before"
        arrays, aliases = f"{arrays}, {_array(table, guard, len(given) + 1)}", f"{aliases}, before"
    return f"UPDATE {table.name} t SET {sets} FROM unnest({arrays}) AS v({aliases}) WHERE {where}"


@cache
def delete(engine: Engine, table: Table) -> str:
    keys = key(table)
    if engine == "sqlite":
        return f"DELETE FROM {table.name} WHERE " + " AND ".join(f"{name} = ?" for name in keys)
    match = " AND ".join(f"t.{name} = k.{name}" for name in keys)
    given = f"unnest({_arrays(table, keys)}) AS k({', '.join(keys)})"
    return f"DELETE FROM {table.name} t USING {given} WHERE {match}"


@cache
def together(texts: tuple[str, ...]) -> str:
    """Several writes of PostgreSQL as one statement that answers how many rows each changed. Their parameters
    follow each other."""
    parts, counts, before = [], [], 0
    for number, text in enumerate(texts):
        shift = before
        numbered = re.sub(r"\$(\d+)", lambda found, by=shift: f"${int(found[1]) + by}", text)  # type: ignore[misc]
        before += len(set(re.findall(r"\$\d+", text)))
        parts.append(f"w{number} AS ({numbered} RETURNING 1)")
        counts.append(f"(SELECT count(*) FROM w{number})")
    return f"WITH {', '.join(parts)} SELECT {', '.join(counts)}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A Core statement as one engine's text, and the order of its parameters."""

    text: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    def bind(self, params: Mapping[str, Any]) -> list[Any]:
        return [params[name] if name in params else self.constants[name] for name in self.names]


_compiled: OrderedDict[tuple[Engine, int], tuple[ClauseElement, Compiled]] = OrderedDict()


def compiled(engine: Engine, statement: ClauseElement) -> Compiled:
    """Hot statements are module constants, so identity is a good key (kept alive here, up to a bound)."""
    found = _compiled.get((engine, id(statement)))
    if found is None:
        made: Any = statement.compile(dialect=_DIALECTS[engine], compile_kwargs={"render_postcompile": True})
        found = statement, Compiled(str(made), tuple(made.positiontup or ()), dict(made.params))
        _compiled[engine, id(statement)] = found
        if len(_compiled) > 512:
            _compiled.popitem(last=False)
    return found[1]
