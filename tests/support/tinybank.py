"""A provider small enough to see through: a bank that keeps charges and refunds, and connectors to it.

The bank stands outside the hub, as a real one does: what it did stays done when the hub forgets, and its
books are what a test compares the hub's with. `fail(call, how)` plays a fault at the next call of that kind.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tillgate.domain.dialogue import Hint, Record, Tell
from tillgate.domain.errors import Declined, Refusal, Unauthenticated, Unreachable, Unsure
from tillgate.domain.payment import (
    Accepted,
    Closed,
    Fact,
    Paid,
    RefundAccepted,
    Refunded,
    RefundFact,
    RefundFailed,
    RefundSucceeded,
)
from tillgate.spi import (
    Channel,
    Heard,
    Inbound,
    Order,
    Provider,
    RefundOrder,
    RefundRules,
    Reply,
    Send,
    Show,
    Started,
)

SECRET = "a secret that only the bank and its clients know"


@dataclass
class Charge:
    amount_minor: int
    currency: str
    state: str = "pending"  # pending | paid | failed | expired | cancelled
    paid_minor: int = 0
    refunded_minor: int = 0


@dataclass
class Bank:
    """`calls` counts what was asked of it, by kind."""

    charges: dict[str, Charge] = field(default_factory=dict)
    refunds: dict[str, tuple[str, int, str]] = field(default_factory=dict)  # id → charge, amount, state
    refunds_end: str = "succeeded"  # what a refund comes to at once: succeeded | failed | pending
    parallel_refunds: bool = True
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    go_on: asyncio.Event = field(default_factory=asyncio.Event)  # ends a `pause`

    def fail(self, call: str, *how: str) -> None:
        """Of `start`, `look`, `look_refund`, `cancel`, `refund`: `unreachable` (it never came), `never_got`
        (lost on the way there), `lost` (done, and the answer lost), `declined`, `broken` (our own fault),
        `hang` (never answered), `died` (done, and never answered), `pause` (answered as it stood, later)."""
        self.faults[call].extend(how)

    async def call(self, kind: str, deed: Callable[[], Any]) -> Any:
        self.calls[kind] += 1
        fault = self.faults[kind].popleft() if self.faults[kind] else None
        await asyncio.sleep(0)
        match fault:
            case "unreachable":
                raise Unreachable("no connection")
            case "never_got":
                raise Unsure("no answer")
            case "lost":
                deed()
                raise Unsure("the answer was lost")
            case "declined":
                raise Declined("the bank said no")
            case "broken":
                raise ValueError("a bug in the connector")
            case "hang":
                await asyncio.Event().wait()
            case "died":
                deed()
                await asyncio.Event().wait()
            case "pause":
                answer = deed()
                await self.go_on.wait()
                return answer
        return deed()

    # --- what is asked of it ---

    def open(self, order: Order) -> Charge:
        """The same operation id is the same charge."""
        made = Charge(order.amount.minor, order.amount.currency)
        return self.charges.setdefault(order.operation_id, made)

    def give_back(self, refund: RefundOrder) -> str:
        if refund.operation_id not in self.refunds:
            charge = refund.payment.operation_id
            if refund.amount.minor > self.left(charge):
                raise Declined("that is more than is left")
            self.refunds[refund.operation_id] = charge, refund.amount.minor, "pending"
            self.end_refund(refund.operation_id, self.refunds_end)
        return self.refunds[refund.operation_id][2]

    def left(self, operation_id: str) -> int:
        """What of a charge has neither gone back nor is on its way."""
        charge = self.charges[operation_id]
        waiting = sum(
            amount for of, amount, state in self.refunds.values() if (of, state) == (operation_id, "pending")
        )
        return charge.paid_minor - charge.refunded_minor - waiting

    def cancel(self, order: Order) -> Charge:
        charge = self.open(order)
        if charge.state == "pending":
            charge.state = "cancelled"
        return charge

    # --- what happens there ---

    def pay(self, operation_id: str, amount_minor: int | None = None) -> Charge:
        charge = self.charges[operation_id]
        charge.state = "paid"
        charge.paid_minor = charge.amount_minor if amount_minor is None else amount_minor
        return charge

    def end_refund(self, refund_id: str, state: str) -> None:
        charge_id, amount_minor, before = self.refunds[refund_id]
        if before == "pending":
            self.refunds[refund_id] = charge_id, amount_minor, state
            if state == "succeeded" and charge_id in self.charges:
                self.charges[charge_id].refunded_minor += amount_minor


def charge_facts(charge: Charge) -> tuple[Fact, ...]:
    match charge.state:
        case "paid":
            paid = Paid(charge.paid_minor, charge.currency, paid_with="card")
            return (paid, Refunded(charge.refunded_minor)) if charge.refunded_minor else (paid,)
        case "failed" | "expired" | "cancelled" as why:
            return (Closed(why, f"the bank says {why}"),)
        case _:
            return (Accepted(),)


def refund_fact(state: str) -> RefundFact:
    match state:
        case "succeeded":
            return RefundSucceeded()
        case "failed":
            return RefundFailed("the bank would not")
        case _:
            return RefundAccepted()


class _Connected:
    def __init__(self, bank: Bank) -> None:
        self.bank = bank


class _Looks(_Connected):
    async def look(self, order: Order, send: Send) -> Tell | None:
        charge = await self.bank.call("look", lambda: copy(self.bank.charges.get(order.operation_id)))
        return None if charge is None else Tell(charge_facts(charge), operation_id=order.operation_id)

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None:
        known = await self.bank.call("look_refund", lambda: self.bank.refunds.get(refund.operation_id))
        return None if known is None else Tell((refund_fact(known[2]),), operation_id=refund.operation_id)


class _Starts(_Connected):
    async def start(self, order: Order, send: Send) -> Started:
        await self.bank.call("start", lambda: self.bank.open(order))
        return Started(f"bank-{order.operation_id}", Show("qr", qr_string="tiny"))


class _Cancels(_Connected):
    async def cancel(self, order: Order, send: Send) -> Tell:
        charge = await self.bank.call("cancel", lambda: self.bank.cancel(order))
        return Tell(charge_facts(charge), operation_id=order.operation_id)


class _Refunds(_Connected):
    def refund_rules(self, channel: str) -> RefundRules:
        return RefundRules(parallel=self.bank.parallel_refunds)

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        state = await self.bank.call("refund", lambda: self.bank.give_back(refund))
        return Tell((refund_fact(state),), operation_id=refund.operation_id)


class _Hears(_Connected):
    def hear(self, call: Inbound) -> Heard:
        if call.headers.get("x-secret") != SECRET:
            raise Unauthenticated()
        said = json.loads(call.body)
        if said.get("hint"):
            return Heard(Hint(operation_id=said["operation_id"], event_id=said.get("event_id")))
        facts: tuple[Fact | RefundFact, ...] = (
            (refund_fact(said["refund"]),) if "refund" in said else charge_facts(Charge(**said["charge"]))
        )
        if said.get("only_last"):  # the earlier news is on another way
            facts = facts[-1:]
        return Heard(Tell(facts, operation_id=said["operation_id"], event_id=said.get("event_id")))

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        if isinstance(outcome, Refusal):
            return Reply(outcome.status, outcome.code.encode())
        return Reply(200, b"ok")


class Calling(_Starts, _Looks, _Cancels, _Refunds, _Hears):
    """Must be told of a charge before anyone can pay it."""


class Inviting(_Looks, _Cancels, _Refunds, _Hears):
    """Takes money for any operation id it is shown: the payer can be invited at once."""

    def invite(self, order: Order) -> Show | None:
        self.bank.open(order)  # as if the payer's wallet knew it
        return Show("qr", qr_string=f"tiny:{order.operation_id}")


class Blind(_Starts, _Refunds, _Hears):
    """Cannot be asked how anything stands."""


class Config(msgspec.Struct, frozen=True):
    secret: str = SECRET


def provider(name: str, connector: type[Any], bank: Bank) -> Provider[Config]:
    channel = Channel(f"{name}_qr", name.title(), "IDR")
    return Provider(name, name.title(), Config, (channel,), lambda _: connector(bank))


def providers(bank: Bank) -> dict[str, Provider[Any]]:
    """Channels `inviting_qr`, `calling_qr` and `blind_qr`."""
    kinds: dict[str, type[Any]] = {"inviting": Inviting, "calling": Calling, "blind": Blind}
    return {name: provider(name, kind, bank) for name, kind in kinds.items()}


def notice(
    operation_id: str, said: Charge | str, event_id: str | None = None, *, secret: str = SECRET, at: int = 0
) -> Inbound:
    """What the bank posts to the hub: how a charge stands, or a refund's state."""
    body: dict[str, Any] = {"operation_id": operation_id, "event_id": event_id}
    if isinstance(said, str):
        body["refund"] = said
    else:
        body["charge"] = vars(replace(said))
    return Inbound("POST", "/in/x", "", {"x-secret": secret}, json.dumps(body).encode(), "127.0.0.1", at)
