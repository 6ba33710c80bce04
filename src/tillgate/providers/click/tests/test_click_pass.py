"""Click Pass at a till: a payment that was made is never without its number, whatever happens after it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tillgate.domain.errors import Declined, Unreachable, Unsure
from tillgate.domain.money import Money
from tillgate.providers.click import PROVIDER
from tillgate.providers.click.merchant_api import MerchantApi, PaymentDeclined, PaymentUnsure
from tillgate.spi import HttpCall, HttpReply

PRICE = Money(500_050, "UZS")
OK = {"error_code": 0, "error_note": "Success"}


class Script:
    """Keeps calls and answers them from a list, also with what `Send` may raise."""

    def __init__(self, *replies: Any) -> None:
        self.calls: list[HttpCall] = []
        self.replies = list(replies)

    async def __call__(self, call: HttpCall) -> HttpReply:
        self.calls.append(call)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        status, body = reply
        return HttpReply(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def api(config: dict[str, Any], send: Any) -> MerchantApi:
    return MerchantApi(PROVIDER.config(**config), send)


async def test_click_pass_at_a_till(desk: SimpleNamespace) -> None:
    made = await desk.api.charge_pass("1234567415821", PRICE, cashbox="KASSA-1", reference="R-1")
    assert (made.payment_status, made.processing_type) == (2, "UZCARD")
    await desk.api.set_pass_confirmation(on=True)
    made = await desk.api.charge_pass("1234567415822", PRICE, reference="R-2")
    assert (made.payment_status, made.confirm_mode) == (2, 1)
    assert (await desk.api.payment_status(made.payment_id)).payment_status == 2
    late = await desk.api.click_pass("1234567415823", PRICE, reference="R-3")
    desk.clock.now += 31
    with pytest.raises(Declined):
        await desk.api.confirm_pass(late.payment_id)
    assert (await desk.api.payment_status(late.payment_id)).payment_status == -1


async def test_a_pass_payment_whose_confirmation_is_lost_keeps_its_number(desk: SimpleNamespace) -> None:
    """On the way there: nobody confirmed it. On the way back: it is confirmed, and nobody knows it yet."""
    await desk.api.set_pass_confirmation(on=True)
    for reference, arrives, status in (("R-1", False, -1), ("R-2", True, 2)):

        async def torn(call: HttpCall, arrives: bool = arrives) -> HttpReply:
            if not call.url.endswith("/click_pass/confirm"):
                return await desk.send(call)
            if arrives:
                await desk.send(call)
            raise Unsure("the answer is lost")

        api = MerchantApi(desk.settings, torn, now_s=lambda: desk.clock.now)
        with pytest.raises(PaymentUnsure) as raised:
            await api.charge_pass("1234567415821", PRICE, reference=reference)
        desk.clock.now += 31
        found = await desk.api.payment_status(raised.value.payment_id)
        assert found.payment_status == status
        day = datetime(2026, 11, 21, tzinfo=UTC).date()
        assert await desk.api.payment_by_reference(reference, day) == found


async def test_a_pass_payment_confirmed_too_late_is_declined_by_its_number(desk: SimpleNamespace) -> None:
    await desk.api.set_pass_confirmation(on=True)

    async def slow(call: HttpCall) -> HttpReply:
        reply = await desk.send(call)
        desk.clock.now += 31 if call.url.endswith("/click_pass/payment") else 0
        return reply

    api = MerchantApi(desk.settings, slow, now_s=lambda: desk.clock.now)
    with pytest.raises(PaymentDeclined) as raised:
        await api.charge_pass("1234567415821", PRICE, reference="R-1")
    (payment,) = desk.click.payments.values()
    assert raised.value.payment_id == payment.paydoc_id
    assert not payment.debited


MADE = {**OK, "payment_id": 71, "payment_status": 1, "confirm_mode": 1}
TOO_LATE = {"error_code": -9, "error_note": "too late"}


def state(status: int) -> tuple[int, object]:
    return 200, {**OK, "payment_id": 71, "payment_status": status}


@pytest.mark.parametrize(
    ("confirm", "asked", "error"),
    [
        ((200, OK), state(2), None),
        ((200, OK), state(1), None),
        ((200, OK), state(-1), PaymentDeclined),
        ((200, OK), (502, b""), PaymentUnsure),
        ((200, TOO_LATE), state(-1), PaymentDeclined),
        ((200, TOO_LATE), state(1), PaymentUnsure),
        ((200, TOO_LATE), state(2), PaymentUnsure),  # it may be given back yet
        ((200, TOO_LATE), (502, b""), PaymentUnsure),
        ((502, b""), state(-1), PaymentDeclined),
        ((502, b""), state(1), PaymentUnsure),
        ((502, b""), state(2), PaymentUnsure),
        (Unsure("lost"), state(2), PaymentUnsure),
        (Unreachable("no connection"), state(1), PaymentUnsure),
        (Unreachable("no connection"), Unreachable("no connection"), PaymentUnsure),
    ],
)
async def test_a_pass_payment_is_never_without_its_number_and_its_status_is_asked_afresh(
    config: dict[str, Any], confirm: Any, asked: Any, error: type[Exception] | None
) -> None:
    send = Script((200, MADE), confirm, asked)
    charge = api(config, send).charge_pass("1234567415821", PRICE, reference="R-1")
    if error is None:
        assert (await charge).payment_status == asked[1]["payment_status"]
    else:
        with pytest.raises(error, match="payment 71") as raised:
            await charge
        assert raised.value.payment_id == 71
    called = [call.url.removeprefix("https://api.click.uz/v2/merchant/") for call in send.calls]
    assert called == ["click_pass/payment", "click_pass/confirm", "payment/status/12345/71"]


async def test_what_follows_a_pass_payment_does_not_wait_long(config: dict[str, Any]) -> None:
    send = Script((200, MADE), (200, OK), state(2))
    await api(config, send).charge_pass("1234567415821", PRICE, reference="R-1")
    assert [call.timeout_s for call in send.calls] == [30.0, 10.0, 10.0]


async def test_a_pass_payment_that_failed_at_once_is_not_confirmed(config: dict[str, Any]) -> None:
    send = Script((200, MADE | {"payment_status": -1}))
    with pytest.raises(PaymentDeclined, match="payment 71"):
        await api(config, send).charge_pass("1234567415821", PRICE, reference="R-1")
    assert len(send.calls) == 1


# --- the page's example, as it stands there -----------------------------------------------------------------


@pytest.fixture
def example(desk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    page = (Path(__file__).parents[5] / "docs" / "click.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import asyncio.*?)```", page, re.DOTALL)
    monkeypatch.setenv("CLICK_SECRET_KEY", "TEST-click-secret")
    monkeypatch.setenv("CLICK_API_URL", f"{desk.base}/v2/merchant")
    desk.clock.now = datetime.now(UTC).timestamp()  # the example asks by the real day
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "docs/click.md", "exec"), names)
    return SimpleNamespace(**names)


async def test_the_example_charges_as_it_is_written(
    example: SimpleNamespace,
    desk: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await desk.api.set_pass_confirmation(on=True)
    monkeypatch.setattr("builtins.input", lambda _: "1234567415821")
    await example.main()
    assert capsys.readouterr().out == "paid\n"
    (payment,) = desk.click.payments.values()
    assert (payment.order, payment.tiyin, payment.debited, payment.status) == ("R-1024", 500_050, True, 2)


@pytest.mark.parametrize(
    ("lost", "arrives", "confirms", "ends"),
    [
        ("click_pass/payment", True, False, "paid"),
        ("click_pass/payment", True, True, "failed"),  # nobody could confirm what nobody could name
        ("click_pass/payment", False, False, "unknown"),
        ("click_pass/confirm", True, True, "paid"),
        ("click_pass/confirm", False, True, "failed"),
        ("payment/status", True, True, "unknown"),
    ],
)
async def test_the_example_knows_what_became_of_a_charge_whose_answer_is_lost(
    example: SimpleNamespace, desk: SimpleNamespace, lost: str, arrives: bool, confirms: bool, ends: str
) -> None:
    await desk.api.set_pass_confirmation(on=confirms)
    torn = 0

    async def send(call: HttpCall) -> HttpReply:
        nonlocal torn
        if f"/{lost}" not in call.url or "status_by_mti" in call.url:
            return await desk.send(call)
        if arrives:
            await desk.send(call)
        torn += 1
        if torn == 1:
            desk.clock.now += 31  # as the example waits
        raise Unsure("the answer is lost")

    api = MerchantApi(desk.settings, send, now_s=lambda: desk.clock.now)
    assert await example.charge(api, "1234567415821", PRICE, "R-1", waits=(0, 0, 0)) == ends
    assert sum(payment.debited for payment in desk.click.payments.values()) == (
        ends == "paid" or (ends == "unknown" and lost == "payment/status")
    )


async def test_the_example_takes_a_no_for_a_no(example: SimpleNamespace, desk: SimpleNamespace) -> None:
    assert await example.charge(desk.api, "no code", PRICE, "R-1", waits=()) == "failed"
    assert not desk.click.payments
