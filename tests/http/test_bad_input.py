"""Whatever is sent, the answer is a clear refusal: never a 5xx, and nothing half-written.

Every table is written by hand. What a refusal leaves behind is counted in the database, past all our code.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest

from support.serving import Answer, Client, Credentials, Served, client, hub_in_thread, new_merchant, rows

GOOD = {"wallet_id": "gopay", "amount": 150000, "currency": "IDR", "order_id": "bad input"}
TABLES = ("payments", "attempts", "refunds", "events", "postings", "deliveries")

NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "blank": b"  \n",
    "a word": b"hello",
    "truncated": b'{"wallet_id":"gopay"',
    "trailing comma": b'{"amount":1,}',
    "trailing garbage": json.dumps(GOOD).encode() + b"x",
    "two documents": json.dumps(GOOD).encode() * 2,
    "single quotes": b"{'amount':1}",
    "curly quotes": "{“amount”:1}".encode(),
    "comment": b'{"amount":1/*x*/}',
    "unquoted name": b"{amount:1}",
    "form": b"wallet_id=gopay&amount=1",
    "NaN": b'{"amount":NaN}',
    "Infinity": b'{"amount":Infinity}',
    "-Infinity": b'{"amount":-Infinity}',
    "hexadecimal": b'{"amount":0x10}',
    "leading zero": b'{"amount":010}',
    "plus": b'{"amount":+1}',
    "bare point": b'{"amount":1.}',
    "BOM": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "UTF-32": json.dumps(GOOD).encode("utf-32"),
    "Latin-1": '{"order_id":"é"}'.encode("latin-1"),
    "raw surrogate": b'{"order_id":"\xed\xa0\x80"}',
    "overlong": b'{"order_id":"\xc0\xaf"}',
    "lone surrogate": b'{"order_id":"\\ud800"}',
    "reversed surrogates": b'{"order_id":"\\udc00\\ud800"}',
    "raw control": b'{"order_id":"a\nb"}',
    "raw NUL": b'{"order_id":"a\x00b"}',
    "only NULs": b"\x00" * 100,
    "deep arrays": b"[" * 30_000,
    "deep objects": b'{"a":' * 10_000,
    "deep and whole": b"[" * 20_000 + b"]" * 20_000,
    "deep inside": b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "gzip": base64.b64decode("H4sIAAAAAAAAA6uuBQBDv6ajAgAAAA=="),
}
NOT_AN_OBJECT: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "number": b"150000",
    "huge number": b"9" * 5000,
    "string": b'"wallet_id"',
    "array": b"[]",
    "array of it": json.dumps([GOOD]).encode(),
}
NO_TEXT: list[Any] = [None, 1, 1.5, True, [], ["x"], {}, {"x": "y"}]
NO_AMOUNT: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "string": b'"150000"',
    "empty string": b'""',
    "array": b"[150000]",
    "object": b'{"value":150000}',
    "zero": b"0",
    "minus zero": b"-0",
    "zero point zero": b"0.0",
    "negative": b"-1",
    "very negative": b"-9223372036854775809",
    "fraction": b"1.5",
    "cents": b"150000.01",
    "small fraction": b"1e-1",
    "almost": b"0.9999999999999999999",
    "above the limit": b"1000000001",
    "huge": b"1000000000000000000000000000000",
    "2**63": b"9223372036854775808",
    "2**64": b"18446744073709551616",
    "1e30": b"1e30",
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "5000 digits": b"1" + b"0" * 5000,
    "60000 digits": b"7" * 60_000,
}
TWICE: dict[str, bytes] = {
    "plainly": b'{"wallet_id":"gopay","amount":1,"currency":"IDR","order_id":"t","amount":2}',
    "the same value": b'{"wallet_id":"gopay","amount":1,"currency":"IDR","order_id":"t","amount":1}',
    "escaped": b'{"wallet_id":"gopay","amount":1,"currency":"IDR","order_id":"t","\\u0061mount":2}',
    "escaped first": b'{"wallet_id":"ovo","\\u0061\\u006Dount":1,"currency":"IDR","order_id":"t","amount":2}',
    "order": b'{"wallet_id":"gopay","amount":1,"currency":"IDR","order_id":"t","order_i\\u0064":"u"}',
    "wallet": b'{"wallet_id":"gopay","wallet_id":"ovo","amount":1,"currency":"IDR","order_id":"t"}',
    "callback": b'{"wallet_id":"gopay","amount":1,"currency":"IDR","order_id":"t",'
    b'"callback_url":"https://a.example/","callback_url":"https://b.example/"}',
}
NO_TYPES = {
    "text": "text/plain",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data; boundary=x",
    "xml": "application/xml",
    "almost": "application/jsonx",
    "json inside": "text/plain; application/json",
    "nonsense": ";;;",
    "star": "*/*",
}


def refused(answer: Answer, status: int, kind: str, param: str | None = None) -> None:
    body = answer.json
    assert (answer.status, body["errorCode"], body["errorType"]) == (status, str(status), kind), body
    assert body["errorMessage"]
    assert body.get("param") == param, body
    assert "\\x" not in body["errorMessage"]
    assert len(body["errorMessage"]) < 200


class Traces:
    """What a merchant has in the database; compared before and after."""

    def __init__(self, served: Served, merchant_id: str) -> None:
        self._served, self._merchant_id = served, merchant_id

    async def count(self) -> list[int]:
        counts = " UNION ALL ".join(
            f"SELECT {n} AS n, COUNT(*) FROM {table} WHERE merchant_id = '{self._merchant_id}'"
            for n, table in enumerate(TABLES)
        )
        statement = f"{counts} UNION ALL SELECT 99 AS n, COUNT(*) FROM idempotency ORDER BY n"
        return [row[1] for row in await rows(self._served.database_url, statement)]

    @asynccontextmanager
    async def none(self) -> AsyncIterator[None]:
        before = await self.count()
        yield
        assert await self.count() == before


@pytest.fixture
def traces(served: Served, merchant: Credentials) -> Traces:
    return Traces(served, merchant.merchant_id)


async def targets(shop: Client) -> list[str]:
    paid = await shop.paid()
    return [
        "/token",
        "/auth/token",
        "/payment",
        "/payments",
        f"/payment/{paid}/refund",
        f"/payments/{paid}/refund",
    ]


async def test_what_is_not_json(shop: Client, traces: Traces) -> None:
    paths = await targets(shop)
    async with traces.none():
        for name, raw in NOT_JSON.items():
            for path in paths:
                answer = await shop.ask("POST", path, raw=raw, headers={"Idempotency-Key": f"bad {name}"})
                assert answer.status == 400, (name, path, answer)
                refused(answer, 400, "invalid_request", answer.json.get("param"))
        for name, raw in NOT_AN_OBJECT.items():
            for path in paths:
                answer = await shop.ask("POST", path, raw=raw)
                assert answer.status == 400, (name, path, answer)


async def test_no_body_and_no_type_at_all(shop: Client, traces: Traces) -> None:
    paths = await targets(shop)
    async with traces.none():
        for path in paths:
            refused(await shop.ask("POST", path), 400, "invalid_request")
    # A body without a Content-Type is read as what it can only be.
    answer = await shop.ask("POST", "/payments", GOOD | {"order_id": "untyped"}, headers={"Content-Type": ""})
    assert answer.status == 200


async def test_the_content_type(shop: Client, traces: Traces) -> None:
    paths = await targets(shop)
    async with traces.none():
        for kind in NO_TYPES.values():
            for path in paths:
                answer = await shop.ask("POST", path, GOOD, headers={"Content-Type": kind})
                refused(answer, 415, "unsupported_media_type")
    for n, kind in enumerate(
        (
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            " application/json ;charset=UTF-8",
            "application/vnd.x+json",
        )
    ):
        body = GOOD | {"order_id": f"type {n}"}
        assert (await shop.ask("POST", "/payments", body, headers={"Content-Type": kind})).status == 200


@pytest.mark.parametrize("field", ["wallet_id", "currency", "order_id", "callback_url"])
async def test_no_text_where_text_belongs(shop: Client, traces: Traces, field: str) -> None:
    async with traces.none():
        for value in NO_TEXT:
            if field == "callback_url" and value is None:
                continue  # optional
            answer = await shop.ask("POST", "/payments", GOOD | {field: value})
            refused(answer, 400, "invalid_request", field)
            assert answer.json["errorMessage"].startswith(f"Invalid field: {field}")


async def test_no_text_in_a_login(shop: Client) -> None:
    for field in ("api_key", "api_secret"):
        for value in NO_TEXT:
            answer = await shop.ask("POST", "/token", {"api_key": "x", "api_secret": "x"} | {field: value})
            refused(answer, 400, "invalid_request", field)
            assert "status" not in answer.json


@pytest.mark.parametrize("name", NO_AMOUNT)
async def test_no_amount(shop: Client, traces: Traces, name: str) -> None:
    paid = await shop.paid()
    amount = NO_AMOUNT[name]
    async with traces.none():
        raw = b'{"wallet_id":"gopay","currency":"IDR","order_id":"no amount","amount":%b}' % amount
        answer = await shop.ask("POST", "/payments", raw=raw)
        assert answer.status == 400, answer
        answer = await shop.ask(
            "POST", f"/payments/{paid}/refund", raw=b'{"reason":"x","amount":%b}' % amount
        )
        expected = (409, "refund_not_allowed") if name == "above the limit" else (400, "invalid_request")
        assert (answer.status, answer.json["errorType"]) == expected, answer


@pytest.mark.parametrize("name", TWICE)
async def test_a_field_given_twice(shop: Client, traces: Traces, name: str) -> None:
    async with traces.none():
        answer = await shop.ask("POST", "/payments", raw=TWICE[name])
        refused(answer, 400, "invalid_request")


async def test_a_refund_or_login_with_a_field_given_twice(shop: Client, traces: Traces) -> None:
    paid = await shop.paid()
    async with traces.none():
        for raw in (
            b'{"amount":1,"reason":"x","amount":150000}',
            b'{"amount":1,"\\u0061mount":150000,"reason":"x"}',
        ):
            refused(await shop.ask("POST", f"/payments/{paid}/refund", raw=raw), 400, "invalid_request")
    raw = b'{"api_key":"a","api_secret":"b","api_\\u006bey":"c"}'
    refused(await shop.ask("POST", "/token", raw=raw), 400, "invalid_request")
    # One name in two different objects is no repetition.
    answer = await shop.ask("POST", "/payments", GOOD | {"order_id": "nested", "extra": {"amount": 1}})
    assert answer.status == 200


@pytest.mark.parametrize(
    "order_id", ["", "x" * 256, "x" * 5000, "a\0b", "\n", "a\tb", "\x7f", "\u202eabc", "\ufeffx", "\u2028"]
)
async def test_no_order_id(shop: Client, traces: Traces, order_id: str) -> None:
    async with traces.none():
        answer = await shop.ask("POST", "/payments", GOOD | {"order_id": order_id})
        refused(answer, 400, "invalid_request", "order_id")


@pytest.mark.parametrize(
    "wallet_id", ["", "GOPAY", "GoPay", "paypal", "gopay ", "gopay\0", "x" * 20_000, "💰"]
)
async def test_no_wallet(shop: Client, traces: Traces, wallet_id: str) -> None:
    async with traces.none():
        answer = await shop.ask("POST", "/payments", GOOD | {"wallet_id": wallet_id})
        refused(answer, 400, "invalid_request", "wallet_id")


@pytest.mark.parametrize(
    "currency", ["", "idr", "USD", "UZS", "IDR ", "Rp", "360", "XXX", "I" * 20_000, "ID\0"]
)
async def test_no_currency(shop: Client, traces: Traces, currency: str) -> None:
    async with traces.none():
        answer = await shop.ask("POST", "/payments", GOOD | {"currency": currency})
        refused(answer, 400, "invalid_request", "currency")


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "a\0b", "line\nbreak"])
async def test_no_reason(shop: Client, traces: Traces, reason: str) -> None:
    paid = await shop.paid()
    async with traces.none():
        answer = await shop.ask("POST", f"/payments/{paid}/refund", {"amount": 1, "reason": reason})
        refused(answer, 400, "invalid_request", "reason")
        for value in NO_TEXT:
            answer = await shop.ask("POST", f"/payments/{paid}/refund", {"amount": 1, "reason": value})
            refused(answer, 400, "invalid_request", "reason")


HOSTILE = [
    "",
    "x",
    "/callback",
    "//shop.example/callback",
    "ftp://shop.example/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "gopher://shop.example/",
    "http://shop.example/",
    "https://",
    "https:///callback",
    "https://localhost/",
    "https://localhost.localdomain/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[fe80::1%25eth0]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fd00:ec2::254]/latest/meta-data/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://100.100.100.200/latest/meta-data/",
    "https://168.63.129.16/metadata",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://hub.local/",
    "https://intranet/",
    "https://user:password@shop.example/",
    "https://shop.example@127.0.0.1/",
    "https://shop.example:22/",
    "https://shop.example:0/",
    "https://shop.example:99999/",
    "https://shop.example:x/",
    "https://shop.example/#fragment",
    "https://shop.example/a b",
    "https://shop.example/\r\nX-Injected: 1",
    "https://shop.example/\0",
    "https://shop.example\\@127.0.0.1/",
    "https://shop.example/é",
    "https://" + "a" * 300 + ".example/",
    "https://shop.example/" + "x" * 2100,
    "http://127.0.0.1:1/",
]


@pytest.mark.parametrize("url", HOSTILE, ids=[url[:40].replace("\0", "NUL") for url in HOSTILE])
async def test_a_hostile_callback_url(shop: Client, traces: Traces, url: str) -> None:
    async with traces.none():
        answer = await shop.ask("POST", "/payments", GOOD | {"callback_url": url})
        refused(answer, 400, "invalid_request", "callback_url")


# --- keys and headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["x" * 256, "a b\tc", "ключ", "a\x01b"])
async def test_no_idempotency_key(shop: Client, traces: Traces, key: str) -> None:
    async with traces.none():
        if "\x01" not in key:  # that one the client itself refuses to send
            answer = await shop.ask("POST", "/payments", GOOD, headers={"Idempotency-Key": key})
            refused(answer, 400, "invalid_request", "Idempotency-Key")


async def test_an_empty_idempotency_key(served: Served, shop: Client, traces: Traces) -> None:
    async with traces.none():
        answer = await say(
            served.url,
            b"POST /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nIdempotency-Key:\r\n"
            b"Content-Length: 2\r\n\r\n{}" % shop.token.encode(),
        )
        assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_thousand_query_parameters(shop: Client) -> None:
    query = "&".join(f"p{n}={n}" for n in range(1000))
    payment_id = await shop.open()
    for method, path in (
        ("GET", "/wallets"),
        ("GET", f"/payments/{payment_id}"),
        ("POST", f"/sandbox/payments/{payment_id}/pay"),
    ):
        assert (await shop.ask(method, f"{path}?{query}")).status == 200
    assert (await shop.ask("POST", f"/payments?{query}", GOOD)).status == 200


@pytest.mark.parametrize(
    "fault", ["x", "NONE", "none%20", "%00", "%ff", "none%26x%3D1", "none%3Fx", "x" * 5000, "twice&fault=x"]
)
async def test_no_fault(shop: Client, traces: Traces, fault: str) -> None:
    payment_id = await shop.open()
    async with traces.none():
        answer = await shop.act(payment_id, "pay", fault)
        refused(answer, 400, "invalid_request", "fault")


async def test_the_body_limit(shop: Client, traces: Traces) -> None:
    paths = await targets(shop)
    long = b'{"x":"' + b"x" * 70_000 + b'"}'
    async with traces.none():
        for path in [*paths, "/sandbox/payments/pay_1/pay"]:
            refused(await shop.ask("POST", path, raw=long), 413, "payload_too_large")
            refused(await shop.ask("POST", path, raw=pieces(long)), 413, "payload_too_large")
        refused(await shop.ask("GET", "/wallets", raw=long), 413, "payload_too_large")
    just = {"x": "y" * 65_400, **GOOD, "order_id": "just fits"}
    answer = await shop.ask("POST", "/payments", just)
    assert answer.status == 200


async def pieces(body: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def test_a_body_in_pieces(shop: Client) -> None:
    for size in (1, 7, 50):
        body = json.dumps(GOOD | {"order_id": f"pieces of {size}"}).encode()
        answer = await shop.ask("POST", "/payments", raw=pieces(body, size))
        assert answer.status == 200
        assert (await shop.status(answer.json["payment_id"]))["order_id"] == f"pieces of {size}"


# --- tokens -------------------------------------------------------------------------------------------------


def forged(token: str, key: bytes, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """The token's claims with `changes` (None takes one out), signed by `key` with HS256."""
    claims = json.loads(_unpadded(token.split(".")[1]))
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(claims, key, algorithm="HS256", headers=header)


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def real_key() -> bytes:
    """What the sandbox signs with. Its secret is published, so that only here can a test forge well."""
    from tillgate.settings import SANDBOX_SECRET_KEY
    from tillgate.store.sealing import derive

    return derive(SANDBOX_SECRET_KEY, "tokens")


