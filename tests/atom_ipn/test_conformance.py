"""The rules of the IPN document against our service, and against one that behaves as the published sample."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from tillgate import conform
from tillgate.providers.atompos_vn.conformance import CHECKS, CONFORMANCE
from tillgate.providers.atompos_vn.conformance.client import token
from tillgate.providers.atompos_vn.tests.conftest import served

from .conftest import running

FIXED = "sixteen letters!"
SECRET = "a-secret-of-more-than-thirty-two-bytes"


async def test_our_service_keeps_every_rule_with_tokens(database: Path) -> None:
    async with running(lambda _: None, database, jwt_secret=SECRET, user="atom", password="pw") as service:
        options = {"jwt-secret": SECRET, "user": "atom", "password": "pw"}
        target = CONFORMANCE.target(service.url + "/ipn", options)
        report = await conform.run(CHECKS, target, title=CONFORMANCE.title)
        assert report.passed, conform.as_text(report)
        assert report.count("skip") == 0
        for shown in (conform.as_text(report), conform.as_json(report), conform.as_junit(report)):
            assert SECRET not in shown


@pytest.mark.parametrize(
    ("given", "options", "skipped"),
    [
        ({}, {}, 14),
        ({"auth": "header", "header_value": FIXED}, {"header": f"X-Callback-Token: {FIXED}"}, 14),
        ({"jwt_secret": SECRET}, {}, 10),
    ],
    ids=["none", "header", "token"],
)
async def test_our_service_keeps_every_rule_in_other_modes(
    database: Path, given: dict[str, Any], options: dict[str, Any], skipped: int
) -> None:
    if "jwt_secret" in given:
        options = {
            "token": token(SECRET)
        }  # made now: a token lives for five minutes, and tests may wait longer
    async with running(lambda _: None, database, **given) as service:
        report = await conform.run(CHECKS, CONFORMANCE.target(service.url + "/ipn/", options))
        assert report.passed, conform.as_text(report)
        assert report.count("skip") == skipped


class IPNRequest(BaseModel):
    requestId: str  # noqa: N815
    orderId: str  # noqa: N815
    amount: str
    tip: str
    paymentType: str  # noqa: N815
    narrative: str
    fromAccNo: str  # noqa: N815
    extraData: dict[str, str]  # noqa: N815


def sample() -> FastAPI:
    """What the published sample does: no codes but 00, no tokens, a thread for each IPN."""
    app = FastAPI()

    @app.get("/")
    def hello() -> dict[str, str]:
        return {"message": "IPN"}

    @app.post("/ipn")
    def ipn(request: IPNRequest) -> dict[str, str]:
        threading.Thread(target=lambda: None).start()
        return {"code": "00", "message": "success"}

    return app


KNOWN_FAULTS = {
    "accept.content-type",  # 422 for text/plain
    "accept.slash",  # 307: the sender resends for ever
    "repeat.corrected",  # amount "abc" is taken
    *(f"missing.{name}" for name in IPNRequest.model_fields),
    "missing.all",
    *(f"type.{name}" for name in IPNRequest.model_fields),
    "type.amount-text",
    "type.tip-text",
    "type.extra-values",
    "body.json",
    "body.twice",
    "body.deep",
    "body.large",
    "url.unknown",
    "url.method",
    "token.none",
    "token.first",
    "token.garbage",
    "token.tampered",
    "token.expired",
    "token.early",
    "token.eternal",
    "token.algorithm",
    "token.unsigned",
    "token.scope",
}


async def test_the_published_samples_known_faults_are_found() -> None:
    async with served(sample()) as url:
        report = await conform.run(CHECKS, CONFORMANCE.target(url + "/ipn", {"jwt-secret": SECRET}))
        failed = {outcome.check.id for outcome in report.outcomes if outcome.verdict == "fail"}
        assert failed == KNOWN_FAULTS, conform.as_text(report)
        assert report.count("error") == 0


async def test_nobody_there_is_an_error_and_not_a_pass() -> None:
    report = await conform.run(CHECKS, CONFORMANCE.target("http://127.0.0.1:9/ipn", {}))
    assert not report.passed
    assert report.count("error") == len(CHECKS)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("127.0.0.1:8000", {}),
        ("ftp://x/ipn", {}),
        ("http://x/ipn", {"header": "no colon"}),
        ("http://x/ipn", {"user": "u"}),
    ],
)
def test_a_target_that_is_none(url: str, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"url|header|user"):
        CONFORMANCE.target(url, options)


def test_every_rule_has_a_name_of_its_own_and_a_source() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert all(check.source and check.title and check.group for check in CHECKS)
