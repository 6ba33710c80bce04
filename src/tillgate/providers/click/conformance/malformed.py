"""Requests that Click never sends and an endpoint must still answer in Click's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

from tillgate.conform import Check, Wire, expect
from tillgate.providers.click.conformance.client import (
    COMPLETE,
    NOT_READ,
    PREPARE,
    REFUSED,
    Client,
    must,
    read,
)

REQUESTS, ERRORS = "Click, SHOP API: requests", "Click, SHOP API: errors"
NEEDED: Final = (
    "click_trans_id",
    "service_id",
    "merchant_trans_id",
    "amount",
    "action",
    "error",
    "sign_time",
    "sign_string",
)
BODIES: Final[dict[str, bytes]] = {
    "empty": b"",
    "json": b'{"action": 0, "click_trans_id": 1}',
    "binary": bytes(range(256)),
    "bad-escape": b"click_trans_id=%zz&action=0",
    "bad-utf8": b"click_trans_id=%ff%fe&action=0",
    "no-equals": b"click_trans_id",
    "many-fields": b"&".join(b"f%d=1" % n for n in range(5000)),
}


async def wrong_key(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    transaction.prepare_id = 1
    for action in (PREPARE, COMPLETE):
        for key in ("", "wrong-" + client.settings.key, client.settings.key.swapcase() + "x"):
            answer = await client.ask(client.signed(client.fields(transaction, action), key))
            must(answer, (-1,), "a request signed with another key")


def changed(name: str, in_prepare: str | None, in_complete: str) -> Callable[[Wire], Awaitable[None]]:
    """A field that the signature covers is changed after signing."""

    async def run(wire: Wire) -> None:
        client = Client(wire)
        transaction = await client.idle()
        transaction.prepare_id = 1
        for action, call, value in ((PREPARE, "Prepare", in_prepare), (COMPLETE, "Complete", in_complete)):
            if value is not None:
                fields = client.signed(client.fields(transaction, action))
                answer = await client.ask(fields | {name: value})
                must(answer, NOT_READ, f"{name} of {call} changed after signing")

    return run


def missing(name: str) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        transaction = await client.idle()
        fields = client.signed(client.fields(transaction, PREPARE))
        del fields[name]
        must(await client.ask(fields), (-8,), f"Prepare without {name}")

    return run


async def no_prepare_id(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    fields = client.fields(transaction, COMPLETE)
    del fields["merchant_prepare_id"]
    must(await client.ask(client.signed(fields)), (-8, -6), "Complete without merchant_prepare_id")


async def unknown_action(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    must(await client.ask(client.signed(client.fields(transaction, "7"))), (-3,), "action 7")


async def unknown_service(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    other = str(int(client.settings.service_id) + 1)
    fields = client.signed(client.fields(transaction, PREPARE, service_id=other))
    must(await client.ask(fields), REFUSED, "another service, signed with this one's key")


async def twice(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    fields = client.signed(client.fields(transaction, PREPARE))
    body = urlencode(fields) + "&amount=0.01"
    must(read(await client.raw(body.encode())), REFUSED, "a form in which amount stands twice")


def garbage(body: bytes) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        must(read(await Client(wire).raw(body)), NOT_READ, "a body that is no request")

    return run


async def huge(wire: Wire) -> None:
    answer = await Client(wire).raw(b"error_note=" + b"x" * 1_000_000)
    if answer.status == 413:
        return
    must(read(answer), NOT_READ, "a body of 1 MB")


async def get(wire: Wire) -> None:
    client = Client(wire)
    transaction = await client.idle()
    body = urlencode(client.signed(client.fields(transaction, PREPARE))).encode()
    answer = await client.raw(body, method="GET")
    expect(answer.status < 500, f"HTTP {answer.status} to a GET")
    if answer.status == 200:
        must(read(answer), REFUSED, "a GET")


CHECKS: Final = (
    Check("sign.key", "A signature made with another key is -1", ERRORS, wrong_key, "signature"),
    *(
        Check(f"sign.covers-{name}", f"The signature covers {name}, of Prepare and of Complete", REQUESTS,
              changed(name, in_prepare, in_complete), "signature")
        for name, in_prepare, in_complete in (
            ("click_trans_id", "1", "1"),
            ("merchant_trans_id", "another-order", "another-order"),
            ("amount", "0.01", "0.01"),
            ("action", COMPLETE, PREPARE),
            ("sign_time", "2020-01-01 00:00:00", "2020-01-01 00:00:00"),
        )
    ),
    Check("sign.covers-merchant_prepare_id", "The signature of Complete covers merchant_prepare_id", REQUESTS,
          changed("merchant_prepare_id", None, "2"), "signature"),
    *(
        Check(f"missing.{name}", f"A request without {name} is -8", ERRORS, missing(name), "malformed")
        for name in NEEDED
    ),
    Check("missing.merchant_prepare_id", "Complete without merchant_prepare_id is refused", ERRORS,
          no_prepare_id, "malformed"),
    Check("malformed.action", "An unknown action is -3", ERRORS, unknown_action, "malformed"),
    Check("malformed.service", "Another service is refused", REQUESTS, unknown_service, "malformed"),
    Check("malformed.twice", "A field that stands twice is refused", "what is signed must mean one thing",
          twice, "malformed"),
    *(
        Check(f"malformed.{name}", f"A body that is no request ({name}) is -8", ERRORS, garbage(body),
              "malformed")
        for name, body in BODIES.items()
    ),
    Check("malformed.huge", "A body of 1 MB is refused", "every input has a limit", huge, "malformed"),
    Check("malformed.get", "A GET pays nothing and breaks nothing", REQUESTS, get, "malformed"),
)  # fmt: skip
