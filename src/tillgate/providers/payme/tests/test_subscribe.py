"""The Subscribe API client over real HTTP against the simulator's endpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tillgate.domain.errors import Declined, Unreachable, Unsure
from tillgate.providers.payme.simulator import Cards, PaymeSimulator, create_app
from tillgate.providers.payme.subscribe import (
    CANCELLED,
    HELD,
    PAID,
    FiscalData,
    Payer,
    PaymeDeclined,
    Subscribe,
)
from tillgate.providers.payme.tests.payme_kit import MERCHANT, serve
from tillgate.spi import HttpCall, HttpReply, Send

KEY = "the-key-of-the-subscribe-api"
CARD, NO_SMS, EXPIRED, POOR = (
    "8600 0691 9540 6311",
    "8600000000000001",
    "8600000000000002",
    "8600000000000004",
)


def sender(session: aiohttp.ClientSession, calls: list[HttpCall]) -> Send:
    async def send(call: HttpCall) -> HttpReply:
        calls.append(call)
        async with session.request(call.method, call.url, data=call.body, headers=call.headers) as reply:
            return HttpReply(reply.status, {}, await reply.read())

    return send


class Api:
    def __init__(self, client: Subscribe, calls: list[HttpCall]) -> None:
        self.client, self.calls = client, calls

    def auth(self, method: str) -> str:
        found = [call for call in self.calls if json.loads(call.body)["method"] == method]
        return found[-1].headers["X-Auth"]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    simulator = PaymeSimulator.of("http://127.0.0.1:9/", "unused")
    calls: list[HttpCall] = []
    async with (
        serve(create_app(simulator, Cards(MERCHANT, KEY))) as base,
        aiohttp.ClientSession() as session,
    ):
        yield Api(Subscribe(MERCHANT, KEY, sender(session, calls), url=f"{base}/api"), calls)


async def verified(api: Api, number: str = CARD) -> str:
    card = await api.client.cards.create(number, "03/99", save=True)
    await api.client.cards.get_verify_code(card.token)
    return (await api.client.cards.verify(card.token, "666666")).token


async def test_a_card_is_made_verified_used_and_removed(api: Api) -> None:
    cards, receipts = api.client.cards, api.client.receipts
    card = await cards.create(CARD, "0399", save=True)
    assert (card.number, card.expire, card.verify, card.recurrent) == (
        "860006******6311",
        "03/99",
        False,
        True,
    )
    sent = await cards.get_verify_code(card.token)
    assert (sent.sent, sent.wait) == (True, 60_000)
    known = await cards.verify(card.token, "666666")
    assert known.verify
    assert known.token != card.token
    assert (await cards.check(known.token)).verify

    receipt = await receipts.create(500_000, {"order_id": "1"}, description="Tea")
    assert (receipt.state, receipt.amount) == (0, 500_000)
    paid = await receipts.pay(receipt.id, known.token, payer=Payer(phone="998901234567"))
    assert paid.state == PAID
    assert await receipts.check(receipt.id) == PAID
    assert (await receipts.get(receipt.id)).pay_time > 0
    assert await receipts.send(receipt.id, "+998 90 123-45-67")
    assert await receipts.set_fiscal_data(receipt.id, FiscalData(receipt_id=1, qr_code_url="https://ofd"))
    assert (await receipts.cancel(receipt.id)).state == 21
    assert await receipts.check(receipt.id) == CANCELLED
    found = await receipts.get_all(0, 10**14, count=50)
    assert [row.id for row in found] == [receipt.id]

    assert await cards.remove(known.token)
    with pytest.raises(PaymeDeclined) as gone:
        await cards.check(known.token)
    assert (gone.value.rpc_code, gone.value.why) == (-31400, "card_not_found")


async def test_money_is_held_and_then_taken(api: Api) -> None:
    token = await verified(api)
    receipt = await api.client.receipts.create(500_000, {"order_id": "1"}, hold=True)
    assert (await api.client.receipts.pay(receipt.id, token, hold=True)).state == HELD
    assert (await api.client.receipts.confirm_hold(receipt.id)).state == PAID


async def test_the_key_travels_only_where_it_must(api: Api) -> None:
    token = await verified(api)
    await api.client.cards.check(token)
    for method in ("cards.create", "cards.get_verify_code", "cards.verify"):
        assert api.auth(method) == MERCHANT
    assert api.auth("cards.check") == f"{MERCHANT}:{KEY}"


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (EXPIRED, -31300, "bad_card"),
        ("8600000000000005", -31002, "processing_unavailable"),
        ("1", -31300, "bad_card"),
    ],
)
async def test_a_bad_card_is_declined_with_a_reason(api: Api, number: str, code: int, why: str) -> None:
    with pytest.raises(PaymeDeclined) as declined:
        await api.client.cards.create(number, "0399")
    assert (declined.value.rpc_code, declined.value.why) == (code, why)
    assert isinstance(declined.value, Declined)


async def test_wrong_codes_and_empty_cards_are_declined(api: Api) -> None:
    card = await api.client.cards.create(CARD, "0399")
    with pytest.raises(PaymeDeclined) as early:
        await api.client.cards.verify(card.token, "666666")
    assert early.value.why == "code_expired"
    await api.client.cards.get_verify_code(card.token)
    reasons = []
    for _ in range(4):
        with pytest.raises(PaymeDeclined) as wrong:
            await api.client.cards.verify(card.token, "000000")
        reasons.append(wrong.value.why)
    assert reasons == ["wrong_code"] * 3 + ["too_many_codes"]
    with pytest.raises(PaymeDeclined) as silent:
        await api.client.cards.get_verify_code((await api.client.cards.create(NO_SMS, "0399")).token)
    assert silent.value.why == "sms_off"
    receipt = await api.client.receipts.create(1, {"order_id": "1"})
    poor = await verified(api, POOR)
    with pytest.raises(PaymeDeclined) as empty:
        await api.client.receipts.pay(receipt.id, poor)
    assert empty.value.why == "no_funds"


async def test_no_card_no_token_and_no_key_is_logged_or_shown(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = await verified(api)
    card = await api.client.cards.check(token)
    with pytest.raises(PaymeDeclined) as declined:
        await api.client.receipts.pay("unknown", token)
    for shown in (repr(card), str(card), repr(api.client), str(declined.value), caplog.text):
        for secret in (token, KEY, "8600069195406311"):
            assert secret not in shown


def answering(status: int, body: bytes) -> Send:
    async def send(call: HttpCall) -> HttpReply:
        return HttpReply(status, {}, body)

    return send


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, b"<html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"[" * 100_000),
        (200, b'{"result":{"state":4},"id":-1}'),
        (200, b"{}"),
        (200, b'{"error":{"code":-32400,"message":"system"}}'),
        (200, b'{"error":{"code":"x"}}'),
        (200, b'{"result":{"receipt":{"_id":5,"state":"?"}}}'),
        (200, b'{"result":{"receipt":null}}'),
        (200, b'{"result":[]}'),
    ],
)
async def test_an_answer_that_tells_nothing_leaves_us_unsure(status: int, body: bytes) -> None:
    client = Subscribe(MERCHANT, KEY, answering(status, body))
    with pytest.raises(Unsure):
        await client.receipts.pay("5" * 24, "token")


@pytest.mark.parametrize("result", ['{"receipts":[]}', "true", '"x"', '[{"_id":5}]', "[5]"])
async def test_a_page_of_receipts_that_is_no_list_is_not_an_empty_one(result: str) -> None:
    client = Subscribe(MERCHANT, KEY, answering(200, f'{{"result":{result}}}'.encode()))
    with pytest.raises(Unsure):
        await client.receipts.get_all(0, 1)


async def test_what_never_left_is_told_apart() -> None:
    async def send(call: HttpCall) -> HttpReply:
        raise Unreachable

    with pytest.raises(Unreachable):
        await Subscribe(MERCHANT, KEY, send).receipts.check("5" * 24)


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, "1"])
async def test_a_receipt_for_nonsense_is_not_sent(api: Api, amount: Any) -> None:
    with pytest.raises(ValueError, match="tiyin"):
        await api.client.receipts.create(amount, {"order_id": "1"})
    assert api.calls == []


async def test_localised_messages_are_read() -> None:
    body = b'{"error":{"code":-31630,"message":{"ru":"\xd0\xbd\xd0\xb5\xd1\x82","en":"no money"}}}'
    with pytest.raises(PaymeDeclined, match="no money"):
        await Subscribe(MERCHANT, KEY, answering(200, body)).receipts.get("5" * 24)
