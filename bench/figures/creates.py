"""`POST /payments` complete, 32 connections, one process: against the floors and against the naive peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figure import Figure, Outcome, Setup
from bench.floors import Pgbench, SqliteFloor
from bench.hub import Hub
from bench.naive import NaivePostgres, NaiveSqlite
from bench.postgres import Postgres
from bench.rounds import interleave, say

if TYPE_CHECKING:
    from bench.contestant import Contestant
    from bench.rounds import Rounds

TITLE = "creates against the floors and the naive peers"

SQLITE, POSTGRES = "hub sqlite", "hub postgres"
C_EACH, C_32 = "C sqlite, commit each", "C sqlite, commit 32"
FOUR, CTE = "pgbench four", "pgbench cte"
NAIVE, NAIVE_PG = "FastAPI ORM sqlite", "FastAPI Core asyncpg"


def run(setup: Setup) -> Outcome:
    say(f"  one create writes: {setup.template.shape.summary()}")
    outcome = Outcome([])
    for storage in setup.stores():
        postgres = Postgres(storage)
        contestants: list[Contestant] = [
            SqliteFloor(C_EACH, setup.template),
            SqliteFloor(C_32, setup.template, group=32),
            Pgbench(FOUR, "four.sql", postgres),
            Pgbench(CTE, "cte.sql", postgres),
            NaiveSqlite(NAIVE),
            NaivePostgres(NAIVE_PG, postgres=postgres),
        ]
        if not setup.standin:
            contestants += [Hub(SQLITE), Hub(POSTGRES, postgres=postgres)]
        done = interleave(contestants, storage, rounds=setup.rounds, seconds=setup.seconds)
        postgres.stop()
        outcome.rounds.append(done)
        if not setup.standin:
            outcome.figures += _figures(done, real_disk=not storage.fsync_delay_us)
    return outcome


def _figures(done: Rounds, *, real_disk: bool) -> list[Figure]:
    def ratio(name: str, above: str, below: str, bound: float | None = None) -> Figure:
        return Figure(name, done.storage, done.ratios(above, below), "x", bound)

    return [
        ratio("SQLite create / C loop committing each", SQLITE, C_EACH, 1.4 if real_disk else 5),
        ratio("SQLite create / C loop committing 32 at once", SQLITE, C_32),
        ratio("PostgreSQL create / pgbench, four statements, 8 clients", POSTGRES, FOUR, 1.5),
        ratio("PostgreSQL create / pgbench, one CTE, 8 clients", POSTGRES, CTE),
        ratio("SQLite create / naive FastAPI + ORM + SQLite", SQLITE, NAIVE, 20),
        ratio("PostgreSQL create / FastAPI + SQLAlchemy Core + asyncpg", POSTGRES, NAIVE_PG, 6),
    ]
