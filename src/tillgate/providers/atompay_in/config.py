"""One AtomPay account: its keys, its environment, its hosts; and what makes a configuration unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tillgate.domain.errors import Misconfigured
from tillgate.providers.atompay_in.codes import MODES
from tillgate.providers.atompay_in.envelope import Key

MIN_JWT_BYTES: Final = 32
"""As long as the hash of HS256 (RFC 7518, 3.2)."""
Requery: TypeAlias = Literal["v1", "v2", "otsv2"]

PUBLISHED_KEYS: Final = frozenset(
    {
        "A4476C2062FFA58980DC8F79EB6A799E",
        "75AEF0FA1B94B3C10D4F5B268F757F11",
        "8E41C78439831010F81F61C344B7BFC7",
        "KEY123657234",
        "KEY1234567234",
        "KEYRESP123657234",
        "TEST@123",
    }
)
"""What NDPS prints in its public kits, in capitals: every reader of them holds these keys."""

SECRETS: Final = frozenset(
    {
        "password",
        "req_enc_key",
        "req_salt",
        "res_dec_key",
        "res_salt",
        "req_hash_key",
        "resp_hash_key",
        "api_secret",
        "previous_res_dec_key",
        "previous_res_salt",
        "previous_resp_hash_key",
        "jwt_secret",
    }
)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The four keys and the password are named as NDPS names them; a salt defaults to its own key.

    `previous_*` are what callbacks may still be sealed and signed with after NDPS changed the keys, up to
    `previous_until_ms` (epoch; 0: no end). `base_url` moves every address to another host, such as a
    simulator; each `*_url` moves one.
    """

    merch_id: str
    password: str
    product: str
    req_enc_key: str
    res_dec_key: str
    req_hash_key: str
    resp_hash_key: str
    req_salt: str = ""
    res_salt: str = ""
    env: Literal["uat", "production"] = "uat"
    api: Literal["ots", "otsv2"] = "ots"
    requery: Requery = "v1"
    api_secret: str = ""
    previous_res_dec_key: str = ""
    previous_res_salt: str = ""
    previous_resp_hash_key: str = ""
    previous_until_ms: int = 0
    mode: str = ""  # restrict the checkout to one of `MODES`
    email: str = ""  # for payments that name no customer
    mobile: str = ""
    client_code: str = "1234"
    timeout_s: float = 20.0
    jwt_secret: str = ""  # of the tokens that the merchant's site gives its users, for /atompay
    jwt_claim: str = "id"  # which of their claims names the user; else `sub`
    jwt_audience: str = ""
    return_url: str = ""  # where the payer's browser posts the result; default: the account's inbound address
    base_url: str = ""
    auth_url: str = ""
    status_url: str = ""
    refund_url: str = ""
    refund_status_url: str = ""
    script_url: str = ""

    def __repr__(self) -> str:
        return f"Config(merch_id={self.merch_id!r}, env={self.env!r}, …)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Urls:
    auth: str
    status: str
    refund: str
    refund_status: str
    script: str


_STATUS_PATH: Final[dict[Requery, str]] = {
    "v1": "/ots/payment/status",
    "v2": "/ots/v2/payment/status",
    "otsv2": "/otsv2/aipay/payment/status",
}
_SCRIPT_PATH: Final = "/staticdata/ots/js/atomcheckout.js"


def urls(config: Config) -> Urls:
    """The preset of the environment (AtomPay facts, hosts), with what the account says otherwise."""
    base, v2 = config.base_url.rstrip("/"), "otsv2" in (config.api, config.requery)
    if config.env == "production":
        status = base or f"https://payment{'' if config.requery == 'otsv2' else '1'}.atomtech.in"
        auth = base or f"https://payment{'' if config.api == 'otsv2' else '1'}.atomtech.in"
        refund = base or "https://payment.atomtech.in"
        refund_status = base or "https://payment1.atomtech.in"
        script = base or "https://psa.atomtech.in"
    else:
        status = auth = base or "https://paynetzuat.atomtech.in"
        refund = refund_status = base or "https://caller.atomtech.in"
        script = base or "https://pgtest.atomtech.in"
    assert not v2 or config.api_secret
    return Urls(
        auth=config.auth_url or f"{auth}/{config.api}/aipay/auth",
        status=config.status_url or status + _STATUS_PATH[config.requery],
        refund=config.refund_url or refund + "/ots/payment/refund",
        refund_status=config.refund_status_url or refund_status + _STATUS_PATH["v1"],
        script=config.script_url or script + _SCRIPT_PATH,
    )


def checked(config: Config) -> Config:
    """The configuration, if it can and may be used. Raises `Misconfigured`."""
    for name in (
        "merch_id",
        "password",
        "product",
        "req_enc_key",
        "res_dec_key",
        "req_hash_key",
        "resp_hash_key",
    ):
        if not getattr(config, name):
            raise Misconfigured(f"AtomPay account: {name} is missing")
    if len(config.merch_id) > 10 or not (config.merch_id.isascii() and config.merch_id.isdigit()):
        raise Misconfigured("AtomPay account: merch_id is a number of at most 10 digits")
    if config.res_dec_key == config.resp_hash_key or config.req_enc_key == config.req_hash_key:
        raise Misconfigured("AtomPay account: an encryption key stands where a hash key belongs")
    if config.req_hash_key == config.resp_hash_key:
        raise Misconfigured("AtomPay account: req_hash_key and resp_hash_key are the same")
    if "otsv2" in (config.api, config.requery) and not config.api_secret:
        raise Misconfigured("AtomPay account: otsv2 needs api_secret")
    if config.jwt_secret and len(config.jwt_secret.encode()) < MIN_JWT_BYTES:
        raise Misconfigured(f"AtomPay account: jwt_secret has less than {MIN_JWT_BYTES} bytes")
    if config.mode and config.mode not in MODES:
        raise Misconfigured(f"AtomPay account: mode is one of {' '.join(MODES)}")
    if config.env == "production":
        _live(config)
    for name in ("base_url", "auth_url", "status_url", "refund_url", "refund_status_url", "script_url"):
        _address(config, name)
    return config


def _live(config: Config) -> None:
    for name in sorted(SECRETS):
        if getattr(config, name).upper() in PUBLISHED_KEYS:
            raise Misconfigured(f"AtomPay account: {name} is a published test key and env is production")


def _address(config: Config, name: str) -> None:
    url = getattr(config, name)
    if not url:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None:
        raise Misconfigured(f"AtomPay account: {name} is no http address")
    if config.env == "production" and parts.scheme != "https":
        raise Misconfigured(f"AtomPay account: {name} is not https and env is production")


def request_key(config: Config) -> Key:
    return Key(config.req_enc_key, config.req_salt or config.req_enc_key)


def response_keys(config: Config, now_ms: int | None = None) -> Sequence[Key]:
    """What replies and callbacks may be sealed with, the current key first."""
    keys = [Key(config.res_dec_key, config.res_salt or config.res_dec_key)]
    if config.previous_res_dec_key and _previous_counts(config, now_ms):
        salt = config.previous_res_salt or config.previous_res_dec_key
        keys.append(Key(config.previous_res_dec_key, salt, "previous"))
    return keys


def response_hash_keys(config: Config, now_ms: int | None = None) -> Sequence[str]:
    keys = [config.resp_hash_key]
    if config.previous_resp_hash_key and _previous_counts(config, now_ms):
        keys.append(config.previous_resp_hash_key)
    return keys


def _previous_counts(config: Config, now_ms: int | None) -> bool:
    return not config.previous_until_ms or now_ms is None or now_ms < config.previous_until_ms
