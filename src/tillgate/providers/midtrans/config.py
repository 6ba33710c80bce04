"""One Midtrans account's settings, and what each of its rails can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tillgate.domain.errors import Misconfigured
from tillgate.spi import Channel, RefundRules

Choice: TypeAlias = Literal["qris", "wallet"]

LIVE_URL: Final = "https://api.midtrans.com"
SANDBOX_URL: Final = "https://api.sandbox.midtrans.com"
SECRETS: Final = frozenset({"server_key", "previous_server_key"})

_KEY: Final = re.compile(r"(SB-)?Mid-server-[\x21-\x39\x3b-\x7e]{8,128}", re.ASCII)
_DAY_S: Final = 86_400


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`server_key` is the dashboard's (Settings, Access keys); `SB-` in front makes it the sandbox's.

    Every wallet is collected by QRIS, which all of them can pay. `rails` opts single channels in to the
    wallet's own rail instead: GoPay and ShopeePay give a link into the app; OVO a push to the payer's phone
    and needs the payment's `metadata.customer_phone`. DANA has no rail of its own in the Core API."""

    server_key: str
    previous_server_key: str = ""  # notifications signed with it are still heard while the key is changed
    merchant_id: str = ""  # where given, an answer about another merchant is not believed
    rails: dict[str, Choice] = {}
    acquirer: Literal["gopay", "airpay shopee"] = "gopay"
    notification: Literal["override", "append", "dashboard"] = "override"
    base_url: str = ""  # default: by the key
    callback_url: str = ""  # where a wallet's app sends the payer back; default: the checkout page
    timeout_s: float = 15.0

    def __repr__(self) -> str:
        return f"Config(live={self.live}, base_url={self.url!r}, …)"

    __str__ = __repr__

    def __rich_repr__(self) -> Any:
        yield "live", self.live

    @property
    def live(self) -> bool:
        return not self.server_key.startswith("SB-")

    @property
    def url(self) -> str:
        return (self.base_url or (LIVE_URL if self.live else SANDBOX_URL)).rstrip("/")


@dataclass(frozen=True, slots=True)
class Rail:
    """One payment type of the Core API: limits in whole rupiah, expiry in seconds, refunds."""

    type: str
    kind: Literal["qr", "link", "push"]
    min_idr: int
    max_idr: int
    expiry_s: tuple[int, int] | None  # what may be asked for; None: it is fixed
    refunds: RefundRules


def _refunds(days: int, *, partial: bool = True) -> RefundRules:
    return RefundRules(partial=partial, parallel=True, window_s=days * _DAY_S, step_minor=100)


QRIS: Final = {
    # Off-us payments (another wallet's) are refused after 7 days by Midtrans itself.
    "gopay": Rail("qris", "qr", 1, 10_000_000, (20, 7 * _DAY_S), _refunds(45)),
    "airpay shopee": Rail("qris", "qr", 1, 10_000_000, (20, 5 * _DAY_S), _refunds(365)),
}
WALLETS: Final = {
    "gopay": Rail("gopay", "link", 1, 20_000_000, (20, 7 * _DAY_S), _refunds(45)),
    "ovo": Rail("ovo", "push", 1, 99_999_999, None, _refunds(7, partial=False)),
    "shopeepay": Rail("shopeepay", "link", 1, 20_000_000, (20, 5 * _DAY_S), _refunds(365, partial=False)),
}
CHANNELS: Final = tuple(
    Channel(
        id_,
        name,
        "IDR",
        min_minor=100,
        max_minor=(WALLETS[id_] if id_ in WALLETS else QRIS["gopay"]).max_idr * 100,
    )
    for id_, name in (("gopay", "GoPay"), ("ovo", "OVO"), ("dana", "Dana"), ("shopeepay", "ShopeePay"))
)


def rail(config: Config, channel: str) -> Rail:
    return WALLETS[channel] if config.rails.get(channel) == "wallet" else QRIS[config.acquirer]


def checked(config: Config) -> Config:
    """The configuration, if it can and may be used. Raises `Misconfigured`, whose text holds no secret."""
    for name in ("server_key", "previous_server_key"):
        key = getattr(config, name)
        if (key or name == "server_key") and not _KEY.fullmatch(key):
            raise Misconfigured(f"Midtrans account: {name} is Mid-server-… or SB-Mid-server-…")
    if config.previous_server_key.startswith("SB-") and config.live:
        raise Misconfigured(
            "Midtrans account: previous_server_key is the sandbox's and server_key a live one"
        )
    for channel, choice in config.rails.items():
        if channel not in (*WALLETS, "dana"):
            raise Misconfigured(f"Midtrans account: rails names {', '.join(WALLETS)} only")
        if channel == "dana" and choice == "wallet":
            raise Misconfigured("Midtrans account: the Core API has no rail of DANA's own; use qris")
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", config.merchant_id):
        raise Misconfigured("Midtrans account: merchant_id is letters and digits")
    for name in ("base_url", "callback_url"):
        _address(config, name)
    if not 0 < config.timeout_s <= 120:
        raise Misconfigured("Midtrans account: timeout_s is above 0 and at most 120")
    return config


def _address(config: Config, name: str) -> None:
    url = getattr(config, name)
    if not url:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise Misconfigured(f"Midtrans account: {name} is no http address")
    if config.live and parts.scheme != "https":
        raise Misconfigured(f"Midtrans account: {name} is not https and the key is a live one")
