"""Claiming due work and deliveries, and writing how they ended; run inside the journal's batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnClause, bindparam, literal_column, select, update

from tillgate.domain.record import record
from tillgate.store import tables as t
from tillgate.store.database import Tx

LEASE_MS: Final = 60_000

_due = t.due.alias("waiting")
_CLAIM_DUE = (
    update(t.due)
    .where(
        t.due.c.id.in_(
            select(_due.c.id)
            .where(_due.c.run_at <= bindparam("now"))
            .order_by(_due.c.run_at)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(run_at=bindparam("until"), tries=t.due.c.tries + 1)
    .returning(t.due)
)

_PENDING: Final[ColumnClause[str]] = literal_column(
    "'pending'"
)  # as the partial indexes say it: a parameter could be anything
_waiting = t.deliveries.alias("waiting")
_earlier = t.deliveries.alias("earlier")
# Said as an order, which one index alone gives: to a planner that believes that nothing is pending, reading
# all that is pending to find an earlier one would seem as cheap, and a backlog is when it errs most.
_first_of_stream = (
    select(_earlier.c.seq)
    .where(_earlier.c.stream == _waiting.c.stream, _earlier.c.state == _PENDING)
    .order_by(_earlier.c.seq)
    .limit(literal_column("1"))
    .scalar_subquery()
)
_CLAIM_DELIVERIES = (
    update(t.deliveries)
    .where(
        t.deliveries.c.id.in_(
            select(_waiting.c.id)
            .where(
                _waiting.c.state == _PENDING,
                _waiting.c.next_at <= bindparam("now"),
                # One payment's news reaches one target in order: nothing overtakes what is not delivered.
                _waiting.c.seq == _first_of_stream,
            )
            .order_by(_waiting.c.next_at)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(next_at=bindparam("until"), tries=t.deliveries.c.tries + 1)
    .returning(t.deliveries)
)


@record
class Delivery:
    """One event on its way to one URL; `number` counts this try."""

    id: str
    merchant_id: str
    endpoint_id: str | None
    url: str
    number: int
    event_id: str
    event_seq: int
    kind: str
    occurred_at: int
    body: bytes


@record
class Result:
    delivery: Delivery
    state: str
    again_at: int
    at: int
    took_ms: int
    status: int | None
    answer: str | None
    error: str | None
    disable: bool
    tried: bool = True  # something was sent


def due_id(kind: str, subject: str) -> str:
    """The key of a row of `due`: one of a kind for a subject."""
    return f"{kind}:{subject}"


@record
class Due:
    """Something to do for a subject; `tries` counts this one, `until` (epoch ms) ends its claim."""

    kind: str
    subject: str
    tries: int
    until: int


@dataclass(frozen=True, slots=True)
class ClaimDue:
    limit: int

    async def run(self, tx: Tx, now: int) -> list[Due]:
        params = {"now": now, "limit": self.limit, "until": now + LEASE_MS}
        return [Due(row[1], row[2], row[5], row[4]) for row in await tx.execute(_CLAIM_DUE, params)]


@dataclass(frozen=True, slots=True)
class ClaimDeliveries:
    limit: int

    async def run(self, tx: Tx, now: int) -> list[Delivery]:
        params = {"now": now, "limit": self.limit, "until": now + LEASE_MS}
        rows = await tx.execute(_CLAIM_DELIVERIES, params)
        if not rows:
            return []
        keys = list({(row[1], row[2]) for row in rows})
        events = {(e[0], e[1]): e for e in await tx.select(t.events, ("merchant_id", "seq"), keys)}
        found = []
        for row in sorted(rows, key=lambda one: one[2]):
            event = events.get((row[1], row[2]))
            if event is None:  # damage, for `ledger verify` to name; it must not stop the others
                gone = ("failed", row[7], now, now, None, "its event is gone", row[0], row[7])
                await tx.update(t.deliveries, [gone], guard="tries")
                continue
            body = bytes(event[6])
            found.append(
                Delivery(row[0], row[1], row[4], row[5], row[7], event[2], row[2], event[3], event[5], body)
            )
        return found


@dataclass(frozen=True, slots=True)
class Finish:
    """Write how tries ended. A try whose lease ran out and was taken over changes nothing."""

    results: Sequence[Result]

    async def run(self, tx: Tx, now: int) -> None:
        ends = [
            (
                one.state, one.delivery.number, one.again_at, None if one.state == "pending" else one.at,
                one.status, one.error, one.delivery.id, one.delivery.number,
            )
            for one in self.results
        ]  # fmt: skip
        await tx.update(t.deliveries, ends, guard="tries", strict=False)
        rows = [
            (one.delivery.id, one.delivery.number, one.at, one.took_ms, one.status, one.answer, one.error)
            for one in self.results
        ]
        await tx.upsert(t.delivery_tries, rows)
