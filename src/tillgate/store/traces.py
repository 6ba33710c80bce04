"""Which trace an event or a piece of due work came from, so that whoever delivers or does it goes on with it.

Written with what it is about, in the same commit, and only by processes that trace (`tillgate.tracing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from tillgate.store import tables as t
from tillgate.store.book import Change
from tillgate.store.database import Database, Tx

KEPT_MS: Final = 7 * 86_400_000
"""Deliveries end after about three days; a resend after a week starts a trace of its own."""

_FORGET: Final = delete(t.traces).where(
    t.traces.c.subject == bindparam("trace_subject"), t.traces.c.about == bindparam("trace_about")
)
_KEEP: Final = insert(t.traces).values(
    subject=bindparam("trace_subject"),
    about=bindparam("trace_about"),
    context=bindparam("trace_context"),
    kept_at=bindparam("trace_at"),
)
_OF: Final = select(t.traces.c.context).where(
    t.traces.c.subject == bindparam("trace_subject"), t.traces.c.about == bindparam("trace_about")
)
_OF_EVENT: Final = (
    select(t.traces.c.context)
    .join(t.events, (t.traces.c.subject == t.events.c.subject) & (t.traces.c.about == t.events.c.type))
    .where(t.events.c.merchant_id == bindparam("merchant"), t.events.c.seq == bindparam("number"))
)
_SWEEP: Final = delete(t.traces).where(t.traces.c.kept_at < bindparam("before"))


def kept(subject: str, about: str, context: str, now: int) -> Iterator[Change]:
    """`about`: an event's type, or `due:` and a kind of work. The last of the same counts."""
    params = {"trace_subject": subject, "trace_about": about}
    yield Change(_FORGET, params)
    yield Change(_KEEP, {**params, "trace_context": context, "trace_at": now})


async def of_event(database: Database, merchant_id: str, seq: int) -> str | None:
    """The `traceparent` an event was written under. Raises `Unavailable`."""
    found = await database.read(_OF_EVENT, {"merchant": merchant_id, "number": seq})
    return found[0][0] if found else None


async def of_due(database: Database, kind: str, subject: str) -> str | None:
    found = await database.read(_OF, {"trace_subject": subject, "trace_about": f"due:{kind}"})
    return found[0][0] if found else None


@dataclass(frozen=True, slots=True)
class Sweep:
    """Forget what is too old to be of use."""

    async def run(self, tx: Tx, now: int) -> None:
        await tx.execute(_SWEEP, {"before": now - KEPT_MS})
