"""A web shop on Tillgate's `/v1`: one page, one button, one webhook; and nothing is handed out twice."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator

from aiohttp import web

from tillgate.client import ApiError, NoAnswer, Tillgate, WebhookVerificationError, verify_event

PRICE_MINOR = 4_500_000  # 45,000.00 rupiah
TILL = web.AppKey("till", Tillgate)
ORDERS = web.AppKey("orders", sqlite3.Connection)
_GONE = "UPDATE orders SET state = 'gone' WHERE id = ? AND state = 'new'"
CHANGES = {
    # Money may also come for what was given up.
    "payment.paid": "UPDATE orders SET state = 'brewing' WHERE id = ? AND state <> 'brewing'",
    "payment.review": "UPDATE orders SET state = 'asking' WHERE id = ? AND state <> 'brewing'",
    "payment.expired": _GONE,
    "payment.failed": _GONE,
    "payment.cancelled": _GONE,
}


def opened(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE IF NOT EXISTS orders (
            id INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'new', payment TEXT
        );
        CREATE TABLE IF NOT EXISTS heard (event TEXT PRIMARY KEY);
        """
    )
    return database


async def front(_request: web.Request) -> web.Response:
    button = '<form method="post" action="/buy"><button>A pot of tea</button></form>'
    page = f"<!doctype html><title>Tea</title>{button}"
    return web.Response(text=page, content_type="text/html")


async def buy(request: web.Request) -> web.Response:
    """The order is on disk before anybody is asked for money for it."""
    database, till = request.app[ORDERS], request.app[TILL]
    with database:
        order = database.execute("INSERT INTO orders DEFAULT VALUES").lastrowid
    try:
        payment = await till.create_payment(
            order_id=f"TEA-{order}",
            amount_minor=PRICE_MINOR,
            currency="IDR",
            channel="gopay",
            idempotency_key=f"tea-{order}",  # asked again after a loss, it is the same payment
        )
    except (ApiError, NoAnswer):
        raise web.HTTPServiceUnavailable(text="We cannot take money now. Please try again.") from None
    with database:
        database.execute("UPDATE orders SET payment = ? WHERE id = ?", (payment.id, order))
    if payment.next_action is None or payment.next_action.url is None:  # the wallet said no at once
        raise web.HTTPServiceUnavailable(text="We cannot take money now. Please try again.")
    raise web.HTTPSeeOther(payment.next_action.url)


async def hook(request: web.Request) -> web.Response:
    """What the till says. That it was heard is kept by the transaction that changes the order."""
    try:
        event = verify_event([os.environ["WEBHOOK_SECRET"]], request.headers, await request.read())
    except WebhookVerificationError:
        raise web.HTTPUnauthorized from None
    database, payment = request.app[ORDERS], event.data.payment
    with database:
        new = database.execute("INSERT OR IGNORE INTO heard VALUES (?)", (event.id,)).rowcount
        change = CHANGES.get(event.type)
        if new and change and payment is not None and payment.order_id.startswith("TEA-"):
            database.execute(change, (int(payment.order_id.removeprefix("TEA-")),))
    return web.Response(status=204)


async def orders(request: web.Request) -> web.Response:
    rows = request.app[ORDERS].execute("SELECT id, state, payment FROM orders ORDER BY id").fetchall()
    return web.json_response(
        [{"id": order, "state": state, "payment": payment} for order, state, payment in rows]
    )


async def parts(app: web.Application) -> AsyncIterator[None]:
    app[ORDERS] = opened(os.environ.get("SHOP_DB", "shop.db"))
    url, key, secret = (
        os.environ[name] for name in ("TILLGATE_URL", "TILLGATE_API_KEY", "TILLGATE_API_SECRET")
    )
    async with Tillgate(url, key, secret, patience_s=5) as till:  # a payer waits for the answer
        app[TILL] = till
        yield
    app[ORDERS].close()


def shop() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(parts)
    app.add_routes(
        [web.get("/", front), web.post("/buy", buy), web.post("/hook", hook), web.get("/orders", orders)]
    )
    return app


if __name__ == "__main__":
    web.run_app(shop(), host="127.0.0.1", port=int(os.environ.get("PORT", "3000")), print=None)
