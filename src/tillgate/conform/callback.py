"""A merchant's own callback endpoint, judged by what the hub will send it: genuine, forged, repeated, odd.

The rules are the merchant document's "Callbacks" and Standard Webhooks 1.0. Signs by itself: an oracle must
be something other than the thing it judges.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import itertools
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tillgate.conform import Answer, Check, Option, Skipped, Suite, Target, Wire, expect

SIGNATURES, REPEATS, CONTENTS, ANSWERS = "Signatures", "Repeats", "Contents", "Answers"
DOCUMENT, STANDARD = "merchant API, Callbacks", "Standard Webhooks 1.0"
MAX_ANSWER: Final = 64 * 1024
MANY: Final = 8
SETTLE_S, SETTLE_TRIES = 3.0, 60
SKEW_S: Final = 300


@dataclass(frozen=True, slots=True)
class Settings:
    key: bytes
    orders: Iterator[str]
    amount: int
    currency: str
    witness: str | None  # a URL that answers how many callbacks were acted upon
    within_s: float


@dataclass(slots=True)
class Message:
    """One callback: its id, its time and its bytes."""

    body: bytes
    id: str = field(default_factory=lambda: f"evt_{secrets.token_hex(16)}")
    at: int = field(default_factory=lambda: int(time.time()))

    def signature(self, key: bytes) -> str:
        signed = f"{self.id}.{self.at}.".encode() + self.body
        return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()

    def headers(self, signature: str) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "webhook-id": self.id,
            "webhook-timestamp": str(self.at),
            "webhook-signature": signature,
        }


class Client:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.settings: Settings = wire.target.settings

    def fields(self, kind: str = "payment.success", **changed: Any) -> dict[str, Any]:
        now, paid = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z", "success" in kind
        fields = {
            "type": kind,
            "timestamp": now,
            "payment_id": f"pay_{secrets.token_hex(16)}",
            "order_id": next(self.settings.orders),
            "status": "success" if paid else "failed",
            "amount": self.settings.amount,
            "currency": self.settings.currency,
            "wallet_id": "gopay",
            "paid_at": now if paid else None,
            "status_detail": "paid" if paid else "failed",
            "refunded_amount": 0,
            "paid_with": "GoPay" if paid else None,
            "expires_at": now,
            "refund": None,
        }
        return fields | changed

    def message(self, kind: str = "payment.success", **changed: Any) -> Message:
        return Message(json.dumps(self.fields(kind, **changed), separators=(",", ":")).encode())

    async def send(self, message: Message, signature: str | None = None) -> Answer:
        """Signed with the secret, if nothing else is given."""
        signature = message.signature(self.settings.key) if signature is None else signature
        return await self.wire.send(
            message.body, headers=message.headers(signature), timeout_s=max(30.0, self.settings.within_s)
        )

    async def acted(self) -> int | None:
        """How many callbacks the endpoint has acted upon; None where nobody can say."""
        if self.settings.witness is None:
            return None
        answer = await self.wire.send(b"", method="GET", url=self.settings.witness)
        found = re.search(rb"\d{1,12}", answer.body[:200])
        if answer.status != 200 or not found:
            raise Skipped(f"the witness answered {answer.status} and no number")
        return int(found[0])

    async def acted_since(self, before: int | None, times: int) -> None:
        """Acting may come after the answer: wait for it, and then a moment for one too many."""
        if before is None:
            return
        for _ in range(SETTLE_TRIES):
            if (await self.acted() or 0) - before >= times:
                break
            await asyncio.sleep(SETTLE_S / SETTLE_TRIES)
        await asyncio.sleep(0.1)
        now = await self.acted() or 0
        expect(now - before == times, f"it was acted upon {now - before} times, not {times}")

    async def ignored_since(self, before: int | None) -> None:
        if before is not None:
            await asyncio.sleep(0.1)
            now = await self.acted() or 0
            expect(now == before, f"it was acted upon {now - before} times, though it was refused")


def taken(answer: Answer, what: str) -> None:
    expect(not 300 <= answer.status < 400, f"{what}: answered {answer.status}; redirects are not followed")
    expect(200 <= answer.status < 300, f"{what}: answered {answer.status}, not 2xx: it would come again")


def refused(answer: Answer, what: str) -> None:
    expect(answer.status != 410, f"{what}: answered 410, which tells the hub to send nothing any more")
    expect(400 <= answer.status < 500, f"{what}: answered {answer.status}, not 4xx (401 says it best)")


Try = Callable[[Client, Message], Awaitable[Answer]]


def _refuses(what: str, attempt: Try) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        before = await client.acted()
        refused(await attempt(client, client.message()), what)
        await client.ignored_since(before)

    return run


def _takes(
    what: str, attempt: Try, make: Callable[[Client], Message] = Client.message
) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        before = await client.acted()
        taken(await attempt(client, make(client)), what)
        await client.acted_since(before, 1)

    return run


# --- signatures ---------------------------------------------------------------------------------------------


def _plainly(client: Client, message: Message) -> Awaitable[Answer]:
    return client.send(message)


def _without(name: str) -> Try:
    async def attempt(client: Client, message: Message) -> Answer:
        headers = message.headers(message.signature(client.settings.key))
        kept = {key: value for key, value in headers.items() if name not in (key, "all") or key[0] == "c"}
        return await client.wire.send(message.body, headers=kept)

    return attempt


def _shifted(seconds: int) -> Try:
    def attempt(client: Client, message: Message) -> Awaitable[Answer]:
        message.at += seconds
        return client.send(message)

    return attempt


def _other_key(client: Client, message: Message) -> Awaitable[Answer]:
    return client.send(message, message.signature(secrets.token_bytes(32)))


def _edited(client: Client, message: Message) -> Awaitable[Answer]:
    genuine = message.signature(client.settings.key)
    fields = json.loads(message.body)
    fields["amount"] += 1
    message.body = json.dumps(fields, separators=(",", ":")).encode()
    return client.send(message, genuine)


def _renamed(client: Client, message: Message) -> Awaitable[Answer]:
    genuine = message.signature(client.settings.key)
    message.id = f"evt_{secrets.token_hex(16)}"
    return client.send(message, genuine)


def _redated(client: Client, message: Message) -> Awaitable[Answer]:
    genuine = message.signature(client.settings.key)
    message.at += 1
    return client.send(message, genuine)


def _scheme(client: Client, message: Message) -> Awaitable[Answer]:
    return client.send(message, "v1a," + message.signature(client.settings.key)[3:])


def _nothing_signed(client: Client, message: Message) -> Awaitable[Answer]:
    return client.send(message, "v1,")


def _rotating(client: Client, message: Message) -> Awaitable[Answer]:
    other = message.signature(secrets.token_bytes(32))
    return client.send(message, f"{other} {message.signature(client.settings.key)} v1a,AAAA")


def _spread_out(client: Client) -> Message:
    text = json.dumps(client.fields(note="Çağrı \u200b/ 日本"), indent=3, ensure_ascii=True)
    return Message(text.replace("/", r"\/").encode() + b"\n")


async def _forgery_first(wire: Wire) -> None:
    client = Client(wire)
    before = await client.acted()
    message = client.message()
    refused(await client.send(message, message.signature(secrets.token_bytes(32))), "a forgery")
    taken(await client.send(message), "the genuine message under the id that a forgery used")
    await client.acted_since(before, 1)


# --- repeats ------------------------------------------------------------------------------------------------


async def _repeated(wire: Wire) -> None:
    client = Client(wire)
    before = await client.acted()
    message = client.message()
    message.at -= 5
    taken(await client.send(message), "the first time")
    message.at += 5
    taken(await client.send(message), "the same id again, signed anew, as after a lost answer")
    taken(await client.send(message), "the same bytes again")
    await client.acted_since(before, 1)


async def _crowd(wire: Wire) -> None:
    client = Client(wire)
    before = await client.acted()
    message = client.message()
    answers = await asyncio.gather(*(client.send(message) for _ in range(MANY)))
    statuses = sorted(one.status for one in answers)
    expect(any(200 <= one < 300 for one in statuses), f"{MANY} at once: nobody was answered 2xx: {statuses}")
    expect(500 not in statuses, f"{MANY} at once: answered 500: {statuses}")
    await client.acted_since(before, 1)


async def _two_ids(wire: Wire) -> None:
    client = Client(wire)
    before = await client.acted()
    taken(await client.send(client.message()), "one message")
    taken(await client.send(client.message()), "another message under another id")
    await client.acted_since(before, 2)


async def _out_of_order(wire: Wire) -> None:
    client = Client(wire)
    known = {key: value for key, value in client.fields().items() if key in ("payment_id", "order_id")}
    row = {"refund_id": f"refund_{secrets.token_hex(16)}", "status": "success", "amount": 1}
    late = client.message(**known)
    early = client.message("refund.success", **known, refund=row, refunded_amount=1)
    taken(await client.send(early), "news of a refund before the news of its payment")
    taken(await client.send(late), "the news of the payment after it")
    failed = client.message("payment.failed", **known)
    taken(await client.send(failed), "an old failure of a payment that succeeded since")


# --- contents and answers -----------------------------------------------------------------------------------


def _unknown_fields(client: Client) -> Message:
    return client.message(loyalty={"points": [1, 2.5, None]}, refunds_left=3, fee=None)


async def _unknown_type(wire: Wire) -> None:
    client = Client(wire)
    taken(await client.send(client.message("payment.disputed", status="failed")), "an event of a new type")


async def _other_ends(wire: Wire) -> None:
    client = Client(wire)
    for kind in ("payment.failed", "payment.expired", "payment.cancelled", "refund.failed"):
        taken(await client.send(client.message(kind)), kind)


async def _no_json(wire: Wire) -> None:
    client = Client(wire)
    for body in (b"", b"{", b"null", b"[]", b'{"type":7}', b"\xff\xfe"):
        answer = await client.send(Message(body))
        expect(answer.status < 500, f"{body!r}, though signed: answered {answer.status}; that is a crash")


async def _quick(wire: Wire) -> None:
    client = Client(wire)
    answers = await asyncio.gather(*(client.send(client.message()) for _ in range(MANY)))
    for answer in answers:
        taken(answer, f"one of {MANY} messages at once")
    slowest = max(one.elapsed_ms for one in answers) / 1000
    limit = client.settings.within_s
    expect(slowest <= limit, f"{slowest:.1f} s to answer, more than {limit:g} s: do the work afterwards")


async def _small(wire: Wire) -> None:
    client = Client(wire)
    answer = await client.send(client.message())
    taken(answer, "a message")
    expect(
        len(answer.body) <= MAX_ANSWER, f"an answer of {len(answer.body)} bytes; the hub reads {MAX_ANSWER}"
    )


CHECKS: Final = (
    Check("signature.good", "a genuine callback is taken", DOCUMENT,
          _takes("a genuine callback", _plainly), SIGNATURES),
    Check("signature.absent", "without headers it is refused", STANDARD,
          _refuses("unsigned", _without("all")), SIGNATURES),
    Check("signature.no-signature", "without webhook-signature it is refused", STANDARD,
          _refuses("without webhook-signature", _without("webhook-signature")), SIGNATURES),
    Check("signature.no-id", "without webhook-id it is refused", STANDARD,
          _refuses("without webhook-id", _without("webhook-id")), SIGNATURES),
    Check("signature.no-time", "without webhook-timestamp it is refused", STANDARD,
          _refuses("without webhook-timestamp", _without("webhook-timestamp")), SIGNATURES),
    Check("signature.empty", "an empty signature is refused", STANDARD,
          _refuses("an empty signature", _nothing_signed), SIGNATURES),
    Check("signature.other-secret", "another secret's signature is refused", STANDARD,
          _refuses("signed with another secret", _other_key), SIGNATURES),
    Check("signature.other-scheme", "a scheme that is not v1 proves nothing", STANDARD,
          _refuses("signed by another scheme", _scheme), SIGNATURES),
    Check("signature.body", "an edited amount is refused", STANDARD,
          _refuses("an edited amount under a genuine signature", _edited), SIGNATURES),
    Check("signature.id", "another id is refused", STANDARD,
          _refuses("another id under a genuine signature", _renamed), SIGNATURES),
    Check("signature.time", "another time is refused", STANDARD,
          _refuses("another time under a genuine signature", _redated), SIGNATURES),
    Check("signature.old", "what was signed ten minutes ago is refused", STANDARD,
          _refuses("signed ten minutes ago", _shifted(-2 * SKEW_S)), SIGNATURES),
    Check("signature.future", "what will be signed in ten minutes is refused", STANDARD,
          _refuses("signed ten minutes ahead", _shifted(2 * SKEW_S)), SIGNATURES),
    Check("signature.skew", "clocks may differ by four minutes", STANDARD,
          _takes("signed four minutes ago", _shifted(60 - SKEW_S)), SIGNATURES),
    Check("signature.rotation", "one genuine signature among several is enough", STANDARD,
          _takes("several signatures, as while a secret is changed", _rotating), SIGNATURES),
    Check("signature.raw", "the raw bytes are verified, not JSON printed again", DOCUMENT,
          _takes("JSON in another layout", _plainly, _spread_out), SIGNATURES),
    Check("signature.forgery-first", "a forgery does not use up the id of a genuine message", DOCUMENT,
          _forgery_first, SIGNATURES),
    Check("repeat.same", "a repeated id is acknowledged and counts once", DOCUMENT, _repeated, REPEATS),
    Check("repeat.crowd", f"{MANY} times the same at once counts once", DOCUMENT, _crowd, REPEATS),
    Check("repeat.two", "two ids are two messages", DOCUMENT, _two_ids, REPEATS),
    Check("repeat.order", "late and early news is acknowledged", DOCUMENT, _out_of_order, REPEATS),
    Check("content.unknown-fields", "unknown fields are passed over", DOCUMENT,
          _takes("a callback with fields of a later version", _plainly, _unknown_fields), CONTENTS),
    Check("content.unknown-type", "unknown types are acknowledged", DOCUMENT, _unknown_type, CONTENTS),
    Check("content.ends", "every end of a payment is acknowledged", DOCUMENT, _other_ends, CONTENTS),
    Check("content.no-json", "what is no JSON is no crash", DOCUMENT, _no_json, CONTENTS),
    Check("answer.quick", "answers come in time, several at once too", DOCUMENT, _quick, ANSWERS),
    Check("answer.small", "answers are small", DOCUMENT, _small, ANSWERS),
)  # fmt: skip


def target(url: str, options: Mapping[str, Any]) -> Target:
    """Raises `ValueError`."""
    secret = str(options.get("secret") or "")
    try:
        text = secret.removeprefix("whsec_")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("secret: the merchant's webhook secret is needed, whsec_…")
    named = [str(one) for one in options.get("order") or ()]
    fresh = (f"CONFORM-{secrets.token_hex(6)}" for _ in itertools.count())
    amount, within = str(options.get("amount") or "150000"), str(options.get("within") or "20")
    if not re.fullmatch(r"[1-9]\d{0,14}", amount, re.ASCII):
        raise ValueError("amount: a whole number above 0")
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", within, re.ASCII) or not 0 < float(within) <= 60:
        raise ValueError("within: seconds, above 0 and up to 60")
    settings = Settings(
        key=key,
        orders=itertools.cycle(named) if named else fresh,
        amount=int(amount),
        currency=str(options.get("currency") or "IDR"),
        witness=options.get("witness") or None,
        within_s=float(within),
    )
    return Target(url, settings, frozenset({secret, secret.removeprefix("whsec_")}))


CONFORMANCE = Suite(
    name="callback",
    title="A merchant's callback endpoint",
    options=(
        Option("secret", "the webhook secret, whsec_…", required=True, secret=True),
        Option("order", "an order of a test shop to send news of; without it, made-up ones", many=True),
        Option("amount", "the amount of these orders", default="150000"),
        Option("currency", "their currency", default="IDR"),
        Option("within", "seconds in which it must answer; the hub waits 20", default="20"),
        Option(
            "witness",
            "a URL that answers how many callbacks were acted upon; without it, only answers are judged",
        ),
    ),
    checks=CHECKS,
    target=target,
)
