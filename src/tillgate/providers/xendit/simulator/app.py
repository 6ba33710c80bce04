"""Xendit's API over HTTP, and the pages of a pretended wallet."""

from __future__ import annotations

import asyncio
import base64
import hmac
import html
import json
from collections.abc import Awaitable, Callable
from typing import Any

import segno
from aiohttp import web

from tillgate.providers.xendit.simulator.desk import Request, XenditError, invalid, shown_refund
from tillgate.providers.xendit.simulator.player import FAULTS, XenditSimulator
from tillgate.simulation import ACTIONS, Dropped, View, WalletPages, dropped, spoilt

API_VERSION = "2024-11-11"
MAX_BODY_BYTES = 64 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(xendit: XenditSimulator) -> web.Application:
    """Serves `/v3/payment_requests`, `/v3/payments`, `/refunds`, and `/pay/{id}` for a person."""

    def api(call: str, work: Callable[[web.Request], Awaitable[tuple[int, Any]]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if xendit.down:
                return dropped(request)
            xendit.calls[call] += 1
            fault = xendit.faults[call].popleft() if xendit.faults[call] else "none"
            try:
                await request.read()  # the whole request is here before anything goes wrong
                return await _faulty(xendit, request, fault, work)
            except XenditError as error:
                return _json(error.status, {"error_code": error.code, "message": error.message})
            except (Dropped, ConnectionResetError):
                return dropped(request)

        return handle

    async def create(request: web.Request) -> tuple[int, Any]:
        return 201, xendit.desk.shown(xendit.desk.create(await _asked(request)))

    async def get(request: web.Request) -> tuple[int, Any]:
        return 200, xendit.desk.shown(xendit.desk.request(request.match_info["name"]))

    async def find(request: web.Request) -> tuple[int, Any]:
        found = xendit.desk.referred(request.query.get("reference_id", ""))
        rows = [{"id": one.id, "reference_id": one.reference_id, "status": one.status} for one in found]
        return 200, {"data": rows, "has_more": False}

    async def cancel(request: web.Request) -> tuple[int, Any]:
        return 200, xendit.desk.shown(xendit.desk.cancel(request.match_info["name"]))

    async def simulate(request: web.Request) -> tuple[int, Any]:
        asked, name = await _asked(request), request.match_info["name"]
        amount = asked.get("amount")
        if type(amount) is not int or amount < 1:
            raise invalid("amount is required")
        if xendit.desk.request(name).status != "REQUIRES_ACTION":
            raise XenditError(400, "INVALID_VALUE_ERROR", "this payment request cannot be paid any more")
        await xendit.pay(name, amount)
        return 200, {"status": "PENDING", "message": "the result comes by webhook"}

    async def payment(request: web.Request) -> tuple[int, Any]:
        return 200, xendit.desk.shown_payment(*xendit.desk.payment(request.match_info["name"]))

    async def refund(request: web.Request) -> tuple[int, Any]:
        made = xendit.desk.refund(await _asked(request))
        xendit.refunding(made)
        return 200, shown_refund(made)

    async def get_refund(request: web.Request) -> tuple[int, Any]:
        found = xendit.desk.refunds.get(request.match_info["name"])
        if found is None:
            raise XenditError(404, "DATA_NOT_FOUND", "refund not found")
        return 200, shown_refund(found)

    async def refunds(request: web.Request) -> tuple[int, Any]:
        wanted = request.query.get("payment_request_id")
        rows = [shown_refund(one) for one in xendit.desk.refunds.values() if one.request_id == wanted]
        return 200, {"data": rows, "has_more": False}

    listed: list[dict[str, Any]] = []

    async def transactions(request: web.Request) -> tuple[int, Any]:
        query = request.query
        first, last = query.get("created[gte]", ""), query.get("created[lte]", "9")
        kinds, limit = query.getall("types", []), query.get("limit", "10")
        if not limit.isdigit() or not 1 <= int(limit) <= 50:
            raise invalid("limit is 1 to 50")
        if after := query.get("after_id"):  # of the list that was begun
            ids = [one["id"] for one in listed]
            if after not in ids:
                raise XenditError(404, "DATA_NOT_FOUND", "there is no such transaction")
            rows = listed[ids.index(after) + 1 :]
        else:
            rows = listed[:] = [
                one
                for one in xendit.desk.transactions()
                if first <= one["created"] <= last and (not kinds or one["type"] in kinds)
            ]
        return 200, {"data": rows[: int(limit)], "has_more": len(rows) > int(limit), "links": []}

    async def act(request: web.Request) -> tuple[int, Any]:
        """Our own: what no published call can play."""
        name, action = request.match_info["name"], request.match_info["action"]
        fault = request.query.get("fault", "none")
        if action not in ACTIONS or fault not in FAULTS:
            raise invalid(f"fault is one of {', '.join(FAULTS)}")
        if action != "pay-late" and xendit.desk.request(name).status != "REQUIRES_ACTION":
            raise XenditError(409, "INVALID_VALUE_ERROR", f"it is {xendit.desk.request(name).status}")
        return 200, xendit.desk.shown(await xendit.act(name, action, fault))

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v3/payment_requests", api("create", create))
    app.router.add_get("/v3/payment_requests/{name}", api("get", get))
    app.router.add_post("/v3/payment_requests/{name}/cancel", api("cancel", cancel))
    app.router.add_post("/v3/payment_requests/{name}/simulate", api("simulate", simulate))
    app.router.add_get("/v3/payments/{name}", api("payment", payment))
    app.router.add_get("/payment_requests", api("find", find))
    app.router.add_post("/refunds", api("refund", refund))
    app.router.add_get("/refunds", api("refunds", refunds))
    app.router.add_get("/refunds/{name}", api("get_refund", get_refund))
    app.router.add_get("/transactions", api("transactions", transactions))
    app.router.add_post("/_simulator/{name}/{action}", api("act", act))
    _pages(xendit).mount(app)
    return app


async def _faulty(
    xendit: XenditSimulator,
    request: web.Request,
    fault: str,
    work: Callable[[web.Request], Awaitable[tuple[int, Any]]],
) -> web.StreamResponse:
    if fault == "never":
        raise Dropped
    if fault == "slow":
        await asyncio.sleep(xendit.slow_s)
    if fault == "429":
        return _json(
            429, {"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow down"}, {"Rate-Limit-Remaining": "0"}
        )
    if fault == "500":
        raise XenditError(500, "SERVER_ERROR", "an unexpected error")
    if fault == "503":
        raise XenditError(503, "CHANNEL_UNAVAILABLE", "the channel is away")
    if fault == "refused":
        raise XenditError(400, "INSUFFICIENT_BALANCE", "the balance does not suffice")
    _authorised(xendit, request)
    status, found = await work(request)
    if fault == "webhook_first":
        await xendit.pay(found["payment_request_id"])
        await asyncio.sleep(0.3)
    said = spoilt(found, fault)
    return said if isinstance(said, web.Response) else _json(status, said)


def _authorised(xendit: XenditSimulator, request: web.Request) -> None:
    wanted = "Basic " + base64.b64encode(f"{xendit.secret_key}:".encode()).decode()
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise XenditError(401, "INVALID_API_KEY", "API key provided is invalid")
    if request.path.startswith("/v3/") and request.headers.get("api-version") != API_VERSION:
        raise invalid("api-version is required")


async def _asked(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.read())
    except ValueError:
        raise invalid("the body is not JSON") from None
    if not isinstance(found, dict):
        raise invalid("the body is not an object")
    return found


def _json(status: int, found: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(found, status=status, headers=headers)


# --- pages --------------------------------------------------------------------------------------------------


def _pages(xendit: XenditSimulator) -> WalletPages[Request]:
    desk = xendit.desk
    return WalletPages(
        "Xendit simulator",
        "#2b54d6",
        ("GOPAY", "OVO", "DANA", "SHOPEEPAY", "BCA"),
        FAULTS,
        all=desk.requests.values,
        find=desk.request,
        by_qr=desk.by_qr,
        view=_view,
        act=xendit.act,
    )


def _view(one: Request) -> View:
    picture = ""
    if one.actions and one.actions[0]["descriptor"] == "QR_STRING":
        uri = segno.make(one.actions[0]["value"], micro=False, error="m").svg_data_uri(scale=4)
        picture = f'<img alt="QRIS" src="{html.escape(uri, quote=True)}">'
    paid = sum(paid.amount for paid in one.payments)
    about = f"{html.escape(one.channel)}, {one.status}, {paid:,} paid"
    return View(one.id, one.reference_id, one.amount, one.status, about, picture)
