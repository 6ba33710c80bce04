"""`kill -9` between any two steps of a drop-in handler: order and transaction agree, no answer is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

PROGRAM = Path(__file__).parent / "dying_shop.py"
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
# How an order stands beside its transaction: (status, reserved, paid, cancelled) by the transaction's state.
AGREEING = {
    None: ("new", 0, 0, 0),
    1: ("new", 1, 0, 0),
    2: ("paid", 1, 1, 0),
    -2: ("cancelled", 1, 1, 1),
}
# The state that an answer promised; the rest of it is compared with the answer to the same request later.
PROMISED = {
    "CreateTransaction": 1,
    "PerformTransaction": 2,
    "CancelTransaction": -2,
    "Prepare": 1,
    "Complete": 2,
}
FURTHER = [None, 1, 2, -2]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("home", "gateway"), [("sqlite", "payme"), ("sqlite", "click"), ("postgresql", "payme")]
)
def test_a_shop_killed_at_any_step_agrees_with_itself(
    home: str, gateway: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    empty = request.getfixturevalue("sqlite_url" if home == "sqlite" else "pg_url")
    url = f"{DRIVERS[home]}:{empty.partition(':')[2]}"
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), url, gateway, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        ended, code = json.loads(program.stdout.readline())
        assert code == 0, "only a life that is over may end by itself"
        deaths = range(1, ended)  # each at the step of its number
        assert len(deaths) >= (30 if gateway == "payme" else 20), "every statement is a place to die"

        states, heard, seen = FURTHER[: 4 if gateway == "payme" else 3], noted(tmp_path), stands(url)
        for order in deaths:
            state, stood = seen[order]
            assert stood == AGREEING[state], f"died at step {order}: {stood} beside state {state}"
            for what, answer in heard[order]:
                promised = states.index(PROMISED.get(what, state))
                assert states.index(state) >= promised, f"died at step {order} after {what}: {answer}"
        assert {seen[order][0] for order in deaths} == set(states)

        program.stdin.write("\n")
        program.stdin.flush()
        assert json.loads(program.stdout.readline()) == 0

    heard, seen = noted(tmp_path), stands(url)
    for order in deaths:
        assert seen[order] == (states[-1], AGREEING[states[-1]])
        if gateway == "payme":
            # Whatever was answered, before the death or after it, is still so.
            *answers, (_, last) = heard[order]
            for what, answer in answers:
                answer.pop("state")
                assert answer.items() <= last.items(), (order, what, answer, last)
        else:
            prepares = [answer for what, answer in heard[order] if what == "Prepare"]
            completes = [answer["error"] for what, answer in heard[order] if what == "Complete"]
            named = {answer["merchant_prepare_id"] for answer in prepares if answer["error"] == 0}
            assert [answer["error"] for answer in prepares] in ([0], [0, 0], [-4], [0, -4]), order
            assert len(named) <= 1, order
            # Paid, and told so: at once, or by -4 to whoever asks again.
            assert completes == [0] or prepares[-1]["error"] == -4, order


def noted(folder: Path) -> dict[int, list[tuple[str, Any]]]:
    """Order → what was asked and answered, in order."""
    found: dict[int, list[tuple[str, Any]]] = defaultdict(list)
    for line in (folder / "notes").read_text().splitlines():
        order, what, answer = json.loads(line)
        found[order].append((what, answer))
    return found


def stands(url: str) -> dict[int, tuple[int | None, tuple[Any, ...]]]:
    """Order → its transaction's state, and how it stands itself."""
    engine = create_engine(url)
    query = """SELECT o.id, p.state, o.status, o.reserved, o.paid, o.cancelled
               FROM orders o LEFT JOIN payments p ON p.account_id = CAST(o.id AS VARCHAR(20))"""
    with engine.connect() as connection:
        rows = connection.execute(text(query)).all()
    engine.dispose()
    assert len(rows) == len({row[0] for row in rows}), "an order has several transactions"
    return {row[0]: (row[1], tuple(row[2:])) for row in rows}
