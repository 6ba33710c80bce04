"""What may make an order paid, what may not, and how the endpoint must take what is not genuine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from tillgate.conform import Check, Wire, expect
from tillgate.providers.atompay_in.conformance.client import (
    DOCUMENT,
    FACTS,
    GATEWAY,
    SIGNED,
    Client,
    as_json,
)

Run = Callable[[Wire], Awaitable[None]]
COPIES = 20
OTHER_KEY = "0123456789ABCDEF0123456789ABCDEF"

# --- what pays ----------------------------------------------------------------------------------------------


def pays(why: str, code: str = "OTS0000", **changes: Any) -> Run:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        await client.taken(client.message(order, code, **changes), why)
        await client.paid(order, why)

    return run


async def copies(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    sealed = client.sealed(client.message(order))
    answers = await asyncio.gather(*(client.post(sealed) for _ in range(COPIES)))
    expect(len({answer.status for answer in answers}) == 1, "copies at once are answered differently")
    again = await client.post(sealed)
    expect(again.status == answers[0].status, f"a repeat is answered {again.status}, not {answers[0].status}")
    await client.paid(order, "after copies at once")


async def shapes(wire: Wire) -> None:
    client = Client(wire)
    for name in ("array", "lower case", "encData first and last", "wrong Content-Type", "JSON"):
        order = await client.order()
        message: Any = client.message(order)
        if name == "array":
            message = {"payInstrument": [message["payInstrument"]]}
        sealed, merch_id = client.sealed(message), client.settings.merch_id
        body, kind = None, ""
        if name == "lower case":
            sealed = sealed.lower()
        elif name == "encData first and last":
            body = urlencode({"merchId": merch_id, "encData": sealed}).encode()
        elif name == "wrong Content-Type":
            kind = "application/json"
        elif name == "JSON":
            body, kind = as_json({"merchId": merch_id, "encData": sealed}), "application/json"
        answer = await client.post(sealed, body=body, content_type=kind)
        expect(answer.status < 400, f"{name}: answered {answer.status}")
        await client.paid(order, name)


# --- what does not ------------------------------------------------------------------------------------------


def holds(why: str, code: str = "OTS0000", **changes: Any) -> Run:
    """Acknowledged or refused as the endpoint likes; never paid."""

    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        await client.post(client.sealed(client.message(order, code, **changes)))
        await client.unpaid(order, why)

    return run


def cheap(why: str, amount: str) -> Run:
    """A genuine payment of another amount: rightly signed, and not what is due."""

    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        await client.taken(client.message(order, signed_amount=amount), why)
        await client.unpaid(order, why)

    return run


def then_paid(why: str, first: str) -> Run:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        order = await client.order()
        await client.taken(client.message(order, first), f"{first} first")
        await client.unpaid(order, f"after {first}")
        await client.taken(client.message(order), "then the success")
        await client.paid(order, why)

    return run


async def late(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    await client.taken(client.message(order, "OTS0600"), "a failed try")
    await client.unpaid(order, "after a failed try")
    await client.taken(client.message(order), "then the success")
    for _ in range(50):
        state = await client.state(order)
        if re.search(client.settings.paid, state) or re.search("review|held|late", state):
            return
        await asyncio.sleep(0.1)
    expect(False, "a payer's second try went well, and the order shows nothing of it")


async def stays_paid(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    message = client.message(order, atom="11000000000077")
    await client.taken(message, "a success")
    await client.paid(order, "a success")
    await client.taken(client.message(order, "OTS0600", atom="11000000000077"), "a failure after it")
    expect(await client.is_paid(order), "a late failure took the payment back")


async def genuine_after_forged(wire: Wire) -> None:
    client = Client(wire)
    order = await client.order()
    good = client.sealed(client.message(order))
    await client.post(client.sealed(client.message(order, signature="0" * 128)))
    await client.post(good[:70] + ("0" if good[70] != "0" else "1") + good[71:])
    await client.unpaid(order, "after forged messages")
    await client.taken(client.message(order), "the genuine one after them")
    await client.paid(order, "the genuine one after forged ones")


def word(text: str) -> Run:
    async def run(wire: Wire) -> None:
        answer = await Client(wire).post(text)
        expect(answer.status < 400, f"{text} in the place of encData was answered {answer.status}")

    return run


# --- what is not genuine ------------------------------------------------------------------------------------


async def unreadable(wire: Wire) -> None:
    """All alike: a difference between padding, key and JSON is an oracle."""
    client = Client(wire)
    order = await client.order()
    good = client.sealed(client.message(order))
    bad = {
        "not hex": "zz" * 200,
        "odd length": good[:-1],
        "cut": good[:-32],
        "half a block": good[:-2],
        "a changed last block": good[:-2] + ("00" if good[-2:] != "00" else "01"),
        "another key": client.sealed(client.message(order), OTHER_KEY),
        "no JSON object": client.sealed("text"),
        "an empty object": client.sealed({}),
        "empty": "",
    }
    answers = {name: await client.refused(sealed, name) for name, sealed in bad.items()}
    first = answers["not hex"]
    for name, answer in answers.items():
        same = (answer.status, answer.body) == (first.status, first.body)
        expect(same, f"{name!r} is answered otherwise than what is not hex: a way to feel one's way in")


async def large(wire: Wire) -> None:
    answer = await Client(wire).post("AB" * 5_000_000)
    expect(400 <= answer.status < 500, f"10 MB of encData was answered {answer.status}")


async def flood(wire: Wire) -> None:
    """Garbage must not cost a key derivation (some 30 ms of CPU each)."""
    client = Client(wire)
    await client.post("zz" * 200)
    answers = await asyncio.gather(*(client.post("zz" * 200) for _ in range(60)))
    slowest = max(answer.elapsed_ms for answer in answers)
    expect(slowest < 1_500, f"the slowest of 60 at once was answered after {slowest:.0f} ms")


async def no_get(wire: Wire) -> None:
    answer = await wire.send(b"", method="GET")
    expect(answer.status in (400, 404, 405), f"GET was answered {answer.status}")


async def no_field(wire: Wire) -> None:
    client = Client(wire)
    for body in (b"", b"merchId=317157", b"encData", b"{", b"[]", b"\xff\xfe"):
        answer = await client.post("", body=body)
        expect(400 <= answer.status < 500, f"the body {body!r} was answered {answer.status}")


def rule(name: str, title: str, source: str, run: Run) -> Check:
    return Check(name, title, source, run, name.partition(".")[0])


CHECKS = (
    rule("paid.success", "OTS0000 with a right signature pays the order", GATEWAY, pays("OTS0000")),
    rule("paid.forced", "OTS0002 does too", GATEWAY, pays("OTS0002", "OTS0002")),
    rule(
        "paid.surcharge",
        "amount is the order's; a surcharge comes on top",
        GATEWAY,
        pays("a surcharge", surcharge="17.67"),
    ),
    rule("paid.modes", "UPI pays like any mode", GATEWAY, pays("UPI", mode="UP")),
    rule("paid.copies", f"{COPIES} copies at once, and one later, are answered alike", FACTS, copies),
    rule("paid.shapes", "Array or object, either case, any order, form or JSON", GATEWAY, shapes),
    rule("paid.pending", "Pending, then success: paid", GATEWAY, then_paid("pending first", "OTS0551")),
    rule("paid.late", "A failed try, then success: paid, or held for a person", FACTS, late),
    rule("paid.stays", "A failure after a success takes nothing back", FACTS, stays_paid),
    rule("paid.genuine", "Forged messages do not keep the genuine one out", FACTS, genuine_after_forged),
    rule("unpaid.pending", "OTS0551 is not money", GATEWAY, holds("OTS0551", "OTS0551")),
    rule("unpaid.timeout", "OTS0201 is not money", GATEWAY, holds("OTS0201", "OTS0201")),
    rule(
        "unpaid.failed",
        "OTS0600 is not money, whatever message and udf say",
        GATEWAY,
        holds("OTS0600", "OTS0600"),
    ),
    rule("unpaid.cancelled", "OTS0101 is not money", GATEWAY, holds("OTS0101", "OTS0101")),
    rule("unpaid.unknown", "A code that nobody published is not money", GATEWAY, holds("OTS9999", "OTS9999")),
    rule("unpaid.amount", "Less than is due does not pay", FACTS, cheap("one rupee", "1.00")),
    rule("unpaid.currency", "Other money does not pay", FACTS, holds("dollars", txnCurrency="USD")),
    rule(
        "unpaid.challan",
        "A challan is not money when it is printed",
        GATEWAY,
        holds("a challan", mode="NR", bank=None),
    ),
    rule("forged.signature", "A wrong signature", SIGNED, holds("a wrong signature", signature="0" * 128)),
    rule("forged.null", "A signature that is null", SIGNED, holds("null", signature=None)),
    rule("forged.absent", "No signature at all", SIGNED, holds("none", signature=...)),
    rule("forged.empty", "An empty signature", SIGNED, holds("empty", signature="")),
    rule(
        "forged.aes-key",
        "A signature by the encryption key, which is the classic mistake",
        SIGNED,
        holds("signed by the encryption key", hash_key="75AEF0FA1B94B3C10D4F5B268F757F11"),
    ),
    rule(
        "forged.request-key",
        "A signature by the request hash key",
        SIGNED,
        holds("signed by the request hash key", hash_key="KEY123657234"),
    ),
    rule(
        "forged.transaction", "Another transaction's signature", SIGNED, holds("moved", atomTxnId=11000000999)
    ),
    rule(
        "forged.amount",
        "A total that was changed after signing",
        SIGNED,
        holds("a changed total", totalAmount=99_999.0),
    ),
    rule(
        "forged.merchant",
        "Another merchant's message: in the test environment all share the keys",
        SIGNED,
        holds("another merchant", merch_id="446442"),
    ),
    rule("word.cancel", "cancelTransaction in the place of encData", GATEWAY, word("cancelTransaction")),
    rule("word.timeout", "sessionTimeout in the place of encData", GATEWAY, word("sessionTimeout")),
    rule("bad.alike", "What cannot be read is refused, all of it alike", FACTS, unreadable),
    rule("bad.fields", "A body without encData is refused", DOCUMENT, no_field),
    rule("bad.large", "10 MB are refused", FACTS, large),
    rule("bad.flood", "A flood of garbage does not hold up answers", FACTS, flood),
    rule("bad.get", "GET is no callback", DOCUMENT, no_get),
)
