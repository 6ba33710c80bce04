"""What an account of Midtrans may say, what is sent for it, and how its notifications are signed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tillgate.domain.dialogue import Hint, Noise
from tillgate.domain.errors import Misconfigured, Unauthenticated, Unsure
from tillgate.domain.money import Money
from tillgate.providers.midtrans import PROVIDER
from tillgate.providers.midtrans.wire import minor, moment_ms, order_time
from tillgate.spi import HttpCall, HttpReply, Inbound, Order

KEY = "SB-Mid-server-KeyOfATest"
ATTEMPT = "att_" + "0a" * 16
ORDER_ID = ATTEMPT + "-t"
# printf 'att_0a…0a-t200150000.00SB-Mid-server-KeyOfATest' | sha512sum
SIGNATURE = (
    "0576bf2ade55aab8b70fb8f9e6ff4b43ff270fb2ae2ec35f68c294fff2cba410"
    "5bd26b06792e0ef12ca83f03b095ce6649e7438325487ab4de970442e861c048"
)


def connect(**config: Any) -> Any:
    return PROVIDER.connect(msgspec.convert({"server_key": KEY, **config}, PROVIDER.config))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"server_key": ""}, "server_key is Mid-server"),
        ({"server_key": "SB-Mid-client-1234567890"}, "server_key is Mid-server"),
        ({"server_key": KEY + ":"}, "server_key is Mid-server"),
        (
            {"server_key": "Mid-server-ALiveKey", "previous_server_key": KEY},
            "previous_server_key is the sandbox",
        ),
        ({"rails": {"dana": "wallet"}}, "no rail of DANA"),
        ({"rails": {"linkaja": "wallet"}}, "rails names"),
        ({"merchant_id": "a b"}, "merchant_id"),
        ({"base_url": "file:///x"}, "base_url is no http address"),
        ({"server_key": "Mid-server-ALiveKey", "base_url": "http://x"}, "is not https"),
        ({"timeout_s": 121}, "timeout_s"),
    ],
)
def test_what_cannot_be_used_is_refused_without_telling_a_secret(config: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as refused:
        connect(**config)
    assert KEY not in str(refused.value)


def test_its_example_loads_and_no_secret_is_shown() -> None:
    config = msgspec.convert(PROVIDER.example, PROVIDER.config)
    PROVIDER.connect(config)
    assert PROVIDER.example["server_key"] not in repr(config) + str(config)
    for key, host in ((KEY, "api.sandbox.midtrans.com"), ("Mid-server-ALiveKey", "api.midtrans.com")):
        assert msgspec.convert({"server_key": key}, PROVIDER.config).url == f"https://{host}"


def order(**more: Any) -> Order:
    given = {"return_url": "https://till.example/pay/pay_1", "notify_url": "https://till.example/in/acc_1"}
    return Order(ATTEMPT, "pay_1", "the merchant's own", "dana", Money(150_000_00, "IDR"), 1_795_227_330_000,
                 1_795_228_230_000, **{**given, **more})  # fmt: skip


async def test_what_is_sent_is_what_the_manual_says() -> None:
    sent: list[HttpCall] = []

    async def send(call: HttpCall) -> HttpReply:
        sent.append(call)
        body = {
            "status_code": "201", "transaction_id": "t-1", "order_id": ORDER_ID, "gross_amount": "150000.00",
            "payment_type": "qris", "transaction_status": "pending", "qr_string": "0002",
        }  # fmt: skip
        return HttpReply(200, {}, json.dumps(body).encode())

    started = await connect().start(order(), send)
    assert (started.external_id, started.show.qr_string) == ("t-1", "0002")
    [call] = sent
    assert (call.method, call.url) == ("POST", "https://api.sandbox.midtrans.com/v2/charge")
    assert call.headers == {
        # printf 'SB-Mid-server-KeyOfATest:' | base64
        "authorization": "Basic U0ItTWlkLXNlcnZlci1LZXlPZkFUZXN0Og==",
        "accept": "application/json",
        "content-type": "application/json",
        "idempotency-key": ORDER_ID,
        "x-override-notification": "https://till.example/in/acc_1",
    }
    assert len(ORDER_ID) <= 46  # a longer key would be ignored without a word
    assert json.loads(call.body) == {
        "payment_type": "qris",
        "transaction_details": {"order_id": ORDER_ID, "gross_amount": 150000},
        "custom_field1": "dana",
        "custom_field2": "pay_1",
        "qris": {"acquirer": "gopay"},
        "custom_expiry": {
            "order_time": "2026-11-21 09:15:30 +0700",
            "expiry_duration": 900,
            "unit": "second",
        },
    }


@pytest.mark.parametrize(
    "change",
    [{"order_id": "another"}, {"merchant_id": "G2"}, {"transaction_id": "t-2"}],
)
async def test_an_answer_about_something_else_is_not_believed(change: dict[str, Any]) -> None:
    body = {
        "status_code": "200", "transaction_id": "t-1", "order_id": ORDER_ID, "gross_amount": "150000.00",
        "merchant_id": "G1", "transaction_status": "settlement", **change,
    }  # fmt: skip

    async def send(call: HttpCall) -> HttpReply:
        return HttpReply(200, {}, json.dumps(body).encode())

    with pytest.raises(Unsure):
        await connect(merchant_id="G1").look(order(external_id="t-1"), send)


def said(**fields: Any) -> Inbound:
    body = {
        "order_id": ORDER_ID,
        "status_code": "200",
        "gross_amount": "150000.00",
        "signature_key": SIGNATURE,
    }
    return Inbound("POST", "/in/x", "", {}, json.dumps(body | fields).encode(), "127.0.0.1", 0)


def test_a_notification_is_a_hint_whatever_it_says() -> None:
    midtrans = connect()
    heard = midtrans.hear(said(transaction_status="settlement", transaction_id="t-1")).message
    assert heard == Hint(operation_id=ATTEMPT, clues=("t-1",))
    key = "refund_" + "0b" * 16
    refund = said(transaction_status="refund", refunds=[{"refund_key": "by-hand"}, {"refund_key": key}])
    assert midtrans.hear(refund).message == Hint(operation_id=key)
    with pytest.raises(Unauthenticated):
        midtrans.hear(said(gross_amount="150000.01"))
    changed = connect(server_key="SB-Mid-server-TheNextKey", previous_server_key=KEY)
    assert isinstance(changed.hear(said()).message, Hint)
    with pytest.raises(Unauthenticated):
        connect(server_key="SB-Mid-server-TheNextKey").hear(said())
    assert not isinstance(heard, Noise)


@pytest.mark.parametrize(
    ("value", "sen"),
    [
        ("150000.00", 150_000_00), ("150000", 150_000_00), (150000, 150_000_00), ("0.5", 50), ("1.005", None),
        (True, None), (1.5, None), ("-1", None), ("1e3", None), ("", None), (None, None), ("1" * 14, None),
    ],
)  # fmt: skip
def test_amounts_are_read_exactly(value: Any, sen: int | None) -> None:
    assert minor(value) == sen


def test_times_are_jakartas() -> None:
    assert moment_ms("2026-11-21 10:15:30") == moment_ms("2026-11-21T03:15:30+00:00") == 1_795_230_930_000
    assert moment_ms("soon") is None
    assert order_time(1_795_230_930_999) == "2026-11-21 10:15:30 +0700"
