"""What an account of Xendit may say, and what it never tells."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tillgate.domain.dialogue import Hint, Noise
from tillgate.domain.errors import Misconfigured, Unauthenticated
from tillgate.domain.money import Money
from tillgate.providers.xendit import PROVIDER
from tillgate.providers.xendit.wire import json_object, minor, moment_ms
from tillgate.spi import HttpCall, HttpReply, Inbound, Order

KEY = "xnd_development_KeyOfATestThatOpensNothing"
TOKEN = "a-callback-token-of-a-test-account"
ATTEMPT = "att_" + "0a" * 16
RIGHT = {"secret_key": KEY, "callback_token": TOKEN}


def connect(**config: Any) -> Any:
    return PROVIDER.connect(msgspec.convert({**RIGHT, **config}, PROVIDER.config))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"secret_key": ""}, "secret_key is xnd_"),
        ({"secret_key": "sk_live_1234567890123456"}, "secret_key is xnd_"),
        ({"secret_key": KEY + " "}, "secret_key is xnd_"),
        ({"secret_key": KEY + ":x"}, "secret_key is xnd_"),
        ({"callback_token": ""}, "callback_token is 16"),
        ({"callback_token": "short"}, "callback_token is 16"),
        ({"previous_callback_token": "short"}, "previous_callback_token is 16"),
        ({"rails": {"linkaja": "wallet"}}, "rails names"),
        ({"base_url": "ftp://x"}, "base_url is no http address"),
        ({"base_url": "http://user:pass@x"}, "base_url is no http address"),
        ({"base_url": "http://[::1"}, "base_url is no http address"),
        ({"success_return_url": "shop.example"}, "success_return_url is no http address"),
        ({"secret_key": KEY.replace("development", "production"), "base_url": "http://x"}, "is not https"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_cannot_be_used_is_refused_without_telling_a_secret(config: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as refused:
        connect(**config)
    for secret in (KEY, TOKEN):
        assert secret not in str(refused.value)


def test_its_example_loads_and_no_secret_is_shown() -> None:
    config = msgspec.convert(PROVIDER.example, PROVIDER.config)
    PROVIDER.connect(config)
    for shown in (repr(config), str(config)):
        assert not any(str(PROVIDER.example[name]) in shown for name in ("secret_key", "callback_token"))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**RIGHT, "secrets": 1}, PROVIDER.config)


async def test_what_is_sent_is_what_the_manual_says() -> None:
    sent: list[HttpCall] = []

    async def send(call: HttpCall) -> HttpReply:
        sent.append(call)
        body = {
            "payment_request_id": "pr-1", "reference_id": ATTEMPT, "status": "REQUIRES_ACTION",
            "actions": [{"type": "PRESENT_TO_CUSTOMER", "descriptor": "QR_STRING", "value": "0002"}],
        }  # fmt: skip
        return HttpReply(201, {}, json.dumps(body).encode())

    order = Order(
        ATTEMPT, "pay_1", "the merchant's own, never sent", "dana", Money(150_000_00, "IDR"), 0, 900_000,
        return_url="https://till.example/pay/pay_1",
    )  # fmt: skip
    started = await connect().start(order, send)
    assert (started.external_id, started.show.qr_string) == ("pr-1", "0002")
    [call] = sent
    assert (call.method, call.url) == ("POST", "https://api.xendit.co/v3/payment_requests")
    assert call.headers == {
        # printf 'xnd_development_KeyOfATestThatOpensNothing:' | base64
        "authorization": "Basic eG5kX2RldmVsb3BtZW50X0tleU9mQVRlc3RUaGF0T3BlbnNOb3RoaW5nOg==",
        "api-version": "2024-11-11",
        "content-type": "application/json",
        "idempotency-key": ATTEMPT,
    }
    assert json.loads(call.body) == {
        "reference_id": ATTEMPT,
        "type": "PAY",
        "country": "ID",
        "currency": "IDR",
        "request_amount": 150000,
        "capture_method": "AUTOMATIC",
        "channel_code": "QRIS",
        "metadata": {"payment_id": "pay_1", "wallet_id": "dana"},
    }
    assert b"merchant's own" not in call.body


def said(body: Any, token: str = TOKEN) -> Inbound:
    return Inbound(
        "POST", "/in/x", "", {"x-callback-token": token}, json.dumps(body).encode(), "127.0.0.1", 0
    )


def test_a_webhook_is_a_hint_whatever_it_says() -> None:
    """The shape of the published example."""
    data = {
        "payment_id": "py-1fdaf346-dd2e-4b6c-b938-124c7167a822",
        "payment_request_id": "pr-1fdaf346-dd2e-4b6c-b938-124c7167a822",
        "reference_id": ATTEMPT,
        "status": "SUCCEEDED",
        "request_amount": 10000,
        "currency": "IDR",
    }
    xendit = connect(previous_callback_token="the-token-that-was-before-this")
    for token in (TOKEN, "the-token-that-was-before-this"):
        heard = xendit.hear(said({"event": "payment.capture", "data": data}, token)).message
        names = (data["payment_request_id"], data["payment_id"])
        assert heard == Hint(operation_id=ATTEMPT, external_id=names[0], clues=names)
    refund = {"id": "rfd-1", "reference_id": "refund_" + "0a" * 16, "status": "SUCCEEDED"}
    nested = {"event": "refund.succeeded", "data": {"event": "refund.succeeded", "data": refund}}
    assert xendit.hear(said(nested)).message == Hint(operation_id=refund["reference_id"])
    for odd in ({"event": "payout.succeeded", "data": data}, {"event": "payment.capture"}, {}):
        assert isinstance(xendit.hear(said(odd)).message, Noise)
    with pytest.raises(Unauthenticated):
        xendit.hear(said({}, "tökén"))


@pytest.mark.parametrize(
    ("text", "sen"),
    [
        ("150000", 150_000_00), ("150000.0", 150_000_00), ('"150000.00"', 150_000_00), ("10.01", 1_001),
        ("1e3", 1_000_00), ("0", 0), ("10000.001", None), ("-1", None), ("true", None), ("null", None),
        ('"1e3"', None), ('" 1"', None), ('"١"', None), ("1e400", None), ("9" * 17, None), ("[1]", None),
    ],
)  # fmt: skip
def test_amounts_are_read_exactly(text: str, sen: int | None) -> None:
    found = json_object(b'{"a":' + text.encode() + b"}")
    assert (minor(found["a"]) if found else None) == sen


def test_times() -> None:
    assert moment_ms("2021-12-02T14:52:21.566Z") == 1_638_456_741_566
    assert moment_ms("2021-12-02T14:52:21") == 1_638_456_741_000
    assert moment_ms("yesterday") is None
