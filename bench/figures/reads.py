"""Does a reader feel the writers? A status request beside 32 creating connections, a flush taking 5 ms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.contestant import Sample, create_step, sample
from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub, create
from bench.load import PICK, Step, play
from bench.rounds import interleave

TITLE = "read latency under full write load"
FSYNC_US = 5000


@dataclass
class ReadUnderLoad(Hub):
    """Its sample is the reader's: one connection, closed loop, over payments made before."""

    writes_per_s: list[float] = field(default_factory=list, init=False)

    def measure(self, seconds: float) -> Sample:
        bearer = self.bearer()
        picks = [create(self.port, bearer) for _ in range(20)]
        self.acknowledged += len(picks)
        reads = Step(
            "GET", f"/payments/{PICK}", {"Authorization": f"Bearer {bearer}"}, marker='"order_id":"order-'
        )
        with ThreadPoolExecutor(1) as beside:
            # The writers begin before the reader and end after it.
            writing = beside.submit(play, self.port, [create_step(bearer)], seconds=seconds + 1.5)
            load = play(self.port, [reads], seconds=seconds, connections=1, warm=0.8, picks=picks)
            written = writing.result().right(self.name)
        self.acknowledged += written.all_flows
        self.writes_per_s.append(written.rate)
        return sample(load.right(f"{self.name} (reader)"), 0.0)


def run(setup: Setup) -> Outcome:
    hub = ReadUnderLoad("hub sqlite, reading")
    done = interleave([hub], setup.memory(FSYNC_US), rounds=setup.rounds, seconds=setup.seconds)
    note = f"beside {sorted(hub.writes_per_s)[len(hub.writes_per_s) // 2]:,.0f} creates/s"
    p99 = Figure(
        "read p99 under full write load",
        done.storage,
        done.values(hub.name, "p99_ms"),
        "ms",
        5,
        at_most=True,
        note=note,
    )
    p50 = Figure("read p50 under full write load", done.storage, done.values(hub.name, "p50_ms"), "ms")
    return Outcome([p99, p50], [done])
