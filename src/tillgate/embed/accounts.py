"""The host's account or order: found by what the payer typed, named by its primary key."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, Integer, SmallInteger, inspect, select
from sqlalchemy.orm import Session

_NOT_THERE: Final = object()


def find(session: Session, model: Any, wanted: Mapping[str, str]) -> Any:
    """The first row whose columns have these values, or None. `order_id` means the column `id`."""
    query = select(model)
    for field, text in wanted.items():
        column = getattr(model, "id" if field == "order_id" else field)
        value = _typed(column.type, text)
        if value is _NOT_THERE:
            return None
        query = query.where(column == value)
    return session.scalars(query).first()


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
