"""Payme's CheckPerform → Create → Perform → CheckTransaction: the hub and the drop-in handler against the
published package's handler, on a SQLite file and on PostgreSQL, everybody durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figure import Figure, Outcome, Setup
from bench.payme import PaymeHub, PaymeNull, PaymeShop
from bench.postgres import Postgres
from bench.rounds import interleave

if TYPE_CHECKING:
    from bench.contestant import Contestant
    from bench.rounds import Rounds

TITLE = "Payme's four calls"
HUB, DROPIN, PEER, NULL = "hub", "drop-in", "paytechuz 0.4.1", "null endpoint"
CROWD = 128
TIMES = {8: 15.0, 32: 20.0}
"""What the hub is asked for, in flows per second of the published package's."""


def run(setup: Setup) -> Outcome:
    outcome = Outcome([])
    for connections in TIMES:
        done = _rounds(setup, connections)
        outcome.rounds.append(done)
        outcome.figures += _figures(done, connections)
    outcome.rounds.append(_rounds(setup, 8, Postgres(setup.disk)))
    outcome.figures += _figures(outcome.rounds[-1], 8, judged=False)
    outcome.figures.append(_crowd(setup))
    return outcome


def _rounds(setup: Setup, connections: int, postgres: Postgres | None = None) -> Rounds:
    contestants: list[Contestant] = [
        PaymeHub(HUB, connections, postgres),
        PaymeShop(DROPIN, connections, postgres),
        PaymeShop(PEER, connections, postgres, library="paytechuz"),
        PaymeNull(NULL, connections),
    ]
    done = interleave(contestants, setup.disk, rounds=setup.rounds, seconds=setup.seconds)
    if postgres:
        postgres.stop()
    engine = "PostgreSQL" if postgres else "SQLite"
    done.storage = f"{done.storage}, {engine}, {connections} connections"
    return done


def _figures(done: Rounds, connections: int, *, judged: bool = True) -> list[Figure]:
    def ratio(name: str, above: str, below: str, bound: float, what: str = "rate") -> Figure:
        values = done.ratios(above, below, what)
        return Figure(name, done.storage, values, "x", bound if judged else None)

    return [
        ratio("Payme flows: hub / paytechuz", HUB, PEER, TIMES[connections]),
        ratio("Payme CPU per flow: paytechuz / hub", PEER, HUB, 12, "cpu_per_1k"),
        ratio("Payme flows: drop-in / paytechuz", DROPIN, PEER, 2),
        ratio("Payme CPU per flow: paytechuz / drop-in", PEER, DROPIN, 2, "cpu_per_1k"),
    ]


def _crowd(setup: Setup) -> Figure:
    """Nobody stalls: a connection without an answer for 20 s fails the figure."""
    both: list[Contestant] = [PaymeHub(HUB, CROWD), PaymeShop(DROPIN, CROWD)]
    done = interleave(both, setup.disk, rounds=1, seconds=max(5.0, setup.seconds))
    rates = ", ".join(f"{name} {done.values(name)[0]:,.0f}/s" for name in (HUB, DROPIN))
    return Figure(f"Payme: stalls with {CROWD} connections", done.storage, [0.0], "", 0, True, rates)
