"""The host's account or order: found by what the payer typed, named by its primary key."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Integer, SmallInteger, bindparam, inspect, select
from sqlalchemy.orm import Mapper, Session

_NOT_THERE: Final = object()


def find(session: Session, model: Any, wanted: Mapping[str, str]) -> Any:
    """The first row whose columns have these values, or None."""
    query, types = _query(model, tuple(wanted))
    values = _values(wanted, types, functools.partial(_any_width, session, model))
    return None if values is None else session.scalars(query, values).first()


def _values(
    wanted: Mapping[str, str], types: tuple[Any, ...], any_width: Callable[[], bool]
) -> dict[str, Any] | None:
    """What to compare with; None where a text cannot stand in its column, and is nobody's."""
    values: dict[str, Any] = {}
    for (field, text), column_type in zip(wanted.items(), types, strict=True):
        value = _typed(column_type, text, any_width)
        if value is _NOT_THERE:
            return None
        values[f"wanted_{field}"] = value
    return values


@dataclass(frozen=True, slots=True)
class Glance:
    """A row's key and price, where nothing else of it is wanted: half the cost of an object of the host's."""

    key: str
    price: Any


def glance(session: Session, model: Any, wanted: Mapping[str, str], price_field: str) -> Any:
    """What `find` gives, only glanced at, or the object itself where a glance could see something else:
    behind a host's own query hooks, changes that are not flushed yet, or a mapping that is no plain table."""
    plain = _plain(model, tuple(wanted), price_field)
    if plain is None or session.new or session.dirty or session.deleted or session.dispatch.do_orm_execute:
        return find(session, model, wanted)
    query, types, mapper = plain
    values = _values(wanted, types, functools.partial(_any_width, session, model))
    if values is None:
        return None
    connection = session.connection(bind_arguments={"mapper": mapper})
    row = connection.execute(query, values).first()
    return None if row is None else Glance(str(row[0]), row[1])


@functools.lru_cache(maxsize=256)
def _plain(
    model: Any, fields: tuple[str, ...], price_field: str
) -> tuple[Any, tuple[Any, ...], Mapper[Any]] | None:
    """The statement over the table alone; None where the model is more than its table."""
    mapper: Mapper[Any] = inspect(model)
    names = ["id", price_field, *fields]
    if (
        mapper.inherits is not None
        or mapper.polymorphic_on is not None
        or len(mapper.self_and_descendants) > 1
    ):
        return None
    if any(name not in mapper.column_attrs for name in names):
        return None
    key, price, *columns = (mapper.column_attrs[name].columns[0] for name in names)
    if any(column.table is not mapper.local_table for column in (key, price, *columns)):
        return None
    query = select(key, price).where(
        *(column == bindparam(f"wanted_{field}") for field, column in zip(fields, columns, strict=True))
    )
    return query, tuple(column.type for column in columns), mapper


@functools.lru_cache(maxsize=256)
def _query(model: Any, fields: tuple[str, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Made once: building a statement costs more than running it."""
    columns = {field: getattr(model, field) for field in fields}
    query = select(model).where(
        *(column == bindparam(f"wanted_{field}") for field, column in columns.items())
    )
    return query, tuple(column.type for column in columns.values())


def kind_of(model: Any) -> str:
    """`account_kind` of its transactions."""
    name: str = inspect(model).local_table.name
    return name


def has(model: Any, name: str) -> bool:
    """Whether the model maps something under this name."""
    mapper = inspect(model, raiseerr=False)
    return mapper is not None and name in mapper.all_orm_descriptors


def key_of(account: Any) -> str:
    """`account_id` of its transactions."""
    if isinstance(account, Glance):
        return account.key
    own = getattr(account, "id", None)
    if own is not None:
        return str(own)
    return "-".join(str(part) for part in inspect(account).identity or ())


def _any_width(session: Session, model: Any) -> bool:
    """SQLite keeps whole numbers of any width in every column of them."""
    return session.get_bind(inspect(model)).dialect.name == "sqlite"


def _typed(column_type: Any, text: str, any_width: Callable[[], bool]) -> Any:
    """A value the column can be compared with; a text that it cannot hold is nobody's."""
    try:
        python_type = column_type.python_type
    except NotImplementedError:
        return text
    if python_type is int:
        if not (text.isascii() and text.isdigit()) or len(text) > 19:
            return _NOT_THERE
        number, bits = int(text), 63
        if isinstance(column_type, SmallInteger):
            bits = 15
        elif isinstance(column_type, Integer) and not isinstance(column_type, BigInteger):
            bits = 31
        return number if number < 2**bits or (number < 2**63 and any_width()) else _NOT_THERE
    if python_type is uuid.UUID:
        try:
            return uuid.UUID(text)
        except ValueError:
            return _NOT_THERE
    return text
