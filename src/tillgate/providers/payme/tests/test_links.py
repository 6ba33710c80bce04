"""Checkout links and forms, against the example of Payme's manual."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillgate.providers.payme.links import BadLink, checkout_form, checkout_link
from tillgate.providers.payme.simulator import read_link

MERCHANT = "587f72c72cac0d162c722ae2"
GOLDEN = "bT01ODdmNzJjNzJjYWMwZDE2MmM3MjJhZTI7YWMub3JkZXJfaWQ9MTk3O2E9NTAw"


def test_the_example_of_the_manual() -> None:
    link = checkout_link(MERCHANT, {"order_id": "197"}, 500)
    assert link == f"https://checkout.paycom.uz/{GOLDEN}"


def test_every_parameter_in_its_place() -> None:
    link = checkout_link(
        MERCHANT,
        {"order_id": "197", "phone": "998901234567"},
        1999,
        checkout_url="https://test.paycom.uz/",
        language="uz",
        return_url="https://shop.uz/done?a=1&b=2",
        return_after_ms=500,
    )
    assert link.startswith("https://test.paycom.uz/")
    text = base64.b64decode(link.removeprefix("https://test.paycom.uz/")).decode()
    assert text == (
        f"m={MERCHANT};ac.order_id=197;ac.phone=998901234567;a=1999;l=uz;c=https://shop.uz/done?a=1&b=2;ct=500"
    )


def test_an_open_amount_is_left_to_the_payer() -> None:
    asked = read_link(checkout_link(MERCHANT, {"login": "anna"}, 0))
    assert (asked.account, asked.amount) == ({"login": "anna"}, 0)


@pytest.mark.parametrize(
    ("account", "amount", "more"),
    [
        ({"order_id": "1;a=1"}, 500, {}),
        ({"order_id": "1;ac.order_id=2"}, 500, {}),
        ({"order_id": "1\n"}, 500, {}),
        ({"order_id": ""}, 500, {}),
        ({"order_id;a": "1"}, 500, {}),
        ({"a=1": "1"}, 500, {}),
        ({}, 500, {}),
        ({"order_id": 5}, 500, {}),
        ({"order_id": "1"}, -1, {}),
        ({"order_id": "1"}, 1.5, {}),
        ({"order_id": "1"}, True, {}),
        ({"order_id": "1"}, "500", {}),
        ({"order_id": "1"}, 500, {"return_url": "https://x.uz/;a=1"}),
        ({"order_id": "1"}, 500, {"return_url": "https://x.uz/" + "a" * 3000}),
    ],
)
def test_nothing_can_be_slipped_into_a_link(account: Any, amount: Any, more: Any) -> None:
    with pytest.raises(BadLink):
        checkout_link(MERCHANT, account, amount, **more)


@given(amount=st.integers(1, 10**15), value=st.text(min_size=1, max_size=60))
def test_what_a_link_says_is_what_was_meant_to_the_tiyin(amount: int, value: str) -> None:
    try:
        link = checkout_link(MERCHANT, {"order_id": value}, amount)
    except BadLink:
        assert ";" in value or not value.isprintable()
        return
    asked = read_link(link)
    assert (asked.merchant, asked.account, asked.amount) == (MERCHANT, {"order_id": value}, amount)


def test_the_form_has_the_manuals_fields() -> None:
    detail = {"receipt_type": 0, "items": [{"title": "Чай", "price": 500, "count": 1, "code": "0" * 17}]}
    fields = checkout_form(
        MERCHANT,
        {"order_id": "197"},
        500,
        language="en",
        callback="https://shop.uz/:transaction/:account.order_id",
        callback_timeout_ms=15,
        description={"ru": "Заказ", "uz": "Buyurtma", "en": "Order"},
        detail=detail,
    )
    assert json.loads(base64.b64decode(fields.pop("detail"))) == detail
    assert fields == {
        "merchant": MERCHANT,
        "amount": "500",
        "account[order_id]": "197",
        "lang": "en",
        "callback": "https://shop.uz/:transaction/:account.order_id",
        "callback_timeout": "15",
        "description[ru]": "Заказ",
        "description[uz]": "Buyurtma",
        "description[en]": "Order",
    }
    assert checkout_form(MERCHANT, {"o": "1"}, 1, description="x")["description"] == "x"


@pytest.mark.parametrize(
    ("account", "amount"),
    [({}, 1), ({"o": "1"}, 0), ({"o": "1"}, 1.0), ({"o\n": "1"}, 1), ({"o": "\x00"}, 1)],
)
def test_a_form_with_nonsense_is_refused(account: Any, amount: Any) -> None:
    with pytest.raises(BadLink):
        checkout_form(MERCHANT, account, amount)
