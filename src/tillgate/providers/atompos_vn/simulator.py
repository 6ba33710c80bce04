"""A virtual ATOM terminal: an HTTP server on the LAN that a person drives in a browser, and a test by API.

    uvicorn --factory tillgate.providers.atompos_vn.simulator:create_app --port 8080

`POST /?verify_code=…` shows a sale; a person approves it or walks away; approval sends the IPN to the
`ipnUrl` that the sale named, and sends it again while the answer is 300 or more, or lost. Declining is
silence, as on the real one. Written from the ATOM POS facts; it shares no code with the connector.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator
from html import escape
from typing import Any
from urllib.parse import parse_qs

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

BEHAVIOURS = {
    "normal": "shows the sale and answers 200",
    "silent": "shows the sale and never answers",
    "lost": "shows the sale and closes the connection",
    "error": "answers 500 and shows nothing",
    "busy": "answers 409 and shows nothing",
    "redirect": "answers 307 to another address",
}
FAULTS = {
    "copies": "this many IPNs at once (number)",
    "deaf": "sends this many times more whatever is answered (number)",
    "endless": "sends again for ever while it is not answered below 300 (true)",
    "change": "fields of the second and later copies that differ (object)",
    "drop": "fields that are left out (list)",
    "set": "fields with another value or type (object)",
    "raw": "this text as the body",
    "old": "the older notification in the place of the IPN (true)",
}

STYLE = """
body{font:1rem/1.5 system-ui,sans-serif;background:#15181d;color:#eee;display:grid;place-items:center}
main{width:min(24rem,94vw)}article{background:#fff;color:#111;border-radius:.8rem;padding:1rem;margin:1rem 0}
h2{font-size:2rem;margin:.2rem 0}button,select{font:inherit;padding:.5rem .8rem;margin:.15rem;
border-radius:.4rem;border:1px solid #888}
"""


class Terminal:
    """One terminal. Its IPNs prove themselves by `headers`, or by a token from `authorize_url`."""

    def __init__(
        self,
        verify_code: str = "123456",
        *,
        ipn_url: str = "",
        authorize_url: str = "",
        user: str = "",
        password: str = "",
        headers: dict[str, str] | None = None,
        resend_s: float = 1.0,
        resends: int = 20,
    ) -> None:
        self.verify_code, self.ipn_url = verify_code, ipn_url
        self.authorize_url, self.user, self.password = authorize_url, user, password
        self.headers = dict(headers or {})
        self.resend_s, self.resends = resend_s, resends
        self.behaviour = "normal"
        self.sales: dict[str, dict[str, Any]] = {}
        self.sent: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._running: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self._token: tuple[str, float] | None = None
        self.app = Starlette(
            routes=[
                Route("/", self._page, methods=["GET"]),
                Route("/", self._push, methods=["POST"]),
                Route("/press", self._press, methods=["POST"]),
                Route("/sim/approve", self._approve_by_api, methods=["POST"]),
                Route("/sim/decline", self._decline_by_api, methods=["POST"]),
                Route("/sim/sale", self._own_sale, methods=["POST"]),
                Route("/sim/behaviour", self._set_behaviour, methods=["PUT"]),
                Route("/sim/state", self._state, methods=["GET"]),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as self._http:
            yield
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def quiet(self) -> None:
        """Until every IPN was answered, or given up."""
        while self._running:
            await asyncio.gather(*self._running)

    # --- the LAN side ---------------------------------------------------------------------------------------

    async def _push(self, request: Request) -> Response:
        code = parse_qs(request.url.query).get("verify_code", [""])[0]
        if not hmac.compare_digest(code.encode(), self.verify_code.encode()):
            return JSONResponse({"error": "verify_code"}, 401)
        try:
            sale = json.loads(await request.body())
            sale = {
                "requestID": str(sale["requestID"]),
                "orderId": str(sale["orderId"]),
                "ipnUrl": str(sale["ipnUrl"]),
                "amount": int(sale["amount"]),
                "tip": int(sale.get("tip", 0)),
                "extraData": sale.get("extraData", []),
                "state": "waiting",
                "pushed": self.sales.get(str(sale["requestID"]), {}).get("pushed", 0) + 1,
            }
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "request"}, 400)
        if self.behaviour == "error":
            return JSONResponse({"error": "internal"}, 500)
        if self.behaviour == "busy":
            return JSONResponse({"error": "busy"}, 409)
        if self.behaviour == "redirect":
            return RedirectResponse("http://127.0.0.1:1/", 307)
        self.sales[sale["requestID"]] = sale
        if self.behaviour == "silent":
            await asyncio.sleep(3600)
        if self.behaviour == "lost":
            return _Cut()
        return JSONResponse({"status": "OK"})

    # --- the person -----------------------------------------------------------------------------------------

    async def _page(self, _: Request) -> Response:
        shown = [sale for sale in self.sales.values() if sale["state"] == "waiting"]
        cards = "".join(
            f"<article><p>{escape(sale['orderId'])}</p><h2>{sale['amount']:,} ₫</h2>"
            f'<form method="post" action="/press">'
            f'<input type="hidden" name="requestID" value="{escape(sale["requestID"])}">'
            f'<p><label>Tip <input name="tip" size="8" value="{sale["tip"]}"></label></p>'
            "<button name=action value=QR>Pay by QR</button><button name=action value=CreditCard>Pay by card"
            "</button><button name=action value=walk>Walk away</button></form></article>"
            for sale in shown
        )
        return HTMLResponse(
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>ATOM terminal</title><style>{STYLE}</style>'
            f"<main><h1>ATOM POS</h1>{cards or '<p>Ready</p>'}</main></html>"
        )

    async def _press(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        sale = self.sales.get(form.get("requestID", ""))
        action = form.get("action", "")
        if sale is None or action not in ("QR", "CreditCard", "walk"):
            return HTMLResponse("<h1>No such sale</h1>", 404)
        if action == "walk":
            sale["state"] = "declined"
        else:
            tip = form.get("tip", "0")
            self.approve(sale["requestID"], paymentType=action, tip=tip if tip.isdigit() else "0")
        return RedirectResponse("/", 303)

    # --- the test -------------------------------------------------------------------------------------------

    async def _approve_by_api(self, request: Request) -> Response:
        """{"requestID", "paymentType"?, "tip"?, "fromAccNo"?, "narrative"?, "faults"?: …}"""
        asked = await request.json()
        if asked.get("requestID") not in self.sales:
            return JSONResponse({"error": "no such sale"}, 404)
        self.approve(asked.pop("requestID"), **asked)
        return JSONResponse({"approved": True})

    async def _decline_by_api(self, request: Request) -> Response:
        """{"requestID"}: the payer walks away; nobody is told."""
        sale = self.sales.get((await request.json()).get("requestID", ""))
        if sale is None:
            return JSONResponse({"error": "no such sale"}, 404)
        sale["state"] = "declined"
        return JSONResponse({"declined": True})

    async def _own_sale(self, request: Request) -> Response:
        """{"amount", "orderId"?, …}: a sale begun at the terminal, told to the terminal's own IPN address."""
        asked = await request.json()
        request_id = str(asked.pop("requestID", f"00017-058-{next(self._numbers):04d}"))
        order = str(asked.pop("orderId", f"1234:{time.time_ns() // 1000}"))
        self._begin(request_id, order, int(asked.pop("amount")))
        self.approve(request_id, **asked)
        return JSONResponse({"requestID": request_id})

    async def sell(self, dong: int, order_id: str, faults: dict[str, Any] | None = None) -> str:
        """A sale begun at the terminal and paid at once; its requestID."""
        request_id = f"{time.time_ns() // 1000}-{next(self._numbers):04d}"
        self._begin(request_id, order_id, dong)
        self.approve(request_id, faults=faults)
        return request_id

    def _begin(self, request_id: str, order_id: str, dong: int) -> None:
        self.sales[request_id] = {
            "requestID": request_id,
            "orderId": order_id,
            "ipnUrl": self.ipn_url,
            "amount": dong,
            "tip": 0,
            "extraData": [],
            "state": "waiting",
            "pushed": 0,
        }

    async def _set_behaviour(self, request: Request) -> Response:
        asked = await request.json()
        if asked not in BEHAVIOURS:
            return JSONResponse({"error": "one of the menu", "menu": BEHAVIOURS}, 400)
        self.behaviour = asked
        return JSONResponse({"behaviour": asked})

    async def _state(self, _: Request) -> Response:
        return JSONResponse(
            {
                "behaviour": self.behaviour,
                "menu": {"behaviours": BEHAVIOURS, "faults": FAULTS},
                "sales": list(self.sales.values()),
                "sent": self.sent,
            }
        )

    # --- the IPN --------------------------------------------------------------------------------------------

    def approve(self, request_id: str, *, faults: dict[str, Any] | None = None, **fields: str) -> None:
        """The payer pays: the IPN goes out, with whatever faults are asked for (`FAULTS`)."""
        faults = faults or {}
        sale = self.sales[request_id]
        sale["state"] = "approved"
        message: dict[str, Any] = {
            "requestId": request_id,
            "orderId": sale["orderId"],
            "amount": str(sale["amount"]),
            "tip": str(sale["tip"]),
            "paymentType": "QR",
            "narrative": "Thanh toán đơn hàng",
            "fromAccNo": "0011004123456",
            "extraData": {name: text for pair in sale["extraData"] for name, text in pair.items()},
            **fields,
            **faults.get("set", {}),
        }
        if faults.get("old"):
            message = _older(message, sale)
        message = {name: value for name, value in message.items() if name not in faults.get("drop", ())}
        for copy in range(int(faults.get("copies", 1))):
            different = faults.get("change", {}) if copy else {}
            body = faults.get("raw") or json.dumps({**message, **different}, ensure_ascii=False)
            task = asyncio.create_task(self._send(sale["ipnUrl"], body.encode(), faults))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _send(self, url: str, body: bytes, faults: dict[str, Any]) -> None:
        more = int(faults.get("deaf", 0))
        for number in itertools.count():
            status = await self._post(url, body)
            if 200 <= status < 300:
                if not more:
                    return
                more -= 1
            elif number >= self.resends and not faults.get("endless"):
                return
            await asyncio.sleep(self.resend_s)

    async def _post(self, url: str, body: bytes) -> int:
        assert self._http is not None
        try:
            headers = {"content-type": "application/json", **self.headers, **await self._bearer()}
            async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                status, text = reply.status, (await reply.text())[:300]
        except (aiohttp.ClientError, TimeoutError) as error:
            status, text = 0, type(error).__name__
        self.sent.append(
            {"url": url, "body": body.decode("utf-8", "replace"), "status": status, "text": text}
        )
        if status == 401:
            self._token = None  # a refused token is fetched anew
        return status

    async def _bearer(self) -> dict[str, str]:
        if not self.authorize_url:
            return {}
        if self._token is None or time.monotonic() >= self._token[1]:
            assert self._http is not None
            login = {"username": self.user, "password": self.password}
            async with self._http.post(self.authorize_url, json=login, allow_redirects=False) as reply:
                if reply.status != 200:
                    return {}
                granted = await reply.json()
            self._token = (granted["access_token"], time.monotonic() + granted["expires_in"] - 5)
        return {"authorization": f"Bearer {self._token[0]}"}


class _Cut(Response):
    """An answer that breaks off: the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"sta', "more_body": True})


def create_app() -> Starlette:
    """A terminal with pairing code 123456, for an ASGI server."""
    return Terminal().app


def _older(message: dict[str, Any], sale: dict[str, Any]) -> dict[str, Any]:
    return {
        "resultTxnID": f"TXN{time.time_ns()}",
        "Status": "SUCCESS",
        "requestID": message["requestId"],
        "requestType": "SALE",
        "ipnUrl": sale["ipnUrl"],
        "amount": message["amount"],
        "tip": message["tip"],
        "resultResponseCode": "00",
    }
