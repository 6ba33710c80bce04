"""One ATOM POS partner: how its messages prove themselves, and its terminal on the LAN."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tillgate.domain.errors import Misconfigured
from tillgate.providers.atompos_vn.tokens import Algorithm

Auth: TypeAlias = Literal["jwt", "none", "header", "path"]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

SECRETS: Final = frozenset({"jwt_secret", "previous_jwt_secret", "password", "header_value", "verify_code"})

PRIVATE: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
"""A shop's own network and this machine: where a terminal may be."""
MIN_SECRET_CHARS: Final = 16


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`auth`: jwt (the IPN document's), header (a fixed one), path (an unguessable address), none.

    `user` and `password` are what `/authorize` takes, and, as HTTP Basic, what auth header takes where no
    `header_value` is set. `allow_ips`: addresses or networks that may send at all; with auth none, private
    ones unless it says otherwise. `require_known_request`: money is taken only for a request that we pushed.
    `ack_permanent_errors`: answer 200 to what no repeat can mend, because the sender never stops.
    `paid_codes`: what the older notification's resultResponseCode says when it is paid.
    """

    auth: Auth = "jwt"
    jwt_secret: str = ""
    previous_jwt_secret: str = ""
    jwt_algorithm: Algorithm = "HS256"
    jwt_audience: str = ""
    jwt_issuer: str = ""
    token_ttl_s: int = 300
    user: str = ""
    password: str = ""
    header_name: str = "x-callback-token"
    header_value: str = ""
    allow_ips: tuple[str, ...] = ()
    require_known_request: bool = False
    ack_permanent_errors: bool = False
    paid_codes: tuple[str, ...] = ("00",)
    pos_url: str = ""
    verify_code: str = ""
    pos_timeout_s: float = 10.0

    def __repr__(self) -> str:
        return f"Config(auth={self.auth!r}, user={self.user!r}, …)"

    __str__ = __repr__


def checked(config: Config) -> Config:
    """The configuration, if it can and may be used. Raises `Misconfigured`."""
    if config.auth == "header" and len(config.header_value or config.password) < MIN_SECRET_CHARS:
        raise Misconfigured(
            f"ATOM POS: auth header needs a header_value or a password of {MIN_SECRET_CHARS} characters"
        )
    if bool(config.user) != bool(config.password):
        raise Misconfigured("ATOM POS: user and password come together")
    if not 0 < config.pos_timeout_s <= 300:
        raise Misconfigured("ATOM POS: pos_timeout_s is above 0 and at most 300")
    networks(config.allow_ips)
    if config.pos_url:
        _terminal(config)
    return config


def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Raises `Misconfigured`."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError:
        raise Misconfigured("ATOM POS: allow_ips is a list of addresses or networks") from None


@lru_cache(maxsize=1024)
def within(address: str, allowed: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in allowed)


def _terminal(config: Config) -> None:
    """Plain HTTP with a pairing code in the URL: that may cross the shop's own network and no other."""
    try:
        parts = urlsplit(config.pos_url)
        valid = parts.port != 0
    except ValueError:
        raise Misconfigured("ATOM POS: pos_url is no address") from None
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    if parts.scheme not in ("http", "https") or parts.username is not None or parts.query or parts.fragment:
        raise Misconfigured("ATOM POS: pos_url is like http://192.168.1.20:8080")
    if not within(host, PRIVATE) or not valid:
        raise Misconfigured("ATOM POS: pos_url is the terminal's private address, in numbers")
    code = config.verify_code
    if not (4 <= len(code) <= 12 and code.isascii() and code.isalnum()):
        raise Misconfigured("ATOM POS: verify_code is the pairing code that the terminal shows")
