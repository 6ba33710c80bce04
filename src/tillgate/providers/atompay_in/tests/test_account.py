"""What an account may be, which hosts it talks to, and when it asks again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from tillgate.domain.errors import Misconfigured
from tillgate.providers.atompay_in import PROVIDER, AtomPay, Config
from tillgate.providers.atompay_in import config as accounts
from tillgate.providers.atompay_in.schedule import looks, next_look, settled_looks

from .conftest import config

LIVE = {
    "env": "production",
    "merch_id": "654321",
    "password": "a password of its own",
    "req_enc_key": "0123456789ABCDEF0123456789ABCDEF",
    "res_dec_key": "FEDCBA9876543210FEDCBA9876543210",
    "req_hash_key": "a request hash key",
    "resp_hash_key": "a response hash key",
}


def test_the_example_loads_and_a_live_account_does() -> None:
    PROVIDER.connect(msgspec.convert(PROVIDER.example, PROVIDER.config))
    AtomPay(config(**LIVE))


@pytest.mark.parametrize("name", ["password", "req_enc_key", "res_dec_key", "req_hash_key", "resp_hash_key"])
def test_published_keys_are_refused_when_money_is_real(name: str) -> None:
    published = {**LIVE, name: PROVIDER.example[name]}
    with pytest.raises(Misconfigured, match=name) as refused:
        AtomPay(config(**published))
    assert PROVIDER.example[name] not in str(refused.value)
    with pytest.raises(Misconfigured, match=name):
        AtomPay(config(**{**LIVE, name: PROVIDER.example[name].lower()}))


@pytest.mark.parametrize(
    "changes",
    [
        {"req_salt": "a4476c2062ffa58980dc8f79eb6a799e"},
        {"previous_res_dec_key": "75AEF0FA1B94B3C10D4F5B268F757F11"},
        {"previous_resp_hash_key": "KEYRESP123657234"},
        {"auth_url": "http://payment1.atomtech.in/x"},
        {"base_url": "http://127.0.0.1:9"},
        {"base_url": "ftp://example.com"},
        {"base_url": "https://user:pw@example.com"},
        {"base_url": "https://[::1"},
        {"base_url": "https://example.com:99999"},
        {"merch_id": "abc"},
        {"merch_id": "12345678901"},
        {"password": ""},
        {"mode": "XX"},
        {"api": "otsv2"},
        {"requery": "otsv2"},
        {"resp_hash_key": "FEDCBA9876543210FEDCBA9876543210"},
        {"resp_hash_key": "a request hash key"},
        {"req_hash_key": "0123456789ABCDEF0123456789ABCDEF"},
    ],
    ids=str,
)
def test_an_account_that_cannot_work_or_is_unsafe_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        AtomPay(config(**{**LIVE, **changes}))


def test_a_misspelled_setting_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="requery_version"):
        config(requery_version="v2")


def test_secrets_do_not_show_in_a_repr() -> None:
    shown = f"{config()!r} {config()!s} {AtomPay(config())!r}"
    for name in PROVIDER.secrets:
        value = PROVIDER.example.get(name)
        assert not value or value not in shown
    assert PROVIDER.secrets <= set(Config.__struct_fields__)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            (
                "https://paynetzuat.atomtech.in/ots/aipay/auth",
                "https://paynetzuat.atomtech.in/ots/payment/status",
                "https://caller.atomtech.in/ots/payment/refund",
                "https://caller.atomtech.in/ots/payment/status",
                "https://pgtest.atomtech.in/staticdata/ots/js/atomcheckout.js",
            ),
        ),
        (
            LIVE,
            (
                "https://payment1.atomtech.in/ots/aipay/auth",
                "https://payment1.atomtech.in/ots/payment/status",
                "https://payment.atomtech.in/ots/payment/refund",
                "https://payment1.atomtech.in/ots/payment/status",
                "https://psa.atomtech.in/staticdata/ots/js/atomcheckout.js",
            ),
        ),
        (
            {**LIVE, "api": "otsv2", "requery": "otsv2", "api_secret": "s"},
            (
                "https://payment.atomtech.in/otsv2/aipay/auth",
                "https://payment.atomtech.in/otsv2/aipay/payment/status",
                "https://payment.atomtech.in/ots/payment/refund",
                "https://payment1.atomtech.in/ots/payment/status",
                "https://psa.atomtech.in/staticdata/ots/js/atomcheckout.js",
            ),
        ),
        (
            {**LIVE, "requery": "v2", "refund_url": "https://payment.atomtech.in/paynetz/refund"},
            (
                "https://payment1.atomtech.in/ots/aipay/auth",
                "https://payment1.atomtech.in/ots/v2/payment/status",
                "https://payment.atomtech.in/paynetz/refund",
                "https://payment1.atomtech.in/ots/payment/status",
                "https://psa.atomtech.in/staticdata/ots/js/atomcheckout.js",
            ),
        ),
    ],
)
def test_the_presets_are_the_published_hosts(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    urls = accounts.urls(config(**changes))
    assert (urls.auth, urls.status, urls.refund, urls.refund_status, urls.script) == expected


# --- when to ask again --------------------------------------------------------------------------------------

INDIA = timezone(timedelta(hours=5, minutes=30))


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=INDIA).timestamp() * 1000)  # type: ignore[arg-type,misc]


def test_a_pending_payment_is_asked_about_seven_times() -> None:
    since = ms(2026, 11, 20, 14, 0)
    assert looks(since) == (
        ms(2026, 11, 20, 14, 3),
        ms(2026, 11, 20, 14, 10),
        ms(2026, 11, 20, 14, 30),
        ms(2026, 11, 20, 16, 0),
        ms(2026, 11, 21, 2, 0),
        ms(2026, 11, 21, 12, 0),
        ms(2026, 11, 22, 12, 0),
    )


@pytest.mark.parametrize("hour", range(24))
def test_the_moments_come_in_order_at_every_hour_of_the_day(hour: int) -> None:
    moments = looks(ms(2026, 2, 28, hour, 59))
    assert list(moments) == sorted(set(moments))


def test_the_next_moment_is_after_now_and_there_is_a_last_one() -> None:
    since = int(datetime(2026, 11, 20, 20, 0, tzinfo=UTC).timestamp() * 1000)
    asked, now = [], since
    while (moment := next_look(since, now)) is not None:
        asked.append(moment)
        now = moment
    assert tuple(asked) == looks(since)
    assert next_look(since, since, paid=True) == settled_looks(since)[0] == ms(2026, 11, 22, 12, 0)
    assert next_look(since, ms(2026, 11, 23, 12, 0), paid=True) is None