async def test_tokens_that_are_not_ours(shop: Client) -> None:
    head, claims, signature = shop.token.split(".")
    data = json.loads(_unpadded(claims))
    other = {"typ": "JWT", "alg": "none"}
    strange = {
        "alg none, unsigned": f"{_segment(other)}.{claims}.",
        "alg none, signed": f"{_segment(other)}.{claims}.{signature}",
        "alg None": f"{_segment({'typ': 'JWT', 'alg': 'None'})}.{claims}.",
        "no alg": f"{_segment({'typ': 'JWT'})}.{claims}.{signature}",
        "alg a list": f"{_segment({'typ': 'JWT', 'alg': ['HS256']})}.{claims}.{signature}",
        "unsigned": f"{head}.{claims}.",
        "two parts": f"{head}.{claims}",
        "five parts": f"{shop.token}.a.b",
        "dots": "..",
        "other claims": f"{head}.{_segment(data | {'sub': 'mer_1'})}.{signature}",
        "claims no object": f"{head}.{_segment([1])}.{signature}",
        "cut": shop.token[:-1],
        "long": shop.token + "A" * 30_000,
        "wrong key": forged(shop.token, b"k" * 32),
        "other signature": f"{head}.{claims}.AAAA",
        "the published key itself": forged(
            shop.token, b"sandbox-only-this-key-is-published-never-use-it-for-money"
        ),
        "wrong key, named": forged(shop.token, b"k" * 32, header={"kid": "../../dev/null"}),
        "wrong key, brought along": forged(
            shop.token,
            b"k" * 32,
            header={"jwk": {"kty": "oct", "k": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2trazI"}},
        ),
        "HS512": jwt.encode(data, real_key() * 2, algorithm="HS512"),
        "base64": base64.b64encode(b"a.b.c").decode(),
        "not ASCII": "ключ.ключ.ключ",
    }
    for name, token in strange.items():
        answer = await shop.ask("GET", "/wallets", token=token)
        assert answer.status == 401, name
        refused(answer, 401, "unauthorized")


async def test_tokens_that_are_well_signed_and_wrong(shop: Client, rival: Client) -> None:
    key, now = real_key(), int(time.time())
    theirs = json.loads(_unpadded(rival.token.split(".")[1]))
    # The forger's tool is good: with nothing changed the token is taken.
    assert (await shop.ask("GET", "/wallets", token=forged(shop.token, key, jti="x"))).status == 200
    strange: dict[str, dict[str, Any]] = {
        "expired": {"exp": now - 1},
        "expired long ago": {"exp": 1},
        "never valid": {"exp": -1},
        "no end": {"exp": None},
        "no merchant": {"sub": None},
        "no credential": {"cid": None},
        "no start": {"iat": None},
        "other issuer": {"iss": "someone"},
        "no issuer": {"iss": None},
        "end as text": {"exp": "tomorrow"},
        "no such merchant": {"sub": "mer_0"},
        "merchant a number": {"sub": 1},
        "merchant with NUL": {"sub": "mer_\0"},
        "no such credential": {"cid": "cred_0"},
        "another's credential": {"cid": theirs["cid"]},
        "not yet": {"nbf": now + 1000},
        "for someone else": {"aud": "someone"},
    }
    for name, changes in strange.items():
        answer = await shop.ask("GET", "/wallets", token=forged(shop.token, key, **changes))
        assert answer.status == 401, (name, answer)
        refused(answer, 401, "unauthorized")
    critical = forged(shop.token, key, header={"crit": ["exp"], "exp": 1})
    assert (await shop.ask("GET", "/wallets", token=critical)).status == 401


async def test_tokens_end(shop: Client) -> None:
    token = forged(shop.token, real_key(), exp=int(time.time()) + 2)
    assert (await shop.ask("GET", "/wallets", token=token)).status == 200
    await asyncio.sleep(2.1)
    assert (await shop.ask("GET", "/wallets", token=token)).status == 401  # though it is remembered


async def test_a_credential_that_ended(served: Served, shop: Client, merchant: Credentials) -> None:
    known = new_merchant(served.database_url)
    async with client(served.url, known) as till:
        assert (await till.ask("GET", "/wallets")).status == 200
        ended = f"UPDATE credentials SET expires_at = 1 WHERE api_key = '{known.api_key}'"
        await rows(served.database_url, ended)
        deadline = time.monotonic() + 5
        while (answer := await till.ask("GET", "/wallets")).status == 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        refused(answer, 401, "unauthorized")
        body = {"api_key": known.api_key, "api_secret": known.api_secret}
        assert (await till.ask("POST", "/token", body)).json["errorType"] == "invalid_credentials"


# --- below HTTP ---------------------------------------------------------------------------------------------


async def say(url: str, sent: bytes, *, wait_s: float = 5) -> bytes:
    """Send bytes as they are; what comes back until the other side closes or says no more."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        got = b""
        while True:
            try:
                piece = await asyncio.wait_for(reader.read(65_536), wait_s if not got else 0.3)
            except TimeoutError:
                return got
            if not piece:
                return got
            got += piece
    except ConnectionError:
        return got
    finally:
        writer.close()


BROKEN = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "NULs": b"\x00" * 100,
    "no version": b"GET /wallets\r\n\r\n",
    "HTTP/9": b"GET /wallets HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "star": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "strange method": b"NOPE /wallets HTTP/1.1\r\nHost: x\r\n\r\n",
    "folded header": b"GET /wallets HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "header without a name": b"GET /wallets HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "blank in a name": b"GET /wallets HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
    "NUL in a header": b"GET /wallets HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "negative length": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
    "length no number": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n{}",
    "two lengths": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "length and chunks": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no chunk": b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "huge chunk": b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"fffffffffffffffff\r\n{}\r\n",
    "strange encoding": b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    "length too short": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{}",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_http(served: Served, name: str) -> None:
    got = await say(served.url, BROKEN[name])
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), got
    assert b"Traceback" not in got
    status, _, _ = got.partition(b"\r\n")
    if status.endswith(b"400 Bad Request"):
        assert b"application/json" in got
        assert json.loads(got.split(b"\r\n\r\n")[-1])["errorType"] == "invalid_request"


async def test_huge_headers(served: Served) -> None:
    for sent in (
        b"GET /wallets HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /wallets HTTP/1.1\r\nHost: x\r\n"
        + b"".join(b"A%d: x\r\n" % n for n in range(10_000))
        + b"\r\n",
        b"GET /wallets?" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /wallets HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 500_000,
    ):
        got = await say(served.url, sent)
        assert got.startswith(b"HTTP/1.1 431 "), got[:200]
        assert json.loads(got.split(b"\r\n\r\n")[-1])["errorType"] == "headers_too_large"
    got = await say(served.url, b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 60_000 + b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ")


async def test_a_large_body_is_no_large_header(served: Served) -> None:
    body = b'{"api_key":"' + b"x" * 65_000 + b'","api_secret":"x"}'
    sent = b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    got = await say(served.url, sent * 3)
    assert got.count(b"HTTP/1.1 401 ") == 3


async def test_requests_sent_without_waiting_are_answered_in_order(served: Served, shop: Client) -> None:
    bodies = [json.dumps(GOOD | {"order_id": f"pipelined {n}"}).encode() for n in range(5)]
    sent = b"".join(
        b"POST /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nX-Request-ID: p%d\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (shop.token.encode(), n, len(body), body)
        for n, body in enumerate(bodies)
    )
    got = await say(served.url, sent)
    assert got.count(b"HTTP/1.1 200 OK") == 5
    assert [got.find(b"x-request-id: p%d\r\n" % n) for n in range(5)] == sorted(
        got.find(b"x-request-id: p%d\r\n" % n) for n in range(5)
    )


async def test_an_answer_is_one_packet(served: Served) -> None:
    """Its head does not travel alone."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(3):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        got = await asyncio.wait_for(reader.read(65_536), 30)
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: %d" % len(body) in head.lower()
        assert body
    writer.close()


async def test_a_client_that_leaves_in_the_middle(served: Served, shop: Client, traces: Traces) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    head = b"POST /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: 100\r\n\r\n"
    async with traces.none():
        for part in (head % shop.token.encode(), head % shop.token.encode() + b'{"wallet_id"', head[:30]):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(part)
            await writer.drain()
            writer.close()
        await asyncio.sleep(0.1)
    assert (await shop.ask("GET", "/healthz")).status == 200


async def test_a_request_that_does_not_arrive(sqlite_url: str) -> None:
    """Heads and bodies that stop half-way are given up, told so, and hold nothing."""
    with hub_in_thread(sqlite_url, patience_s=1) as url:
        async with client(url, new_merchant(sqlite_url)) as shop:
            token = shop.token.encode()
            head = b"POST /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % token
            half = {
                "half a head": b"POST /payments HTTP/1.1\r\nHost: x\r\nAuthor",
                "one letter": b"P",
                "no body": head + b"Content-Length: 100\r\n\r\n",
                "half a body": head + b'Content-Length: 100\r\n\r\n{"wallet_id":',
                "half a chunk": head + b"Transfer-Encoding: chunked\r\n\r\n20\r\n{",
                "no last chunk": head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
                "no body for a stranger": b"POST /payments HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            }
            begun = time.monotonic()
            silent, *answers = await asyncio.gather(
                *(say(url, sent, wait_s=10) for sent in (b"", *half.values()))
            )
            assert 0.9 < time.monotonic() - begun < 6
            assert silent == b""  # closed without a word
            for name, got in zip(half, answers, strict=True):
                if name == "no body for a stranger":
                    assert got.startswith(b"HTTP/1.1 401 "), got
                    continue
                assert got.startswith(b"HTTP/1.1 408 "), (name, got)
                assert json.loads(got.split(b"\r\n\r\n")[-1])["errorType"] == "request_timeout"
            # A drop now and then does not help.
            begun = time.monotonic()
            got = await drip(url, head + b'Content-Length: 100\r\n\r\n{"wallet_id":"gopay"', 0.05)
            assert got.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - begun < 6
            assert (await shop.ask("GET", "/wallets")).status == 200
        assert await rows(sqlite_url, "SELECT COUNT(*) FROM payments") == [(0,)]


async def drip(url: str, sent: bytes, pause_s: float) -> bytes:
    """Send a byte now and then; the first that comes back."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = asyncio.create_task(reader.read(65_536))
    for byte in sent:
        if answer.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(pause_s)
    got = await asyncio.wait_for(answer, 10)
    writer.close()
    return got


async def test_expect_continue(served: Served, shop: Client) -> None:
    body = json.dumps(GOOD | {"order_id": "continue"}).encode()
    head = (
        b"POST /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % (shop.token.encode(), len(body))
    )
    got = await say(served.url, head + body)
    assert b"HTTP/1.1 200 OK" in got


async def test_what_is_wrong_is_said_in_words_of_json(shop: Client) -> None:
    for value, said in (
        (1.5, "Invalid field: amount. Expected a whole number, got a number"),
        ("1", "Invalid field: amount. Expected a whole number, got a string"),
        (True, "Invalid field: amount. Expected a whole number, got a boolean"),
        (None, "Invalid field: amount. Expected a whole number, got null"),
        ([], "Invalid field: amount. Expected a whole number, got an array"),
    ):
        answer = await shop.ask("POST", "/payments", GOOD | {"amount": value})
        assert answer.json["errorMessage"] == said
    answer = await shop.ask("POST", "/payments", GOOD | {"callback_url": 1})
    assert answer.json["errorMessage"] == "Invalid field: callback_url. Expected a string, got a whole number"
    answer = await shop.ask("POST", "/payments", [])
    assert answer.json["errorMessage"] == "Expected an object, got an array"
