"""How the checks speak: bodies of the IPN document, tokens made by hand, and one way to read an answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tillgate.conform import Answer, Check, Skipped, Wire, expect

MESSAGES = {
    "00": "success",
    "01": "Authenticate error",
    "02": "The requested URL was not found on the server.",
    "03": "Missing one or more required fields.",
    "04": "Invalid Field Type",
    "05": "Unauthorized Access",
    "06": "Permission Denied",
    "07": "POS Connect failed",
}
DOCUMENT = "the IPN document, response codes"
RETRIES = "the IPN document, retries"
FIELDS = "the IPN document, fields"
PROMISE = "the IPN document, non-blocking execution"
OPEN = "ATOM POS facts, contract"


@dataclass(frozen=True, slots=True)
class Settings:
    """How an IPN proves itself at the endpoint under test."""

    base: str  # of the IPN's URL, without /ipn
    token: str = field(default="", repr=False)
    header: tuple[str, str] | None = field(default=None, repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    jwt_secret: str = field(default="", repr=False)

    @property
    def bearer(self) -> bool:
        return bool(self.token or self.user or self.jwt_secret)


@dataclass(frozen=True, slots=True)
class Said:
    answer: Answer
    code: str
    message: str


def ipn(**changes: Any) -> dict[str, Any]:
    """A fresh IPN."""
    request_id = f"conform-{secrets.token_hex(8)}"
    return {
        "requestId": request_id,
        "orderId": f"conform:{request_id[-8:]}",
        "amount": "10000",
        "tip": "0",
        "paymentType": "QR",
        "narrative": "Thanh toán thử",
        "fromAccNo": "0011004123456",
        "extraData": {"key1": "value1"},
        **changes,
    }


def encoded(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()


def token(secret: str, *, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A HS256 token by hand; a claim of `...` is left out, `alg` none is not signed."""
    now = int(time.time())
    claims = {"sub": "conform", "iat": now, "exp": now + 300, "jti": secrets.token_hex(8), "scope": "ipn"}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
    head = {"alg": "HS256", "typ": "JWT", **(header or {})}
    text = f"{_part(head)}.{_part(claims)}"
    if str(head["alg"]).lower() == "none":
        return f"{text}."
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _part(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class Client:
    """One check's talk with the endpoint."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        settings = wire.target.settings
        assert isinstance(settings, Settings)
        self.settings = settings

    async def credentials(self) -> dict[str, str]:
        """The headers of a good IPN."""
        settings = self.settings
        if settings.header is not None:
            return {settings.header[0]: settings.header[1]}
        if settings.token:
            return {"authorization": f"Bearer {settings.token}"}
        if settings.jwt_secret:
            return {"authorization": f"Bearer {token(settings.jwt_secret)}"}
        if settings.user:
            return {"authorization": f"Bearer {(await self.login())['access_token']}"}
        return {}

    async def login(self) -> dict[str, Any]:
        if not self.settings.user:
            raise Skipped("name --user and --password")
        body = {"username": self.settings.user, "password": self.settings.password}
        answer = await self.wire.send(
            encoded(body), headers={"content-type": "application/json"}, url=self.settings.base + "/authorize"
        )
        expect(answer.status == 200, f"/authorize answered {answer.status} to the right user and password")
        granted = parsed(answer)
        expect(isinstance(granted.get("access_token"), str), "/authorize gave no access_token")
        return granted

    async def post(
        self,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        url: str | None = None,
        method: str = "POST",
        authorised: bool = True,
    ) -> Said:
        """Send it; any answer must be JSON with exactly the two texts."""
        sent = {"content-type": "application/json"}
        if authorised:
            sent |= await self.credentials()
        answer = await self.wire.send(
            encoded(message), headers={**sent, **(headers or {})}, url=url, method=method
        )
        return said(answer)

    async def raw(self, message: Any, url: str) -> Answer:
        """Send it elsewhere; the answer as it comes."""
        headers = {"content-type": "application/json", **await self.credentials()}
        return await self.wire.send(encoded(message), headers=headers, url=url)

    async def accepted(self, message: Any, why: str, **given: Any) -> Said:
        got = await self.post(message, **given)
        expect(
            (got.answer.status, got.code) == (200, "00"),
            f"{why}: expected 200 with code 00, came {got.answer.status} with code {got.code}",
        )
        expect(got.message == MESSAGES["00"], f"the message of 00 is {got.message!r}, not 'success'")
        return got

    async def refused(
        self, message: Any, codes: tuple[str, ...], statuses: tuple[int, ...], why: str, **given: Any
    ) -> Said:
        got = await self.post(message, **given)
        expect(
            got.code in codes and got.answer.status in statuses,
            f"{why}: expected code {' or '.join(codes)} with HTTP {' or '.join(map(str, statuses))},"
            f" came {got.code} with {got.answer.status}",
        )
        wanted = MESSAGES.get(got.code)
        expect(wanted is None or got.message == wanted, f"the message of {got.code} is {got.message!r}")
        return got


def rule(name: str, title: str, source: str, run: Callable[[Wire], Awaitable[None]]) -> Check:
    """A check in the group that its name begins with."""
    return Check(name, title, source, run, name.partition(".")[0])


def parsed(answer: Answer) -> dict[str, Any]:
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    expect(isinstance(body, dict), f"the answer (HTTP {answer.status}) is no JSON object")
    assert isinstance(body, dict)
    return body


def said(answer: Answer) -> Said:
    body = parsed(answer)
    expect(
        set(body) == {"code", "message"} and all(isinstance(value, str) for value in body.values()),
        f"the answer (HTTP {answer.status}) is not two texts, code and message: it has {sorted(body)}",
    )
    return Said(answer, body["code"], body["message"])
