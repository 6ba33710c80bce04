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
from tillgate.providers.xendit.simulator.player import ACTIONS, FAULTS, XenditSimulator

API_VERSION = "2024-11-11"
MAX_BODY_BYTES = 64 * 1024
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'"
    ),
    "Cache-Control": "no-store",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem;color:#1b2340}
h1{font-size:1.2rem} .sum{font-size:2rem;font-weight:600;margin:.2rem 0} img{width:100%;max-width:16rem}
button{font:inherit;padding:.6rem 1rem;border:0;border-radius:.5rem;background:#2b54d6;color:#fff}
button{margin:.2rem 0;width:100%} button.no{background:#5f6885} .bad{color:#a3262a}
select{font:inherit;width:100%;padding:.4rem;margin:.3rem 0 .8rem}
"""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dropped(Exception):
    """No answer leaves."""


def create_app(xendit: XenditSimulator) -> web.Application:
    """Serves `/v3/payment_requests`, `/v3/payments`, `/refunds`, and `/pay/{id}` for a person."""

    def api(call: str, work: Callable[[web.Request], Awaitable[tuple[int, Any]]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if xendit.down:
                return _drop(request)
            xendit.calls[call] += 1
            fault = xendit.faults[call].popleft() if xendit.faults[call] else "none"
            try:
                await request.read()  # the whole request is here before anything goes wrong
                return await _faulty(xendit, request, fault, work)
            except XenditError as error:
                return _json(error.status, {"error_code": error.code, "message": error.message})
            except (Dropped, ConnectionResetError):
                return _drop(request)

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
    _pages(app, xendit)
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
    if fault == "lost":
        raise Dropped
    if fault == "webhook_first":
        await xendit.pay(found["payment_request_id"])
        await asyncio.sleep(0.3)
    if fault == "html":
        return web.Response(body=b"<!doctype html><h1>Bad gateway</h1>", content_type="text/html")
    if fault == "empty":
        return web.Response(body=b"")
    if fault == "huge":
        return web.Response(
            body=b'{"padding":"' + b"x" * (5 * 1024 * 1024) + b'"}', content_type="application/json"
        )
    if fault == "types":
        found = {name: [value] for name, value in found.items()}
    return _json(status, found)


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


def _drop(request: web.Request) -> web.StreamResponse:
    """The connection breaks without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


# --- pages --------------------------------------------------------------------------------------------------


def _pages(app: web.Application, xendit: XenditSimulator) -> None:
    async def index(request: web.Request) -> web.Response:
        rows = "".join(
            f'<li><a href="/pay/{one.id}">{html.escape(one.reference_id)}</a> Rp{one.amount:,} {one.status}'
            for one in list(xendit.desk.requests.values())[-50:]
        )
        scan = (
            '<form method="post" action="/scan"><label>Scan a code <input name="qr_string" required></label>'
            "<button>Open</button></form>"
        )
        return _page("Xendit simulator", f"{scan}<ul>{rows or '<li>Nothing yet</li>'}</ul>")

    async def scan(request: web.Request) -> web.StreamResponse:
        found = xendit.desk.by_qr(str((await request.post()).get("qr_string", "")).strip())
        if found is None:
            return _page("Not one of mine", '<p class="bad">No payment request has this code.</p>', 404)
        raise web.HTTPSeeOther(f"/pay/{found.id}")

    async def pay(request: web.Request) -> web.Response:
        try:
            one = xendit.desk.request(request.match_info["name"])
        except XenditError as error:
            return _page("Not found", f'<p class="bad">{html.escape(error.message)}</p>', 404)
        return _page("Your wallet", _wallet(one))

    async def pressed(request: web.Request) -> web.StreamResponse:
        name, form = request.match_info["name"], await request.post()
        action, fault = str(form.get("action")), str(form.get("fault", "none"))
        issuer = str(form.get("issuer", ""))[:40]
        if action not in ACTIONS or fault not in FAULTS:
            return _page("That cannot be", '<p class="bad">No such action.</p>', 400)
        try:
            await xendit.act(name, action, fault, issuer)
        except XenditError as error:
            return _page("That cannot be", f'<p class="bad">{html.escape(error.message)}</p>', 409)
        raise web.HTTPSeeOther(f"/pay/{name}")

    app.router.add_get("/", index)
    app.router.add_post("/scan", scan)
    app.router.add_get("/pay/{name}", pay)
    app.router.add_post("/pay/{name}", pressed)


def _wallet(one: Request) -> str:
    picture = ""
    if one.actions and one.actions[0]["descriptor"] == "QR_STRING":
        uri = segno.make(one.actions[0]["value"], micro=False, error="m").svg_data_uri(scale=4)
        picture = f'<img alt="QRIS" src="{html.escape(uri, quote=True)}">'
    wallets = "".join(f"<option>{name}</option>" for name in ("GOPAY", "OVO", "DANA", "SHOPEEPAY", "BCA"))
    faults = "".join(f'<option value="{name}">{name}: {text}</option>' for name, text in FAULTS.items())
    buttons = "".join(
        f'<button name="action" value="{action}"{no}>{text}</button>'
        for action, text, no in (
            ("pay", "Pay", ""),
            ("fail", "Decline", ' class="no"'),
            ("expire", "Let it expire", ' class="no"'),
        )
    )
    return (
        f'<p class="sum">Rp{one.amount:,}</p><p>{html.escape(one.channel)}, {one.status}, '
        f"{sum(paid.amount for paid in one.payments):,} paid</p>{picture}"
        f'<form method="post"><label>Pay with <select name="issuer">{wallets}</select></label>'
        f'<label>How it goes <select name="fault">{faults}</select></label>{buttons}</form>'
        "<p>A simulation: no money moves.</p>"
    )


def _page(title: str, content: str, status: int = 200) -> web.Response:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    text = f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><h1>{title}</h1>{content}</html>"
    return web.Response(text=text, content_type="text/html", status=status, headers=HEADERS)
