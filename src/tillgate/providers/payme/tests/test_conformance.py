"""The official scenarios against the drop-in handler on every kind of session, and against a bad endpoint."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import select

from tillgate import conform
from tillgate.providers.payme.conformance import CHECKS, CONFORMANCE, ORDERS_NEEDED, parsed
from tillgate.providers.payme.tests.payme_kit import EVERY_HOME, KEY, Order, calling, host_on, serve


def orders(count: int) -> list[str]:
    return [f"{number}:15000.50" for number in range(1, count + 1)]


@pytest.mark.parametrize("home", EVERY_HOME)
async def test_every_rule_holds_for_one_time_orders(home: str, request: pytest.FixtureRequest) -> None:
    async with host_on(home, request, orders=ORDERS_NEEDED) as host, calling(host) as caller:
        target = CONFORMANCE.target(caller.url, {"key": KEY, "order": orders(ORDERS_NEEDED)})
        report = await conform.run(CHECKS, target, title=CONFORMANCE.title)

        assert report.passed, conform.as_text(report)
        assert report.count("skip") == 0
        assert {order.paid for order in await host.rows(select(Order))} == {0, 1}


@pytest.mark.parametrize("home", ["sqlite-sync", "postgresql-async"])
async def test_every_rule_holds_for_accumulative_accounts(home: str, request: pytest.FixtureRequest) -> None:
    async with host_on(home, request, one_time=False) as host, calling(host) as caller:
        options = {"key": KEY, "kind": "accumulative", "order": ["1:15000.50", "2:700"]}
        report = await conform.run(CHECKS, CONFORMANCE.target(caller.url, options))

        assert report.passed, conform.as_text(report)
        assert [o.check.id for o in report.outcomes if o.verdict == "skip"] == [
            "order.paid-again",
            "crowd.rivals",
        ]


def naive_app() -> FastAPI:
    """An endpoint with the faults that the checks are there to find: it says yes to everything."""
    app, states = FastAPI(), {}

    @app.post("/payme")
    async def payme(request: Request) -> Any:
        message = await request.json()
        params, method = message["params"], message["method"]
        key = params.get("id")
        if method == "CreateTransaction":
            states[key] = 1
        elif method == "PerformTransaction":
            states[key] = 2
        elif method == "CancelTransaction":
            states[key] = -1
        result = {
            "allow": True,
            "transactions": [],
            "state": states.get(key),
            "create_time": params.get("time", 0),
            "perform_time": 1,
            "cancel_time": 1,
            "transaction": 5,
            "reason": None,
        }
        return JSONResponse({"id": message["id"], "result": result})

    return app


async def test_an_endpoint_that_says_yes_to_everything_fails_where_it_matters() -> None:
    async with serve(naive_app()) as base:
        target = CONFORMANCE.target(f"{base}/payme", {"key": KEY, "order": orders(100)})
        heard: list[str] = []
        report = await conform.run(CHECKS, target, progress=lambda outcome: heard.append(outcome.check.id))

    failed = {outcome.check.id for outcome in report.outcomes if outcome.verdict == "fail"}
    assert not report.passed
    assert heard == [check.id for check in CHECKS]
    assert failed >= {
        "auth.PerformTransaction",
        "amount.wrong",
        "account.missing",
        "create.other-id",
        "create.new",
        "perform.after-cancel",
        "perform.after-refund",
        "cancel.reason-3",
        "order.paid-again",
        "unknown.PerformTransaction",
        "time.utc",
        "time.12-hours",
        "statement.row",
        "crowd.rivals",
        "http.get",
        "body.array",
        "amount.text",
        "account.null",
    }


async def test_no_secret_reaches_a_report_in_any_form() -> None:
    async with serve(naive_app()) as base:
        target = CONFORMANCE.target(f"{base}/payme", {"key": KEY, "order": orders(9)})
        report = await conform.run(CHECKS[:12], target, title="Payme")

    text, found, junit = conform.as_text(report), conform.as_json(report), conform.as_junit(report)
    for shown in (text, found, junit):
        assert KEY not in shown
        assert "UGF5Y29tO" not in shown  # Base64 of "Paycom:"
    parsed_json = json.loads(found)
    assert parsed_json["passed"] is False
    assert parsed_json["checks"][0]["exchanges"][0]["request"].startswith("POST http")
    suite = ElementTree.fromstring(junit)
    assert (suite.tag, suite.get("tests")) == ("testsuite", "12")
    assert int(suite.get("failures", "0")) == report.count("fail") > 0


async def test_an_endpoint_that_is_not_there_is_an_error_and_not_a_failure() -> None:
    target = CONFORMANCE.target("http://127.0.0.1:9/payme", {"key": KEY, "order": orders(9)})
    report = await conform.run(CHECKS[:9], target)

    assert not report.passed
    assert {outcome.verdict for outcome in report.outcomes} == {"error"}
    assert report.outcomes[-1].why == "not tried: the endpoint does not answer"


async def test_running_out_of_orders_skips_and_says_so() -> None:
    async with serve(naive_app()) as base:
        target = CONFORMANCE.target(f"{base}/payme", {"key": KEY, "order": orders(1)})
        report = await conform.run(
            [check for check in CHECKS if check.id in ("check.allow", "create.new")], target
        )

    assert [outcome.verdict for outcome in report.outcomes] == ["pass", "skip"]
    assert report.outcomes[1].why == "no fresh order is left: name more of them"


def test_orders_are_named_in_som_or_in_json() -> None:
    assert parsed("197:15000.5", "order_id").amount_minor == 1_500_050
    assert parsed("a:b:1", "login").account == {"login": "a:b"}
    several = parsed('{"account": {"phone": "998", "order_id": 5}, "amount": 7}', "order_id")
    assert (several.amount_minor, several.account) == (7, {"phone": "998", "order_id": "5"})
    for wrong in ("197", "197:", "197:1e999", "197:0", "197:-1", "197:0.001", ":5", "197:NaN"):
        with pytest.raises(ValueError, match="REFERENCE:SOM"):
            parsed(wrong, "order_id")


@pytest.mark.parametrize(
    "options", [{}, {"key": ""}, {"key": "k"}, {"key": "k", "order": ["1:1"], "kind": "both"}]
)
def test_a_target_that_is_not_described_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"key|order|kind"):
        CONFORMANCE.target("http://127.0.0.1:9", options)
