"""Requests that Payme never sends and an endpoint must still answer in Payme's words."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tillgate.conform import Check, Failed, Skipped, Wire, expect
from tillgate.providers.payme.conformance.client import (
    ACCOUNT,
    MALFORMED,
    WRONG_AMOUNT,
    Client,
    Said,
    new_id,
    refusal_of,
)

BODIES: Final[dict[str, tuple[bytes, tuple[int, ...]]]] = {
    "empty": (b"", (-32700,)),
    "no-json": (b"amount=1", (-32700,)),
    "cut-off": (b'{"method":"CheckTransaction","params":{"id":"5', (-32700,)),
    "bad-utf8": (b'{"method":"CheckTransaction","params":{"id":"\xff\xfe"},"id":1}', (-32700, -32600)),
    "half-a-pair": (b'{"method":"CheckTransaction","params":{"id":"\\ud800"},"id":1}', (*MALFORMED, -31003)),
    "beyond-a-double": (
        b'{"method":"CheckTransaction","params":{"id":1e400},"id":1}',
        (*MALFORMED, -31003),
    ),
    "deep": (b"[" * 20_000, (-32700, -32600)),
    "array": (b"[1,2,3]", (-32600,)),
    "text": (b'"CheckTransaction"', (-32600,)),
    "null": (b"null", (-32600,)),
    "no-method": (b'{"params":{},"id":1}', (-32600,)),
    "method-number": (b'{"method":5,"params":{},"id":1}', (-32600,)),
    "no-params": (b'{"method":"CheckTransaction","id":1}', (-32600, -32602)),
    "params-null": (b'{"method":"CheckTransaction","params":null,"id":1}', (-32600, -32602)),
    "params-array": (b'{"method":"CheckTransaction","params":[1],"id":1}', (-32600, -32602)),
    "id-missing-param": (b'{"method":"PerformTransaction","params":{},"id":1}', (*MALFORMED, -31003)),
    "id-number": (b'{"method":"PerformTransaction","params":{"id":5},"id":1}', (*MALFORMED, -31003)),
    "id-object": (b'{"method":"CheckTransaction","params":{"id":{"$ne":1}},"id":1}', (*MALFORMED, -31003)),
}
AMOUNTS: Final[dict[str, Any]] = {
    "null": None,
    "true": True,
    "text": "{amount}",
    "exponent-text": "1e5",
    "fraction": 0.5,
    "superscript": "²",
    "zero": 0,
    "negative": -100,
    "huge": 10**30,
    "array": [100],
    "object": {"amount": 100},
}
ACCOUNTS: Final[dict[str, Any]] = {
    "null": None,
    "number": 5,
    "array": ["1"],
    "empty": {},
    "nested": {"{field}": {"id": "1"}},
    "null-value": {"{field}": None},
    "true-value": {"{field}": True},
    "nul-character": {"{field}": "1\u0000"},
    "long": {"{field}": "9" * 5000},
}


def body(content: bytes, codes: tuple[int, ...]) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        said = client.read(await client.raw(content), None)
        refusal_of("the endpoint", said, codes, "the request is malformed")

    return run


def amount(value: Any) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        wrong = str(order.amount_minor) if value == "{amount}" else value
        why = f"amount {json.dumps(wrong)[:40]} is no positive integer"
        params = client.creation(order, amount=wrong)
        codes = (*WRONG_AMOUNT, *MALFORMED)
        await client.refused(
            "CheckPerformTransaction", {k: params[k] for k in ("amount", "account")}, codes, why
        )
        await client.refused("CreateTransaction", params, codes, why)

    return run


def account(value: Any) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        field = next(iter(order.account))
        wrong = {field: value["{field}"]} if isinstance(value, dict) and "{field}" in value else value
        params = client.creation(order, account=wrong)
        why, codes = "the account is malformed", (*ACCOUNT, *MALFORMED)
        await client.refused(
            "CheckPerformTransaction", {k: params[k] for k in ("amount", "account")}, codes, why
        )
        await client.refused("CreateTransaction", params, codes, why)

    return run


async def get(wire: Wire) -> None:
    client = Client(wire)
    said = client.read(await client.raw(b"", method="GET"), None)
    refusal_of("GET", said, (-32300,), "the verb is not POST")


async def unknown_method(wire: Wire) -> None:
    error = await Client(wire).refused("NoSuchMethod", {"id": new_id()}, (-32601,), "there is no such method")
    expect(error.get("data") == "NoSuchMethod", f"`data` is {error.get('data')!r}, not the method's name")


async def echoed_id(wire: Wire) -> None:
    client = Client(wire)
    for headers in (client.headers(), client.headers("wrong")):
        said = await client.ask("CheckTransaction", {"id": new_id()}, headers=headers)
        expect(said.error is not None, "an unknown transaction is known")


async def localised(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    params = {"amount": order.amount_minor, "account": dict(client.settings.missing_account or {})}
    error = await client.refused("CheckPerformTransaction", params, ACCOUNT, "nobody has this account")
    message = error.get("message")
    if not isinstance(message, dict):
        raise Failed(f"`message` is {type(message).__name__}, not an object with ru, uz and en")
    for language in ("ru", "uz", "en"):
        expect(isinstance(message.get(language), str) and message[language], f"`message` has no {language}")
    fields = list(order.account)
    expect(error.get("data") in fields, f"`data` is {error.get('data')!r}, not an account field of {fields}")


async def basic_case(wire: Wire) -> None:
    client = Client(wire)
    headers = client.headers()
    headers["Authorization"] = "basic" + headers["Authorization"][len("Basic") :]
    said = await client.ask("GetStatement", {"from": 10**12, "to": 10**12 + 1}, headers=headers)
    if said.error is not None:
        raise Failed(f"'basic' in lower case was answered {said.error.get('code')}")


async def ten_megabytes(wire: Wire) -> None:
    client = Client(wire)
    content = json.dumps(
        {"method": "CheckTransaction", "params": {"id": new_id(), "x": "a" * 10_000_000}, "id": 1}
    ).encode()
    answer = await client.raw(content)
    if answer.status == 413:
        return
    said: Said = client.read(answer, None)
    refusal_of("10 MB", said, (*MALFORMED, -31003), "the request is far too large")


async def fiscal(wire: Wire) -> None:
    client = Client(wire)
    data = {
        "receipt_id": 1,
        "status_code": 0,
        "message": "accepted",
        "terminal_id": "EP000000000025",
        "fiscal_sign": "800031554082",
        "qr_code_url": "https://ofd.soliq.uz/epi?t=EP000000000025",
        "date": "20261121163110",
    }
    unknown = {"id": new_id(), "type": "PERFORM", "fiscal_data": data}
    said = await client.ask("SetFiscalData", unknown)
    if said.error is not None and said.error.get("code") == -32601:
        raise Skipped("SetFiscalData is optional and not offered")
    refusal_of("SetFiscalData", said, (-32001, -31003), "there is no such receipt")
    params = await client.perform(await client.order())
    for kind in ("PERFORM", "PERFORM"):
        done = await client.result("SetFiscalData", {"id": params["id"], "type": kind, "fiscal_data": data})
        expect(done.get("success") is True, f"`success` is {done.get('success')!r}, not true")
    wrong = {"id": params["id"], "type": "OTHER", "fiscal_data": data}
    await client.refused("SetFiscalData", wrong, (-32602, -32600), "type is neither PERFORM nor CANCEL")


async def fiscal_no_json(wire: Wire) -> None:
    """Taken or refused: the transaction must be there afterwards, and its answers readable."""
    client = Client(wire)
    params = await client.perform(await client.order())
    for value in ("1e400", '"\\ud800"'):
        content = (
            f'{{"method":"SetFiscalData","params":{{"id":"{params["id"]}","type":"PERFORM",'
            f'"fiscal_data":{{"receipt_id":{value}}}}},"id":1}}'
        )
        said = client.read(await client.raw(content.encode()), None)
        if said.error is not None and said.error.get("code") == -32601:
            raise Skipped("SetFiscalData is optional and not offered")
        await client.stands(params["id"], 2)


BAD, WORDS = "malformed input", "Payme's words"
ERRORS = "Merchant API, errors"

CHECKS: tuple[Check, ...] = (
    Check("http.get", "a GET is answered -32300 with HTTP 200", ERRORS, get, WORDS),
    Check(
        "method.unknown",
        "an unknown method is answered -32601, its name in `data`",
        ERRORS,
        unknown_method,
        WORDS,
    ),
    Check("error.id", "errors carry the request's id", "Merchant API, protocol", echoed_id, WORDS),
    Check(
        "error.localised",
        "-31050..-31099 carry a message in ru, uz and en, and the account field in `data`",
        ERRORS,
        localised,
        WORDS,
    ),
    Check("auth.case", "the scheme `Basic` is read in any case", "RFC 7617 §2", basic_case, WORDS),
    Check(
        "fiscal.set",
        "SetFiscalData keeps a receipt; optional",
        "Merchant API, methods: SetFiscalData",
        fiscal,
        WORDS,
    ),
    Check(
        "fiscal.no-json",
        "a transaction outlives a receipt that strict readers of JSON refuse",
        "RFC 8259 §6, §8.2",
        fiscal_no_json,
        BAD,
    ),
    *(
        Check(
            f"body.{name}",
            f"a malformed body ({name}) is answered {codes[0]}",
            ERRORS,
            body(content, codes),
            BAD,
        )
        for name, (content, codes) in BODIES.items()
    ),
    *(
        Check(
            f"amount.{name}",
            f"a wrong amount ({name}) is refused",
            "Merchant API, data types: Amount",
            amount(value),
            BAD,
        )
        for name, value in AMOUNTS.items()
    ),
    *(
        Check(
            f"account.{name}",
            f"a malformed account ({name}) is refused",
            "Merchant API, data types: Account",
            account(value),
            BAD,
        )
        for name, value in ACCOUNTS.items()
    ),
    Check("body.10-mb", "10 MB are refused and answered", "RFC 9110 §15.5.14", ten_megabytes, BAD),
)
