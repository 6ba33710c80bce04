"""128 connections, default settings: every one of them is served, all the time."""

from __future__ import annotations

from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub
from bench.load import Load, play
from bench.postgres import Postgres
from bench.process import BenchError
from bench.rounds import say

TITLE = "128 connections"
CONNECTIONS = 128


def run(setup: Setup) -> Outcome:
    outcome = Outcome([])
    postgres = Postgres(setup.memory())
    for hub in (Hub("crowd sqlite"), Hub("crowd postgres", postgres=postgres)):
        hub.start(setup.memory())
        load = _crowd(hub, 2.0 if setup.quick else 15.0)
        note = f"{load.rate:,.0f}/s, p99 {load.p99_ms:.0f} ms, longest wait {load.longest_ms:.0f} ms"
        say(f"  {hub.name}: {note}")
        stuck = [float(load.starved + load.waiting)]
        where = "1 ms, postgres" if hub.postgres else "1 ms, sqlite"
        outcome.figures.append(
            Figure(
                f"connections of {CONNECTIONS} that stall or starve",
                where,
                stuck,
                "",
                0,
                at_most=True,
                note=note,
            )
        )
    postgres.stop()
    return outcome


def _crowd(hub: Hub, seconds: float) -> Load:
    load = play(hub.port, hub.flow(), seconds=seconds, connections=CONNECTIONS)
    if load.errors:
        raise BenchError(f"{hub.name}: {load.errors} wrong answers, the first: {load.first_error}")
    if load.stalled:
        hub.server.stop()
    else:
        hub.acknowledged += load.all_flows
        hub.finish()
    return load
