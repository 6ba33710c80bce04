"""Rounds: everyone in each, paired ratios, unsteady rounds dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bench import ci
from bench.contestant import Sample
from bench.figure import Figure
from bench.process import BenchError
from bench.report import figures_table
from bench.rounds import Round, interleave
from bench.storage import Storage


@dataclass
class Pace:
    """A contestant of a known rate, which grows by the same share for all from round to round."""

    name: str
    rate: float
    told: list[str] = field(default_factory=list)

    def start(self, storage: Storage) -> None:
        self.told.append("start")

    def measure(self, seconds: float) -> Sample:
        self.told.append("measure")
        return Sample(self.rate * len(self.told))

    def finish(self) -> None:
        self.told.append("finish")


class Disk(Storage):
    """A storage whose flush time is what the list says."""

    def probe_us(self) -> float:
        return PROBES.pop(0)


PROBES: list[float] = []


def test_ratios_are_paired_within_a_round() -> None:
    PROBES[:] = [100.0] * 6
    fast, slow = Pace("fast", 30), Pace("slow", 10)
    done = interleave([fast, slow], Disk("disk", Path("/")), rounds=3, seconds=0.1)
    assert done.ratios("fast", "slow") == [3, 3, 3]
    assert len(set(done.values("fast"))) == 3, "the machine got faster, the ratio did not"
    assert fast.told == slow.told == ["start", *["measure"] * 4, "finish"]


def test_a_round_in_which_the_disk_changed_is_dropped() -> None:
    PROBES[:] = [100, 110, 100, 4000, 100, 90, 90, 100]
    done = interleave([Pace("one", 1)], Disk("disk", Path("/")), rounds=3, seconds=0.1)
    assert [r.fsync_us for r in done.kept] == [(100, 110), (100, 90), (90, 100)]
    assert [r.fsync_us for r in done.dropped] == [(100, 4000)]


def test_a_disk_that_never_holds_still_gives_no_figure() -> None:
    PROBES[:] = [100, 4000] * 10
    with pytest.raises(BenchError, match="steady"):
        interleave([Pace("one", 1)], Disk("disk", Path("/")), rounds=5, seconds=0.1)


@pytest.mark.parametrize(("fsync", "steady"), [((90, 100), True), ((100, 201), False), ((201, 100), False)])
def test_twice_the_time_is_too_much(fsync: tuple[float, float], steady: bool) -> None:
    assert Round({}, fsync, 0, 0).steady is steady


@pytest.mark.parametrize(
    ("values", "bound", "at_most", "missed"),
    [([1.3, 1.5, 1.6], 1.4, False, False), ([1.3, 1.35, 1.6], 1.4, False, True), ([4.0], 5, True, False),
     ([5.1], 5, True, True), ([1.0], None, False, False)],
)  # fmt: skip
def test_a_figure_is_judged_by_its_median(
    values: list[float], bound: float | None, at_most: bool, missed: bool
) -> None:
    figure = Figure("f", "disk", values, "x", bound, at_most)
    assert figure.missed is missed
    assert ("missed" in figures_table([figure])) is missed


@pytest.mark.parametrize(
    ("counted", "committed", "passes"),
    [(400_000, 400_000, True), (411_900, 400_000, True), (412_100, 400_000, False), (387_900, 400_000, False),
     (601_000, 600_000, False), (400_000, None, False)],
)  # fmt: skip
def test_a_count_may_move_by_three_per_cent_below_its_bound(
    counted: int, committed: int | None, passes: bool
) -> None:
    assert (not ci.judge(counted, committed)) is passes
