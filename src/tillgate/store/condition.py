"""How the whole hub is, in a few bounded reads: what is stuck, what is overdue, whether the books balance.

Each read goes along an index and stops at `COUNTED` rows, so that it costs the same with a million payments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Select, bindparam, func, select, text

from tillgate.store import tables as t
from tillgate.store.database import Database

COUNTED: Final = 10_000
"""More of one thing is counted as this many."""

# Conditions in the very words of the partial indexes: SQLite uses one only where it recognises its condition.
_STUCK = text("status IN ('unsure', 'review')")
_PENDING = text("state = 'pending'")


def _stuck(status: str) -> Select[int]:
    rows = select(t.payments.c.id).where(_STUCK, t.payments.c.status == status).limit(COUNTED)
    return select(func.count()).select_from(rows.subquery())


_UNSURE: Final = _stuck("unsure")
_HELD: Final = _stuck("review")
_overdue = (
    select(t.due.c.kind, t.due.c.run_at)
    .where(t.due.c.run_at <= bindparam("now"))
    .order_by(t.due.c.run_at)
    .limit(COUNTED)
    .subquery()
)
_OVERDUE: Final = select(_overdue.c.kind, func.count(), func.min(_overdue.c.run_at)).group_by(_overdue.c.kind)
_pending = (
    select(t.deliveries.c.created_at, t.deliveries.c.next_at)
    .where(_PENDING)
    .order_by(t.deliveries.c.next_at)
    .limit(COUNTED)
    .subquery()
)
_PENDING_DELIVERIES: Final = select(
    func.count(), func.min(_pending.c.created_at), func.min(_pending.c.next_at)
)
_sums = (
    select(t.balances.c.currency, func.sum(t.balances.c.amount_minor).label("amount_minor"))
    .group_by(t.balances.c.merchant_id, t.balances.c.currency)
    .subquery()
)
_DRIFT: Final = select(_sums.c.currency, func.sum(func.abs(_sums.c.amount_minor))).group_by(_sums.c.currency)

_ACCOUNTS: Final = select(t.accounts.c.id, t.accounts.c.provider)


@dataclass(frozen=True, slots=True)
class Condition:
    """Counts stop at `COUNTED`. Ages and lags are milliseconds, 0 where there is nothing to be late."""

    unsure: int
    held: int
    overdue: dict[str, int]  # kind of due work → how much of it should have begun
    due_lag_ms: int  # how long the longest waiting of it has been overdue
    pending_deliveries: int
    oldest_delivery_ms: int  # since the event that is not delivered yet
    delivery_lag_ms: int  # how long the next try of one has been overdue


async def condition(database: Database, now: int) -> Condition:
    """Raises `Unavailable`."""
    [(unsure,)] = await database.read(_UNSURE)
    [(held,)] = await database.read(_HELD)
    overdue = await database.read(_OVERDUE, {"now": now})
    [(pending, created_at, next_at)] = await database.read(_PENDING_DELIVERIES)
    return Condition(
        unsure,
        held,
        {kind: count for kind, count, _ in overdue},
        max((now - run_at for _, _, run_at in overdue), default=0),
        pending,
        max(0, now - created_at) if created_at is not None else 0,
        max(0, now - next_at) if next_at is not None else 0,
    )


async def drift(database: Database) -> dict[str, int]:
    """Currency → by how many minor units the balances of merchants do not add up to nothing; all of it is
    counted, so that one merchant's surplus does not hide another's deficit. Raises `Unavailable`."""
    return {currency: int(amount_minor) for currency, amount_minor in await database.read(_DRIFT)}


async def providers_of(database: Database) -> dict[str, str]:
    """Account id → provider. Raises `Unavailable`."""
    return {row[0]: row[1] for row in await database.read(_ACCOUNTS)}
