"""The control API: a loopback HTTP door for a till program or a script, behind a bearer token."""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tillgate.providers.mobypay import control_schemas as shapes
from tillgate.providers.mobypay.config import TerminalConfig
from tillgate.providers.mobypay.control_openapi import OPEN_PATHS, openapi
from tillgate.providers.mobypay.errors import BadRequest, KioskRefusal, WeakSecret
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, UNSETTLED, Payment, State
from tillgate.providers.mobypay.loopback import LOOPBACK_HOSTS
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.steps import Notice

SHORTEST_TOKEN: Final = 32
LONGEST_WAIT_S: Final = 60.0

Handler = Callable[[Request], Awaitable[Response]]


def control_app(server: KioskServer, token: str) -> Starlette:
    """The ASGI application. Raises WeakSecret for a token of fewer than 32 characters."""
    if len(token) < SHORTEST_TOKEN:
        raise WeakSecret(f"the control token needs at least {SHORTEST_TOKEN} characters")
    control = _Control(server)
    expected = hashlib.sha256(token.encode()).digest()
    document = msgspec.json.encode(openapi())

    def guarded(handler: Handler) -> Handler:
        async def checked(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            # Compared by digest: of one length, in constant time.
            digest = hashlib.sha256(given.strip().encode()).digest()
            if scheme.lower() != "bearer" or not hmac.compare_digest(digest, expected):
                return _problem(
                    401, "unauthorized", "a bearer token is needed", {"WWW-Authenticate": "Bearer"}
                )
            try:
                return await handler(request)
            except KioskRefusal as refusal:
                return _problem(refusal.status, refusal.code, str(refusal))

        return checked

    async def describe(_: Request) -> Response:
        return Response(document, media_type="application/json")

    async def alive(_: Request) -> Response:
        return Response(status_code=204)

    async def unrouted(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _problem(
            status, {404: "not_found", 405: "method_not_allowed"}.get(status, "error"), "no such endpoint"
        )

    table: dict[tuple[str, str], Handler] = {
        ("POST", "/payments"): control.pay,
        ("GET", "/payments"): control.list_payments,
        ("GET", "/payments/{txn_id}"): control.show,
        ("POST", "/payments/{txn_id}/cancel"): control.cancel,
        ("POST", "/payments/{txn_id}/plan"): control.plan,
        ("POST", "/payments/{txn_id}/settle"): control.settle,
        ("GET", "/terminals"): control.list_terminals,
        ("POST", "/terminals"): control.enrol,
        ("GET", "/alerts"): control.list_alerts,
        ("POST", "/alerts/{number}/close"): control.close_alert,
        ("GET", "/events"): control.events,
        ("GET", "/status"): control.status,
        ("GET", "/openapi.json"): describe,
        ("GET", "/healthz"): alive,
    }
    routes = [
        Route(path, handler if path in OPEN_PATHS else guarded(handler), methods=[method])
        for (method, path), handler in table.items()
    ]
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: unrouted},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_HOSTS))],
    )


