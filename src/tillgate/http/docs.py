"""`/openapi.json`, `/docs` and `/problems`: what the API is, readable without a network."""

from __future__ import annotations

import gzip
from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tillgate.http.assets import Assets
from tillgate.http.v1.problem import ADVICE, CODES

_CODES: Final = "\n".join(
    f"| `{code}` | {status} | {means} | {ADVICE.get(code, '')} |" for code, (status, means) in CODES.items()
)
ABOUT: Final = f"""\
One till for every way to pay. Paths under `/v1` are the API for new programs; those without a prefix speak
the merchant API document's words, and those tagged *Providers* are for providers alone.

**Begin** with `POST /v1/token`: an API key and its secret give a bearer token for `Authorization` (here:
*Authorize*). **Amounts** are whole numbers of minor units, never decimals: `15000` IDR is
150.00. **Times** are RFC 3339 in UTC.

**Repeating**: a POST with an `Idempotency-Key` can be sent again after any loss; the same key with the same
body gets the first answer, byte for byte, with `Idempotent-Replayed: true`. **Lists** have the newest
first, and `next_cursor` until there is no more.

**Webhooks** are signed by Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`) and
tried for about three days. The same event has the same id over all tries, so remember it. Their types and
bodies are in this document's `webhooks`.

**Errors** under `/v1` are `application/problem+json` (RFC 9457). `code` is for programs and does not
change, `detail` is for people, `param` names the field to mend:

| code | status | means | then |
|---|---|---|---|
{_CODES}
"""

_DIRECTORY: Final = Path(__file__).parent / "static" / "docs"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def routes(described: dict[str, Any]) -> list[BaseRoute]:
    own, vendor = Assets(_DIRECTORY, "/docs"), Assets(_DIRECTORY / "vendor", "/docs/vendor")
    page = _page(own, vendor)
    body = msgspec.json.encode(described)
    pressed = gzip.compress(body, mtime=0)

    async def spec(request: Request) -> Response:
        headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(pressed, 200, headers | {"content-encoding": "gzip"}, "application/json")
        return Response(body, 200, headers, "application/json")

    async def docs(_request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def problem(request: Request) -> Response:
        code = request.path_params["code"]
        if code not in CODES:
            return JSONResponse({"error": "not_found"}, 404)
        status, means = CODES[code]
        return JSONResponse({"code": code, "status": status, "title": means, "advice": ADVICE.get(code)})

    async def problems(_request: Request) -> Response:
        return JSONResponse({code: {"status": one[0], "title": one[1]} for code, one in CODES.items()})

    return [
        Route("/openapi.json", spec),
        Route("/docs", docs),
        Route("/docs/static/{name}", own.serve),
        Route("/docs/vendor/static/{name}", vendor.serve),
        Route("/problems", problems),
        Route("/problems/{code}", problem),
    ]


def _page(own: Assets, vendor: Assets) -> str:
    style, bundle = escape(vendor.url("swagger-ui.css")), escape(vendor.url("swagger-ui-bundle.js"))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tillgate API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{style}">
<body>
<div id="docs"></div>
<script src="{bundle}"></script>
<script src="{escape(own.url("init.js"))}"></script>
</body>
</html>
"""
