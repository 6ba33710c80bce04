"""One Xendit account's settings, and what each of its rails can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tillgate.domain.errors import Misconfigured
from tillgate.spi import Channel, RefundRules

Choice: TypeAlias = Literal["qris", "wallet"]

API_URL: Final = "https://api.xendit.co"
API_VERSION: Final = "2024-11-11"
SECRETS: Final = frozenset({"secret_key", "callback_token", "previous_callback_token"})

_KEY: Final = re.compile(r"xnd_(development|production)_[\x21-\x39\x3b-\x7e]{16,256}", re.ASCII)
_DAY_S: Final = 86_400


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`secret_key` and `callback_token` are the dashboard's (API keys; webhook verification token).

    Every wallet is collected by QRIS, which all of them can pay. `rails` opts single channels in to the
    wallet's own rail instead: `{"dana": "wallet"}` gives a link into the app; `{"ovo": "wallet"}` a push to
    the payer's phone and needs the payment's `metadata.customer_phone`."""

    secret_key: str
    callback_token: str
    previous_callback_token: str = ""  # still accepted while a token is being changed
    rails: dict[str, Choice] = {}
    base_url: str = API_URL
    api_version: str = API_VERSION
    success_return_url: str = ""  # where a wallet's app sends the payer back; default: the checkout page
    failure_return_url: str = ""
    timeout_s: float = 15.0

    def __repr__(self) -> str:
        return f"Config(live={self.live}, base_url={self.base_url!r}, …)"

    __str__ = __repr__

    def __rich_repr__(self) -> Any:
        yield "live", self.live

    @property
    def live(self) -> bool:
        return self.secret_key.startswith("xnd_production_")


@dataclass(frozen=True, slots=True)
class Rail:
    """One of Xendit's Indonesian channels: limits in whole rupiah and refunds, as its channel pages say."""

    code: str
    kind: Literal["qr", "link", "push"]
    min_idr: int
    max_idr: int
    refunds: RefundRules | None  # None: no refunds


def _refunds(days: int) -> RefundRules:
    """Partial refunds are fine, one at a time (REFUND_IN_PROGRESS), in whole rupiah."""
    return RefundRules(partial=True, parallel=False, window_s=days * _DAY_S, step_minor=100)


QRIS: Final = Rail("QRIS", "qr", 1, 10_000_000, _refunds(7))
WALLETS: Final = {
    "gopay": Rail("GOPAY", "link", 1, 50_000_000, _refunds(45)),
    "ovo": Rail("OVO", "push", 100, 20_000_000, None),
    "dana": Rail("DANA", "link", 100, 20_000_000, _refunds(30)),
    "shopeepay": Rail("SHOPEEPAY", "link", 1, 20_000_000, _refunds(365)),
}
CHANNELS: Final = tuple(
    Channel(id_, name, "IDR", min_minor=100, max_minor=max(QRIS.max_idr, WALLETS[id_].max_idr) * 100)
    for id_, name in (("gopay", "GoPay"), ("ovo", "OVO"), ("dana", "Dana"), ("shopeepay", "ShopeePay"))
)


def rail(config: Config, channel: str) -> Rail:
    return WALLETS[channel] if config.rails.get(channel) == "wallet" else QRIS


def checked(config: Config) -> Config:
    """The configuration, if it can and may be used. Raises `Misconfigured`, whose text holds no secret."""
    if not _KEY.fullmatch(config.secret_key):
        raise Misconfigured("Xendit account: secret_key is xnd_development_… or xnd_production_…")
    for name in ("callback_token", "previous_callback_token"):
        token = getattr(config, name)
        if (token or name == "callback_token") and (len(token) < 16 or not token.isascii()):
            raise Misconfigured(f"Xendit account: {name} is 16 characters or more, as the dashboard shows it")
    for channel in config.rails:
        if channel not in WALLETS:
            raise Misconfigured(f"Xendit account: rails names {', '.join(WALLETS)} only")
    for name in ("base_url", "success_return_url", "failure_return_url"):
        _address(config, name)
    if not re.fullmatch(r"[0-9-]{1,20}", config.api_version):
        raise Misconfigured("Xendit account: api_version is a date")
    if not 0 < config.timeout_s <= 120:
        raise Misconfigured("Xendit account: timeout_s is above 0 and at most 120")
    return config


def _address(config: Config, name: str) -> None:
    url = getattr(config, name)
    if not url and name != "base_url":
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise Misconfigured(f"Xendit account: {name} is no http address")
    if config.live and parts.scheme != "https":
        raise Misconfigured(f"Xendit account: {name} is not https and the key is a live one")
