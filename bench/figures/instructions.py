"""Instructions per create, as `python -m bench.ci` gates them."""

from __future__ import annotations

from bench import ci
from bench.figure import Figure, Outcome, Setup

TITLE = "instructions per create"


def run(setup: Setup) -> Outcome:
    counted = float(ci.per_create())
    figures = [
        Figure("instructions per create, 32 at once", "in process", [counted], "", ci.BOUND, at_most=True)
    ]
    if not setup.quick:
        alone = float(ci.per_create(wave=1))
        figures.append(Figure("instructions per create, one at a time", "in process", [alone], ""))
    return Outcome(figures)
