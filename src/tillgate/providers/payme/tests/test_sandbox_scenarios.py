"""The two official scenario lists of Payme's sandbox (test.paycom.uz), a named test for each step.

Requests and answers are stated by hand; the endpoint is the drop-in handler over HTTP. What the merchant's
side of both looks like under every other condition is `conformance`'s.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tillgate.providers.payme.tests.payme_kit import KEY, PRICE_TIYIN, calling, host_on, now_ms

MINE, OTHER = "5305e3bab097f420a62ced0b", "5305e3bab097f420a62ced0c"
ORDER, NOBODY = {"order_id": "1"}, {"order_id": "999999"}
TIME = now_ms()
ACCOUNT_ERRORS = range(-31099, -31049)


def check(amount: int = PRICE_TIYIN, account: dict[str, str] = ORDER) -> tuple[str, dict[str, Any]]:
    return "CheckPerformTransaction", {"amount": amount, "account": account}


def create(
    name: str = MINE, amount: int = PRICE_TIYIN, account: dict[str, str] = ORDER
) -> tuple[str, dict[str, Any]]:
    return "CreateTransaction", {"id": name, "time": TIME, "amount": amount, "account": account}


PERFORM: tuple[str, dict[str, Any]] = ("PerformTransaction", {"id": MINE})
LOOK: tuple[str, dict[str, Any]] = ("CheckTransaction", {"id": MINE})
CANCEL: tuple[str, dict[str, Any]] = ("CancelTransaction", {"id": MINE, "reason": 3})
STATEMENT: tuple[str, dict[str, Any]] = ("GetStatement", {"from": TIME, "to": TIME})

# The step, its request, the error code or what the result holds; "again": the answer of the step before.
CREATING: list[tuple[str, Any, Any]] = [
    ("check_is_allowed", check(), {"allow": True}),
    ("create", create(), {"state": 1}),
    ("create_again_is_the_same", create(), "again"),
    ("look_at_created", LOOK, {"state": 1, "perform_time": 0, "cancel_time": 0, "reason": None}),
    ("create_another_while_waiting", create(OTHER), -31008),
]
UNCONFIRMED: list[tuple[str, Any, Any]] = [
    ("wrong_authorisation_check", check(), -32504),
    ("wrong_authorisation_create", create(), -32504),
    ("wrong_authorisation_perform", PERFORM, -32504),
    ("wrong_authorisation_cancel", CANCEL, -32504),
    ("wrong_authorisation_look", LOOK, -32504),
    ("wrong_authorisation_statement", STATEMENT, -32504),
    ("wrong_amount_check", check(PRICE_TIYIN + 1), -31001),
    ("wrong_amount_create", create(amount=PRICE_TIYIN + 1), -31001),
    ("missing_account_check", check(account=NOBODY), ACCOUNT_ERRORS),
    ("missing_account_create", create(account=NOBODY), ACCOUNT_ERRORS),
    ("check", check(), {"allow": True}),
    *CREATING,
    ("cancel_created", CANCEL, {"state": -1}),
    ("look_at_cancelled", LOOK, {"state": -1, "perform_time": 0, "reason": 3}),
]
CONFIRMED: list[tuple[str, Any, Any]] = [
    ("check", check(), {"allow": True}),
    *CREATING,
    ("perform", PERFORM, {"state": 2}),
    ("perform_again_is_the_same", PERFORM, "again"),
    ("look_at_performed", LOOK, {"state": 2, "cancel_time": 0, "reason": None}),
    ("cancel_performed", CANCEL, {"state": -2}),
    ("look_at_given_back", LOOK, {"state": -2, "reason": 3}),
]
SCENARIOS = {"unconfirmed": UNCONFIRMED, "confirmed": CONFIRMED}
STEPS = [(scenario, number) for scenario, steps in SCENARIOS.items() for number in range(len(steps))]


PLAYED: dict[str, list[tuple[bytes, tuple[int, int, int]]]] = {}


async def play(scenario: str, request: pytest.FixtureRequest) -> list[tuple[bytes, tuple[int, int, int]]]:
    """Each step's answer, and how often the order was reserved, paid, cancelled by then; played once."""
    if scenario not in PLAYED:
        said = []
        async with host_on("sqlite-sync", request) as host, calling(host) as payme:
            for name, (method, params), _ in SCENARIOS[scenario]:
                key = "not-the-key" if name.startswith("wrong_authorisation") else KEY
                answer = await payme.bytes(method, params, key=key)
                order = await host.order(1)
                said.append((answer, (order.reserved, order.paid, order.cancelled)))
        PLAYED[scenario] = said
    return PLAYED[scenario]


@pytest.mark.parametrize(
    ("scenario", "number"),
    STEPS,
    ids=[f"{scenario}_{number + 1:02}_{SCENARIOS[scenario][number][0]}" for scenario, number in STEPS],
)
async def test_official_step(scenario: str, number: int, request: pytest.FixtureRequest) -> None:
    played, steps = await play(scenario, request), SCENARIOS[scenario]
    said, hooks = played[number]
    answer, expected = json.loads(said), steps[number][2]
    if expected == "again":
        assert said == played[number - 1][0]
    elif isinstance(expected, dict):
        assert {name: answer["result"].get(name) for name in expected} == expected
    else:
        code = answer["error"]["code"]
        assert code in expected if isinstance(expected, range) else code == expected
    # The order has moved as far as the steps so far say, and each hook has run once.
    done = [step[0] for step in steps[: number + 1]]
    cancelled = "cancel_created" in done or "cancel_performed" in done
    assert hooks == (int("create" in done), int("perform" in done), int(cancelled))
