"""The callback suite passes a careful shop, finds every careless one out, and shows no secret."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tillgate import conform
from tillgate.conform import Report
from tillgate.conform.callback import CONFORMANCE, target
from tillgate.webhooks import WebhookVerificationError, new_secret, verify

SECRET = new_secret()


class Shops:
    """Shops of one server: `/good` is careful, and each other one has the defect that it is named by."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self.acted: dict[str, int] = {}
        self.url = ""

    async def witness(self, request: web.Request) -> web.Response:
        return web.Response(text=str(self.acted.get(request.match_info["shop"], 0)))

    async def callback(self, request: web.Request) -> web.Response:
        shop, body = request.match_info["shop"], await request.read()
        headers = dict(request.headers)
        seen = self.seen.setdefault(shop, set())
        if shop == "gone":
            raise web.HTTPGone
        if shop == "moved":
            raise web.HTTPFound("/good")
        if shop == "early" and headers.get("webhook-id") in seen:
            return web.Response(status=200)
        if shop == "early":
            seen.add(headers.get("webhook-id", ""))
        if not self._genuine(shop, headers, body):
            return web.Response(status=500 if shop == "crashes" else 401)
        if shop == "slow":
            await asyncio.sleep(0.4)
        return self._take(shop, headers.get("webhook-id", ""), body, seen)

    def _genuine(self, shop: str, headers: dict[str, str], body: bytes) -> bool:
        if shop == "trusting":
            return True
        now = time.time()
        if shop == "timeless":
            now = float(headers.get("webhook-timestamp", 0))
        if shop == "reprints":
            body = json.dumps(json.loads(body), separators=(",", ":")).encode() if body[:1] == b"{" else body
        if shop == "first-only":
            headers["webhook-signature"] = headers.get("webhook-signature", "").split(" ")[0]
        try:
            verify([SECRET], headers, body, now_s=now)
        except WebhookVerificationError:
            return False
        return True

    def _take(self, shop: str, id_: str, body: bytes, seen: set[str]) -> web.Response:
        if shop not in ("forgets", "early") and id_ in seen:
            return web.Response(status=409 if shop == "complains" else 200)
        seen.add(id_)
        try:
            fields = json.loads(body)
            kind = fields["type"]
        except (ValueError, TypeError, KeyError, UnicodeDecodeError):
            return web.Response(status=500 if shop == "crashes" else 400)
        if shop == "strict" and (set(fields) - KNOWN or kind not in KINDS):
            return web.Response(status=422)
        self.acted[shop] = self.acted.get(shop, 0) + 1
        return web.Response(text="x" * 70_000 if shop == "wordy" else "")


KNOWN = {
    "type", "timestamp", "payment_id", "order_id", "status", "amount", "currency", "wallet_id", "paid_at",
    "status_detail", "refunded_amount", "paid_with", "expires_at", "refund",
}  # fmt: skip
KINDS = {
    "payment.success", "payment.failed", "payment.expired", "payment.cancelled",
    "refund.success", "refund.failed",
}  # fmt: skip


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    made, app = Shops(), web.Application()
    app.router.add_post("/{shop}", made.callback)
    app.router.add_get("/{shop}", made.witness)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def judged(shops: Shops, shop: str, only: str = "", **options: Any) -> Report:
    url = f"{shops.url}/{shop}"
    described = target(url, {"secret": SECRET, "witness": url, **options})
    checks = [one for one in CONFORMANCE.checks if one.id.startswith(only)]
    return await conform.run(checks, described, title="shop")


def broken(report: Report) -> set[str]:
    return {one.check.id for one in report.outcomes if one.verdict == "fail"}


async def test_a_careful_shop_passes_every_check_and_no_secret_is_shown(shops: Shops) -> None:
    report = await judged(shops, "good", order=["ORDER-1", "ORDER-2"])

    assert [(one.check.id, one.why) for one in report.outcomes if one.verdict != "pass"] == []
    assert report.passed
    assert len({one.check.id for one in report.outcomes}) == len(CONFORMANCE.checks) == 27
    texts = conform.as_text(report) + conform.as_json(report) + conform.as_junit(report)
    assert SECRET.removeprefix("whsec_") not in texts
    assert "ORDER-2" in texts
    # What was refused was not acted upon, and of what was taken everything but five that are no callback.
    assert shops.acted["good"] == len(shops.seen["good"]) - 5


@pytest.mark.parametrize(
    ("shop", "only", "found"),
    [
        ("trusting", "signature", {
            "signature.absent", "signature.no-signature", "signature.no-id", "signature.no-time",
            "signature.empty", "signature.other-secret", "signature.other-scheme", "signature.body",
            "signature.id", "signature.time", "signature.old", "signature.future", "signature.forgery-first",
        }),
        ("timeless", "signature", {"signature.old", "signature.future"}),
        ("reprints", "signature", {"signature.raw"}),
        ("first-only", "signature", {"signature.rotation"}),
        ("early", "signature.f", {"signature.forgery-first"}),
        ("forgets", "repeat", {"repeat.same", "repeat.crowd"}),
        ("complains", "repeat", {"repeat.same"}),
        ("strict", "content", {"content.unknown-fields", "content.unknown-type"}),
        ("crashes", "content.n", {"content.no-json"}),
        ("crashes", "signature.absent", {"signature.absent"}),
        ("wordy", "answer", {"answer.small"}),
        ("slow", "answer", {"answer.quick"}),
        ("gone", "signature.o", {"signature.other-secret", "signature.other-scheme", "signature.old"}),
        ("moved", "signature.good", {"signature.good"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
async def test_a_careless_shop_is_found_out(shops: Shops, shop: str, only: str, found: set[str]) -> None:
    options = {"within": "0.2"} if shop == "slow" else {}
    assert broken(await judged(shops, shop, only, **options)) == found


async def test_without_a_witness_only_answers_are_judged(shops: Shops) -> None:
    assert (await judged(shops, "forgets", "repeat", witness=None)).passed


async def test_a_witness_that_knows_no_number_is_no_fault_of_the_shop(shops: Shops) -> None:
    report = await judged(shops, "good", "signature.good", witness=f"{shops.url}/good/nothing")
    assert [one.verdict for one in report.outcomes] == ["skip"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "secret"),
        ({"secret": "whsec_c2hvcnQ="}, "secret"),
        ({"secret": SECRET, "amount": "1.5"}, "amount"),
        ({"secret": SECRET, "within": "0"}, "within"),
        ({"secret": SECRET, "within": "nan"}, "within"),
    ],
)
def test_what_the_suite_cannot_work_with_is_said(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        target("http://127.0.0.1:1/", options)
