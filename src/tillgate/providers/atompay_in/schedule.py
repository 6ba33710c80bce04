"""When to ask AtomPay again: 3, 10, 30 min, 2 h, 12 h, then at noon of the next two Indian days (T+1, T+2).

A pending payment may turn success the same day, a failed one until T+1, and a success may be reversed until
T+2 (AtomPay facts, transition table). Noon, because the gateway reconciles in the morning; it is also never
earlier than twelve hours after any moment of the day before.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tillgate.providers.atompay_in import wire

_MINUTE_MS: Final = 60_000
_STEPS_MS: Final = tuple(minutes * _MINUTE_MS for minutes in (3, 10, 30, 120, 720))
_NOON: Final = 12


def looks(since_ms: int) -> tuple[int, ...]:
    """Every moment (epoch ms) to ask about an attempt that has no final answer since `since_ms`."""
    return tuple(since_ms + step for step in _STEPS_MS) + settled_looks(since_ms)


def settled_looks(paid_ms: int) -> tuple[int, ...]:
    """The moments to ask about a paid attempt, to notice an automatic reversal: T+1 and T+2."""
    day = wire.day(paid_ms)
    return tuple(wire.at_ms(day + timedelta(days=n), _NOON) for n in (1, 2))


def next_look(since_ms: int, now_ms: int, *, paid: bool = False) -> int | None:
    """The first moment after `now_ms`; None when there is nothing more to ask."""
    moments = settled_looks(since_ms) if paid else looks(since_ms)
    return next((moment for moment in moments if moment > now_ms), None)
