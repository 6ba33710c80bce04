"""One Payme cash desk's settings."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, Literal, TypeAlias

import msgspec

from tillgate.domain.errors import Misconfigured

Language: TypeAlias = Literal["ru", "uz", "en"]

CHECKOUT_URL: Final = "https://checkout.paycom.uz"
SANDBOX_CHECKOUT_URL: Final = "https://test.paycom.uz"
SOURCE_NETWORK: Final = "185.234.113.0/28"
"""Where Payme calls from: 185.234.113.1 to .15 (Merchant API, protocol)."""

MIN_KEY_CHARS: Final = 16  # Payme's own keys have 36, TEST_KEY too; a short one was made up by hand
MIN_KEY_KINDS: Final = 6  # so many different characters; Payme's have about 25
EXAMPLE_KEY: Final = "an-example-test-key-of-36-characters"
"""Published in our documents: anybody may know it."""

_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}", re.ASCII)
_MERCHANT: Final = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`key` and `test_key` are the passwords Payme gives a cash desk; which one counts, `sandbox` says."""

    merchant_id: str
    key: str = ""
    previous_key: str = ""  # still accepted while a key is being changed
    test_key: str = ""
    login: str = "Paycom"
    account_fields: tuple[str, ...] = ("order_id",)  # as the cash desk names them, in this order
    sandbox: bool = False
    checkout_url: str = ""
    source_ips: tuple[str, ...] = ()  # addresses or networks; none: any
    language: Language = "ru"

    def __repr__(self) -> str:
        return f"Config(merchant_id={self.merchant_id!r}, sandbox={self.sandbox})"

    __str__ = __repr__

    def __rich_repr__(self) -> Any:
        yield "merchant_id", self.merchant_id
        yield "sandbox", self.sandbox

    @property
    def checkout(self) -> str:
        return (self.checkout_url or (SANDBOX_CHECKOUT_URL if self.sandbox else CHECKOUT_URL)).rstrip("/")

    @property
    def passwords(self) -> tuple[str, ...]:
        """Those that open the door now, the current one first."""
        keys = (self.test_key or self.key,) if self.sandbox else (self.key,)
        return tuple(key for key in (*keys, self.previous_key) if key)


def checked(config: Config) -> Config:
    """Raises `Misconfigured`; its message never repeats a key."""
    name = "test_key" if config.sandbox else "key"
    current = (config.test_key or config.key) if config.sandbox else config.key
    if not current.strip():
        raise Misconfigured(f"payme: {name} is empty: an empty key would let anyone in")
    if not config.login or ":" in config.login:
        raise Misconfigured("payme: login must not be empty or hold a colon")
    if not _MERCHANT.fullmatch(config.merchant_id):
        raise Misconfigured("payme: merchant_id has 1 to 64 letters, digits, '-' or '_'")
    if not config.account_fields or len(set(config.account_fields)) != len(config.account_fields):
        raise Misconfigured("payme: account_fields must name each field once")
    for field in config.account_fields:
        if not _FIELD.fullmatch(field):
            raise Misconfigured(f"payme: {field[:40]!r} cannot be an account field")
    if not config.checkout.startswith(("https://", "http://")):
        raise Misconfigured("payme: checkout_url must be an http(s) address")
    if config.previous_key and not config.previous_key.strip():
        raise Misconfigured("payme: previous_key is blank: leave it out where no key is being changed")
    networks(config.source_ips)
    return config


def strong(config: Config) -> Config:
    """Raises `Misconfigured` for a key that Payme cannot have given out; for accounts of the hub.

    Those that do not count now, too: `sandbox` is a setting of the account, and what a test account is told
    is booked like anything else.
    """
    checked(config)
    for name in ("key", "test_key", "previous_key"):
        key = getattr(config, name)
        if key and len(key) < MIN_KEY_CHARS:
            raise Misconfigured(f"payme: {name} must have at least {MIN_KEY_CHARS} characters")
        if key and len(set(key)) < MIN_KEY_KINDS:
            raise Misconfigured(f"payme: {name} repeats a few characters: it is no key of Payme's")
        if key == EXAMPLE_KEY and not config.sandbox:
            raise Misconfigured(
                f"payme: {name} is the published example: anybody could say that orders are paid"
            )
    return config


def networks(source_ips: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Raises `Misconfigured`."""
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in source_ips)
    except ValueError as error:
        raise Misconfigured(f"payme: source_ips: {error}") from None
