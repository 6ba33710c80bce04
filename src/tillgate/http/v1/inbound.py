"""`/v1/inbound`: what providers said to us, what we made of it, and what we answered."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

import msgspec

from tillgate import schemas_v1
from tillgate.domain.errors import NotFound
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, asked, id_at
from tillgate.http.v1.shared import LIST, READ, named
from tillgate.hub.accounts import is_secret
from tillgate.schemas_v1 import bodies as models
from tillgate.store.reads_pages import Wanted

STRUCK: Final = "…"
_SHOWN: Final = 16 * 1024
_MIN_SECRET_CHARS: Final = 4
_NAMED: Final = re.compile(
    r"""(["']?\b[\w-]*(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|pin|cvv|cvc)\b["']?\s*[:=]\s*)"""
    r"""("(?:[^"\\]|\\.)*"|'[^']*'|[^&\s,;}"']+)""",
    re.IGNORECASE | re.ASCII,
)
_CARD: Final = re.compile(r"(?<![0-9A-Za-z])(?:[0-9][ -]?){12,18}[0-9](?![0-9A-Za-z])", re.ASCII)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Without an account's secrets in any spelling, what is named like a secret, and card numbers."""
    for secret in secrets:
        for spelled in _spellings(secret):
            text = text.replace(spelled, STRUCK)
    text = _NAMED.sub(lambda found: found[1] + (f'"{STRUCK}"' if found[2][0] == '"' else STRUCK), text)
    return _CARD.sub(_card, text)


def _spellings(secret: str) -> set[str]:
    if len(secret) < _MIN_SECRET_CHARS:
        return set()
    raw = secret.encode()
    coded = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], *coded}


def _card(found: re.Match[str]) -> str:
    digits = re.sub("[ -]", "", found[0])
    total = sum(
        sum(divmod(int(digit) * 2, 10)) if place % 2 else int(digit)
        for place, digit in enumerate(reversed(digits))
    )
    return found[0] if total % 10 else f"{STRUCK}{digits[-4:]}"


def show(row: Mapping[str, Any]) -> models.InboundV1:
    return models.InboundV1(**_fields(row, msgspec.json.decode(bytes(row["request"]))))


def _fields(row: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "account": row["account_id"],
        "payment_id": row["payment_id"],
        "verdict": row["verdict"],
        "received_at": schemas_v1.at(row["received_at"]),
        "method": request["method"],
        "path": request["path"],
        "reply_status": row["reply_status"],
    }


async def list_(call: Call) -> Answer:
    page = asked(call, "inbound", "account", "payment", "verdict", "created_after", "created_before")
    account, verdict = page.text("account", longest=80), page.text("verdict", longest=80)
    payment = page.text("payment", longest=80)
    sifted: dict[str, Any] = {"account_id": account} if account else {}
    if verdict:
        sifted["verdict"] = verdict
    wanted = Wanted(
        "inbound",
        call.merchant.id,
        page.limit,
        page.after,
        {"payment_id": payment} if payment else {},
        sifted,
        id_at("in_", page.time("created_after")),
        id_at("in_", page.time("created_before")),
    )
    return page.answer(await call.runtime.pages.page(wanted), show)


async def get(call: Call) -> Answer:
    row = await call.runtime.pages.one("inbound", call.merchant.id, named(call, "message_id"))
    if row is None:
        raise NotFound("There is no such message")
    request = msgspec.json.decode(bytes(row["request"]))
    secrets = _secrets(call, row["account_id"])

    def clean(raw: bytes | None) -> str:
        return scrub(bytes(raw or b"")[:_SHOWN].decode("utf-8", "replace"), secrets)

    detail = models.InboundDetail(
        **_fields(row, request),
        query=scrub(request["query"], secrets),
        headers={name: scrub(value, secrets) for name, value in request["headers"].items()},
        body=clean(row["body"]),
        reply=None if row["reply"] is None else clean(row["reply"]),
    )
    return Answer(schemas_v1.encode(detail))


def _secrets(call: Call, account_id: str) -> list[str]:
    account = call.merchant.account(account_id)
    if account is None:
        return []
    provider = call.runtime.providers.get(account.provider)
    found = [value for name, value in account.config.items() if is_secret(provider, name)]
    return sorted(_texts(found), key=len, reverse=True)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for one in inner for text in _texts(one)]


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Inbound"}
    return [
        Operation(
            "GET", ("/v1/inbound",), "v1_list_inbound", "What providers said to us, the newest first",
            handler=list_, replies={200: models.InboundList}, errors=LIST,
            query={"account": "Id of an account.", "payment": "Id of a payment.",
                   "verdict": "What we made of it: applied, repeated, answered, unauthenticated, … "
                              "A mere question (may this be paid, how does it stand) is listed only where "
                              "it was refused.",
                   **CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", ("/v1/inbound/{message_id}",), "v1_get_inbound",
            "One message and our answer, without secrets and card numbers", handler=get,
            replies={200: models.InboundDetail}, errors=READ, **common,
        ),
    ]  # fmt: skip
