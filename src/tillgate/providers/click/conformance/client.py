"""What the checks speak to an endpoint with. Written from Click's manual, not from our connector."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from tillgate.conform import Answer, Failed, Orders, Payable, Wire, expect

PREPARE: Final = "0"
COMPLETE: Final = "1"
REFUSED: Final = tuple(range(-9, 0))
NOT_READ: Final = (-8, -1)
DEBIT_FAILED: Final = "-5017"

# Click never uses a number twice, and the endpoint's database outlives this run.
_numbers = itertools.count(secrets.randbelow(10**12) + 2 * 10**12)


@dataclass(slots=True)
class Settings:
    """The endpoint under test, as its owner describes it."""

    service_id: str
    key: str = field(repr=False)
    orders: Orders
    missing: str  # an order that nobody has
    one_time: bool = True
    complete_url: str | None = None
    walk: dict[str, Any] = field(default_factory=dict)  # how far the matrix has been played
    idle: Payable | None = None  # an order that is only ever refused


@dataclass(slots=True)
class Transaction:
    """One attempt at Click: its numbers, its order, and what Prepare answered."""

    order: str
    amount: str
    trans_id: int
    paydoc_id: int
    prepare_id: Any = None


class Client:
    """Click's side of the wire for one check."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.settings: Settings = wire.target.settings

    async def begin(self, order: Payable | None = None) -> Transaction:
        """A transaction for a fresh order, nothing sent yet."""
        found = order or await self.settings.orders()
        number = next(_numbers)
        return Transaction(found.reference, som(found.amount_minor), number, number + 10**13)

    async def idle(self) -> Transaction:
        """A transaction for an order that no check reserves: for requests that must all be refused."""
        if self.settings.idle is None:
            self.settings.idle = await self.settings.orders()
        return await self.begin(self.settings.idle)

    # --- sending --------------------------------------------------------------------------------------------

    def fields(self, transaction: Transaction, action: str, **over: str) -> dict[str, str]:
        found = {
            "click_trans_id": str(transaction.trans_id),
            "service_id": self.settings.service_id,
            "click_paydoc_id": str(transaction.paydoc_id),
            "merchant_trans_id": transaction.order,
            "amount": transaction.amount,
            "action": action,
            "error": "0",
            "error_note": "Success",
            "sign_time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 5 * 3600)),
        }
        if action == COMPLETE:
            prepared = transaction.prepare_id
            found["merchant_prepare_id"] = "" if prepared is None else str(prepared)
        return found | over

    def signed(self, fields: Mapping[str, str], key: str | None = None) -> dict[str, str]:
        """SHOP API, requests: MD5 over the values as they are sent."""
        prepared = fields.get("merchant_prepare_id", "") if fields["action"] == COMPLETE else ""
        text = (
            fields["click_trans_id"]
            + fields["service_id"]
            + (self.settings.key if key is None else key)
            + fields["merchant_trans_id"]
            + prepared
            + fields["amount"]
            + fields["action"]
            + fields["sign_time"]
        )
        sign = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        return {**fields, "sign_string": sign}

    async def raw(self, body: bytes, *, complete: bool = False, method: str = "POST") -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        url = self.settings.complete_url if complete else None
        return await self.wire.send(body, headers=headers, method=method, url=url)

    async def ask(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Send a signed form; its answer, of which status, shape and `error` were checked."""
        body = urlencode(fields).encode()
        return read(await self.raw(body, complete=fields.get("action") == COMPLETE))

    async def prepare(self, transaction: Transaction, **over: str) -> dict[str, Any]:
        """A Prepare that must succeed."""
        answer = await self.ask(self.signed(self.fields(transaction, PREPARE, **over)))
        must(answer, (0,), "Prepare of an unpaid order")
        transaction.prepare_id = answer.get("merchant_prepare_id")
        given = transaction.prepare_id
        expect(type(given) is int, f"merchant_prepare_id is {given!r}, not an int")
        return answer

    async def complete(
        self, transaction: Transaction, codes: tuple[int, ...], why: str, **over: str
    ) -> dict[str, Any]:
        answer = await self.ask(self.signed(self.fields(transaction, COMPLETE, **over)))
        must(answer, codes, why)
        return answer

    async def pay(self, transaction: Transaction) -> dict[str, Any]:
        await self.prepare(transaction)
        return await self.complete(transaction, (0,), "Complete of a debited payment")

    async def release(self, transaction: Transaction) -> None:
        """Give the order up, so that it stays of use to the endpoint's owner."""
        await self.complete(transaction, (-9,), "a negative error cancels", error=DEBIT_FAILED)

    async def at_once(self, fields: Mapping[str, str], count: int) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(self.ask(fields) for _ in range(count))))


def read(answer: Answer) -> dict[str, Any]:
    """What Click reads: HTTP 200 and a JSON object with an integer `error` and a text `error_note`."""
    expect(answer.status == 200, f"HTTP {answer.status}: Click reads the code in the body of a 200")
    try:
        found = json.loads(answer.body)
    except ValueError:
        raise Failed("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise Failed("the answer is not a JSON object")
    expect(type(found.get("error")) is int, f"error is {found.get('error')!r}, not an integer")
    expect(isinstance(found.get("error_note"), str), "error_note is missing")
    return found


def must(answer: Mapping[str, Any], codes: tuple[int, ...], why: str = "") -> None:
    wanted = " or ".join(map(str, codes)) if len(codes) < 5 else "a negative code"
    hint = " (is it the service's key that was given?)" if codes == (0,) and answer["error"] == -1 else ""
    told = f"{why}: " if why else ""
    expect(answer["error"] in codes, f"{told}answered {answer['error']}, not {wanted}{hint}")


def som(tiyin: int) -> str:
    return f"{tiyin // 100}.{tiyin % 100:02}"
