"""`POST /v1/payments` against the document's `POST /payments`: the same use case, another dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub
from bench.load import ID, Step, json_post
from bench.postgres import Postgres
from bench.rounds import interleave

if TYPE_CHECKING:
    from bench.contestant import Contestant

TITLE = "creates by /v1 against creates in the document's dialect"
BOUND = 0.9


@dataclass
class V1Hub(Hub):
    """Its creates go to `/v1`; everything else is the same hub."""

    def flow(self) -> list[Step]:
        body = {"order_id": f"order-{ID}", "amount_minor": 15_000_000, "currency": "IDR", "channel": "gopay"}
        bearer = {"Authorization": f"Bearer {self.bearer()}"}
        return [json_post("/v1/payments", body, bearer, status=201, marker='"id":"pay_')]


def run(setup: Setup) -> Outcome:
    storage = setup.memory()
    postgres = Postgres(storage)
    pairs = {
        "SQLite": (V1Hub("/v1, sqlite"), Hub("document, sqlite")),
        "PostgreSQL": (
            V1Hub("/v1, postgres", postgres=postgres),
            Hub("document, postgres", postgres=postgres),
        ),
    }
    contestants: list[Contestant] = [one for pair in pairs.values() for one in pair]
    done = interleave(contestants, storage, rounds=setup.rounds, seconds=setup.seconds)
    postgres.stop()
    figures = [
        Figure(
            f"{engine} create by /v1 / by the document",
            done.storage,
            done.ratios(modern.name, document.name),
            "x",
            BOUND,
        )
        for engine, (modern, document) in pairs.items()
    ]
    return Outcome(figures, [done])
