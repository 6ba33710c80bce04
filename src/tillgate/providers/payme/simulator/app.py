"""Payme's checkout and Subscribe API as a web application, with a page where a person plays the payer."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tillgate.providers.payme.simulator.cards import Cards, RpcFault
from tillgate.providers.payme.simulator.desk import Inconsistent, Refused, Silent, shown
from tillgate.providers.payme.simulator.payer import FAULTS, Asked, PaymeSimulator, read_link

MAX_BODY_BYTES = 64 * 1024
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "Cache-Control": "no-store",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:30rem;margin:2rem auto;padding:0 1rem;color:#1c2b2a}
h1{font-size:1.2rem} .sum{font-size:2rem;font-weight:600} dt{color:#5c6f6d} dd{margin:0 0 .5rem}
button{font:inherit;padding:.6rem 1rem;border:0;border-radius:.5rem;background:#0b8f86;color:#fff;width:100%}
select{font:inherit;width:100%;padding:.4rem;margin:.5rem 0 1rem} .bad{color:#a3262a} small{color:#5c6f6d}
"""


def create_app(payme: PaymeSimulator, cards: Cards | None = None) -> Starlette:
    """Serves `GET /<checkout link>`, `POST /` (the checkout form) and `POST /api` (Subscribe API)."""

    async def index(request: Request) -> Response:
        rows = "".join(
            f"<li><code>{receipt.id}</code> {som(receipt.amount)} som, state {receipt.state}</li>"
            for receipt in list(payme.receipts.values())[-50:]
        )
        return _page("Payme simulator", f"<p>Open a checkout link at this address.</p><ul>{rows}</ul>")

    async def checkout(request: Request) -> Response:
        link = request.path_params["link"]
        try:
            asked = read_link(link)
        except ValueError as bad:
            return _page("The link cannot be read", f'<p class="bad">{html.escape(str(bad))}</p>', 400)
        return _page("Payme: pay", _form(link, asked))

    async def form(request: Request) -> Response:
        """The merchant's POST form: shown as the link it amounts to."""
        fields = await _fields(request)
        pairs = [f"m={fields.get('merchant', '')}"]
        pairs += [f"ac.{name[8:-1]}={value}" for name, value in fields.items() if name.startswith("account[")]
        pairs += [f"a={fields.get('amount', '')}", f"l={fields.get('lang', 'ru')}"]
        if fields.get("callback"):
            pairs.append(f"c={fields['callback']}")
        return RedirectResponse("/" + base64.b64encode(";".join(pairs).encode()).decode(), 303)

    async def pay(request: Request) -> Response:
        fields = await _fields(request)
        link, fault = fields.get("link", ""), fields.get("fault", "none")
        try:
            asked = read_link(link)
            receipt = await payme.pay_link(link, fault, int(fields.get("amount") or 0) or None)
        except (ValueError, Refused, Inconsistent, Silent) as trouble:
            text = shown(trouble.message) if isinstance(trouble, Refused) else str(trouble)
            return _page("Not paid", f'<p class="bad">{html.escape(text)}</p>', 200)
        said = "Paid" if receipt.state == 2 else f"Not paid (state {receipt.state})"
        back = ""
        if asked.return_url and asked.return_url.startswith(("http://", "https://")):
            url = asked.return_url.replace(":transaction", receipt.id)
            back = f'<p><a href="{html.escape(url, quote=True)}">Back to the shop</a></p>'
        return _page(said, f'<p class="sum">{som(receipt.amount)} som</p>{back}')

    async def api(request: Request) -> Response:
        rpc_id = None
        try:
            if cards is None:
                raise RpcFault(-31601, "The merchant is not found")
            message = json.loads(await _body(request))
            if not isinstance(message, dict):
                raise RpcFault(-32600, "Invalid request")
            rpc_id = message.get("id")
            found = cards.call(
                request.headers.get("x-auth", ""), message.get("method"), message.get("params")
            )
        except ValueError:
            return _rpc_error(rpc_id, RpcFault(-32700, "Parse error"))
        except RpcFault as fault:
            return _rpc_error(rpc_id, fault)
        return JSONResponse({"jsonrpc": "2.0", "id": rpc_id, "result": found})

    return Starlette(
        routes=[
            Route("/", index, methods=["GET"]),
            Route("/", form, methods=["POST"]),
            Route("/pay", pay, methods=["POST"]),
            Route("/api", api, methods=["POST"]),
            Route("/{link:path}", checkout, methods=["GET"]),
        ]
    )


def som(tiyin: int) -> str:
    """`1500050` → `15 000.50`, without a float."""
    whole, rest = divmod(tiyin, 100)
    return f"{whole:,}".replace(",", " ") + f".{rest:02d}"


def _form(link: str, asked: Asked) -> str:
    account = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in asked.account.items())
    faults = "".join(f'<option value="{name}">{name}: {text}</option>' for name, text in FAULTS.items())
    amount = f'<p class="sum">{som(asked.amount)} som</p>'
    if not asked.amount:
        amount = '<label>Amount, tiyin <input name="amount" inputmode="numeric" required></label>'
    return (
        f'<form method="post" action="/pay"><input type="hidden" name="link" value="{html.escape(link)}">'
        f"<dl><dt>merchant</dt><dd>{html.escape(asked.merchant)}</dd>{account}</dl>{amount}"
        f'<label>How it goes <select name="fault">{faults}</select></label>'
        "<button>Pay</button></form><p><small>Powered by Payme (simulated): no money moves.</small></p>"
    )


def _page(title: str, content: str, status: int = 200) -> HTMLResponse:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    text = f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><h1>{title}</h1>{content}</html>"
    return HTMLResponse(text, status, HEADERS)


def _rpc_error(rpc_id: object, fault: RpcFault) -> JSONResponse:
    error = {"code": fault.code, "message": fault.message, "data": fault.data}
    return JSONResponse({"jsonrpc": "2.0", "id": rpc_id, "error": error})


async def _body(request: Request) -> bytes:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise RpcFault(-32600, "Too large")
    return content


async def _fields(request: Request) -> Mapping[str, str]:
    try:
        return dict(parse_qsl((await _body(request)).decode(), max_num_fields=50))
    except (UnicodeDecodeError, RpcFault, ValueError):
        return {}
