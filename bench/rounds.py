"""Interleaved rounds and paired ratios.

A machine's speed drifts by the minute. So every contestant is driven in every round, in a new random order,
and what is compared is always two slices of the same round. A round during which the storage itself changed
is dropped.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.host import Ticks, load_average
from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.contestant import Contestant, Sample
    from bench.storage import Storage


@dataclass(frozen=True)
class Round:
    samples: dict[str, Sample]
    fsync_us: tuple[float, float]
    load: float
    steal: float

    @property
    def steady(self) -> bool:
        low, high = sorted(self.fsync_us)
        return high <= 2 * low


@dataclass
class Rounds:
    """The kept rounds of one storage."""

    storage: str
    kept: list[Round] = field(default_factory=list)
    dropped: list[Round] = field(default_factory=list)

    def ratios(self, above: str, below: str, what: str = "rate") -> list[float]:
        """The ratio of two contestants in each round."""
        return [getattr(r.samples[above], what) / getattr(r.samples[below], what) for r in self.kept]

    def values(self, name: str, what: str = "rate") -> list[float]:
        found = [getattr(r.samples[name], what) for r in self.kept]
        return [v for v in found if v is not None]

    def table(self) -> dict[str, dict[str, float]]:
        """Each contestant's medians."""
        rows: dict[str, dict[str, float]] = {}
        for name in self.kept[0].samples if self.kept else ():
            row = {what: self.values(name, what) for what in self.kept[0].samples[name].as_json()}
            rows[name] = {what: median(values) for what, values in row.items() if values}
        return rows

    def as_json(self) -> dict[str, Any]:
        def one(r: Round) -> dict[str, Any]:
            samples = {name: s.as_json() for name, s in r.samples.items()}
            return {"fsync_us": r.fsync_us, "load": r.load, "steal": r.steal, "samples": samples}

        return {
            "storage": self.storage,
            "kept": [one(r) for r in self.kept],
            "dropped": [one(r) for r in self.dropped],
        }


def say(text: str) -> None:
    """Progress goes to stderr: the table on stdout can be piped."""
    print(text, file=sys.stderr, flush=True)


def interleave(
    contestants: Sequence[Contestant], storage: Storage, *, rounds: int, seconds: float, seed: int = 1
) -> Rounds:
    """Start all, drive all in each round in random order, stop all.

    Up to half as many rounds again are tried in place of dropped ones; BenchError when fewer than three (or
    than asked for) were steady, and whatever a contestant raises.
    """
    order = random.Random(seed)
    done = Rounds(storage.name)
    for contestant in contestants:
        say(f"  {storage.name}: starting {contestant.name}")
        contestant.start(storage)
    for contestant in contestants:
        contestant.measure(min(1.0, seconds))  # caches, pools and interpreters of all are warm before round 1
    tries = rounds + max(1, rounds // 2)
    while len(done.kept) < rounds and len(done.kept) + len(done.dropped) < tries:
        current = _one_round(order.sample(list(contestants), len(contestants)), storage, seconds)
        (done.kept if current.steady else done.dropped).append(current)
        rates = "  ".join(f"{name} {s.rate:,.0f}" for name, s in sorted(current.samples.items()))
        fsync = " → ".join(f"{us:.0f}" for us in current.fsync_us)
        verdict = "" if current.steady else "  DROPPED: the storage changed"
        state = f"fsync {fsync} µs, load {current.load:.1f}, steal {current.steal:.1%}"
        say(f"  {storage.name} round {len(done.kept)}: {state}{verdict}")
        say(f"    {rates}")
    for contestant in contestants:
        contestant.finish()
    if len(done.kept) < min(3, rounds):
        raise BenchError(
            f"{storage.name}: only {len(done.kept)} steady rounds of {tries}: no disk to measure on"
        )
    return done


def _one_round(contestants: Sequence[Contestant], storage: Storage, seconds: float) -> Round:
    before, ticks = storage.probe_us(), Ticks.now()
    samples = {c.name: c.measure(seconds) for c in contestants}
    return Round(samples, (before, storage.probe_us()), load_average(), Ticks.now().steal_share(ticks))
