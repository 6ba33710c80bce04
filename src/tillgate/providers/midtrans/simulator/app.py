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
from tillgate.providers.midtrans.simulator.player import ACTIONS, FAULTS, KEPT_S, MidtransSimulator

MAX_BODY_BYTES = 64 * 1024
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'"
    ),
    "Cache-Control": "no-store",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem;color:#14213d}
h1{font-size:1.2rem} .sum{font-size:2rem;font-weight:600;margin:.2rem 0} img{width:100%;max-width:16rem}
button{font:inherit;padding:.6rem 1rem;border:0;border-radius:.5rem;background:#0a6ab5;color:#fff}
button{margin:.2rem 0;width:100%} button.no{background:#5d6a7d} .bad{color:#a3262a}
select{font:inherit;width:100%;padding:.4rem;margin:.3rem 0 .8rem}
"""
Work = Callable[[web.Request], Awaitable[tuple[int, dict[str, Any]]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dropped(Exception):
    """No answer leaves."""


def create_app(midtrans: MidtransSimulator) -> web.Application:
    """Serves `/v2/charge`, `/v2/{order}/status|cancel|expire|refund`, and `/pay/{id}` for a person."""

    def api(call: str, work: Work) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if midtrans.down:
                return _drop(request)
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
                return _drop(request)

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
            await midtrans.post(found, midtrans.signed(found))
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
    match fault:
        case "lost":
            raise Dropped
        case "webhook_first":
            await midtrans.pay(found["transaction_id"])
            await asyncio.sleep(0.3)
        case "html":
            return web.Response(body=b"<!doctype html><h1>Bad gateway</h1>", content_type="text/html")
        case "empty":
            return web.Response(body=b"")
        case "huge":
            padding = b'{"padding":"' + b"x" * (5 * 1024 * 1024) + b'"}'
            return web.Response(body=padding, content_type="application/json")
        case "types":
            found = {name: [value] for name, value in found.items()}
    return web.json_response(found, status=200 if status == 201 else status)


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


def _drop(request: web.Request) -> web.StreamResponse:
    """The connection breaks without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


# --- pages --------------------------------------------------------------------------------------------------


def _pages(app: web.Application, midtrans: MidtransSimulator) -> None:
    async def index(request: web.Request) -> web.Response:
        rows = "".join(
            f'<li><a href="/pay/{one.id}">{html.escape(one.order_id)}</a> Rp{one.amount:,} {one.status}'
            for one in list(midtrans.desk.transactions.values())[-50:]
        )
        scan = (
            '<form method="post" action="/scan"><label>Scan a code <input name="qr_string" required></label>'
            "<button>Open</button></form>"
        )
        report = '<p><a href="/report.csv">The report of what moved</a></p>'
        return _page("Midtrans simulator", f"{scan}<ul>{rows or '<li>Nothing yet</li>'}</ul>{report}")

    async def report(request: web.Request) -> web.Response:
        """What a merchant downloads from the dashboard: the Core API has no statement."""
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, REPORT)
        writer.writeheader()
        writer.writerows(midtrans.desk.report())
        return web.Response(text=out.getvalue(), content_type="text/csv", headers=HEADERS)

    async def scan(request: web.Request) -> web.StreamResponse:
        found = midtrans.desk.by_qr(str((await request.post()).get("qr_string", "")).strip())
        if found is None:
            return _page("Not one of mine", '<p class="bad">No transaction has this code.</p>', 404)
        raise web.HTTPSeeOther(f"/pay/{found.id}")

    async def pay(request: web.Request) -> web.Response:
        try:
            one = midtrans.desk.find(request.match_info["name"])
        except MidtransError as error:
            return _page("Not found", f'<p class="bad">{html.escape(error.message)}</p>', 404)
        return _page("Your wallet", _wallet(one))

    async def picture(request: web.Request) -> web.Response:
        """The address in a charge's `actions`: a PNG, for whoever has it."""
        try:
            one = midtrans.desk.find(request.match_info["name"])
        except MidtransError:
            return web.Response(status=404)
        png = io.BytesIO()
        segno.make(one.qr or "-", micro=False, error="m").save(png, kind="png", scale=6)
        return web.Response(body=png.getvalue(), content_type="image/png")

    async def pressed(request: web.Request) -> web.StreamResponse:
        name, form = request.match_info["name"], await request.post()
        action, fault = str(form.get("action")), str(form.get("fault", "none"))
        issuer = str(form.get("issuer", ""))[:40]
        if action not in ACTIONS or fault not in FAULTS:
            return _page("That cannot be", '<p class="bad">No such action.</p>', 400)
        try:
            await midtrans.act(name, action, fault, issuer)
        except MidtransError as error:
            return _page("That cannot be", f'<p class="bad">{html.escape(error.message)}</p>', 409)
        raise web.HTTPSeeOther(f"/pay/{name}")

    app.router.add_get("/", index)
    app.router.add_get("/report.csv", report)
    app.router.add_post("/scan", scan)
    app.router.add_get("/pay/{name}", pay)
    app.router.add_post("/pay/{name}", pressed)
    app.router.add_get("/pay/{name}/qr-code", picture)


def _wallet(one: Transaction) -> str:
    picture = f'<img alt="QRIS" src="/pay/{one.id}/qr-code">' if one.qr else ""
    wallets = "".join(f"<option>{name}</option>" for name in ("gopay", "ovo", "dana", "shopeepay", "bca"))
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
        f'<p class="sum">Rp{one.amount:,}</p><p>{html.escape(one.type)}, {one.status}</p>{picture}'
        f'<form method="post"><label>Pay with <select name="issuer">{wallets}</select></label>'
        f'<label>How it goes <select name="fault">{faults}</select></label>{buttons}</form>'
        "<p>A simulation: no money moves.</p>"
    )


def _page(title: str, content: str, status: int = 200) -> web.Response:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    text = f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><h1>{title}</h1>{content}</html>"
    return web.Response(text=text, content_type="text/html", status=status, headers=HEADERS)
