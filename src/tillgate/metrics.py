"""What a process counts of itself. Plain numbers: counting costs a list index, and is right without a lock
because only the event loop counts. Who wants to see them asks `tillgate.http.metrics`.

What can be read from the database is not counted here, so that it is the same in every process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
AGES_S: Final = (0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0, 259200.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MOVES: Final = 10_000
"""Different moves that are told apart: accounts are the operator's, but nothing grows without an end."""


class Histogram:
    """How often a value was at most each of `bounds`; the last of `counts` is what was above them all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RouteFigures:
    """What was answered at one route, by status, and how long it took."""

    __slots__ = ("method", "route", "seconds", "statuses")

    def __init__(self, method: str, route: str) -> None:
        self.method, self.route = method, route
        self.statuses: dict[int, int] = {}
        self.seconds = Histogram(SECONDS)

    def answered(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.observe(seconds)


class JournalFigures:
    """Batches that were committed, and what moved in them: (event type, channel, account id) → times."""

    __slots__ = ("batches", "moves", "seconds")

    def __init__(self) -> None:
        self.batches = Histogram(SIZES)
        self.seconds = Histogram(SECONDS)
        self.moves: Counter[tuple[str, str, str]] = Counter()

    def committed(
        self, size: int, seconds: float, events: Iterable[Sequence[Any]], records: Mapping[str, Any]
    ) -> None:
        """`events` are rows: the type is their fourth value, the payment's id their fifth."""
        self.batches.observe(size)
        self.seconds.observe(seconds)
        moves = self.moves
        for event in events:
            subject = records.get(event[4])
            if subject is not None and hasattr(subject, "account_id"):
                move = event[3], subject.channel, subject.account_id
                if len(moves) < _MOVES or move in moves:
                    moves[move] += 1


class WorkerFigures:
    """Tries of deliveries by what they went to and how they ended; due work by its kind and how it ended."""

    __slots__ = ("ages", "deliveries", "due")

    def __init__(self) -> None:
        self.deliveries: Counter[tuple[str, str]] = (
            Counter()
        )  # callback | endpoint, delivered | pending | failed
        self.ages = Histogram(AGES_S)
        self.due: Counter[tuple[str, str]] = Counter()

    def tried(self, target: str, state: str, age_s: float) -> None:
        """`age_s`: from the event to the end of this try."""
        self.deliveries[target, state] += 1
        if state == "delivered":
            self.ages.observe(age_s)
