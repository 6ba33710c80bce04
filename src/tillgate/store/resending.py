"""Sending again: rows for one delivery that is repeated, and for all that one endpoint missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Final

from sqlalchemy import bindparam, insert, select, update

from tillgate.store import tables as t
from tillgate.store.book import Change, Remembered, Target, delivery_row
from tillgate.store.database import Tx
from tillgate.store.statements import Row, columns

SCANNED: Final = 1_000
"""Events that one replay looks at."""

_INSERT = insert(t.deliveries)
_HURRY = (
    update(t.deliveries)
    .where(t.deliveries.c.id == bindparam("row_id"), t.deliveries.c.state == "pending")
    .values(next_at=bindparam("new_next_at"))
    .returning(t.deliveries.c.id)
)
_EVENTS = (
    select(t.events.c.seq, t.events.c.type, t.events.c.subject, t.events.c.occurred_at)
    .where(
        t.events.c.merchant_id == bindparam("merchant_id"),
        t.events.c.seq > bindparam("after"),
    )
    .order_by(t.events.c.seq)
    .limit(SCANNED)
)
_NAMES: Final = columns(t.deliveries)
_SEQ, _ENDPOINT, _STATE = (_NAMES.index(name) for name in ("seq", "endpoint_id", "state"))


def again(merchant_id: str, seq: int, target: Target, now: int) -> tuple[dict[str, object], Change]:
    """One event once more to one target, in a stream of its own: it waits for nothing, nothing for it."""
    row = dict(zip(_NAMES, delivery_row(merchant_id, seq, "", target, now), strict=True))
    row["stream"] = row["id"]
    return row, Change(_INSERT, row)


def hurry(delivery_id: str, now: int) -> Change:
    """Try a waiting delivery now."""
    return Change(_HURRY, {"row_id": delivery_id, "new_next_at": now}, guarded=True)


@dataclass(frozen=True, slots=True)
class Replayed:
    scanned: int
    replayed: int
    last: int | None  # number of the last event looked at, where there are more


@dataclass(frozen=True, slots=True)
class Replay:
    """Put an endpoint's events of a span on their way again, in order; `Replayed`, or the kept answer.

    `after`: events with greater numbers; `since`/`until`: epoch ms. `everything`: also what was delivered."""

    merchant_id: str
    target: Target
    wants: Callable[[str], bool]
    after: int
    since: int
    until: int
    everything: bool
    remember: Callable[[Replayed, int], Remembered | None]
    digest: bytes | None

    async def run(self, tx: Tx, now: int) -> Replayed | Remembered:
        if self.digest is not None:
            for row in await tx.select(t.idempotency, ("digest",), [(self.digest,)]):
                return Remembered(*row)
        events = await tx.execute(_EVENTS, {"merchant_id": self.merchant_id, "after": self.after})
        wanted = [one for one in events if self.since <= one[3] < self.until and self.wants(one[1])]
        served = set() if self.everything else await self._served(tx, [one[0] for one in wanted])
        rows = [
            delivery_row(self.merchant_id, one[0], one[2], self.target, now)
            for one in wanted
            if one[0] not in served
        ]
        if rows:
            await tx.insert(t.deliveries, rows)
        more = len(events) == SCANNED and events[-1][3] < self.until
        done = Replayed(len(events), len(rows), events[-1][0] if more else None)
        kept = self.remember(done, now)
        if kept is not None:
            await tx.insert(t.idempotency, [astuple(kept)])
        return done

    async def _served(self, tx: Tx, seqs: list[int]) -> set[int]:
        """Which of these events the endpoint has, or is about to be sent."""
        keys: list[Row] = [(self.merchant_id, seq) for seq in seqs]
        rows = await tx.select(t.deliveries, ("merchant_id", "seq"), keys) if keys else ()
        return {
            row[_SEQ] for row in rows if row[_ENDPOINT] == self.target.endpoint_id and row[_STATE] != "failed"
        }
