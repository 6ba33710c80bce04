"""Which URLs given by a merchant we may call: not our own machine, not our network, not a cloud's metadata.

Pure: nothing is looked up here. `check_url` reads a URL when a merchant gives it; `check_address` judges
every numeric address when we connect, because a name may lead elsewhere by then. The table of denied networks
is explicit, since `ipaddress.is_global` changes between patch releases of Python and takes some wrappings of
127.0.0.1 (NAT64, 6to4) for public addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NoReturn

from tillgate.domain.errors import Misconfigured, RequestError

MAX_URL_CHARS: Final = 2_048
_MAX_HOST_CHARS: Final = 253

_DENIED_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT; a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, reachable from inside a machine only
        "169.254.0.0/16",  # link-local; metadata of most clouds at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

# Of IPv6 only global unicast is public, less what is carved out of it. So ::, ::1, IPv4-mapped and
# -compatible forms, 64:ff9b:1::/48, 100::/64, 5f00::/16, fc00::/7, fe80::/10 and ff00::/8 need no entry.
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_DENIED_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address to a relay
        "3fff::/20",  # documentation
    )
)
# A network without IPv4 reaches all of it by this prefix (RFC 6052 §2.1), so the address inside decides.
_NAT64: Final = IPv6Network("64:ff9b::/96")

_LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa")

# Ports of other protocols that would take an HTTP request for theirs: the Fetch standard's list of bad ports.
# fmt: off
_BAD_PORTS: Final = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
    104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513,
    514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719,
    1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080,
))
# fmt: on

_URL: Final = re.compile(r'(https?)://([^/?#]*)((?:[/?][!"$-\[\]-~]*)?)', re.IGNORECASE | re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{1,5}))?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_NAME: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
# IDNA 2003 and 2008 send these to different domains, and we must not guess whose it is.
_AMBIGUOUS: Final = re.compile("[ßẞς\u200c\u200d]")


class ForbiddenUrl(RequestError):
    """This URL may not be called."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. `host` is lower case ASCII without a trailing dot; of IPv6, without brackets."""

    scheme: str
    host: str
    port: int
    rest: str  # path and query, exactly as given; at least "/"

    @property
    def is_address(self) -> bool:
        return ":" in self.host or _ends_in_number(self.host)

    @property
    def url(self) -> str:
        """The same URL in ASCII, with its port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.rest}"


@dataclass(frozen=True, slots=True)
class AllowList:
    """Exact `(host, port)` pairs that the guard lets through, for receivers on our own machine in tests."""

    pairs: frozenset[tuple[str, int]] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """Read `TILLGATE_CALLBACK_ALLOW`: `"127.0.0.1:9000, localhost:8080, [::1]:9000"`; empty means none.

        Raises `Misconfigured` naming the first entry that is not a host and a port.
        """
        pairs = set()
        for entry in (part.strip() for part in text.split(",")):
            if not entry:
                continue
            found = _AUTHORITY.fullmatch(entry)
            try:
                if found is None or found[2] is None:
                    raise ForbiddenUrl
                pairs.add((_host(found[1]), _port(found[2])))
            except ForbiddenUrl:
                raise Misconfigured(
                    f"TILLGATE_CALLBACK_ALLOW: {entry[:80]!r} is not host:port, such as 127.0.0.1:9000"
                ) from None
        return cls(frozenset(pairs))

    def __contains__(self, pair: tuple[str, int]) -> bool:
        return pair in self.pairs


def check_url(url: str, allow: AllowList) -> None:
    """Return if a merchant may give us this URL to call; the address behind a name is checked at connect.

    A URL is `https://host[:port]/path?query` with a public host name or address. A host and port on `allow`
    may also be plain http, local, or on any port. Raises `ForbiddenUrl`, whose text says what to change.
    """
    checked_target(url, allow)


@lru_cache(maxsize=1_024)
def checked_target(url: str, allow: AllowList) -> Target:
    """`check_url`, giving what it read. Remembered, because the same few endpoints are called all day."""
    target = parse_url(url)
    if (target.host, target.port) in allow:
        return target
    if target.scheme != "https":
        _refuse("the URL must start with https://")
    if target.port in _BAD_PORTS:
        _refuse(f"port {target.port} belongs to another protocol")
    if target.is_address:
        check_address(target.host)
    elif "." not in target.host or target.host.endswith(tuple("." + name for name in _LOCAL_NAMES)):
        _refuse("the host must have a public name")
    return target


def parse_url(url: str) -> Target:
    """Take apart an http(s) URL, without judging where it leads. Raises `ForbiddenUrl` if it is not one."""
    if len(url) > MAX_URL_CHARS:
        _refuse(f"the URL is longer than {MAX_URL_CHARS} characters")
    found = _URL.fullmatch(url)
    if found is None:
        if not url.lower().startswith(("http://", "https://")):
            _refuse("the URL must start with https://")
        _refuse("the URL may hold no spaces, control characters, fragment or unescaped characters")
    scheme, authority, rest = found[1].lower(), found[2], found[3]
    if "@" in authority:
        _refuse("the URL may hold no user name or password")
    pieces = _AUTHORITY.fullmatch(authority)
    if pieces is None:
        _refuse("the URL's host and port cannot be read")
    port = _port(pieces[2]) if pieces[2] else 443 if scheme == "https" else 80
    return Target(scheme, _host(pieces[1]), port, rest if rest.startswith("/") else "/" + rest)


def check_address(address: str) -> None:
    """Return if this numeric address is a public one. Raises `ForbiddenUrl`, without repeating the address.

    An error text reaches the merchant, who must not learn from it how our network's names resolve.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        _refuse("the host does not lead to an address")
    if isinstance(ip, IPv6Address) and ip in _NAT64 and ip.scope_id is None:
        ip = IPv4Address(ip.packed[12:])
    if isinstance(ip, IPv4Address):
        denied = any(ip in network for network in _DENIED_V4)
    else:
        denied = (
            ip.scope_id is not None or ip not in _GLOBAL_V6 or any(ip in network for network in _DENIED_V6)
        )
    if denied:
        _refuse("the host does not lead to a public address")


def _host(text: str) -> str:
    """Bring a host to its one spelling; refuse those that have several."""
    if not text or len(text) > _MAX_HOST_CHARS:
        _refuse(f"the host must have 1 to {_MAX_HOST_CHARS} characters")
    if text.startswith("["):
        if "%" in text:
            _refuse("the host may hold no zone")
        try:
            return IPv6Address(text[1:-1]).compressed
        except ValueError:
            _refuse("the host is not an IPv6 address")
    if not text.isascii():
        if _AMBIGUOUS.search(text):
            _refuse("the host must be given in its ASCII form (xn--…)")
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            _refuse("the host is not a name")
    host = text.lower().removesuffix(".")
    if _NAME.fullmatch(host) is None or len(host) > _MAX_HOST_CHARS:
        _refuse("the host is not a name")
    if _ends_in_number(host):
        # A name never ends in a number, but resolvers read 2130706433, 0177.1 and 0x7f.1 as addresses.
        try:
            return str(IPv4Address(host))
        except ValueError:
            _refuse("an IPv4 address must be written as four decimal numbers")
    return host


def _ends_in_number(host: str) -> bool:
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65_535:
        _refuse("the port must be 1 to 65535")
    return port


def _refuse(why: str) -> NoReturn:
    raise ForbiddenUrl(why, param="callback_url")
