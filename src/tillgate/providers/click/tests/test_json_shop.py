"""Advanced Shop and Split Shop: signed JSON, written here as Click's documentation shows it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEY = "TEST-click-secret"
TIME = "2026-11-21 15:04:05"
SHARES = ({"cntrg_id": 123, "basis_points": 4500}, {"cntrg_id": 321, "basis_points": 5500})


def body(
    action: int, *, params: str | None = None, paydoc: int = 123, attempt: int = 345, **over: Any
) -> bytes:
    """`params` as JSON text, because the signature covers how its values are written."""
    text = '{"account": "A", "full_name": "Али", "amount": 1000}' if params is None else params
    values = json.loads(text, parse_int=str, parse_float=str).values()
    key = over.pop("key", KEY)
    signed = f"{paydoc}{attempt}12345{key}{''.join(values)}{action}{TIME}"
    fields = {
        "action": action,
        "click_paydoc_id": paydoc,
        "attempt_trans_id": attempt,
        "service_id": 12345,
        "sign_time": TIME,
        "sign_string": hashlib.md5(signed.encode()).hexdigest(),
    } | over
    head = json.dumps({k: v for k, v in fields.items() if v is not None}, ensure_ascii=False)
    return (head[:-1] + f', "params": {text}}}').encode()


def ask(till: Any, content: bytes) -> dict[str, Any]:
    till.now += 10
    answer: dict[str, Any] = json.loads(till.receive(content).body)
    return answer


@pytest.fixture
def advanced(make_till: Callable[..., Any]) -> Any:
    till = make_till(protocol="advanced", answer_params={"branch_id": 123})
    till.order("A", 100_000)
    return till


@pytest.fixture
def split(make_till: Callable[..., Any]) -> Any:
    from tillgate.providers.click.config import Share

    till = make_till(protocol="split", shares=tuple(Share(**share) for share in SHARES))
    till.order("A", 100_000)
    return till


def test_a_payment_by_advanced_shop(advanced: Any) -> None:
    prepared = ask(advanced, body(1))
    number = prepared["merchant_prepare_id"]
    assert prepared == {
        "click_paydoc_id": 123,
        "attempt_trans_id": 345,
        "merchant_prepare_id": number,
        "params": {"branch_id": 123},
        "error": 0,
        "error_note": "Success",
    }
    assert ask(advanced, body(3, merchant_prepare_id=number))["status"] == 0
    completed = ask(advanced, body(2, merchant_prepare_id=number))
    assert (completed["error"], completed["merchant_confirm_id"]) == (0, number)
    assert ask(advanced, body(2, merchant_prepare_id=str(number)))["error"] == -4
    assert ask(advanced, body(3, merchant_prepare_id=number))["status"] == 2
    assert advanced.paid == ["A"]


def test_a_new_attempt_of_the_same_payment_pays_once(advanced: Any) -> None:
    first = ask(advanced, body(1))
    again = ask(advanced, body(1, attempt=346))
    assert first["merchant_prepare_id"] == again["merchant_prepare_id"]
    assert ask(advanced, body(2, attempt=346))["error"] == 0
    assert ask(advanced, body(2, attempt=345))["error"] == -4
    assert advanced.paid == ["A"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (body(0), -3),
        (body(4), -3),
        (body(9), -3),
        (body(1, key="another-key"), -1),
        (body(1, sign_string="x"), -1),
        (body(1, sign_string=None), -8),
        (body(1, click_paydoc_id="123"), -8),
        (body(1, service_id=12346), -1),
        (body(1, params='{"account": "nobody", "amount": 1000}'), -5),
        (body(1, params='{"account": "A", "amount": 1000.01}'), -2),
        (body(1, params='{"account": "A", "amount": 1e3}'), -2),
        (body(1, params='{"account": "A"}'), -8),
        (body(1, params='{"amount": 1000}'), -8),
        (body(1, params='{"account": "A", "amount": "1000.00"}'), 0),
        (body(1, params='{"account": "A", "amount": 1000.0}'), 0),
        (body(2, merchant_prepare_id=5), -6),
        (body(2), -6),
        (body(3), -6),
        (b"", -8),
        (b"[]", -8),
        (b"[" * 15_000, -8),
        (b"action=1", -8),
        (body(1).replace(b'"action": 1', b'"action": 1, "action": 1'), -8),
        (body(1).replace(b"1000", b"NaN"), -8),
        (body(1).replace(b'"amount": 1000', b'"amount": 1000, "x": true'), -8),
        (body(1).replace(b'"amount": 1000', b'"amount": 1000, "x": [1]'), -8),
        (b" " * 20_000 + body(1), -8),
    ],
)
def test_what_is_refused_and_why(advanced: Any, content: bytes, code: int) -> None:
    assert ask(advanced, content)["error"] == code
    assert advanced.paid == []


def test_the_signature_covers_how_a_number_is_written(advanced: Any) -> None:
    """1000 and 1000.0 are one amount and two signed texts."""
    assert ask(advanced, body(1).replace(b"1000", b"1000.0"))["error"] == -1


def test_a_wrong_prepare_id_pays_nothing(advanced: Any) -> None:
    ask(advanced, body(1))
    assert ask(advanced, body(2, merchant_prepare_id=999999999))["error"] == -6
    assert advanced.paid == []


def test_a_prepare_that_nothing_follows_is_over_after_its_time(advanced: Any) -> None:
    ask(advanced, body(1))
    advanced.now += 31 * 60_000
    assert ask(advanced, body(3))["status"] == 1
    assert ask(advanced, body(2))["error"] == -9


def test_split_answers_who_gets_what(split: Any) -> None:
    assert ask(split, body(1))["split"] == [
        {"cntrg_id": 123, "amount": 450},
        {"cntrg_id": 321, "amount": 550},
    ]
    assert ask(split, body(3))["error"] == -3
    assert ask(split, body(2))["error"] == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.integers(1, 10**12))
def test_a_split_is_exact_to_the_tiyin(split: Any, tiyin: int) -> None:
    from tillgate.providers.click.json_shop import parts

    found = parts(split.connector._config, tiyin)
    assert sum(amount for _, amount in found) == tiyin
    assert all(amount > 0 for _, amount in found)


def test_a_split_that_was_told_is_told_again(split: Any, make_till: Callable[..., Any]) -> None:
    from tillgate.providers.click.config import Share

    first = ask(split, body(1))["split"]
    split.connector = make_till(protocol="split", shares=(Share(9, 10_000),)).connector
    assert ask(split, body(1))["split"] == first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_is_answered_in_clicks_words(advanced: Any, content: bytes) -> None:
    assert ask(advanced, content)["error"] in (-8, -3)
