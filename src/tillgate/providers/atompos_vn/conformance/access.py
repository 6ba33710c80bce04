"""Who may send an IPN: tokens good and bad, `/authorize`, unknown addresses and methods."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any

from tillgate.conform import Skipped, Wire, expect
from tillgate.providers.atompos_vn.conformance.client import (
    DOCUMENT,
    OPEN,
    Client,
    encoded,
    ipn,
    parsed,
    rule,
    said,
    token,
)


def _bearer(client: Client) -> None:
    if not client.settings.bearer:
        raise Skipped("the endpoint takes no tokens: name --token, --jwt-secret, or --user and --password")


def _secret(client: Client) -> str:
    if not client.settings.jwt_secret:
        raise Skipped("name --jwt-secret, to make such a token")
    return client.settings.jwt_secret


async def no_token(wire: Wire) -> None:
    client = Client(wire)
    _bearer(client)
    got = await client.refused(ipn(), ("05",), (401,), "no Authorization", authorised=False)
    expect("bearer" in got.answer.headers.get("www-authenticate", "").lower(), "there is no WWW-Authenticate")
    headers = {"authorization": "Basic YXRvbTphdG9t"}
    await client.refused(ipn(), ("05",), (401,), "not Bearer", authorised=False, headers=headers)


async def stranger(wire: Wire) -> None:
    client = Client(wire)
    _bearer(client)
    for body in (b"{", b"{}", encoded(ipn(amount=5))):
        await client.refused(body, ("05",), (401,), "no token and a bad body", authorised=False)


async def garbage(wire: Wire) -> None:
    client = Client(wire)
    _bearer(client)
    for text in ("junk", "a.b.c", "x" * 5_000, token("k" * 40, header={"alg": "none"}), token("k" * 40)):
        await _bad(client, text, "a token that nobody issued")


async def _bad(client: Client, text: str, why: str) -> None:
    headers = {"authorization": f"Bearer {text}"}
    await client.refused(ipn(), ("01",), (401,), why, authorised=False, headers=headers)


async def tampered(wire: Wire) -> None:
    client = Client(wire)
    _bearer(client)
    good = (await client.credentials())["authorization"].removeprefix("Bearer ")
    head, _, signature = good.split(".")
    _, claims, _ = token("k" * 40, sub="somebody else").split(".")
    await _bad(client, f"{head}.{claims}.{signature}", "other claims under a good signature")
    none, _, _ = token("k" * 40, header={"alg": "none"}).split(".")
    await _bad(client, f"{none}.{good.split('.')[1]}.", "alg none")


def claimed(why: str, header: Mapping[str, Any] | None = None, **changes: Any) -> Any:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        secret = _secret(client)
        given = {
            name: int(time.time()) + value if type(value) is int else value for name, value in changes.items()
        }
        await _bad(client, token(secret, header=header, **given), why)

    return run


async def scope(wire: Wire) -> None:
    client = Client(wire)
    headers = {"authorization": f"Bearer {token(_secret(client), scope='payment')}"}
    await client.refused(ipn(), ("06",), (403,), "another scope", authorised=False, headers=headers)


async def login(wire: Wire) -> None:
    client = Client(wire)
    granted = await client.login()
    expect(granted.get("code") == "00", f"code is {granted.get('code')!r}")
    expect(str(granted.get("token_type")).lower() == "bearer", f"token_type is {granted.get('token_type')!r}")
    lifetime = granted.get("expires_in")
    expect(isinstance(lifetime, int) and lifetime > 0, f"expires_in is {lifetime!r}")
    await client.accepted(
        ipn(),
        "an IPN with the token just issued",
        authorised=False,
        headers={"authorization": f"Bearer {granted['access_token']}"},
    )


async def _authorize(client: Client, body: Any, headers: Mapping[str, str] | None = None) -> Any:
    if not client.settings.user:
        raise Skipped("name --user and --password")
    sent = {"content-type": "application/json", **(headers or {})}
    return await client.wire.send(encoded(body), headers=sent, url=client.settings.base + "/authorize")


async def wrong_login(wire: Wire) -> None:
    client = Client(wire)
    user = client.settings.user
    for given in ({"username": user, "password": "wrong"}, {"username": "nobody", "password": "wrong"}):
        got = said(await _authorize(client, given))
        expect(
            (got.answer.status, got.code) == (401, "01"),
            f"a wrong login was answered {got.answer.status} with code {got.code}",
        )


async def half_login(wire: Wire) -> None:
    client = Client(wire)
    got = said(await _authorize(client, {"username": client.settings.user}))
    expect(
        (got.answer.status in (400, 422)) and got.code == "03",
        f"a login without a password was answered {got.answer.status} with code {got.code}",
    )


async def basic_login(wire: Wire) -> None:
    client = Client(wire)
    settings = client.settings
    text = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
    answer = await _authorize(client, b"", {"authorization": f"Basic {text}"})
    expect(answer.status == 200, f"HTTP Basic at /authorize was answered {answer.status}")
    expect("no-store" in answer.headers.get("cache-control", ""), "a token may be cached: no Cache-Control")
    parsed(answer)


async def unknown_url(wire: Wire) -> None:
    client = Client(wire)
    below = "/ipn/no/such/page"
    await client.refused(ipn(), ("02",), (404,), f"POST {below}", url=client.settings.base + below)
    for path in ("/ipnn", "/nothing"):
        got = await client.raw(ipn(), client.settings.base + path)
        body = parsed(got)
        # Beside the IPN a host may have another API, with words of its own.
        expect(got.status == 404 and body.get("code", "02") == "02", f"POST {path}: came {got.status}")


async def wrong_method(wire: Wire) -> None:
    client = Client(wire)
    for method in ("GET", "PUT", "DELETE"):
        await client.refused(b"", ("02",), (404, 405), f"{method} of the IPN's address", method=method)


CHECKS = (
    rule("url.unknown", "An unknown URL: code 02", DOCUMENT, unknown_url),
    rule("url.method", "Another method: code 02", DOCUMENT, wrong_method),
    rule("token.none", "Without a token: code 05", DOCUMENT, no_token),
    rule(
        "token.first", "A stranger learns nothing about the body: 05 comes before 03 and 04", OPEN, stranger
    ),
    rule("token.garbage", "A token that nobody issued: code 01", DOCUMENT, garbage),
    rule("token.tampered", "A token that was changed, or is not signed: code 01", DOCUMENT, tampered),
    rule("token.expired", "An expired token: code 01", DOCUMENT, claimed("expired", exp=-120, iat=-400)),
    rule("token.early", "A token of the future: code 01", OPEN, claimed("not yet valid", nbf=600)),
    rule("token.eternal", "A token without an end: code 01", OPEN, claimed("no exp", exp=...)),
    rule(
        "token.algorithm",
        "A token whose header names another algorithm: code 01",
        OPEN,
        claimed("HS512 in its header", {"alg": "HS512"}),
    ),
    rule("token.unsigned", "A token with alg none: code 01", OPEN, claimed("alg none", {"alg": "none"})),
    rule("token.scope", "A token for something else: code 06", DOCUMENT, scope),
    rule("authorize.good", "/authorize gives a token that opens /ipn", DOCUMENT, login),
    rule("authorize.basic", "/authorize takes HTTP Basic, and forbids caches", OPEN, basic_login),
    rule("authorize.wrong", "A wrong user or password: code 01", DOCUMENT, wrong_login),
    rule("authorize.half", "A login without a password: code 03", DOCUMENT, half_login),
)
