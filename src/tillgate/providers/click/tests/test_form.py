"""Strict forms: whatever bytes come, a clear answer and no stack trace; what is signed means one thing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tillgate.domain.errors import Unreadable
from tillgate.providers.click import form as strict

names = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
values = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)


@given(st.dictionaries(names, values, max_size=40))
def test_whatever_a_browser_encodes_is_read_back(fields: dict[str, str]) -> None:
    body = urlencode(fields).encode()
    if len(body) <= strict.MAX_BODY_BYTES:
        assert {k: v.decode() for k, v in strict.parse(body).items()} == fields


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        fields = strict.parse(body)
    except Unreadable:
        return
    lenient = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    assert {name: value.decode("latin-1") for name, value in fields.items()} == dict(lenient)
    assert len(fields) == len(lenient)


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=2",
        b"a=1&%61=2",
        b"a",
        b"=1",
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"a%00=1",
        b"a b=1",
        "имя=1".encode(),
        b"&".join(b"f%d=1" % n for n in range(41)),
        b"a=" + b"x" * 1025,
        b"a=" + b"x" * 9000,
        b"&".join(b"f%d=" % n + b"x" * 1000 for n in range(9)),
        b'{"click_trans_id": 1}',
        b"a" * 65 + b"=1",
    ],
    ids=lambda body: body[:20].decode("utf-8", "replace"),
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable):
        strict.parse(body)


def test_ten_megabytes_are_refused_at_once(till: Any) -> None:
    begun = time.perf_counter()
    assert json.loads(till.receive(b"a=1&" * 2_500_000).body)["error"] == -8
    assert time.perf_counter() - begun < 0.5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=600))
def test_garbage_is_answered_in_clicks_words(till: Any, body: bytes) -> None:
    reply = till.receive(body)
    assert reply.status == 200
    assert json.loads(reply.body)["error"] in (-8, -1)
    assert till.attempts == {}


FIELDS = [
    "click_trans_id", "service_id", "click_paydoc_id", "merchant_trans_id", "amount", "action", "error",
    "error_note", "sign_time",
]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.sampled_from(FIELDS), st.text(max_size=40))
def test_one_field_of_anything_signed_or_not_never_pays_and_never_breaks(
    make_till: Callable[..., Any], form: Callable[..., bytes], field: str, value: str
) -> None:
    till = make_till()
    till.order("A", 500_000)
    try:
        body = form(0, "A", "5000.00", 1, **{field: value})
    except UnicodeEncodeError:
        return
    reply = till.receive(body)
    assert json.loads(reply.body)["error"] in range(-9, 1)
    assert till.paid == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_moving_digits_between_signed_fields_reaches_no_other_order(
    make_till: Callable[..., Any], form: Callable[..., bytes], data: st.DataObject
) -> None:
    """The signature joins order id, prepare id and amount without separators: the forms must not slide."""
    till = make_till()
    till.order("1", 12_345_600)
    answer = json.loads(till.receive(form(0, "1", "123456.00", 1)).body)
    prepared = answer["merchant_prepare_id"]
    good = dict(parse_qsl(form(1, "1", "123456.00", 1, prepared=prepared).decode()))
    joined = good["merchant_trans_id"] + good["merchant_prepare_id"] + good["amount"]
    first = data.draw(st.integers(1, len(joined) - 2))
    second = data.draw(st.integers(first + 1, len(joined) - 1))
    slid = (joined[:first], joined[first:second], joined[second:])
    if slid == (good["merchant_trans_id"], good["merchant_prepare_id"], good["amount"]):
        return
    if slid[0] != "1":
        till.order(slid[0], 12_345_600)
    good |= {"merchant_trans_id": slid[0], "merchant_prepare_id": slid[1], "amount": slid[2]}
    assert json.loads(till.receive(urlencode(good).encode()).body)["error"] < 0
    assert till.paid == []
