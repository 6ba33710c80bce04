"""The host's account or order: found by what the payer typed, named by its primary key."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, Integer, SmallInteger, bindparam, inspect, select
from sqlalchemy.orm import Session

_NOT_THERE: Final = object()


def find(session: Session, model: Any, wanted: Mapping[str, str]) -> Any:
    """The first row whose columns have these values, or None. `order_id` means the column `id`."""
    query, types = _query(model, tuple(wanted))
    values: dict[str, Any] = {}
    for (field, text), column_type in zip(wanted.items(), types, strict=True):
        value = _typed(column_type, text)
        if value is _NOT_THERE:
            return None
        values[f"wanted_{field}"] = value
    return session.scalars(query, values).first()


@functools.lru_cache(maxsize=256)
def _query(model: Any, fields: tuple[str, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Made once: building a statement costs more than running it."""
    columns = {field: getattr(model, "id" if field == "order_id" else field) for field in fields}
    query = select(model).where(
        *(column == bindparam(f"wanted_{field}") for field, column in columns.items())
    )
    return query, tuple(column.type for column in columns.values())


def key_of(account: Any) -> str:
    """`account_id` of its transactions."""
    own = getattr(account, "id", None)
    if own is not None:
        return str(own)
    return "-".join(str(part) for part in inspect(account).identity or ())


def _typed(column_type: Any, text: str) -> Any:
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
        return number if number < 2**bits else _NOT_THERE
    if python_type is uuid.UUID:
        try:
            return uuid.UUID(text)
        except ValueError:
            return _NOT_THERE
    return text
