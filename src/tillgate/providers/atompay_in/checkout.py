"""The page that opens AtomPay's checkout, and the sealed links by which a payer reaches it and comes back.

The connector keeps nothing, so what the page needs travels in its link, sealed (AES-GCM) because it names the
payer. The way back is sealed too: only an address that we wrote ourselves is ever redirected to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tillgate.spi import Reply

PAY: Final = "pay"
"""Query parameter of the page's link."""
BACK: Final = "back"
"""Query parameter of the return address."""
_NONCE: Final = 12
_MAX_LINK: Final = 6_000


def link(base: str, name: str, contents: Mapping[str, Any], hash_key: str) -> str:
    """`base?name=<sealed contents>`."""
    nonce = secrets.token_bytes(_NONCE)
    plain = json.dumps(contents, separators=(",", ":"), ensure_ascii=False).encode()
    sealed = nonce + AESGCM(_key(hash_key)).encrypt(nonce, plain, name.encode())
    token = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
    return f"{base}{'&' if '?' in base else '?'}{name}={token}"


def contents(query: str, name: str, hash_keys: Iterable[str]) -> dict[str, Any] | None:
    """What a link of ours says; None for any other."""
    if len(query) > _MAX_LINK:
        return None
    try:
        token = parse_qs(query, max_num_fields=20).get(name, [""])[0]
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    if len(sealed) <= _NONCE:
        return None
    for key in hash_keys:
        try:
            plain = AESGCM(_key(key)).decrypt(sealed[:_NONCE], sealed[_NONCE:], name.encode())
        except InvalidTag:
            continue
        found = json.loads(plain)
        return found if isinstance(found, dict) else None
    return None


def _key(hash_key: str) -> bytes:
    """A key for our own links; it must not be one that signs messages."""
    return hmac.new(hash_key.encode(), b"tillgate checkout links", hashlib.sha256).digest()


_SCRIPT: Final = """
"use strict";
const page = JSON.parse(document.getElementById("atompay").textContent);
const note = document.getElementById("note");
function leave(fields) {
  const form = document.createElement("form");
  form.method = "post";
  form.action = page.options.returnUrl;
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    input.type = "hidden"; input.name = name; input.value = String(value);
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}
function open() {
  if (typeof AtomPaynetz === "undefined") {
    note.textContent = "The payment window could not be loaded. Check the connection and try again.";
    return;
  }
  note.textContent = "";
  new AtomPaynetz(page.options, page.env);
}
window.addEventListener("message", (event) => {
  if (event.origin !== page.origin && !event.origin.endsWith(".atomtech.in")) return;
  if (event.data === "cancelTransaction" || event.data === "sessionTimeout") leave({encData: event.data});
  else if (event.data && event.data.ndpsResponse) leave(event.data.ndpsResponse);
});
document.getElementById("open").addEventListener("click", open);
window.addEventListener("load", open);
"""
_SCRIPT_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

_STYLE: Final = """
body{font:1rem/1.5 system-ui,sans-serif;margin:0;display:grid;place-items:center;min-height:100vh;
background:#f6f7f9;color:#1b1f24}main{background:#fff;padding:2rem;border-radius:.75rem;width:min(22rem,88vw);
box-shadow:0 1px 4px #0002;text-align:center}h1{font-size:2rem;margin:.25rem 0 1rem}
button,a.b{font:inherit;border:0;border-radius:.5rem;background:#1f5fbf;color:#fff;padding:.7rem 1.4rem;
cursor:pointer;text-decoration:none;display:inline-block}#note{color:#a4262c;min-height:1.5rem}
.test{background:#fff4ce;padding:.25rem .5rem;border-radius:.25rem}
"""


def page(options: Mapping[str, str], *, amount: str, script_url: str, production: bool) -> Reply:
    """The checkout page: the five options of the official script, our amount, a button to open it again."""
    parts = urlsplit(script_url)
    origin = f"{parts.scheme}://{parts.netloc}"
    env = "prod" if production else "uat"
    data = json.dumps({"options": dict(options), "env": env, "origin": origin})
    # "<" would end the element that carries the data
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    test = "" if production else '<p class="test">Test environment: no money moves.</p>'
    body = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Payment</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>
<script src="{html.escape(script_url)}"></script></head><body><main>{test}<p>To pay</p>
<h1>₹ {html.escape(amount)}</h1><button id="open" type="button">Pay</button><p id="note" role="status"></p>
</main><script id="atompay" type="application/json">{data}</script><script>{_SCRIPT}</script></body></html>"""
    hosts = f"{origin} https://*.atomtech.in"
    policy = (
        f"default-src 'none'; script-src {hosts} 'sha256-{_SCRIPT_HASH}'; style-src 'unsafe-inline' {hosts}; "
        f"img-src data: {hosts}; font-src data: {hosts}; connect-src {hosts}; frame-src {hosts}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return _html(200, body, {"content-security-policy": policy})


def notice(status: int, text: str) -> Reply:
    """A plain page for a browser that we cannot send anywhere."""
    return _html(
        status,
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Payment</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>
<body><main><p>{html.escape(text)}</p></main></body></html>""",
        {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"},
    )


def back(url: str) -> Reply:
    """Send the browser on: 303, so that the gateway's POST becomes a GET."""
    location = quote(url, safe=":/?#[]@!$&'()*+,;=%~-._")
    return Reply(303, b"", "text/plain", {"location": location, "cache-control": "no-store"})


def _html(status: int, body: str, headers: Mapping[str, str]) -> Reply:
    common = {
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return Reply(status, body.encode(), "text/html; charset=utf-8", {**common, **headers})
