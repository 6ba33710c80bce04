"""The embedding's statements over `payments`, made once: building one costs more than running it.

Rows that hooks are given are loaded as objects; those that are only looked at come without the ORM.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, insert, or_, select, update

from tillgate.embed.models import TABLE, PaymentTransaction

_T = PaymentTransaction
_OURS: Final = or_(_T.account_kind == bindparam("kind"), _T.account_kind.is_(None))
_ONE: Final = (_T.gateway == bindparam("gateway"), _T.transaction_id == bindparam("external_id"), _OURS)
ROW: Final = select(_T).where(*_ONE).execution_options(populate_existing=True)
_SEEN: Final = [column for column in TABLE.c if column.name != "extra_data"]  # parsed for hooks alone
GLANCE: Final = select(*_SEEN).where(*_ONE)
ENTITY: Final = select(_T).where(_T.id == bindparam("row_id")).execution_options(populate_existing=True)
OF_ACCOUNT: Final = (
    select(*_SEEN)
    .where(_T.account_id == bindparam("key"), _T.state != _T.CANCELLED_DURING_INIT, _OURS)
    .order_by(_T.id)
)
BOOKED: Final = (
    select(_T.transaction_id, _T.amount_tiyin, _T.extra_data)
    .where(
        _T.account_id == bindparam("key"), _T.gateway == bindparam("gateway"), _T.state.in_((2, -2)), _OURS
    )
    .order_by(_T.id.desc())
    .limit(20)
)
STATEMENT: Final = (
    select(TABLE)
    .where(_T.gateway == bindparam("gateway"), _T.state != _T.CREATED, _OURS)
    .where(_T.provider_time.between(bindparam("from_ms"), bindparam("to_ms")))
    .order_by(_T.provider_time, _T.id)
)
OVERDUE: Final = (
    select(_T.id, _T.account_id)
    .where(_T.gateway == bindparam("gateway"), _T.state.in_((0, 1)), _OURS, _T.expires_at <= bindparam("now"))
    .where(_T.id > bindparam("after"))
    .order_by(_T.id)
    .limit(100)
)
OVERDUE_WITHIN: Final = OVERDUE.where(_T.provider_time.between(bindparam("from_ms"), bindparam("to_ms")))
INSERT: Final = insert(TABLE)
CLAIM: Final = update(TABLE).where(TABLE.c.id == bindparam("row_id")).values(updated_at=TABLE.c.updated_at)
MOVE: Final = update(TABLE).where(
    TABLE.c.id == bindparam("row_id"), TABLE.c.state.in_((bindparam("seen"), bindparam("seen_too")))
)
