"""docs/kiosk.md says what the code does."""

from pathlib import Path

import pytest

from tillgate.providers.mobypay import errors
from tillgate.providers.mobypay.control_openapi import OPERATIONS
from tillgate.providers.mobypay.lifecycle import COMMANDS, NEXT, Fact, State
from tillgate.providers.mobypay.menu_text import MENU

PAGE = Path(__file__).parents[5] / "docs" / "kiosk.md"


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_table_of_states_is_the_codes(text: str) -> None:
    lines = text.partition("<!-- table")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    states = [State(name) for name in header[1:]]
    assert set(states) == set(State)
    written = {Fact(row[0].replace(" ", "_")): row[1:] for row in rows}
    timers = {Fact.ACK_DUE, Fact.RESULT_DUE, Fact.PLAN_DUE, Fact.CANCEL_DUE, Fact.GRACE_OVER}
    assert set(Fact) - set(written) == timers | {Fact.NOT_SENT, Fact.REPEAT}
    for fact, cells in written.items():
        for state, cell in zip(states, cells, strict=True):
            after = NEXT[state].get(fact)
            if after is None:
                assert cell == ("–" if fact in COMMANDS else "·"), (fact, state)
            else:
                assert cell == ("·" if after is state else after), (fact, state)


def test_every_entry_endpoint_and_code_is_there(text: str) -> None:
    for entry in MENU:
        assert entry in text
    for operation in OPERATIONS:
        assert operation.path.partition("{")[0].rstrip("/") in text
    for refusal in errors.KioskRefusal.__subclasses__():
        assert f"`{refusal.code}`" in text
