"""Every type of event that `/openapi.json` promises to webhook endpoints: made to happen, delivered in the
described shape; nothing is delivered that is not described."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs

from support.till import Clock, Till, open_till
from support.tinybank import Bank, Charge, notice, providers
from tillgate.domain.dialogue import Hint, Tell
from tillgate.domain.payment import (
    Fact,
    Paid,
    RefundAccepted,
    RefundFact,
    RefundFailed,
    RefundSucceeded,
    Reversed,
)
from tillgate.http import openapi
from tillgate.hub.endpoints import EVENT_KINDS, Wanted
from tillgate.hub.handing import announce
from tillgate.hub.listening import Hints
from tillgate.hub.standing import StandingIntent
from tillgate.registry import providers as registered
from tillgate.spi import Inbound, Reply
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Account, Merchant

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
EAR, OTHER = "https://ear.example/hook", "https://other.example/hook"
PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}

PROMISED = [
    "payment.pending", "payment.paid", "payment.failed", "payment.expired", "payment.cancelled",
    "payment.unsure", "payment.review", "payment.reversed", "payment.updated", "payment.resolved",
    "payment.noted", "payment.discrepancy", "refund.created", "refund.pending", "refund.unsure",
    "refund.succeeded", "refund.failed", "refund.updated", "standing_order.created",
    "standing_order.closed", "endpoint.disabled", "endpoint.enabled", "endpoint.test",
    "inbound.unmatched", "inbound.conflict", "inbound.dead",
]  # fmt: skip


def shown(_: Any) -> bytes:
    return b"{}"


@dataclass(frozen=True)
class Announces:
    """What a host's function is given twice in other words, or never takes; its own tests need a POS."""

    merchant: Merchant
    account: Account
    merchant_id: str

    def needs(self) -> Needs:
        return Needs()

    def decide(self, plan: Plan) -> None:
        announce(plan, self.merchant, "inbound.conflict", "in_1", self.account, {"first": "in_0"})
        announce(plan, self.merchant, "inbound.dead", "in_1", self.account, {"error": "it fell", "tries": 15})


@dataclass
class Stage:
    till: Till
    shop: Merchant
    account: Account

    async def payment(self, order_id: str, *facts: Fact, channel: str = "inviting_qr") -> str:
        """A payment to which all this happened, one after another; its attempt's id."""
        opened = await self.till.open(self.shop, order_id, channel=channel)
        assert opened.attempt is not None
        for fact in facts:
            await self.tell(opened.attempt.id, fact)
        return opened.attempt.id

    async def tell(self, operation_id: str, *facts: Fact | RefundFact, details: str | None = None) -> None:
        tell = Tell(facts, operation_id=operation_id, details=details)
        await self.till.hub.told(self.shop, self.account, tell)

    async def refund(self, order_id: str, *facts: RefundFact) -> None:
        """Of a payment of its own; its worker's question is what the bank was told to do."""
        paid = await self.till.paid(self.shop, order_id)
        made = await self.till.hub.refund(self.shop, paid.payment.id, 100, "x")
        await self.till.worker.drain()
        for fact in facts:
            await self.tell(made.refund.id, fact)


async def payments(stage: Stage, bank: Bank) -> None:
    till, shop = stage.till, stage.shop
    await stage.payment("reversed", Paid(10_000, "IDR"), Reversed(4_000))
    await stage.payment("with a fee", Paid(10_000, "IDR"), Paid(10_000, "IDR", fee_minor=70))
    await stage.payment("short", Paid(9_000, "IDR"))
    for how in ("failed", "expired", "cancelled"):
        charge = Charge(10_000, "IDR", how)
        await till.told(shop, await stage.payment(how), charge)
    attempt = await stage.payment("contradicted", Paid(10_000, "IDR"))
    await till.told(shop, attempt, Charge(10_000, "IDR", "cancelled"))
    attempt = await stage.payment("noted")
    await stage.tell(attempt, details='{"receipt": 7}')
    hint = Hint(operation_id=attempt, clues=("theirs-1",))
    call = Inbound("POST", "/in/x", "", {}, b"{}", "127.0.0.1", till.clock())
    await till.journal.submit(Hints(shop, stage.account, hint, call, Reply(200, b"")))
    bank.fail("start", "lost")
    unsure = await till.open(shop, "unsure", channel="calling_qr")
    await till.hub.resolve(shop, unsure.payment.id, "paid", "on the statement")
    stray = notice("att_" + "0" * 32, Charge(10_000, "IDR", "paid", 10_000), "bank-1")
    await till.hub.receive(shop, stage.account, stray)


async def refunds(stage: Stage, bank: Bank) -> None:
    await stage.refund("good")
    bank.refunds_end = "failed"
    await stage.refund("bad")
    bank.refunds_end = "pending"
    await stage.refund("slow", RefundAccepted("theirs"), RefundSucceeded(), RefundFailed("after all not"))
    bank.fail("refund", "lost")
    await stage.refund("lost")


async def the_rest(stage: Stage, ear: str) -> None:
    till, hub, shop = stage.till, stage.till.hub, stage.shop
    standing = await hub.standing.open(shop, StandingIntent("MEMBER-7", "UZS", "payme"), None, shown)
    await hub.standing.close(shop, standing.standing.id, None, shown)
    await hub.endpoints.test(shop, ear, None, shown)
    other = await hub.endpoints.create(shop, Wanted(OTHER, ("payment.paid",)), None, shown)
    for on in (False, True):
        now = await till.directory.merchant(shop.id)
        await hub.endpoints.switch(now, other.endpoint.id, on, None, shown)
    await till.journal.submit(Announces(shop, stage.account, shop.id))


async def test_all_that_is_promised_is_delivered_as_described(sqlite_url: str) -> None:
    bank = Bank()
    known = {**providers(bank), "payme": registered()["payme"]}
    async with open_till(sqlite_url, bank=bank, clock=Clock(), known=known) as till:
        made = await till.directory.create_merchant("shop", till.clock())
        for name in known:
            config = PAYME if name == "payme" else {}
            await till.directory.create_account(made.merchant_id, name, name, config, till.clock())
        shop = await till.directory.merchant(made.merchant_id)
        ear = await till.hub.endpoints.create(shop, Wanted(EAR, ()), None, shown)
        shop = await till.directory.merchant(shop.id)
        stage = Stage(till, shop, next(one for one in shop.accounts if one.provider == "inviting"))
        await payments(stage, bank)
        await refunds(stage, bank)
        await the_rest(stage, ear.endpoint.id)
        await till.worker.drain()
        heard = [json.loads(body) for url, _, body in till.sink.got if url == EAR]
        happened = await till.kit.reads.events(shop.id, 0, 500)

    described = openapi.document([], version="0", url="https://till.example", events=EVENT_KINDS)
    assert sorted(set(described["webhooks"]) - {"callback"}) == sorted(PROMISED)
    page = PAGE.read_text(encoding="utf-8").partition("| type | when |")[2].partition("\n\n")[0]
    told = " ".join(line.split("|")[1] for line in page.splitlines()[2:])
    assert sorted(re.findall(r"`([a-z_.]+)`", told)) == sorted(PROMISED)
    for event in heard:
        content = described["webhooks"][event["type"]]["post"]["requestBody"]["content"]
        schema = {**content["application/json"]["schema"], "components": described["components"]}
        jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(event)
    assert set(PROMISED) - {event["type"] for event in heard} == set()
    # An endpoint that wants everything misses nothing: its events have numbers without a gap.
    assert [event["number"] for event in sorted(heard, key=lambda one: int(one["number"]))] == list(
        range(1, len(happened) + 1)
    )
