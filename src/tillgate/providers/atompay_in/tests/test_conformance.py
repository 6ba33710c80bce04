"""AtomPay's rules against our connector with a small book behind it, and against a shop that believes all."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tillgate import conform
from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Refusal
from tillgate.domain.payment import Paid
from tillgate.providers.atompay_in import AtomPay
from tillgate.providers.atompay_in.conformance import CHECKS, CONFORMANCE, ORDERS_NEEDED, parsed
from tillgate.providers.atompay_in.simulator_crypto import decrypt
from tillgate.spi import Inbound

from .conftest import config, served

ORDERS = [f"txn-{n}:319.00:order-{n}" for n in range(ORDERS_NEEDED)]
DUE = (31_900, "INR")


class Book:
    """What is due and what came, as the hub keeps it: an order is paid when exactly what is due came."""

    def __init__(self) -> None:
        self.came: dict[str, list[tuple[int, str]]] = {}

    def tell(self, message: Tell) -> None:
        for fact in message.facts:
            if isinstance(fact, Paid):
                self.came.setdefault(message.operation_id or "", []).append((fact.total_minor, fact.currency))

    def state(self, number: str) -> str:
        came = set(self.came.get(f"txn-{number}", []))
        return "paid" if came == {DUE} else "review" if came else "pending"


@asynccontextmanager
async def shop(inbound: Any, book: Book) -> AsyncIterator[conform.Target]:
    async def state(request: Request) -> Response:
        return JSONResponse({"status": book.state(request.path_params["reference"].removeprefix("order-"))})

    app = Starlette(
        routes=[Route("/response", inbound, methods=["POST"]), Route("/state/{reference}", state)]
    )
    async with served(app) as url:
        options = {"order": ORDERS, "state-url": url + "/state/{reference}"}
        yield CONFORMANCE.target(url + "/response", options)


async def test_the_connector_keeps_every_rule() -> None:
    book, atompay = Book(), AtomPay(config())

    async def inbound(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > 1 << 20:
                return PlainTextResponse("too large", 413)
        now = int(time.time() * 1000)
        call = Inbound("POST", "/response", "", dict(request.headers), bytes(body), "127.0.0.1", now)
        heard, refusal = None, None
        try:
            heard = atompay.hear(call)
            if isinstance(heard.message, Tell):
                book.tell(heard.message)
        except Refusal as error:
            refusal = error
        reply = atompay.answer(call, heard, refusal)
        return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)

    async with shop(inbound, book) as target:
        report = await conform.run(CHECKS, target, title=CONFORMANCE.title)
        assert report.passed, conform.as_text(report)
        assert report.count("skip") == 0
        for shown in (conform.as_text(report), conform.as_json(report)):
            assert "KEYRESP123657234" not in shown


FAULTS_OF_THE_TRUSTING = {
    "paid.copies",  # the first creates a row, the others fail
    "paid.shapes",
    "paid.pending",  # pending is answered "Payment Failed"
    "paid.late",
    "paid.stays",
    "unpaid.amount",
    "unpaid.currency",
    "unpaid.challan",
    "forged.signature",
    "forged.null",
    "forged.absent",
    "forged.empty",
    "forged.aes-key",
    "forged.request-key",
    "forged.transaction",
    "forged.amount",
    "forged.merchant",
    "paid.genuine",
    "word.cancel",
    "word.timeout",
    "bad.alike",
    "bad.fields",
}


async def test_a_shop_that_believes_whatever_decrypts_is_found_out() -> None:
    """Its faults are those the AtomPay document's code has: no signature check, no amount, no repeat."""
    book, seen = Book(), set[str]()

    async def inbound(request: Request) -> Response:
        body = await request.body()
        if len(body) > 1 << 20:
            return PlainTextResponse("too large", 413)
        try:
            sealed = parse_qs(body.decode())["encData"][0]
            message = decrypt(sealed, "75AEF0FA1B94B3C10D4F5B268F757F11")["payInstrument"]
        except (KeyError, TypeError, ValueError) as error:
            return PlainTextResponse(f"Decryption error: {type(error).__name__}", 400)
        if message["responseDetails"]["statusCode"] not in ("OTS0000", "OTS0002"):
            return PlainTextResponse("Payment Failed", 400)
        txn = message["merchDetails"]["merchTxnId"]
        if txn in seen:
            return PlainTextResponse("IntegrityError", 500)
        seen.add(txn)
        book.came[txn] = [DUE]
        return PlainTextResponse("ok")

    async with shop(inbound, book) as target:
        report = await conform.run(CHECKS, target)
        failed = {outcome.check.id for outcome in report.outcomes if outcome.verdict == "fail"}
        assert failed == FAULTS_OF_THE_TRUSTING, conform.as_text(report)


async def test_without_a_place_to_see_the_state_it_says_what_it_would_need() -> None:
    async def inbound(request: Request) -> Response:
        return PlainTextResponse("OK")

    async with served(Starlette(routes=[Route("/response", inbound, methods=["POST"])])) as url:
        target = CONFORMANCE.target(url + "/response", {"order": ORDERS})
        report = await conform.run(CHECKS, target)
        skipped = [outcome for outcome in report.outcomes if outcome.verdict == "skip"]
        assert skipped
        assert all("--state-url" in outcome.why for outcome in skipped)
        assert json.loads(conform.as_json(report))["passed"] is False


@pytest.mark.parametrize("text", ["", "x", "x:", "x:0", "x:-1", "x:1.005", "x:NaN", ":5", "x:1e99"])
def test_an_order_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="order"):
        parsed(text)


@pytest.mark.parametrize(
    "options", [{}, {"order": ORDERS, "state-url": "http://x"}, {"order": ORDERS, "state-header": "x"}]
)
def test_a_target_that_is_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"order|state"):
        CONFORMANCE.target("http://127.0.0.1:1/response", options)


def test_every_rule_has_a_name_of_its_own_and_a_source() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert all(check.source and check.title and check.group for check in CHECKS)
