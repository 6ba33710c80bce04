"""The pages where a person plays the payer: what a pay link opens, and what happened so far."""

from __future__ import annotations

import json
from datetime import datetime
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tillgate.providers.click.simulator.payer import FAULTS, ClickSimulator, Receipt, told
from tillgate.providers.click.simulator.wire import UZBEKISTAN, som

__all__ = ["day", "routes", "som"]

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#123}
h1{font-size:1.4rem}.sum{font-size:2rem;font-weight:600}.box{border:1px solid #bcd;border-radius:8px;
padding:1rem;margin:1rem 0}button{font:inherit;padding:.5rem 1.2rem;border-radius:6px;border:1px solid #057;
background:#07a;color:#fff;cursor:pointer}button.no{background:#fff;color:#057}select,input{font:inherit;
padding:.4rem}pre{background:#f3f6f8;padding:.6rem;overflow:auto;font-size:.85rem}table{border-collapse:
collapse;width:100%}td,th{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #dde}.bad{color:#a00}
@media(prefers-color-scheme:dark){body{background:#10181f;color:#dde}pre{background:#1a252e}}
"""


def day(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UZBEKISTAN).strftime("%Y-%m-%d")


def routes(click: ClickSimulator, invoices: dict[int, dict[str, Any]]) -> list[BaseRoute]:
    async def overview(request: Request) -> Response:
        return _html("Click simulator", _overview(click, invoices))

    async def ask(request: Request) -> Response:
        link = f"?{request.url.query}"
        try:
            order, amount = click.read_link(link)
        except ValueError as error:
            return _html("This link cannot be paid", f"<p class=bad>{escape(str(error))}</p>", 400)
        return _html("Pay with Click", _form(order, amount, link))

    async def pay(request: Request) -> Response:
        given = dict(parse_qsl((await request.body())[:16_384].decode("utf-8", "replace")))
        link, fault = given.get("link", ""), given.get("fault", "none")
        try:
            if "order" in given:
                receipt = await click.pay(given["order"], given.get("amount", ""), fault=fault)
            else:
                receipt = await click.follow(link, fault=fault)
        except ValueError as error:
            return _html("This cannot be paid", f"<p class=bad>{escape(str(error))}</p>", 400)
        return _html("What happened", _receipt(receipt, _return_url(link)))

    async def accept(request: Request) -> Response:
        invoice = invoices.get(request.path_params["number"])
        if invoice is None or invoice["status"] != 0:
            return _html("No such invoice", "<p class=bad>It is paid, deleted or was never made.</p>", 404)
        if request.path_params["how"] == "delete":
            invoice["status"] = -99
            return RedirectResponse("/", 303)
        receipt = await click.pay(invoice["order"], som(invoice["tiyin"]))
        invoice["status"] = 1 if receipt.status == "paid" else 0
        return _html("What happened", _receipt(receipt, None))

    return [
        Route("/", overview),
        Route("/services/pay", ask, methods=["GET"]),
        Route("/pay", pay, methods=["POST"]),
        Route("/invoices/{number:int}/{how}", accept, methods=["POST"]),
    ]


def _overview(click: ClickSimulator, invoices: dict[int, dict[str, Any]]) -> str:
    waiting = [
        f"<tr><td>{number}</td><td>{escape(one['order'])}</td><td>{som(one['tiyin'])}</td><td>"
        f"<form method=post action=/invoices/{number}/pay><button>Pay</button></form>"
        f"<form method=post action=/invoices/{number}/delete><button class=no>Delete</button></form>"
        "</td></tr>"
        for number, one in invoices.items()
        if one["status"] == 0
    ]
    rows = [
        f"<tr><td>{one.payment.paydoc_id}</td><td>{escape(one.payment.order)}</td>"
        f"<td>{som(one.payment.tiyin)}</td><td>{escape(one.fault)}</td><td>{one.status}</td>"
        f"<td class=bad>{escape('; '.join(one.surprises))}</td></tr>"
        for one in reversed(click.receipts[-100:])
    ]
    return (
        f"<p>Service {escape(click.service_id)} plays against <code>{escape(click.wire.prepare_url)}</code>. "
        "A pay link works here when its host is replaced by this one.</p>"
        "<div class=box><form method=post action=/pay><label>Order <input name=order required></label> "
        "<label>Som <input name=amount required placeholder=15000.00></label> "
        f"{_faults()} <button>Pay</button></form></div>"
        + (f"<h2>Invoices</h2><table>{''.join(waiting)}</table>" if waiting else "")
        + "<h2>Payments</h2><table><tr><th>Number<th>Order<th>Som<th>Played<th>Ended<th>Surprises</tr>"
        + "".join(rows)
        + "</table>"
    )


def _form(order: str, amount: str, link: str) -> str:
    hidden = f"<input type=hidden name=link value='{escape(link)}'>"
    return (
        f"<div class=box><p>Order <b>{escape(order)}</b></p><p class=sum>{escape(amount)} som</p>"
        f"<form method=post action=/pay>{hidden}{_faults()} <button>Pay</button></form>"
        f"<form method=post action=/pay>{hidden}<input type=hidden name=fault value=cancel>"
        "<button class=no>My card has no money</button></form></div>"
    )


def _faults() -> str:
    options = "".join(f"<option value={name}>{escape(one.title)}</option>" for name, one in FAULTS.items())
    return f"<label>Play <select name=fault>{options}</select></label>"


def _receipt(receipt: Receipt, back: str | None) -> str:
    steps = "".join(
        f"<h3>{escape(step.name)} → {step.code}</h3><pre>"
        f"{escape(json.dumps(told(step), ensure_ascii=False, indent=1))}</pre>"
        for step in receipt.steps[:50]
    )
    surprises = "".join(f"<li class=bad>{escape(one)}</li>" for one in receipt.surprises)
    home = f"<p><a href='{escape(back)}'>Back to the shop</a></p>" if back else ""
    return (
        f"<p class=sum>{receipt.status}</p><p>Payment {receipt.payment.paydoc_id}, "
        f"{som(receipt.payment.tiyin)} som</p><ul>{surprises}</ul>{home}"
        f"<p><a href=/>All payments</a></p>{steps}"
    )


def _return_url(link: str) -> str | None:
    url = dict(parse_qsl(urlsplit(link).query)).get("return_url", "")
    return url if url.startswith(("http://", "https://")) else None


def _html(title: str, body: str, status: int = 200) -> HTMLResponse:
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>{body}</html>"
    )
    return HTMLResponse(page, status, headers=HEADERS)
