"""A cash desk's settings and keys, what is kept of its messages, and whom it invites to pay."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tillgate.domain import errors as e
from tillgate.domain.dialogue import Check
from tillgate.domain.money import Money
from tillgate.domain.record import replace
from tillgate.providers.payme import PROVIDER
from tillgate.providers.payme.connector import NewPassword, Payme
from tillgate.providers.payme.tests.test_connector import (
    KEY,
    TIME,
    answered,
    asked,
    call,
    config,
    refused,
)
from tillgate.spi import Order, Scrubs


def test_a_new_password_is_taken_only_where_somebody_stores_it() -> None:
    careful, taking = Payme(config()), Payme(config(), takes_passwords=True)
    new = asked("ChangePassword", {"password": "a new one"})
    assert refused(careful, new)["error"]["code"] == -32504
    heard = taking.hear(new)
    assert isinstance(heard.message, NewPassword)
    assert heard.message.password == "a new one"
    assert "a new one" not in repr(heard)
    assert answered(taking.answer(new, heard, None))["result"] == {"success": True}
    same = refused(taking, asked("ChangePassword", {"password": KEY}))["error"]
    empty = refused(taking, asked("ChangePassword", {"password": ""}))["error"]
    assert (same["code"], empty["code"], empty["data"]) == (-32504, -31050, "password")


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (
            b'{"method":"ChangePassword","params":{"password":"s3cret"},"id":1}',
            b'{"method":"ChangePassword","params":{"password":""},"id":1}',
        ),
        (
            '{"id": 1, "method": "ChangePassword", "params": {"Password": "s3cret", "x": "чай"}}'.encode(),
            '{"id":1,"method":"ChangePassword","params":{"Password":"","x":"чай"}}'.encode(),
        ),
        (
            b'{"method":"ChangePassword","params":["s3cret"]}',
            b'{"method":"ChangePassword","params":null}',
        ),
        (
            b'{"method":"Change","params":{"a":[{"newPassword":{"b":"s3cret"}}]}}',
            b'{"method":"Change","params":{"a":[{"newPassword":""}]}}',
        ),
        (
            b'{"method":"ChangePassword","params":{"p\\u0061ssword":"s3cret"}}',
            b'{"method":"ChangePassword","params":{"password":""}}',
        ),
        (b'{"method":"ChangePassword","params":{"password":"s3cret"', b""),
        (b'{"method":"ChangePassw\\u006frd","params":{"p\\u0061ssword":"s3cret"', b""),
        (b'[{"method":"ChangePassword","params":{"password":"s3cret"}}]', b""),
        ('{"method":"ChangePassword","params":{"password":"s3cret"}}'.encode("utf-16"), b""),
        (b'{"method":"ChangePassword","params":{"password":"s3cret"}}' + b" " * 70_000, b""),
        (
            b'{"method": "CheckTransaction", "params": {"id": 5',
            b'{"method": "CheckTransaction", "params": {"id": 5',
        ),
        (b"", b""),
    ],
)
def test_no_password_is_in_what_is_kept_of_a_message(body: bytes, kept: bytes) -> None:
    payme = Payme(config())
    assert isinstance(payme, Scrubs)
    assert payme.scrubbed(call(body)) == call(kept)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": ""},
        {"key": "   "},
        {"key": "", "previous_key": KEY},
        {"key": "short"},
        {"key": "aaaaaaaaaaaaaaaa"},
        {"key": "an-example-test-key-of-36-characters"},
        {"previous_key": "an-example-test-key-of-36-characters"},
        {"previous_key": "x"},
        {"previous_key": " "},
        {"previous_key": "ababababababababababab"},
        {"test_key": "x"},
        {"sandbox": True, "key": ""},
        {"sandbox": True, "key": "x"},
        {"sandbox": True, "test_key": "x"},
        {"sandbox": True, "test_key": "                x"},
        {"sandbox": True, "test_key": "t" * 36},
        {"login": ""},
        {"login": "a:b"},
        {"account_fields": ()},
        {"account_fields": ("a", "a")},
        {"account_fields": ("a;b",)},
        {"merchant_id": ""},
        {"merchant_id": "a;b"},
        {"source_ips": ("here",)},
        {"checkout_url": "javascript:1"},
    ],
)
def test_settings_that_are_not_safe_refuse_to_start(changes: dict[str, Any]) -> None:
    with pytest.raises(e.Misconfigured) as refusal:
        PROVIDER.connect(config(**changes))
    assert KEY not in str(refusal.value)


def test_keys_as_payme_gives_them_open_an_account_and_the_example_the_sandbox() -> None:
    real = "Zr8hXw3QmV5nTb7yKc2p@d9sGf4jAe6uRi1o"
    for changes in ({}, {"previous_key": real}, {"test_key": real}, {"sandbox": True, "test_key": real}):
        PROVIDER.connect(config(**changes))
    PROVIDER.connect(config(sandbox=True, test_key="an-example-test-key-of-36-characters"))


def test_a_drop_in_takes_any_key_but_a_blank_one() -> None:
    """It runs in shops whose keys were there before."""
    Payme(config(key="my_key"))
    for changes in ({"key": " "}, {"key": "my_key", "previous_key": " "}):
        with pytest.raises(e.Misconfigured):
            Payme(config(**changes))


def test_no_key_is_in_a_repr() -> None:
    made = config(previous_key="p" * 36, test_key="t" * 36)
    for shown in (repr(made), str(made), f"{made}", repr(list(made.__rich_repr__()))):
        assert KEY not in shown
        assert "ppp" not in shown
        assert "ttt" not in shown
    assert PROVIDER.secrets == {"key", "previous_key", "test_key"}


def order(**changes: Any) -> Order:
    made = Order("op", "pay", "197", "payme", Money(500, "UZS"), TIME, TIME + 1)
    return replace(made, **changes)


def test_an_invitation_is_a_link_a_qr_and_the_account() -> None:
    # The example of Payme's own manual, with the language that we add.
    shown = Payme(config()).invite(order())
    assert shown is not None
    assert shown.url == shown.qr_string
    head, _, encoded = (shown.url or "").rpartition("/")
    assert head == "https://checkout.paycom.uz"
    assert base64.b64decode(encoded) == b"m=587f72c72cac0d162c722ae2;ac.order_id=197;a=500;l=ru"
    assert shown.account == {"order_id": "197"}
    assert Payme(config()).invite(order(amount=Money(500, "USD"))) is None
    sandbox = Payme(config(sandbox=True)).invite(order(return_url="https://shop.uz/a;b?x=1"))
    assert sandbox is not None
    assert (sandbox.url or "").startswith("https://test.paycom.uz/")
    encoded = (sandbox.url or "").removeprefix("https://test.paycom.uz/")
    assert b";c=https://shop.uz/a%3Bb?x=1" in base64.b64decode(encoded)


def test_an_order_that_a_link_cannot_carry_is_refused() -> None:
    for bad in ("19;a=1", "", "a\nb"):
        with pytest.raises(e.InvalidRequest):
            Payme(config()).invite(order(order_id=bad))


@pytest.mark.parametrize(
    ("order_id", "fields", "write"),
    [
        (" padded ", ("order_id",), "'padded'"),
        ("phone=+998901234567;contract=5", ("phone", "contract"), "'phone=%2B998901234567;contract=5'"),
        ("phone=998;contract=a b", ("phone", "contract"), "'phone=998;contract=a%20b'"),
        ("phone=998;contract=5%3d6", ("phone", "contract"), "'phone=998;contract=5%3D6'"),
        ("phone=%39;contract=5", ("phone", "contract"), "'phone=9;contract=5'"),
        ("phone=998;contract=%205", ("phone", "contract"), "'phone=998;contract=5'"),
    ],
)
def test_an_order_that_payme_would_ask_for_by_another_name_is_refused(
    order_id: str, fields: tuple[str, ...], write: str
) -> None:
    payme = Payme(config(account_fields=fields))
    with pytest.raises(e.InvalidRequest) as refusal:
        payme.invite(order(order_id=order_id))
    assert write in str(refusal.value)
    shown = payme.invite(order(order_id=write.strip("'")))
    assert shown is not None
    heard = payme.hear(asked("CheckPerformTransaction", {"amount": 500, "account": shown.account}))
    assert heard.message == Check(write.strip("'"), Money(500, "UZS"))
