"""A whole AtomPay on one port: gateway, checkout script and page, callbacks, and a menu of faults.

    uvicorn --factory tillgate.providers.atompay_in.simulator:create_app --port 8071

An account whose `base_url` is this server pays here. A person pays on the page; a test does the same by
`POST /sim/pay`. Everything under `/sim` is the tester's and open: serve it on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tillgate.providers.atompay_in.simulator_gateway import Gateway
from tillgate.providers.atompay_in.simulator_menu import FAULTS, MODES, OUTCOMES

CHECKOUT_SCRIPT = """
(() => {
  const origin = new URL(document.currentScript.src).origin;
  window.AtomPaynetz = class {
    constructor(options, env) {
      const fields = new URLSearchParams({...options, env});
      window.location.assign(origin + "/checkout?" + fields);
    }
  };
})();
"""

STYLE = """
body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:2rem auto;padding:0 1rem}
button,select{font:inherit;padding:.5rem .8rem;margin:.2rem;border-radius:.4rem;border:1px solid #999}
fieldset{border:1px solid #ccc;border-radius:.5rem}
"""


class Simulator:
    """`callback_url`: where the server callback goes, as a merchant would have told NDPS; "" for none.

    `delay_s` is waited before a callback, so that the payer's browser may be back first.
    """

    def __init__(
        self, gateway: Gateway | None = None, *, callback_url: str = "", delay_s: float = 0.0
    ) -> None:
        self.gateway = gateway or Gateway()
        self.callback_url = callback_url
        self.delay_s = delay_s
        self.callbacks: list[
            dict[str, Any]
        ] = []  # what was sent, and the status and text it was answered with
        self._running: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self.app = Starlette(routes=self._routes(), lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as self._http:
            yield
            await self.quiet()

    async def quiet(self) -> None:
        """Until every callback is delivered."""
        while self._running:
            await asyncio.gather(*self._running)

    def _routes(self) -> list[Route]:
        gateway = [
            Route(path, self._gateway, methods=["POST"])
            for path in (
                "/ots/aipay/auth",
                "/otsv2/aipay/auth",
                "/ots/payment/status",
                "/ots/v2/payment/status",
                "/otsv2/aipay/payment/status",
                "/ots/payment/refund",
            )
        ]
        return [
            *gateway,
            Route("/staticdata/ots/js/atomcheckout.js", self._script),
            Route("/checkout", self._page, methods=["GET"]),
            Route("/checkout", self._paid_by_hand, methods=["POST"]),
            Route("/sim/pay", self._pay, methods=["POST"]),
            Route("/sim/settle", self._settle, methods=["POST"]),
            Route("/sim/callback", self._call_back, methods=["POST"]),
            Route("/sim/refund", self._remark, methods=["POST"]),
            Route("/sim/faults", self._faults, methods=["GET", "PUT"]),
            Route("/sim/state", self._state),
        ]

    # --- the gateway ----------------------------------------------------------------------------------------

    async def _gateway(self, request: Request) -> Response:
        body = await request.body()
        status, kind, content = self.gateway.call(request.url.path, request.url.query, body)
        return Response(content, status, media_type=kind)

    async def _script(self, _: Request) -> Response:
        return Response(CHECKOUT_SCRIPT, media_type="text/javascript")

    async def _page(self, request: Request) -> Response:
        options = request.query_params
        order = self.gateway.state["tokens"].get(options.get("atomTokenId", ""))
        if order is None:
            return HTMLResponse("<h1>No such token</h1>", 404)
        modes = [mode for mode in MODES if order["mode"] in (None, mode)]
        choices = "".join(f'<option value="{mode}">{MODES[mode]}</option>' for mode in modes)
        names = [*OUTCOMES, "cancelTransaction", "sessionTimeout", "close"]
        buttons = "".join(f'<button name="outcome" value="{name}">{name}</button>' for name in names)
        hidden = "".join(
            f'<input type="hidden" name="{name}" value="{escape(options.get(name, ""))}">'
            for name in ("atomTokenId", "returnUrl")
        )
        return _page(
            f"<h1>AtomPay simulator</h1><p>{escape(order['merchTxnId'])}: "
            f"<strong>₹ {order['amount']}</strong></p><form method=post>{hidden}"
            f"<p><label>Pay with <select name=mode>{choices}</select></label></p>"
            f"<fieldset><legend>and let it end as</legend>{buttons}</fieldset></form>"
        )

    async def _paid_by_hand(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        word = form.get("outcome", "")
        fields: Mapping[str, str] | None = None
        if word in ("cancelTransaction", "sessionTimeout"):
            fields = {"encData": word}
        else:
            outcome = "success" if word == "close" else word
            try:
                transaction = self.gateway.pay(form["atomTokenId"], form.get("mode", "NB"), outcome)
            except KeyError:
                return HTMLResponse("<h1>No such choice</h1>", 400)
            fields = self.gateway.notice(transaction)
            self._send(fields)
        if word == "close" or self.gateway.fault("return_lost"):
            return _page("<h1>The payer closed the browser</h1><p>Nobody returns to the shop.</p>")
        return _returning(form.get("returnUrl", ""), fields)

    # --- the tester's own -----------------------------------------------------------------------------------

    async def _pay(self, request: Request) -> Response:
        """{"token", "mode", "outcome"} → the transaction, and the fields that the browser would post."""
        asked = await request.json()
        try:
            transaction = self.gateway.pay(
                str(asked["token"]), asked.get("mode", "NB"), asked.get("outcome", "success")
            )
        except KeyError as error:
            return JSONResponse({"error": f"unknown: {error}"}, 400)
        fields = self.gateway.notice(transaction)
        self._send(fields)
        return JSONResponse({"transaction": transaction, "return": fields})

    async def _settle(self, request: Request) -> Response:
        """{"merchTxnId", "outcome", "callback": false} → the transaction as it stands now."""
        asked = await request.json()
        try:
            transaction = self.gateway.settle(asked["merchTxnId"], asked["outcome"])
        except (KeyError, IndexError) as error:
            return JSONResponse({"error": f"unknown: {error}"}, 400)
        if asked.get("callback"):
            self._send(self.gateway.notice(transaction))
        return JSONResponse({"transaction": transaction})

    async def _call_back(self, request: Request) -> Response:
        """{"merchTxnId", "times": 1}: the callback of the newest transaction once more."""
        asked = await request.json()
        mine = [t for t in self.gateway.state["transactions"] if t["merchTxnId"] == asked.get("merchTxnId")]
        if not mine:
            return JSONResponse({"error": "no such transaction"}, 400)
        for _ in range(min(int(asked.get("times", 1)), 50)):
            self._send(self.gateway.notice(mine[-1]))
        return JSONResponse({"callbacks": len(self.callbacks)})

    async def _remark(self, request: Request) -> Response:
        """{"prodRefundId", "remarks"}: what the refund status says from now on."""
        asked = await request.json()
        mine = [r for r in self.gateway.state["refunds"] if r["prodRefundId"] == asked.get("prodRefundId")]
        for refund in mine:
            refund["remarks"] = str(asked["remarks"])
        return JSONResponse({"refunds": mine}, 200 if mine else 400)

    async def _faults(self, request: Request) -> Response:
        """GET: the menu. PUT a list of names: the faults from now on."""
        if request.method == "PUT":
            asked = await request.json()
            if not isinstance(asked, list) or not set(asked) <= set(FAULTS):
                return JSONResponse({"error": "a list of names from the menu", "menu": FAULTS}, 400)
            self.gateway.state["faults"] = asked
        return JSONResponse({"menu": FAULTS, "on": self.gateway.state["faults"]})

    async def _state(self, _: Request) -> Response:
        return JSONResponse({**self.gateway.state, "callbacks": self.callbacks})

    # --- calling the merchant -------------------------------------------------------------------------------

    def _send(self, fields: Mapping[str, str]) -> None:
        if not self.callback_url or self.gateway.fault("callback_lost"):
            return
        for _ in range(2 if self.gateway.fault("callback_twice") else 1):
            task = asyncio.create_task(self._deliver(fields))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _deliver(self, fields: Mapping[str, str]) -> None:
        assert self._http is not None
        await asyncio.sleep(self.delay_s)
        sent: dict[str, Any] = (
            {"json": dict(fields)} if self.gateway.fault("callback_json") else {"data": dict(fields)}
        )
        try:
            async with self._http.post(self.callback_url, allow_redirects=False, **sent) as reply:
                answer = {"status": reply.status, "text": (await reply.text())[:200]}
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = {"status": 0, "text": type(error).__name__}
        self.callbacks.append({**fields, **answer})


def create_app() -> Starlette:
    """The simulator with the published keys, for an ASGI server."""
    return Simulator().app


def _page(body: str) -> HTMLResponse:
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>AtomPay simulator</title><style>{STYLE}</style>{body}</html>'
    )


def _returning(return_url: str, fields: Mapping[str, str]) -> Response:
    """The browser's cross-site POST back to the shop, made as the real page makes it: by a form."""
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields.items()
    )
    return _page(
        f'<form method="post" action="{escape(return_url)}">{inputs}<button>Back to the shop</button></form>'
        "<script>document.forms[0].submit()</script>"
    )
