"""Midtrans through the hub: real sockets, the simulator as the provider, the clock in our hands."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from support.wallets import MIDTRANS_KEY, Shop, wallet_shop
from tillgate import qr
from tillgate.domain.errors import InvalidRequest, RefundNotAllowed

ISSUERS = {"gopay": "GoPay", "ovo": "OVO", "dana": "DANA", "shopeepay": "ShopeePay"}


@pytest.fixture
async def shop(sqlite_url: str) -> AsyncIterator[Shop]:
    async with wallet_shop(sqlite_url, ["midtrans"]) as opened:
        yield opened
        await opened.audited()


def glued(order_id: str, code: str, gross: str, key: str = MIDTRANS_KEY) -> str:
    """The published recipe: SHA512(order_id+status_code+gross_amount+ServerKey)."""
    return hashlib.sha512(f"{order_id}{code}{gross}{key}".encode()).hexdigest()


@pytest.mark.parametrize("channel", ISSUERS)
async def test_a_wallet_pays_a_qris_and_part_of_it_goes_back(shop: Shop, channel: str) -> None:
    opened = await shop.open(channel)
    assert opened.attempt is not None
    code = qr.decode(json.loads(opened.attempt.show or "{}")["qr_string"])
    assert code.money is not None
    assert (code.money.minor, code.money.currency) == (150_000_00, "IDR")
    [one] = shop.midtrans.desk.transactions.values()
    assert (one.amount, one.type, one.notify) == (150_000, "qris", [shop.midtrans.webhook_url])
    assert re.fullmatch(r"[A-Za-z0-9_~.-]{1,50}", one.order_id)
    assert opened.payment.order_id not in one.order_id
    assert not one.order_id[-1].isdigit()
    assert one.expires == shop.clock() / 1000 + 900

    await shop.midtrans.pay(one.id)
    assert (await shop.payment(opened)).status == "pending"  # a notification is a hint: nothing moved yet
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor, payment.paid_with) == ("paid", 150_000_00, ISSUERS[channel])
    assert payment.paid_at == shop.clock() // 1000 * 1000
    assert (await shop.attempt(opened)).external_id == one.id

    assert (await shop.refunded(await shop.refund(opened, 50_000))).phase == "succeeded"
    assert (await shop.payment(opened)).refunded_minor == 50_000_00
    books = await shop.books()
    assert books["merchant"] == 100_000_00 == -books[f"provider:{shop.accounts['midtrans'].id}"]


@pytest.mark.parametrize("fault", ["twice", "out_of_order", "forged", "edited", "late", "lost"])
async def test_money_moves_once_however_it_is_told(shop: Shop, fault: str) -> None:
    shop.midtrans.late_s = 0.05
    opened = await shop.open()
    [one] = shop.midtrans.desk.transactions.values()
    await shop.midtrans.act(one.id, "pay", fault)
    await shop.settle()
    if fault in ("late", "lost"):
        assert (await shop.payment(opened)).status == "pending"
        await shop.settle(s=61)  # nobody told us, so we ask
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor, payment.hold) == ("paid", 150_000_00, None)
    assert (401 in shop.midtrans.answers) == (fault == "forged")


async def test_a_genuine_cancel_edited_to_a_settlement_moves_nothing(shop: Shop) -> None:
    """Settlement, cancel and refund all have code 200, so one signature fits them all."""
    opened = await shop.open()
    [one] = shop.midtrans.desk.transactions.values()
    one.status = "cancel"
    genuine = shop.midtrans.signed(one)
    assert genuine["signature_key"] == glued(one.order_id, "200", "150000.00")
    for status in ("settlement", "capture", "refund"):
        edited = {**genuine, "transaction_status": status, "settlement_time": "2026-11-21 10:00:00"}
        assert await shop.post("midtrans", edited) == 200
        await shop.settle()
        payment = await shop.payment(opened)
        assert (payment.status, payment.paid_minor) == ("cancelled", 0)
    assert shop.midtrans.calls["status"] >= 1


async def test_fields_glued_elsewhere_move_nothing(shop: Shop) -> None:
    """`B200` + `201` + `75000.00` signs the same as `B` + `200` + `20175000.00`."""
    assert glued("B200", "201", "75000.00") == glued("B", "200", "20175000.00")
    opened = await shop.open(rupiah=75_000)
    [one] = shop.midtrans.desk.transactions.values()
    pending = shop.midtrans.signed(one)
    assert pending["status_code"] == "201"
    seamless = one.order_id + "201" + "75000.00"
    for cut, code in ((len(one.order_id), 3), (len(one.order_id) - 1, 3), (len(one.order_id), 2)):
        moved = {
            **pending,
            "order_id": seamless[:cut],
            "status_code": seamless[cut : cut + code],
            "gross_amount": seamless[cut + code :],
            "transaction_status": "settlement",
        }
        assert await shop.post("midtrans", moved) == 200  # the signature is right, and proves nothing
        await shop.settle()
        assert (await shop.payment(opened)).paid_minor == 0
    # An order of another shop with the same server key is not ours.
    foreign = {"order_id": "INV-1", "status_code": "200", "gross_amount": "75000.00"}
    assert await shop.post("midtrans", {**foreign, "signature_key": glued("INV-1", "200", "75000.00")}) == 200


async def test_wrong_signatures_are_refused(shop: Shop) -> None:
    await shop.open()
    [one] = shop.midtrans.desk.transactions.values()
    right = shop.midtrans.signed(one)
    wrong: list[dict[str, Any]] = [
        {**right, "signature_key": glued(one.order_id, "201", "150000.00", "another key")},
        {**right, "signature_key": right["signature_key"].upper()},
        {**right, "signature_key": right["signature_key"][:-1]},
        {**right, "signature_key": None},
        {**right, "signature_key": ""},
        {**right, "gross_amount": "150000.0"},
        {**right, "gross_amount": 150000},
        {**right, "order_id": ""},
        {name: value for name, value in right.items() if name != "signature_key"},
        {},
    ]
    for notice in wrong:
        assert await shop.post("midtrans", notice) == 401, notice
    for raw in (b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"order_id":'):
        assert await shop.post("midtrans", raw=raw) == 400
    assert await shop.post("midtrans", right) == 200


async def test_a_lost_answer_is_unsure_and_found_again_with_its_code(shop: Shop) -> None:
    shop.midtrans.fail("charge", "lost")
    opened = await shop.open()
    assert opened.payment.status == "unsure"
    await shop.settle(s=6)
    attempt = await shop.attempt(opened)
    [one] = shop.midtrans.desk.transactions.values()
    assert (attempt.phase, attempt.external_id) == ("pending", one.id)
    assert json.loads(attempt.show or "{}")["qr_string"] == one.qr  # by the charge's own key

    shop.midtrans.fail("charge", "never")
    never = await shop.open()
    assert never.payment.status == "unsure"
    await shop.settle(s=6)
    assert (await shop.payment(never)).status == "failed"
    assert len(shop.midtrans.desk.transactions) == 1

    shop.midtrans.fail("charge", "concurrent")
    busy = await shop.open()
    assert busy.payment.status == "unsure"


@pytest.mark.parametrize("fault", ["500", "html", "empty", "types", "huge"])
async def test_an_answer_that_is_none_is_unsure_and_looked_up(shop: Shop, fault: str) -> None:
    shop.midtrans.fail("charge", fault)
    opened = await shop.open()
    assert opened.payment.status == "unsure"
    shop.midtrans.fail("status", fault)
    await shop.settle(s=6)
    assert (await shop.payment(opened)).status == "unsure"  # the look was answered the same way
    for _ in range(3):
        await shop.settle(s=61)
    assert (await shop.payment(opened)).status == ("failed" if fault == "500" else "pending")


async def test_a_slow_answer_is_a_lost_one(sqlite_url: str) -> None:
    async with wallet_shop(sqlite_url, ["midtrans"], {"midtrans": {"timeout_s": 0.2}}) as shop:
        shop.midtrans.slow_s = 0.3
        shop.midtrans.fail("charge", "slow")
        opened = await shop.open()
        assert opened.payment.status == "unsure"
        await asyncio.sleep(0.2)  # it is being done there all the while
        await shop.settle(s=6)
        assert json.loads((await shop.attempt(opened)).show or "{}")["qr_string"]
        assert len(shop.midtrans.desk.transactions) == 1


async def test_the_notification_may_overtake_the_answer(shop: Shop) -> None:
    shop.midtrans.fail("charge", "webhook_first")
    opened = await shop.open()
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor) == ("paid", 150_000_00)


async def test_a_refusal_is_told_in_our_words_and_theirs(shop: Shop) -> None:
    shop.midtrans.desk.inactive.add("qris")
    opened = await shop.open()
    assert opened.payment.status == "failed"
    assert (await shop.attempt(opened)).reason == (
        "this payment type is not switched on for the account "
        "(Midtrans: 402: Merchant doesn't have access for this payment type)"
    )
    shop.midtrans.fail("charge", "refused")  # an error that comes with HTTP 200
    refused = await shop.open()
    assert refused.payment.status == "failed"
    for rupiah in (0, 20_000_001):
        with pytest.raises(InvalidRequest):
            await shop.open(rupiah=rupiah)


async def test_midtrans_is_away_for_an_hour(shop: Shop) -> None:
    paid, unpaid = await shop.open(), await shop.open()
    first, second = shop.midtrans.desk.transactions.values()
    await shop.midtrans.act(first.id, "pay", "lost")
    shop.midtrans.down = True
    for _ in range(12):
        await shop.settle(s=300)
    assert [(await shop.payment(one)).status for one in (paid, unpaid)] == ["pending", "pending"]
    shop.midtrans.down = False
    for _ in range(3):
        await shop.settle(s=1800)
    assert [(await shop.payment(one)).status for one in (paid, unpaid)] == ["paid", "expired"]
    assert second.status == "expire"


async def test_what_is_paid_after_our_expiry_is_late_money(shop: Shop) -> None:
    opened = await shop.open()
    [one] = shop.midtrans.desk.transactions.values()
    await shop.settle(s=901)
    assert (await shop.payment(opened)).status == "expired"
    await shop.midtrans.pay(one.id, late=True)
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.late, payment.paid_minor) == ("paid", True, 150_000_00)


async def test_one_rupiah_less_is_booked_and_held(shop: Shop) -> None:
    opened = await shop.open()
    [one] = shop.midtrans.desk.transactions.values()
    await shop.midtrans.act(one.id, "pay", "wrong_amount")
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.hold, payment.paid_minor) == ("review", "amount_mismatch", 149_999_00)


async def test_refunds_by_key_refused_denied_and_after_their_window(shop: Shop) -> None:
    opened = await shop.open("dana")
    [one] = shop.midtrans.desk.transactions.values()
    await shop.midtrans.pay(one.id)
    await shop.settle()
    shop.midtrans.fail("refund", "lost")  # it is done, and we do not hear of it
    assert (await shop.refunded(await shop.refund(opened, 40_000))).phase == "succeeded"
    shop.midtrans.fail("refund", "never")  # it is not done, and its own key repeats it
    assert (await shop.refunded(await shop.refund(opened, 40_000))).phase == "succeeded"
    assert [each.amount for each in one.refunds] == [40_000, 40_000]

    shop.midtrans.fail("refund", "denied")
    denied = await shop.refunded(await shop.refund(opened, 10_000))
    assert denied.failure == "the bank denied the refund (Midtrans: 202: Refund denied by the bank)"
    shop.midtrans.desk.refunds_allowed = False  # as for points of sale, by default
    refused = await shop.refunded(await shop.refund(opened, 10_000))
    assert "refunds by API are not allowed" in (refused.failure or "")
    shop.midtrans.desk.refunds_allowed = True
    with pytest.raises(RefundNotAllowed):
        await shop.refund(opened, 70_001)
    shop.clock.on(s=8 * 86_400)  # another wallet's code: seven days, as only Midtrans knows
    off_us = await shop.refunded(await shop.refund(opened, 10_000))
    assert "The refund window is over" in (off_us.failure or "")
    shop.clock.on(s=40 * 86_400)
    with pytest.raises(RefundNotAllowed, match="time for refunds"):
        await shop.refund(opened, 1)

    # A refund that somebody made at Midtrans' own page is booked when it is told.
    other = await shop.open()
    two = list(shop.midtrans.desk.transactions.values())[-1]
    await shop.midtrans.pay(two.id)
    await shop.settle()
    found, made = shop.midtrans.desk.refund(two.id, {"refund_key": "by-hand", "amount": 20_000})
    await shop.midtrans.refunding(found, made)
    await asyncio.sleep(0.1)
    await shop.settle()
    assert (await shop.payment(other)).refunded_minor == 20_000_00


async def test_rails_of_the_wallets_own(sqlite_url: str) -> None:
    rails = {"gopay": "wallet", "shopeepay": "wallet", "ovo": "wallet"}
    async with wallet_shop(sqlite_url, ["midtrans"], {"midtrans": {"rails": rails}}) as shop:
        for channel in ("gopay", "shopeepay"):
            opened = await shop.open(channel)
            assert json.loads((await shop.attempt(opened)).show or "{}")["type"] == "app"
        with pytest.raises(InvalidRequest, match="customer_phone"):
            await shop.open("ovo")

        async def ovo(phone: str) -> Any:
            return await shop.open("ovo", metadata=json.dumps({"customer_phone": phone}))

        paid = await ovo("0812 3456 7890")
        one = list(shop.midtrans.desk.transactions.values())[-1]
        assert (one.phone, one.expires - one.created) == ("+6281234567890", 65)
        await shop.midtrans.pay(one.id)
        await shop.settle()
        assert (await shop.payment(paid)).paid_with == "OVO"
        with pytest.raises(RefundNotAllowed, match="whole payments only"):
            await shop.refund(paid, 1_000)
        assert (await shop.refunded(await shop.refund(paid, 150_000))).phase == "succeeded"

        unknown = await ovo("+628249134000")  # the sandbox's number that is not registered
        assert (await shop.attempt(unknown)).reason == (
            "the payer is not known there (Midtrans: 404: The phone number is not registered)"
        )
        declined = await ovo("+628271939753")
        await shop.settle()
        assert (await shop.payment(declined)).status == "failed"
        silent = await ovo("+628242974268")  # nobody answers: over after 65 seconds
        await shop.settle(s=61)
        await shop.settle(s=20)
        assert (await shop.payment(silent)).status == "expired"

        # GoPay paid by scanning is renamed to QRIS: found by its order, whatever it is called.
        scanned = await shop.open("gopay")
        one = list(shop.midtrans.desk.transactions.values())[-1]
        await shop.midtrans.pay(one.id, "dana")
        assert shop.midtrans.signed(one)["payment_type"] == "qris"
        await shop.settle()
        assert (await shop.payment(scanned)).paid_with == "DANA"


async def test_a_person_plays_the_payer_by_scanning_the_code(shop: Shop) -> None:
    opened = await shop.open("dana")
    shown = json.loads((await shop.attempt(opened)).show or "{}")["qr_string"]
    async with shop.http.post(f"{shop.midtrans.base_url}/scan", data={"qr_string": shown}) as page:
        assert "Rp150,000" in await page.text()
        address = str(page.url)
    async with shop.http.get(f"{address}/qr-code") as picture:
        assert (await picture.read()).startswith(b"\x89PNG")
    async with shop.http.post(address, data={"action": "pay", "issuer": "bca", "fault": "none"}) as page:
        assert "settlement" in await page.text()
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_with) == ("paid", "bca")
    assert datetime.fromtimestamp((payment.paid_at or 0) / 1000, UTC).year == 2026
