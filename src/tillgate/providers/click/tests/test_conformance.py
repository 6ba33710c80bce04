"""The conformance suite passes a good endpoint, finds a careless one out, and shows no key."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tillgate import conform
from tillgate.conform import Payable
from tillgate.providers.click.conformance import CONFORMANCE, ORDERS_NEEDED, parsed, target

OPTIONS = {"service-id": 12345, "key": "TEST-click-secret", "missing": "no-such-order"}


@pytest.fixture
async def served(till: Any) -> AsyncIterator[Any]:
    async with till.serve() as url:
        till.url = url
        yield till


async def test_the_hub_rules_pass_every_check(served: Any) -> None:
    names = [f"ORD-{n}:5000.50" for n in range(ORDERS_NEEDED)]
    for name in names:
        served.order(name.partition(":")[0], 500_050)
    report = await conform.run(CONFORMANCE.checks, target(served.url, OPTIONS | {"order": names}))
    assert [(o.check.id, o.verdict, o.why) for o in report.outcomes if o.verdict != "pass"] == []
    assert report.passed
    assert len(report.outcomes) == len({check.id for check in CONFORMANCE.checks}) == 68


async def test_a_standing_account_passes_with_one_order(served: Any) -> None:
    served.standing_order("phone-1")
    described = target(served.url, OPTIONS | {"order": ["phone-1:5000.50"], "kind": "standing"})
    report = await conform.run(CONFORMANCE.checks, described)
    assert [(o.check.id, o.why) for o in report.outcomes if o.verdict not in ("pass", "skip")] == []
    skipped = {o.check.id for o in report.outcomes if o.verdict == "skip"}
    assert skipped == {"order.crowd", "moves.paid-again", "moves.second-payer"}


async def test_one_scenario_can_be_run_alone(served: Any) -> None:
    for name in "ABC":
        served.order(name, 500_050)
    served.order("idle", 500_050)
    described = target(
        served.url, OPTIONS | {"order": ["idle:5000.50", "A:5000.50", "B:5000.50", "C:5000.50"]}
    )
    (check,) = [check for check in CONFORMANCE.checks if check.id == "matrix.15"]
    report = await conform.run([check], described)
    assert report.passed, report.outcomes[0].why


async def test_a_careless_endpoint_is_found_out_rule_by_rule(open_app: Callable[..., Any]) -> None:
    """It believes everybody, as the published handler of the field mostly does."""
    numbers = itertools.count(1)

    async def careless(request: Request) -> JSONResponse:
        fields = dict(parse_qsl((await request.body()).decode("latin-1")))
        answer = {"click_trans_id": fields.get("click_trans_id"), "error": 0, "error_note": "Success"}
        return JSONResponse(answer | {"merchant_prepare_id": next(numbers)})

    async def fresh() -> Payable:
        return Payable(f"ORD-{next(numbers)}", 500_050)

    app = Starlette(routes=[Route("/", careless, methods=["POST"])])
    async with open_app(app) as base:
        report = await conform.run(CONFORMANCE.checks, target(base + "/", OPTIONS, fresh))

    failed = {o.check.id for o in report.outcomes if o.verdict == "fail"}
    honest = {o.check.id for o in report.outcomes if o.verdict == "pass"}
    assert honest <= {
        "matrix.03", "matrix.06", "matrix.09", "matrix.11", "matrix.12", "complete.crowd", "lost.complete",
        "lost.unsent", "amount.zeros", "malformed.get", "malformed.huge",
    }  # fmt: skip
    assert {
        "matrix.01",
        "matrix.13",
        "sign.key",
        "amount.nan",
        "moves.no-prepare",
        "prepare.repeat",
    } <= failed


class Mixed:
    """A good endpoint behind a door that mends wrong Completes: together they do not see what is wrong."""

    def __init__(self, till: Any, fault: str) -> None:
        self.till, self.fault = till, fault
        self.prepared: dict[str, tuple[str, str]] = {}  # by click_trans_id: order, merchant_prepare_id

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if b"&action=1" in body:
            body = urlencode(self._mended(dict(parse_qsl(body.decode(), keep_blank_values=True)))).encode()
        self.till.now += 10
        reply = self.till.receive(body, request.method)
        if found := re.search(rb'"merchant_prepare_id":(\d+)', reply.body):
            fields = dict(parse_qsl(body.decode()))
            self.prepared[fields["click_trans_id"]] = (fields["merchant_trans_id"], found[1].decode())
        return Response(reply.body, reply.status, media_type=reply.content_type)

    def _mended(self, fields: dict[str, str]) -> dict[str, str]:
        order, own = self.prepared.get(fields["click_trans_id"], ("", ""))
        if self.fault == "no signature":
            return fields | {"sign_string": self._sign(fields)}
        if not order or fields["sign_string"] != self._sign(fields):
            return fields
        known = {prepare_id for _, prepare_id in self.prepared.values()}
        if self.fault == "any merchant_prepare_id" and fields["merchant_prepare_id"] in known:
            fields["merchant_prepare_id"] = own
        if self.fault == "any order":
            fields["merchant_trans_id"] = order
        return fields | {"sign_string": self._sign(fields)}

    def _sign(self, fields: dict[str, str]) -> str:
        names = ("merchant_trans_id", "merchant_prepare_id", "amount", "action", "sign_time")
        text = fields["click_trans_id"] + fields["service_id"] + "TEST-click-secret"
        return hashlib.md5((text + "".join(fields.get(name, "") for name in names)).encode()).hexdigest()


UNSIGNED = {
    "matrix.04", "matrix.06", "sign.key", "sign.covers-click_trans_id", "sign.covers-merchant_trans_id",
    "sign.covers-merchant_prepare_id", "sign.covers-amount", "sign.covers-sign_time",
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("none", set()),
        ("any merchant_prepare_id", {"moves.foreign-prepare-id"}),
        ("any order", {"moves.other-order"}),
        ("no signature", UNSIGNED),
    ],
)
async def test_an_endpoint_that_mixes_completes_up_is_found_out(
    till: Any, open_app: Callable[..., Any], fault: str, broken: set[str]
) -> None:
    numbers = itertools.count(1)

    async def fresh() -> Payable:
        reference = f"ORD-{next(numbers)}"
        till.order(reference, 500_050)
        return Payable(reference, 500_050)

    app = Starlette(routes=[Route("/", Mixed(till, fault).__call__, methods=["GET", "POST"])])
    async with open_app(app) as base:
        report = await conform.run(CONFORMANCE.checks, target(base + "/", OPTIONS, fresh))
    assert {o.check.id for o in report.outcomes if o.verdict != "pass"} == broken
    assert next(numbers) - 1 == ORDERS_NEEDED


async def test_orders_of_just_the_matrix_s_wrong_amount_are_judged_too(served: Any) -> None:
    for name in "ABC":
        served.order(name, 30_000)
    checks = [check for check in CONFORMANCE.checks if check.id in ("matrix.03", "matrix.05", "matrix.06")]
    described = target(served.url, OPTIONS | {"order": ["A:300", "B:300.00", "C:300.0"]})
    report = await conform.run(checks, described)
    assert report.passed, conform.as_text(report)


async def test_with_too_few_orders_a_run_has_not_passed(served: Any) -> None:
    names = [f"ORD-{n}:5000.50" for n in range(5)]
    for name in names:
        served.order(name.partition(":")[0], 500_050)
    report = await conform.run(CONFORMANCE.checks, target(served.url, OPTIONS | {"order": names}))
    assert (report.count("fail"), report.count("error"), report.passed) == (0, 0, False)
    assert report.unjudged == report.count("skip") > 20
    text = conform.as_text(report)
    assert f"{report.unjudged} checks need more fresh orders than were named" in text
    assert "skipped" not in text
    assert f'errors="{report.unjudged}" skipped="0"' in conform.as_junit(report)


async def test_a_dead_endpoint_is_no_verdict() -> None:
    async def fresh() -> Payable:
        return Payable("A", 100)

    report = await conform.run(CONFORMANCE.checks, target("http://127.0.0.1:9/", OPTIONS, fresh))
    assert not report.passed
    assert report.count("error") == len(CONFORMANCE.checks)


async def test_no_exchange_shows_the_key(served: Any) -> None:
    served.order("A", 500_050)
    checks = [check for check in CONFORMANCE.checks if check.id.startswith(("sign.", "malformed."))]
    report = await conform.run(checks, target(served.url, OPTIONS | {"order": ["A:5000.50"]}))
    assert "TEST-click-secret" not in repr(report)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "key"),
        ({"key": "k"}, "service-id"),
        ({"key": "k", "service-id": "12x"}, "service-id"),
        ({"key": "k", "service-id": 1}, "order"),
        ({"key": "k", "service-id": 1, "order": ["A"]}, "order"),
        ({"key": "k", "service-id": 1, "order": ["A:1e5"]}, "order"),
        ({"key": "k", "service-id": 1, "order": ["A:1"], "kind": "?"}, "kind"),
    ],
)
def test_a_target_that_is_described_badly_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        target("http://127.0.0.1:9/", options)


def test_an_order_may_have_colons_in_its_name() -> None:
    assert parsed("a:b:1.5") == Payable("a:b", 150)
