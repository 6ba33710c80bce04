"""Xendit through the hub: real sockets, the simulator as the provider, the clock in our hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.wallets import XENDIT_TOKEN, Shop, wallet_shop
from tillgate import qr
from tillgate.domain.errors import InvalidRequest, RefundNotAllowed, Unsure

ISSUERS = {"gopay": "GoPay", "ovo": "OVO", "dana": "DANA", "shopeepay": "ShopeePay"}


@pytest.fixture
async def shop(sqlite_url: str) -> AsyncIterator[Shop]:
    async with wallet_shop(sqlite_url, ["xendit"]) as opened:
        yield opened
        await opened.audited()


@pytest.mark.parametrize("channel", ISSUERS)
async def test_a_wallet_pays_a_qris_and_part_of_it_goes_back(shop: Shop, channel: str) -> None:
    opened = await shop.open(channel)
    assert opened.attempt is not None
    assert opened.attempt.phase == "pending"
    code = qr.decode(json.loads(opened.attempt.show or "{}")["qr_string"])
    assert code.money is not None
    assert (code.money.minor, code.money.currency) == (150_000_00, "IDR")
    [request] = shop.xendit.desk.requests.values()
    assert (request.reference_id, request.amount, request.channel) == (opened.attempt.id, 150_000, "QRIS")
    assert request.metadata == {"payment_id": opened.payment.id, "wallet_id": channel}

    await shop.xendit.pay(request.id)
    assert (await shop.payment(opened)).status == "pending"  # a webhook is a hint: nothing moved yet
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor, payment.paid_with) == ("paid", 150_000_00, ISSUERS[channel])
    assert (await shop.attempt(opened)).external_id == request.id

    with pytest.raises(InvalidRequest):
        await shop.till.hub.refund(shop.merchant, opened.payment.id, 100_50, "half a rupiah")
    assert (await shop.refunded(await shop.refund(opened, 50_000))).phase == "succeeded"
    [refund] = shop.xendit.desk.refunds.values()
    assert (refund.amount, refund.reason) == (50_000, "REQUESTED_BY_CUSTOMER")
    assert (await shop.payment(opened)).refunded_minor == 50_000_00
    books = await shop.books()
    assert books["merchant"] == 100_000_00 == -books[f"provider:{shop.accounts['xendit'].id}"]


@pytest.mark.parametrize("fault", ["twice", "out_of_order", "forged", "edited", "late", "lost"])
async def test_money_moves_once_however_it_is_told(shop: Shop, fault: str) -> None:
    shop.xendit.late_s = 0.05
    opened = await shop.open()
    [request] = shop.xendit.desk.requests.values()
    await shop.xendit.act(request.id, "pay", fault)
    await shop.settle()
    if fault in ("late", "lost"):
        assert (await shop.payment(opened)).status == "pending"
        await shop.settle(s=61)  # nobody told us, so we ask
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor, payment.hold) == ("paid", 150_000_00, None)
    assert shop.xendit.answers.count(401) == (1 if fault == "forged" else 0)


async def test_a_body_that_lies_under_the_right_token_moves_nothing(shop: Shop) -> None:
    """The token is static and the body unsigned: whoever has seen one webhook can write another."""
    opened = await shop.open()
    other = await shop.open(rupiah=10)
    assert opened.attempt is not None
    mine, cheap = shop.xendit.desk.requests.values()
    await shop.xendit.pay(cheap.id)
    cheap_payment = cheap.payments[0].id
    data = {
        "reference_id": mine.reference_id,
        "status": "SUCCEEDED",
        "request_amount": 150_000,
        "payment_request_id": mine.id,
        "payment_id": cheap_payment,  # another's money
    }
    lies: list[dict[str, Any]] = [
        {"event": "payment.capture", "data": data},
        {"event": "payment.capture", "data": {**data, "payment_request_id": cheap.id}},
        {"event": "payment.capture", "data": {**data, "payment_id": "../../v3/payments"}},
        {"event": "payment.capture", "data": {**data, "payment_request_id": "pr-" + "0" * 36}},
        {"event": "payment.failure", "data": {**data, "status": "FAILED"}},
        {"event": "payment_request.expiry", "data": {**data, "status": "EXPIRED"}},
        {"event": "payment.capture", "data": {"data": data}},
        {"event": "refund.succeeded", "data": {**data, "id": "rfd-1"}},
    ]
    for lie in lies:
        assert await shop.post("xendit", lie, x_callback_token=XENDIT_TOKEN) == 200
        await shop.settle()
        payment = await shop.payment(opened)
        assert (payment.status, payment.paid_minor, payment.refunded_minor) == ("pending", 0, 0), lie
    assert (await shop.payment(other)).paid_minor == 10_00

    for token in ("", "x", XENDIT_TOKEN[:-1], XENDIT_TOKEN + " x", XENDIT_TOKEN.upper()):
        assert (
            await shop.post("xendit", {"event": "payment.capture", "data": data}, x_callback_token=token)
            == 401
        )
    for raw, status in (
        (b"", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"event":1}', 200),
    ):
        assert await shop.post("xendit", raw=raw, x_callback_token=XENDIT_TOKEN) == status

    await shop.xendit.pay(mine.id)  # and the truth is still believed
    await shop.settle()
    assert (await shop.payment(opened)).status == "paid"


async def test_a_lost_answer_is_unsure_and_found_again_by_our_reference(shop: Shop) -> None:
    shop.xendit.fail("create", "lost")
    opened = await shop.open()
    assert opened.payment.status == "unsure"
    await shop.settle(s=6)
    attempt = await shop.attempt(opened)
    [request] = shop.xendit.desk.requests.values()
    assert (attempt.phase, attempt.external_id) == ("pending", request.id)
    assert json.loads(attempt.show or "{}")["qr_string"] == request.actions[0]["value"]

    shop.xendit.fail("create", "never")
    never = await shop.open()
    assert never.payment.status == "unsure"
    await shop.settle(s=6)
    payment = await shop.payment(never)
    assert (payment.status, len(shop.xendit.desk.requests)) == ("failed", 1)


@pytest.mark.parametrize("fault", ["500", "html", "empty", "types", "huge"])
async def test_an_answer_that_is_none_is_unsure_and_looked_up(shop: Shop, fault: str) -> None:
    shop.xendit.fail("create", fault)
    opened = await shop.open()
    assert opened.payment.status == "unsure"
    shop.xendit.fail("get", fault)
    shop.xendit.fail("find", fault)
    await shop.settle(s=6)
    assert (await shop.payment(opened)).status == "unsure"  # the look was answered the same way
    for _ in range(4):
        await shop.settle(s=61)
    taken = fault != "500"
    assert (await shop.payment(opened)).status == ("pending" if taken else "failed")


async def test_a_slow_answer_is_a_lost_one(sqlite_url: str) -> None:
    async with wallet_shop(sqlite_url, ["xendit"], {"xendit": {"timeout_s": 0.2}}) as shop:
        shop.xendit.slow_s = 0.3
        shop.xendit.fail("create", "slow")
        opened = await shop.open()
        assert opened.payment.status == "unsure"
        await asyncio.sleep(0.2)  # it is being done there all the while
        await shop.settle(s=6)
        assert (await shop.payment(opened)).status == "pending"
        assert len(shop.xendit.desk.requests) == 1


async def test_the_webhook_may_overtake_the_answer(shop: Shop) -> None:
    shop.xendit.fail("create", "webhook_first")
    opened = await shop.open()
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_minor) == ("paid", 150_000_00)


async def test_a_refusal_is_told_in_our_words_and_theirs(shop: Shop) -> None:
    shop.xendit.fail("create", "503")
    opened = await shop.open()
    attempt = await shop.attempt(opened)
    assert opened.payment.status == "failed"
    assert (
        attempt.reason
        == "the wallet cannot be reached now (Xendit: CHANNEL_UNAVAILABLE: the channel is away)"
    )
    shop.xendit.secret_key = "another"
    refused = await shop.open()
    assert "the secret key is wrong" in ((await shop.attempt(refused)).reason or "")
    shop.xendit.secret_key = "xnd_development_KeyOfATestThatOpensNothing"
    for rupiah in (0, 10_000_001):
        with pytest.raises(InvalidRequest):
            await shop.open(rupiah=rupiah)


async def test_xendit_is_away_for_an_hour(shop: Shop) -> None:
    """What was paid before it went away is found when it is back, though our clock had run out long ago."""
    paid, unpaid = await shop.open(), await shop.open()
    first, second = shop.xendit.desk.requests.values()
    await shop.xendit.act(first.id, "pay", "lost")
    shop.xendit.down = True
    lost = await shop.open()
    for _ in range(12):
        await shop.settle(s=300)
    assert (await shop.payment(paid)).status == "pending"
    assert (await shop.payment(unpaid)).status == "pending"  # it may have been paid: nobody can say
    shop.xendit.down = False
    for _ in range(3):
        await shop.settle(s=1800)
    assert (await shop.payment(paid)).status == "paid"
    assert (await shop.payment(unpaid)).status == "expired"
    assert second.status == "CANCELED"
    assert (await shop.payment(lost)).status in ("failed", "expired")


async def test_a_code_that_is_paid_after_our_expiry_is_late_money(shop: Shop) -> None:
    """A QRIS stays payable for 48 hours at Xendit, and its request stays as it was."""
    opened = await shop.open()
    [request] = shop.xendit.desk.requests.values()
    await shop.settle(s=901)
    assert (await shop.payment(opened)).status == "expired"
    assert request.status == "CANCELED"
    await shop.xendit.pay(request.id)
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.late, payment.paid_minor) == ("paid", True, 150_000_00)


@pytest.mark.parametrize(("fault", "minor"), [("pay_twice", 300_000_00), ("wrong_amount", 149_999_00)])
async def test_money_that_does_not_match_is_booked_and_held(shop: Shop, fault: str, minor: int) -> None:
    opened = await shop.open()
    [request] = shop.xendit.desk.requests.values()
    await shop.xendit.act(request.id, "pay", fault)
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.hold, payment.paid_minor) == ("review", "amount_mismatch", minor)
    assert (await shop.books())["held"] == minor


async def test_refunds_run_one_at_a_time_and_may_be_refused(shop: Shop) -> None:
    opened = await shop.open()
    [request] = shop.xendit.desk.requests.values()
    await shop.xendit.pay(request.id)
    await shop.settle()
    first, second = await shop.refund(opened, 40_000), await shop.refund(opened, 40_000)
    assert (await shop.refunded(first)).phase == "succeeded"
    assert (await shop.refunded(second)).phase == "succeeded"
    assert sorted(one.amount for one in shop.xendit.desk.refunds.values()) == [40_000, 40_000]

    shop.xendit.fail("refund", "lost")  # it is done, and we do not hear of it
    third = await shop.refund(opened, 10_000)
    assert (await shop.refunded(third)).phase == "succeeded"
    assert len(shop.xendit.desk.refunds) == 3

    shop.xendit.fail("refund", "refused")
    fourth = await shop.refunded(await shop.refund(opened, 10_000))
    assert fourth.phase == "failed"
    assert fourth.failure == (
        "the balance does not suffice (Xendit: INSUFFICIENT_BALANCE: the balance does not suffice)"
    )
    shop.xendit.refund_failure = "ACCOUNT_NOT_FOUND"  # taken, and failed later
    fifth = await shop.refunded(await shop.refund(opened, 10_000))
    assert (fifth.phase, fifth.failure) == ("failed", "Xendit said no (Xendit: ACCOUNT_NOT_FOUND)")
    with pytest.raises(RefundNotAllowed):
        await shop.refund(opened, 60_001)
    shop.clock.on(s=7 * 86_400)
    with pytest.raises(RefundNotAllowed, match="time for refunds"):
        await shop.refund(opened, 1)


async def test_rails_of_the_wallets_own(sqlite_url: str) -> None:
    rails = {"dana": "wallet", "ovo": "wallet", "gopay": "wallet"}
    async with wallet_shop(sqlite_url, ["xendit"], {"xendit": {"rails": rails}}) as shop:
        dana = await shop.open("dana")
        assert json.loads((await shop.attempt(dana)).show or "{}")["type"] == "redirect"
        with pytest.raises(InvalidRequest, match="customer_phone"):
            await shop.open("ovo")
        for phone in ("0812 3456 7890", "62812-34567890", "+6281234567890"):
            ovo = await shop.open("ovo", metadata=json.dumps({"customer_phone": phone}))
            assert json.loads((await shop.attempt(ovo)).show or "{}")["type"] == "wait"
            request = list(shop.xendit.desk.requests.values())[-1]
            assert request.properties == {"mobile_number": "+6281234567890"}
        await shop.xendit.pay(request.id)
        await shop.settle()
        assert (await shop.payment(ovo)).paid_with == "OVO"
        with pytest.raises(RefundNotAllowed):
            await shop.refund(ovo, 150_000)  # a push cannot be refunded at all
        shop.xendit.fail("create", "never")
        unsure = await shop.open("ovo", metadata=json.dumps({"customer_phone": "081234567890"}))
        await shop.settle(s=6)
        assert (await shop.payment(unsure)).status == "unsure"  # a phone may have rung: nobody may guess
        await shop.settle(s=901)
        assert (await shop.payment(unsure)).status == "unsure"  # not by our clock either
        resolved = await shop.till.hub.resolve(shop.merchant, unsure.payment.id, "failed", "nobody paid")
        assert resolved.status == "failed"
        gopay = await shop.open("gopay", 20_000_000)
        request = list(shop.xendit.desk.requests.values())[-1]
        await shop.xendit.act(request.id, "fail")
        await shop.settle()
        assert (await shop.attempt(gopay)).reason == "the payer declined (Xendit: USER_DECLINED_PAYMENT)"


async def test_a_person_plays_the_payer_by_scanning_the_code(shop: Shop) -> None:
    opened = await shop.open("dana")
    shown = json.loads((await shop.attempt(opened)).show or "{}")["qr_string"]
    url = f"{shop.xendit.base_url}/scan"
    async with shop.http.post(url, data={"qr_string": shown}) as page:
        text = await page.text()
        address = str(page.url)
    assert "Rp150,000" in text
    assert "data:image/svg" in text
    async with shop.http.post(address, data={"action": "pay", "issuer": "BCA", "fault": "none"}) as page:
        assert "150,000 paid" in await page.text()
    await shop.settle()
    payment = await shop.payment(opened)
    assert (payment.status, payment.paid_with) == ("paid", "BCA")
    refund = await shop.refunded(await shop.refund(opened, 1_000))  # most banks cannot give it back
    assert (refund.failure or "").startswith("this payment cannot be refunded (Xendit: REFUND_NOT_SUPPORTED")


async def test_a_statement_is_compared_with_the_books(shop: Shop) -> None:
    opened = []
    for _ in range(60):  # more than a page
        opened.append(await shop.open())
        await shop.xendit.pay(list(shop.xendit.desk.requests)[-1])
        shop.clock.on(ms=1_000)
    await shop.settle()
    assert (await shop.refunded(await shop.refund(opened[0], 50_000))).phase == "succeeded"
    desk, reconciling = shop.xendit.desk, shop.till.hub.reconciling
    account, begun = shop.accounts["xendit"], 1_790_000_000_000

    async def compared() -> dict[str, Any]:
        end = shop.clock() + 1
        lines = await reconciling.pull(shop.merchant, account, begun, end)
        made = await reconciling.compare(
            shop.merchant, account, lines, source="api", from_ms=begun, to_ms=end
        )
        return made.summary

    lines = await reconciling.pull(shop.merchant, account, begun, shop.clock() + 1)
    assert [one.kind for one in lines].count("payment") == 60
    assert [one.kind for one in lines].count("refund") == 1
    assert {one.fee_minor for one in lines if one.kind == "payment"} == {1_050_00}
    assert {one.settled_on for one in lines if one.kind == "payment"} == {"2026-09-22"}

    payments = [one.payments[0].id for one in desk.requests.values()]
    stranger = {**desk.transactions()[0], "id": "txn_x", "product_id": "py-x", "reference_id": "nobody's"}
    desk.altered = {payments[1]: None, payments[2]: {"amount": 149_999}}
    desk.unknown = [stranger]
    findings = (await compared())["findings"]
    assert sorted(findings.values()) == [1, 1, 1]  # not listed, another amount, not ours
    desk.altered, desk.unknown = {}, []
    assert (await compared())["findings"] == {}

    shop.xendit.fail("transactions", "types")
    with pytest.raises(Unsure):
        await reconciling.pull(shop.merchant, account, begun, shop.clock())
