"""`POST /atompay` of the AtomPay document: a payer's page asks for the token that opens the checkout. Pure.

A body names an order and nothing else that counts: the amount is the stored order's, and who pays is in the
token. Two kinds of token are taken: the merchant's own access token (its server asks, for any order), and a
token that the merchant's site gave its user (HS256 under the account's `jwt_secret`; as bearer, or in a
cookie), who gets only orders whose `metadata.user` names them.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

import jwt
import msgspec

from tillgate.domain.errors import (
    Busy,
    Fault,
    RequestError,
    TillgateError,
    Unauthenticated,
    UnknownMethod,
    UnknownReference,
    Unreadable,
)
from tillgate.providers.atompay_in import wire
from tillgate.providers.atompay_in.config import Config
from tillgate.spi import Inbound, Reply, Served, Wanted

CHANNEL: Final = "atompay"
COOKIE: Final = "jwt"
OPTIONS: Final = ("atomTokenId", "merchId", "custEmail", "custMobile", "returnUrl", "amount", "merchTxnId")
"""What the document's `/atompay` answers, by its names."""
_ORDER: Final = ("order_id", "orderId", "order")
_MAX_TOKEN: Final = 8_192
_MAX_BODY: Final = 64 * 1024
_LEEWAY_S: Final = 30


class NoOrder(Unreadable):
    """The body names no order: order_id."""


class NotReady(TillgateError):
    """The payment is being prepared: ask again."""

    code, status = "in_flight", 409


class NotStarted(TillgateError):
    """The gateway gave no token: ask again later."""

    code, status = "gateway_failed", 502


def wanted(call: Inbound, trusted: bool, config: Config) -> Wanted:
    """Raises a `Refusal`: method, then token, then body."""
    if call.method != "POST":
        raise UnknownMethod
    payer = None if trusted else user(call, config)
    return Wanted(_order_id(call.body), CHANNEL, payer=payer)


def user(call: Inbound, config: Config) -> str:
    """Who the token says is paying. Raises `Unauthenticated` for every cause in the same words."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = _cookie(call.headers.get("cookie", ""))
    if not config.jwt_secret or not token or len(token) > _MAX_TOKEN:
        raise Unauthenticated
    now_s = call.received_at / 1000
    try:
        claims: dict[str, Any] = jwt.decode(
            token.strip(),
            config.jwt_secret,
            algorithms=["HS256"],
            audience=config.jwt_audience or None,
            # The time that counts is when the message came, not that of this line.
            options={
                "require": ["exp"] + (["aud"] if config.jwt_audience else []),
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": bool(config.jwt_audience),
            },
        )
    except (jwt.PyJWTError, ValueError):
        raise Unauthenticated from None
    ends, begins = claims["exp"], claims.get("nbf", 0)
    if type(ends) not in (int, float) or type(begins) not in (int, float):
        raise Unauthenticated
    if now_s >= ends or begins > now_s + _LEEWAY_S:
        raise Unauthenticated
    name = claims.get(config.jwt_claim, claims.get("sub"))
    if type(name) not in (int, str) or name == "":
        raise Unauthenticated
    return str(name)


def _cookie(text: str) -> str:
    """Split at each `;`, as browsers join them: what others put beside it must not cost the payer theirs."""
    found = ""
    for cookie in text.split(";"):
        name, _, value = cookie.partition("=")
        if name.strip() == COOKIE:
            found = value.strip().strip('"')
    return found


def _order_id(body: bytes) -> str:
    if len(body) > _MAX_BODY:
        raise Unreadable
    try:
        if body.lstrip()[:1] == b"{":
            fields: Any = wire.loads(body)
        else:
            fields = {k: v[0] for k, v in parse_qs(body.decode("utf-8"), max_num_fields=50).items()}
    except ValueError:
        raise Unreadable from None
    found = next((fields[name] for name in _ORDER if name in fields), None)
    if not isinstance(found, str) or not 1 <= len(found) <= 255:
        raise NoOrder
    return found


def served(outcome: Served | TillgateError) -> Reply:
    """The document's seven fields, or an error with its HTTP status."""
    if isinstance(outcome, Served):
        account = outcome.order.show.get("account") or {}
        if outcome.phase == "pending" and account:
            shown = {name: account[name] for name in OPTIONS if name in account}
            return Reply(200, msgspec.json.encode(shown), headers={"cache-control": "no-store"})
        outcome = NotReady() if outcome.phase in ("created", "unsure") else NotStarted()
    status = outcome.status
    headers = {"cache-control": "no-store"}
    if isinstance(outcome, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(outcome, Fault):
        status = 503
    if status == 503 or isinstance(outcome, (NotReady, Busy)):
        headers["retry-after"] = "2"
    known = isinstance(outcome, (RequestError, NotReady, NotStarted, UnknownReference))
    words = str(outcome) if known or status < 500 else "Try again later."
    body = {"status": "failed", "error": outcome.code, "message": words}
    return Reply(status, msgspec.json.encode(body), headers=headers)
