"""What an IPN's body may and may not be, how a repeat is taken, and which answers stop the sender."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tillgate.conform import Wire, expect
from tillgate.providers.atompos_vn.conformance.client import (
    DOCUMENT,
    FIELDS,
    OPEN,
    PROMISE,
    RETRIES,
    Client,
    encoded,
    ipn,
    rule,
)

Run = Callable[[Wire], Awaitable[None]]

COPIES = 50
BAD = (400, 422)
WRONG = {
    "number": 5,
    "fraction": 1.5,
    "true": True,
    "null": None,
    "list": ["x"],
    "object": {"a": "b"},
}
BAD_AMOUNTS = ("", "abc", "-5", "+5", "1e5", "10,000", " 10000", "10.5", "NaN", "0x10", "١٠٠")


def accepts(why: str, **changes: Any) -> Run:
    async def run(wire: Wire) -> None:
        await Client(wire).accepted(ipn(**changes), why)

    return run


async def exact(wire: Wire) -> None:
    got = await Client(wire).accepted(ipn(), "an IPN as the document has it")
    kind = got.answer.headers.get("content-type", "")
    expect(kind.split(";")[0].strip() == "application/json", f"Content-Type is {kind!r}")


async def content_type(wire: Wire) -> None:
    for kind in ("text/plain", "application/json; charset=utf-8", "application/octet-stream"):
        await Client(wire).accepted(ipn(), f"sent as {kind}", headers={"content-type": kind})


async def trailing_slash(wire: Wire) -> None:
    got = await Client(wire).post(ipn(), url=wire.target.url.rstrip("/") + "/")
    status = got.answer.status
    expect(not 300 <= status < 400, f"a trailing slash is redirected ({status}): the sender resends for ever")
    expect((status, got.code) in ((200, "00"), (404, "02")), f"came {status} with code {got.code}")


async def quick(wire: Wire) -> None:
    got = await Client(wire).accepted(ipn(), "an IPN")
    expect(got.answer.elapsed_ms < 1_000, f"answered after {got.answer.elapsed_ms:.0f} ms")


async def burst(wire: Wire) -> None:
    client = Client(wire)
    answers = await asyncio.gather(*(client.accepted(ipn(), "one of a burst of 60") for _ in range(60)))
    slowest = max(got.answer.elapsed_ms for got in answers)
    expect(slowest < 2_000, f"the slowest of 60 at once was answered after {slowest:.0f} ms")


async def repeat(wire: Wire) -> None:
    client, message = Client(wire), ipn()
    first = await client.accepted(message, "an IPN")
    again = await client.accepted(message, "the same once more")
    expect(first.answer.body == again.answer.body, "a repeat is answered with other bytes")
    shuffled = json.dumps(dict(reversed(message.items())), indent=2).encode()
    await client.accepted(shuffled, "the same with other white space and order of keys")


async def copies(wire: Wire) -> None:
    client, message = Client(wire), ipn()
    await asyncio.gather(
        *(client.accepted(message, f"one of {COPIES} copies at once") for _ in range(COPIES))
    )


async def conflict(wire: Wire) -> None:
    client, message = Client(wire), ipn()
    await client.accepted(message, "an IPN")
    got = await client.post({**message, "amount": "99999"})
    expect(
        got.answer.status in (200, 409),
        f"another amount under a known requestId was answered {got.answer.status}: no repeat can heal it",
    )


async def corrected(wire: Wire) -> None:
    client, message = Client(wire), ipn()
    await client.refused({**message, "amount": "abc"}, ("04",), BAD, "an amount that is none")
    await client.accepted(message, "the same requestId, corrected")


def missing(name: str) -> Run:
    async def run(wire: Wire) -> None:
        message = ipn()
        del message[name]
        await Client(wire).refused(message, ("03",), BAD, f"{name} is missing")

    return run


async def nothing(wire: Wire) -> None:
    await Client(wire).refused({}, ("03",), BAD, "an empty object")


def wrong(name: str) -> Run:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        for kind, value in WRONG.items():
            if name == "extraData" and kind == "object":
                continue
            codes = ("03", "04") if value is None else ("04",)
            await client.refused(ipn(**{name: value}), codes, BAD, f"{name} is a {kind}")

    return run


def amounts(name: str) -> Run:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        for text in BAD_AMOUNTS:
            await client.refused(ipn(**{name: text}), ("04",), BAD, f"{name} is {text!r}")

    return run


async def extra_values(wire: Wire) -> None:
    client = Client(wire)
    for value in (1, None, True, ["b"], {"b": "c"}):
        await client.refused(ipn(extraData={"a": value}), ("04",), BAD, f"extraData holds {value!r}")


async def no_json(wire: Wire) -> None:
    client = Client(wire)
    for body in (b"", b"{", b"null", b"[]", b'"text"', b"<xml/>", b"\xff\xfe", b"requestId=1&amount=2"):
        await client.refused(body, ("04",), BAD, f"the body is {body[:20]!r}")


async def twice(wire: Wire) -> None:
    body = encoded(ipn())[:-1] + b',"amount":"1"}'
    await Client(wire).refused(body, ("04",), BAD, "amount stands twice in the body")


async def deep(wire: Wire) -> None:
    await Client(wire).refused(b"[" * 200_000, ("04",), (*BAD, 413), "the body is 200,000 lists deep")


async def large(wire: Wire) -> None:
    got = await Client(wire).post(ipn(narrative="x" * 2_000_000))
    expect(
        got.code == "04" and got.answer.status in (400, 413, 422),
        f"a body of 2 MB: expected code 04 with 413, came {got.code} with {got.answer.status}",
    )


async def still_alive(wire: Wire) -> None:
    await Client(wire).accepted(ipn(), "a good IPN after all the bad ones")


CHECKS = (
    rule("accept.exact", "A good IPN is answered 200 with exactly code 00, success", DOCUMENT, exact),
    rule("accept.content-type", "Its Content-Type does not matter", OPEN, content_type),
    rule(
        "accept.decimals",
        "An amount may be printed 100.00",
        FIELDS,
        accepts("an amount with .00", amount="10000.00", tip="500.00"),
    ),
    rule(
        "accept.payment-type",
        "An unknown paymentType is no error",
        OPEN,
        accepts("a new payment type", paymentType="Ví điện tử"),
    ),
    rule(
        "accept.empty",
        "narrative and extraData may be empty",
        OPEN,
        accepts("empty texts", narrative="", extraData={}),
    ),
    rule(
        "accept.unknown-field",
        "Fields that are not in the document are ignored",
        OPEN,
        accepts("a new field", fee="1"),
    ),
    rule(
        "accept.unicode",
        "Text is Unicode",
        FIELDS,
        accepts("Unicode", narrative="Đơn hàng 🧾 مرحبا", orderId="HĐ:17"),
    ),
    rule("accept.slash", "A trailing slash is served or unknown, never redirected", RETRIES, trailing_slash),
    rule("accept.quick", "An IPN is answered within a second", PROMISE, quick),
    rule("accept.burst", "Sixty at once are answered within two seconds each", PROMISE, burst),
    rule("repeat.same", "A repeat is answered like the first", RETRIES, repeat),
    rule("repeat.copies", f"{COPIES} copies at once are all acknowledged", RETRIES, copies),
    rule("repeat.conflict", "Another amount under a known requestId is not resent for ever", OPEN, conflict),
    rule("repeat.corrected", "A rejected body does not use up its requestId", OPEN, corrected),
    *(rule(f"missing.{name}", f"Without {name}: code 03", DOCUMENT, missing(name)) for name in ipn()),
    rule("missing.all", "An empty object: code 03", DOCUMENT, nothing),
    *(rule(f"type.{name}", f"{name} of every wrong type: code 04", DOCUMENT, wrong(name)) for name in ipn()),
    rule("type.amount-text", "Text that is no amount in dong: code 04", DOCUMENT, amounts("amount")),
    rule("type.tip-text", "Text that is no tip in dong: code 04", DOCUMENT, amounts("tip")),
    rule("type.extra-values", "extraData holds texts only: code 04", DOCUMENT, extra_values),
    rule("body.json", "What is no JSON object: code 04", DOCUMENT, no_json),
    rule("body.twice", "A field that stands twice: code 04", OPEN, twice),
    rule("body.deep", "A body that is nested without end: code 04", OPEN, deep),
    rule("body.large", "A body of 2 MB: code 04", OPEN, large),
    rule("body.alive", "Bad bodies leave the service as it was", OPEN, still_alive),
)