class _Control:
    def __init__(self, server: KioskServer):
        self._server = server
        self._kiosk = server.kiosk
        self._journal = server.journal

    async def pay(self, request: Request) -> Response:
        raw = await _body(request)
        body: shapes.PaymentIn = shapes.read_body(raw, shapes.PaymentIn)
        key = request.headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= 255:
            raise BadRequest("an Idempotency-Key has 1 to 255 characters")
        payment = await self._kiosk.pay(
            body.mode,
            shapes.amount_sen(body.amount),
            terminal=body.terminal,
            reference=body.reference,
            idempotency_key=key,
            request_digest=shapes.digest(raw),
        )
        return _json(shapes.payment_out(payment), 201, {"Location": f"/payments/{payment.txn_id}"})

    async def list_payments(self, request: Request) -> Response:
        limit = _number(request, "limit", 50, 1, 200)
        before = _number(request, "before", 2**62, 1, 2**62)
        state = request.query_params.get("state")
        if state is not None and state not in set(State):
            raise BadRequest("state is one of " + ", ".join(State))
        page = self._journal.page(limit, before, state)
        following = page[-1][0] if len(page) == limit else None
        payments = [shapes.payment_out(payment) for _, payment in page]
        return _json(shapes.PaymentPage(payments=payments, next=following))

    async def show(self, request: Request) -> Response:
        payment = self._kiosk.find(request.path_params["txn_id"])
        wait_s = _number(request, "wait", 0, 0, LONGEST_WAIT_S)
        version = _number(request, "version", payment.version, 0, 2**31)
        if wait_s:
            payment = await self._changed(payment, version, wait_s)
        return self._answer(payment)

    async def cancel(self, request: Request) -> Response:
        return self._answer(await self._kiosk.cancel(request.path_params["txn_id"]))

    async def plan(self, request: Request) -> Response:
        body: shapes.PlanIn = shapes.read_body(await _body(request), shapes.PlanIn)
        return self._answer(await self._kiosk.choose_plan(request.path_params["txn_id"], body.plan_id))

    async def settle(self, request: Request) -> Response:
        body: shapes.SettleIn = shapes.read_body(await _body(request), shapes.SettleIn)
        txn_id = request.path_params["txn_id"]
        return self._answer(
            await self._kiosk.settle(txn_id, paid=body.outcome == "paid", because=body.reason)
        )

    async def list_terminals(self, _: Request) -> Response:
        return _json(
            shapes.TerminalList(terminals=[shapes.terminal_out(item) for item in self._server.terminals])
        )

    async def enrol(self, request: Request) -> Response:
        body: shapes.TerminalIn = shapes.read_body(await _body(request), shapes.TerminalIn)
        wanted = TerminalConfig(
            pos_id=body.pos_id, secret=body.secret, port=body.port, amount_form=body.amount_form
        )
        return _json(shapes.terminal_out(await self._server.enrol(wanted, replace=body.replace)), 201)

    async def list_alerts(self, _: Request) -> Response:
        return _json(
            shapes.AlertList(alerts=[shapes.alert_out(alert) for alert in self._journal.open_alerts()])
        )

    async def close_alert(self, request: Request) -> Response:
        text = request.path_params["number"]
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BadRequest("an alert has a number")
        await self._kiosk.close_alert(int(text))
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        after = _number(request, "after", 0, 0, 2**62)
        changes = self._journal.changes(after, _number(request, "limit", 50, 1, 200))
        following = changes[-1].number if changes else after
        return _json(
            shapes.EventPage(events=[shapes.event_out(change) for change in changes], next=following)
        )

    async def status(self, _: Request) -> Response:
        payments = list(self._kiosk.steps.open.values())
        return _json(
            shapes.StatusOut(
                kiosk_id=self._server.config.kiosk_id,
                port=self._server.port,
                connections=self._server.connection_count(),
                in_flight=[payment.txn_id for payment in payments if payment.state in IN_FLIGHT],
                unsettled=[payment.txn_id for payment in payments if payment.state in UNSETTLED],
                refused_frames=dict(self._server.refused_frames),
            )
        )

    def _answer(self, payment: Payment) -> Response:
        return _json(shapes.payment_out(payment, self._journal.history(payment.txn_id)))

    async def _changed(self, payment: Payment, version: int, wait_s: float) -> Payment:
        """The payment once it is newer than `version`, or as it is after `wait_s`."""
        moved = asyncio.Event()

        def watch(notice: Notice) -> None:
            if notice.payment is not None and notice.payment.txn_id == payment.txn_id:
                moved.set()

        watchers = self._kiosk.steps.watchers
        watchers.add(watch)
        try:
            async with asyncio.timeout(wait_s):
                while self._kiosk.find(payment.txn_id).version <= version:
                    await moved.wait()
                    moved.clear()
        except TimeoutError:
            pass
        finally:
            watchers.discard(watch)
        return self._kiosk.find(payment.txn_id)


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > shapes.MAX_BODY:
            raise BadRequest(f"the body exceeds {shapes.MAX_BODY} bytes")
    return body


def _number(request: Request, name: str, default: int, least: int, most: float) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most:.0f}")
    return int(text)


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode(answer)
    return Response(body, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")


def _problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    problem = shapes.Problem(
        title=code.replace("_", " ").capitalize(), status=status, detail=detail, code=code
    )
    body = msgspec.json.encode(problem)
    return Response(
        body, status, {"Cache-Control": "no-store", **(headers or {})}, "application/problem+json"
    )
