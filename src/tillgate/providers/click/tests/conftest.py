"""A till of dictionaries: rules by `decide`, and a real HTTP endpoint around it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tillgate.domain.dialogue import Facts, Look, Note, Opening, Reserve, Tell, decide, lapse_live
from tillgate.domain.errors import Refusal
from tillgate.domain.payment import LIVE, Attempt, Payment, StandingOrder, advance, follow
from tillgate.outgoing import Outgoing
from tillgate.providers.click import PROVIDER
from tillgate.providers.click.merchant_api import MerchantApi
from tillgate.providers.click.simulator import ClickSimulator, build_app
from tillgate.spi import Heard, Inbound, Reply

NOW_S = 1_795_255_445.0  # 2026-11-21 15:04:05 in Tashkent
SECRET = "TEST-click-secret"
SERVICE = 12345
CONFIG = {
    "service_id": SERVICE,
    "merchant_id": 54321,
    "merchant_user_id": 777,
    "secret_key": SECRET,
}


class Till:
    """One merchant's orders in memory. Applies verdicts as a store would: all of one, or nothing."""

    def __init__(self, connector: Any) -> None:
        self.connector = connector
        self.now = time.time_ns() // 1_000_000
        self.payments: dict[str, Payment] = {}
        self.attempts: dict[str, Attempt] = {}
        self.standing: dict[str, StandingOrder] = {}
        self.paid: list[str] = []  # the order of every move into "paid": what a merchant would hear
        self.strays: list[Tell] = []
        self.broken = False
        self._ids = itertools.count(1)

    def order(self, order_id: str, tiyin: int, *, lives_ms: int = 86_400_000) -> Payment:
        self.payments[order_id] = payment = Payment(
            id=f"pay-{next(self._ids)}", merchant_id="m", order_id=order_id, order_key=b"k" * 16,
            standing_id=None, channel="click", account_id="a", currency="UZS", amount_minor=tiyin,
            status="pending", closed=None, hold=None, late=False, paid_minor=0, tip_minor=0, fee_minor=0,
            refunding_minor=0, refunded_minor=0, reversed_minor=0, live_attempt_id=None, live_phase=None,
            paid_with=None, callback_url=None, metadata=None, created_at=self.now,
            expires_at=self.now + lives_ms, paid_at=None, version=1,
        )  # fmt: skip
        return payment

    def standing_order(self, order_id: str, low: int = 1, high: int = 10**12) -> None:
        self.standing[order_id] = StandingOrder(
            id=f"so-{next(self._ids)}", merchant_id="m", order_id=order_id, order_key=b"s" * 16,
            channel="click", account_id="a", currency="UZS", min_minor=low, max_minor=high,
            callback_url=None, metadata=None, created_at=self.now, closed_at=None, version=1,
        )  # fmt: skip

    def receive(self, body: bytes, method: str = "POST", path: str = "/click") -> Reply:
        call = Inbound(method, path, "", {}, body, "127.0.0.1", self.now)
        heard: Heard | None = None
        try:
            heard = self.connector.hear(call)
        except Refusal as refusal:
            return self.connector.answer(call, None, refusal)
        self.now += 1
        outcome = self._told(heard.message) if isinstance(heard.message, Tell) else self._asked(heard.message)
        return self.connector.answer(call, heard, outcome)

    def _asked(self, ask: Any) -> Any:
        attempt = self.attempts.get(getattr(ask, "external_id", ""))
        if isinstance(ask, Reserve):
            standing = self.standing.get(ask.reference)
            payment = self._payment_of(attempt) if attempt else self.payments.get(ask.reference)
        else:
            assert isinstance(ask, Look | Note) or type(ask).__name__ in ("Settle", "Cancel")
            payment = attempt and self._payment_of(attempt)
            standing = None
        live = next((a for a in self.attempts.values() if payment and a.live_of == payment.id), None)
        facts = Facts(payment, standing, attempt, live)
        if isinstance(ask, Reserve) and attempt is None:
            lapsed = lapse_live(facts, self.now)
            if lapsed is not None:
                self._apply(lapsed)
                facts = replace(facts, payment=lapsed.payment, live=None)
        serial = next(self._ids)
        opening = Opening(f"att-{serial}", f"pay-{serial}", b"c" * 16, "a", "click")
        verdict = decide(ask, facts, self.now, opening)
        self._apply(verdict)
        return verdict.outcome

    def _told(self, tell: Tell) -> None:
        attempt = self.attempts.get(tell.external_id or "")
        if attempt is None:
            self.strays.append(tell)
            return
        for fact in tell.facts:
            payment = self._payment_of(attempt)
            moved = advance(attempt, fact, self.now)
            self._store(attempt, moved, follow(payment, attempt, moved, fact))
            attempt = moved

    def _apply(self, verdict: Any) -> None:
        if verdict.change is not None:
            before, after, _ = verdict.change
            self._store(before, after, verdict.payment)

    def _store(self, before: Attempt | None, after: Attempt, payment: Payment) -> None:
        if after.phase == "paid" and (before is None or before.phase != "paid"):
            self.paid.append(payment.order_id)
        self.attempts[after.external_id or ""] = after
        key = payment.order_id if payment.standing_id is None else payment.id
        self.payments[key] = payment

    def _payment_of(self, attempt: Attempt) -> Payment:
        return next(p for p in self.payments.values() if p.id == attempt.payment_id)

    def live(self) -> list[Attempt]:
        return [a for a in self.attempts.values() if a.phase in LIVE]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The till behind a real socket; gives its URL."""

        async def handle(request: Request) -> Response:
            body = await request.body()
            self.now = max(self.now + 1, time.time_ns() // 1_000_000)
            reply = self.receive(body, request.method)
            return Response(reply.body, reply.status, media_type=reply.content_type)

        app = Starlette(routes=[Route("/click", handle, methods=["GET", "POST", "PUT"])])
        async with listening(app) as base:
            yield f"{base}/click"


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def sign(fields: dict[str, str], secret: str = SECRET) -> str:
    """The two formulas of the SHOP API, written out here from its documentation."""
    f = fields
    text = f["click_trans_id"] + f["service_id"] + secret + f["merchant_trans_id"]
    if f["action"] == "1":
        text += f["merchant_prepare_id"]
    text += f["amount"] + f["action"] + f["sign_time"]
    return hashlib.md5(text.encode()).hexdigest()


def click_form(
    action: int, order: str, amount: str, trans: int, /, *, prepared: object = None, secret: str = SECRET,
    drop: str = "", **over: str,
) -> bytes:  # fmt: skip
    fields = {
        "click_trans_id": str(trans),
        "service_id": str(SERVICE),
        "click_paydoc_id": str(trans + 1000),
        "merchant_trans_id": order,
        "amount": amount,
        "action": str(action),
        "error": "0",
        "error_note": "Ok",
        "sign_time": "2026-11-21 15:04:05",
    }
    if prepared is not None:
        fields["merchant_prepare_id"] = str(prepared)
    sent_sign = over.pop("sign_string", None)
    fields |= over
    fields["sign_string"] = sent_sign or sign({"merchant_prepare_id": ""} | fields, secret)
    fields.pop(drop, None)
    return urlencode(fields).encode()


@pytest.fixture
def form() -> Callable[..., bytes]:
    return click_form


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(CONFIG)


@pytest.fixture
def make_till() -> Callable[..., Till]:
    def make(**over: Any) -> Till:
        return Till(PROVIDER.connect(PROVIDER.config(**(CONFIG | over))))

    return make


@pytest.fixture
def till(make_till: Callable[..., Till]) -> Till:
    return make_till()


@pytest.fixture
def open_app() -> Callable[..., Any]:
    return listening


@pytest.fixture
async def desk(
    till: Any, config: dict[str, Any], open_app: Callable[..., Any]
) -> AsyncIterator[SimpleNamespace]:
    till.order("A", 500_050)
    clock = SimpleNamespace(now=NOW_S)
    async with (
        till.serve() as url,
        ClickSimulator(
            url,
            service_id=12345,
            secret_key="TEST-click-secret",
            merchant_user_id=777,
            clock=lambda: clock.now,
        ) as click,
        open_app(build_app(click)) as base,
        Outgoing(guard=False) as outgoing,
    ):
        settings = PROVIDER.config(**config, api_url=f"{base}/v2/merchant")
        found = MerchantApi(settings, outgoing.send, now_s=lambda: clock.now)
        state = build_app(click).state
        yield SimpleNamespace(
            till=till, click=click, api=found, clock=clock, send=outgoing.send, base=base, state=state,
            settings=settings,
        )  # fmt: skip
