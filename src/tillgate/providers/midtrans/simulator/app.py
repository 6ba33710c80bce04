"""Midtrans' Core API over HTTP, and the pages of a pretended wallet."""

from __future__ import annotations

import asyncio
import base64
import csv
import hmac
import html
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import segno
from aiohttp import web

from tillgate.providers.midtrans.simulator.desk import REPORT, MidtransError, Transaction
from tillgate.providers.midtrans.simulator.player import FAULTS, KEPT_S, MidtransSimulator
from tillgate.simulation import ACTIONS, Dropped, View, WalletPages, dropped, spoilt

MAX_BODY_BYTES = 64 * 1024
Work = Callable[[web.Request], Awaitable[tuple[int, dict[str, Any]]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(midtrans: MidtransSimulator) -> web.Application:
    """Serves `/v2/charge`, `/v2/{order}/status|cancel|expire|refund`, and `/pay/{id}` for a person."""

    def api(call: str, work: Work) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if midtrans.down:
                return dropped(request)
            midtrans.calls[call] += 1
            fault = midtrans.faults[call].popleft() if midtrans.faults[call] else "none"
            try:
                await request.read()  # the whole request is here before anything goes wrong
                _broken(fault)
                if fault == "slow":
                    await asyncio.sleep(midtrans.slow_s)
                _authorised(midtrans, request)
                status, found = await _once(midtrans, request, work)
                return await _faulty(midtrans, fault, status, found)
            except MidtransError as error:
                return _error(error)
            except (Dropped, ConnectionResetError):
                return dropped(request)

        return handle

    async def charge(request: web.Request) -> tuple[int, dict[str, Any]]:
        made = midtrans.desk.charge(await _asked(request), _notify(midtrans, request))
        if made.type == "ovo":
            await midtrans.pushed(made)
        return 201, midtrans.desk.charged(made)

    async def status(request: web.Request) -> tuple[int, dict[str, Any]]:
        found = midtrans.signed(midtrans.desk.find(request.match_info["name"]))
        return 200, {**found, "status_message": "Success, transaction is found"}

    def closing(to: str) -> Work:
        async def close(request: web.Request) -> tuple[int, dict[str, Any]]:
            found = midtrans.desk.close(request.match_info["name"], to)
            await midtrans.notify(found, midtrans.signed(found))
            return 200, {**midtrans.desk.shown(found), "status_message": f"Success, transaction is {to}"}

        return close

    async def refund(request: web.Request) -> tuple[int, dict[str, Any]]:
        found, made = midtrans.desk.refund(request.match_info["name"], await _asked(request))
        await midtrans.refunding(found, made)
        return 200, {**midtrans.desk.shown(found), "status_code": "200", "status_message": "Success, refund"}

    async def act(request: web.Request) -> tuple[int, dict[str, Any]]:
        """Our own: Midtrans' simulator is a page for a person."""
        action, fault = request.match_info["action"], request.query.get("fault", "none")
        if action not in ACTIONS or fault not in FAULTS:
            raise MidtransError(400, f"fault is one of {', '.join(FAULTS)}")
        try:
            return 200, midtrans.desk.shown(await midtrans.act(request.match_info["name"], action, fault))
        except MidtransError as error:
            raise MidtransError(error.code, error.message) from None  # with its own HTTP status

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v2/charge", api("charge", charge))
    app.router.add_get("/v2/{name}/status", api("status", status))
    app.router.add_post("/v2/{name}/cancel", api("cancel", closing("cancel")))
    app.router.add_post("/v2/{name}/expire", api("expire", closing("expire")))
    app.router.add_post("/v2/{name}/refund", api("refund", refund))
    app.router.add_post("/v2/{name}/refund/online/direct", api("refund", refund))
    app.router.add_post("/_simulator/{name}/{action}", api("act", act))
    _pages(app, midtrans)
    return app


def _broken(fault: str) -> None:
    """Faults that leave nothing done."""
    match fault:
        case "never":
            raise Dropped
        case "500" | "503" | "429":
            raise MidtransError(int(fault), "Sorry, we cannot do that now")
        case "refused":
            raise MidtransError(412, "Transaction status cannot be updated.", 200)
        case "denied":
            raise MidtransError(202, "Refund denied by the bank", 200)
        case "concurrent":
            raise MidtransError(202, "The request is being processed", 202)


async def _once(midtrans: MidtransSimulator, request: web.Request, work: Work) -> tuple[int, dict[str, Any]]:
    """The Idempotency-Key: for five minutes, over all endpoints, and of good answers only."""
    key = request.headers.get("idempotency-key", "")
    if not key or len(key) > 46 or request.method != "POST":  # a longer one is ignored without a word
        return await work(request)
    known = midtrans.kept.get(key)
    if known is not None and midtrans.clock() < known[0] + KEPT_S:
        return known[1], known[2]
    if key in midtrans.running:
        raise MidtransError(202, "The request is being processed", 202)
    midtrans.running.add(key)
    try:
        status, found = await work(request)
    finally:
        midtrans.running.discard(key)
    midtrans.kept[key] = midtrans.clock(), status, found
    return status, found


async def _faulty(
    midtrans: MidtransSimulator, fault: str, status: int, found: dict[str, Any]
) -> web.StreamResponse:
    if fault == "webhook_first":
        await midtrans.pay(found["transaction_id"])
        await asyncio.sleep(0.3)
    said = spoilt(found, fault)
    if isinstance(said, web.Response):
        return said
    return web.json_response(said, status=200 if status == 201 else status)


def _authorised(midtrans: MidtransSimulator, request: web.Request) -> None:
    wanted = "Basic " + base64.b64encode(f"{midtrans.server_key}:".encode()).decode()
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise MidtransError(401, "Transaction cannot be authorized with the current client/server key.")


def _notify(midtrans: MidtransSimulator, request: web.Request) -> list[str]:
    """Where notifications of this transaction go: at most two addresses by header, instead of or after the
    dashboard's."""
    override = request.headers.get("x-override-notification", "")
    append = request.headers.get("x-append-notification", "")
    given = [url.strip() for url in (override or append).split(",") if url.strip()][:2]
    return given if override else [midtrans.webhook_url, *given]


async def _asked(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.read())
    except ValueError:
        raise MidtransError(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise MidtransError(400, "the body is not an object")
    return found


def _error(error: MidtransError) -> web.Response:
    body = {"status_code": str(error.code), "status_message": error.message, "id": "a-simulated-answer"}
    return web.json_response(body, status=error.status)


# --- pages --------------------------------------------------------------------------------------------------


def _pages(app: web.Application, midtrans: MidtransSimulator) -> None:
    desk = midtrans.desk

    async def report(request: web.Request) -> web.Response:
        """What a merchant downloads from the dashboard: the Core API has no statement."""
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, REPORT)
        writer.writeheader()
        writer.writerows(desk.report())
        return web.Response(
            text=out.getvalue(), content_type="text/csv", headers={"Cache-Control": "no-store"}
        )

    async def picture(request: web.Request) -> web.Response:
        """The address in a charge's `actions`: a PNG, for whoever has it."""
        try:
            one = desk.find(request.match_info["name"])
        except MidtransError:
            return web.Response(status=404)
        png = io.BytesIO()
        segno.make(one.qr or "-", micro=False, error="m").save(png, kind="png", scale=6)
        return web.Response(body=png.getvalue(), content_type="image/png")

    WalletPages(
        "Midtrans simulator",
        "#0a6ab5",
        ("gopay", "ovo", "dana", "shopeepay", "bca"),
        FAULTS,
        all=desk.transactions.values,
        find=desk.find,
        by_qr=desk.by_qr,
        view=_view,
        act=midtrans.act,
        more='<p><a href="/report.csv">The report of what moved</a></p>',
    ).mount(app)
    app.router.add_get("/report.csv", report)
    app.router.add_get("/pay/{name}/qr-code", picture)


def _view(one: Transaction) -> View:
    picture = f'<img alt="QRIS" src="/pay/{one.id}/qr-code">' if one.qr else ""
    about = f"{html.escape(one.type)}, {one.status}"
    return View(one.id, one.order_id, one.amount, one.status, about, picture)
