"""Deliveries per second out of a backlog, against bare aiohttp to the same sink.

The backlog is made over HTTP while the sink keeps its answers back; the clock runs from the moment it lets
go until the last delivery has come. So the hub's rate holds everything: claiming, signing, sending, and
writing down how it went.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from bench.contestant import REPOSITORY, Sample, answers, create_step, request
from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub
from bench.load import CAPTURED, Step, play
from bench.postgres import Postgres
from bench.process import BenchError, Server, clean_environment, free_port
from bench.rounds import interleave
from bench.storage import Storage
from bench.tools import run_json

TITLE = "deliveries against bare aiohttp"
_CONCURRENCY = 32
_QUIET_S = 1.5


class Sink:
    """The sink's process, shared by all contestants."""

    def __init__(self, storage: Storage) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/callback"
        argv = [sys.executable, "-m", "bench.sink", str(self.port)]
        env = clean_environment(PYTHONPATH=str(REPOSITORY))
        self.server = Server("sink", argv, env, storage.directory("sink"), port=self.port)
        self.server.wait_until(lambda: answers(self.port, "/stats"))

    def tell(self, what: str) -> dict[str, float]:
        answer: dict[str, float] = request(self.port, "GET", f"/{what}")[1]
        return answer

    def drained(self, expected: int, timeout_s: float = 120) -> dict[str, float]:
        """Wait until at least this many came and nothing more comes."""
        end, stats = time.monotonic() + timeout_s, self.tell("stats")
        while time.monotonic() < end:
            stats = self.tell("stats")
            if stats["distinct"] >= expected and time.monotonic() - stats["last_at"] > _QUIET_S:
                return stats
            time.sleep(0.2)
        raise BenchError(
            f"only {stats['distinct']:.0f} of {expected} deliveries came within {timeout_s:.0f} s"
        )


@dataclass
class Bare:
    """aiohttp alone."""

    name: str
    sink: Sink
    count: int

    def start(self, storage: Storage) -> None:
        self.storage = storage

    def measure(self, seconds: float) -> Sample:
        self.sink.tell("reset")
        command = [
            sys.executable,
            "-m",
            "bench.peers.bare_aiohttp",
            self.sink.url,
            str(self.count),
            str(_CONCURRENCY),
        ]
        env = clean_environment(PYTHONPATH=str(REPOSITORY))
        said = run_json(command, timeout_s=120, env=env, cwd=REPOSITORY)
        return Sample(said["rate"], cpu_per_1k=said["cpu_s"] * 1000 / self.count)

    def finish(self) -> None:
        pass


@dataclass
class Delivering(Hub):
    """A hub whose paid payments are to be told to the sink."""

    sink: Sink = field(kw_only=True)
    count: int = field(kw_only=True)

    def measure(self, seconds: float) -> Sample:
        bearer = self.bearer()
        pay = Step(
            "POST", f"/sandbox/payments/{CAPTURED}/pay", {"Authorization": f"Bearer {bearer}"}, status=0
        )
        step = create_step(bearer, capture='"payment_id":"', callback_url=self.sink.url)
        self.sink.tell("hold")
        made = play(self.port, [step, pay], seconds=60, flows=self.count).right(self.name)
        self.acknowledged += made.all_flows
        cpu, db_cpu = self.server.cpu_s(), self.postgres.cpu_s() if self.postgres else 0.0
        self.sink.tell("release")
        stats = self.sink.drained(self.count)
        cpu = self.server.cpu_s() - cpu
        db_cpu = self.postgres.cpu_s() - db_cpu if self.postgres else 0.0
        if stats["count"] != stats["distinct"]:
            raise BenchError(f"{self.name}: {stats['count'] - stats['distinct']:.0f} deliveries came twice")
        delivered = stats["count"] - stats["held"]  # what had been sent before the clock ran does not count
        took_s = stats["last_at"] - stats["released_at"]
        per_1k = 1000 / delivered
        return Sample(
            delivered / took_s,
            cpu_per_1k=cpu * per_1k,
            db_cpu_per_1k=db_cpu * per_1k if self.postgres else None,
        )


def run(setup: Setup) -> Outcome:
    # Made in less than five seconds: a delivery that waits longer for a connection to the sink, which keeps
    # its answers back, is put off, and the wait for its second try would be timed.
    count = 500 if setup.quick else 1500
    storage = setup.disk
    postgres, sink = Postgres(storage), Sink(storage)
    extra = {"TILLGATE_CALLBACK_ALLOW": f"127.0.0.1:{sink.port}"}
    bare = Bare("bare aiohttp", sink, count)
    sqlite = Delivering("delivering sqlite", extra=extra, sink=sink, count=count)
    on_postgres = Delivering("delivering postgres", postgres=postgres, extra=extra, sink=sink, count=count)
    done = interleave([bare, sqlite, on_postgres], storage, rounds=setup.rounds, seconds=setup.seconds)
    sink.server.stop()
    postgres.stop()
    return Outcome(
        [
            Figure(
                "deliveries / bare aiohttp, SQLite",
                done.storage,
                done.ratios(sqlite.name, bare.name),
                "x",
                0.6,
            ),
            Figure(
                "deliveries / bare aiohttp, PostgreSQL",
                done.storage,
                done.ratios(on_postgres.name, bare.name),
                "x",
                0.6,
            ),
        ],
        [done],
    )
