"""The one outgoing HTTP client. Connectors and the worker describe a call; this sends it, once.

The answer to "may I repeat this?" is in the error: `Unreachable` means that no byte of the request left us,
`Unsure` that some did. No redirects, no cookies, no proxies from the environment, no decompression, no silent
second try; a limit on every wait and on every answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace
from yarl import URL

from tillgate.domain.errors import Unreachable, Unsure
from tillgate.spi import HttpCall, HttpReply
from tillgate.ssrf import AllowList, ForbiddenUrl, Target, check_address, checked_target, parse_url

WEBHOOK_REPLY_BYTES: Final = 64 * 1024
PROVIDER_REPLY_BYTES: Final = 1024 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_TIMEOUT_S: Final = 300.0

# Common servers close an idle connection after 5 s; a request that crosses that close is lost in doubt.
_IDLE_S: Final = 4.0
_LOOKUP_THREADS: Final = 16
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# "identity": what is not compressed cannot be a decompression bomb.
_OWN_HEADERS: Final = {"User-Agent": "Tillgate", "Accept-Encoding": "identity"}


class Outgoing:
    """Sends `HttpCall`s over a bounded pool of connections; use as an async context manager.

    With `guard=True` (URLs given by merchants) every URL and every address connected to must be public,
    https, or on `allow`. Guarded and unguarded calls need an instance each, so that they share no connection.

        async with Outgoing(guard=True, allow=AllowList.parse("127.0.0.1:9000")) as outgoing:
            reply = await outgoing.send(HttpCall("POST", "https://shop.example/hook", body=b"{}"))

    `max_reply_bytes`: a longer answer is `Unsure`; by default 64 KiB guarded, 1 MiB unguarded.
    `connect_timeout_s` bounds the wait for a free connection, the look-up, TCP and TLS together;
    `read_timeout_s` the silence between two pieces of an answer (None: `timeout_s` of the call);
    `HttpCall.timeout_s` everything. `tls` replaces the system's trust, for a private authority.
    """

    def __init__(
        self,
        *,
        guard: bool,
        allow: AllowList | None = None,
        max_reply_bytes: int | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float | None = None,
        connections: int = 128,
        connections_per_host: int = 32,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = _Guard(allow or AllowList()) if guard else None
        self._max_reply_bytes = max_reply_bytes or (WEBHOOK_REPLY_BYTES if guard else PROVIDER_REPLY_BYTES)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._connections = connections
        self._connections_per_host = connections_per_host
        self._given_resolver = resolver
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._threads: _Threads | None = None

    async def __aenter__(self) -> Self:
        resolver = self._given_resolver
        if resolver is None:
            resolver = self._threads = _Threads()
        connector = _Connector(
            resolver=_Guarded(resolver, self._guard) if self._guard else resolver,
            socket_factory=self._guard.open_socket if self._guard else None,
            ssl=self._tls or True,
            limit=self._connections,
            limit_per_host=self._connections_per_host,
            keepalive_timeout=_IDLE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_OWN_HEADERS,
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._threads is not None:
            await self._threads.close()

    async def send(self, call: HttpCall) -> HttpReply:
        """Send one request and read its whole answer, whatever its status.

        Raises `Unreachable` if nothing left us: not sendable, blocked by the guard, no such name, refused,
        no connection or no TLS in time. Raises `Unsure` for every failure after that: silence, reset, an
        answer that is cut, too long or not HTTP. Neither names more of the URL than its host and port.
        """
        target = self._target(call)
        timeout = _timeout(call.timeout_s, self._connect_timeout_s, self._read_timeout_s)
        if self._session is None:
            raise Unreachable("the outgoing client is not open")
        flight = _Flight()
        mark = _FLIGHT.set(flight)
        try:
            reply = await self._session.request(
                call.method,
                URL(target.url, encoded=True),  # the path goes out as it was given: it may be signed
                headers=call.headers,
                data=call.body or None,
                allow_redirects=False,
                timeout=timeout,
            )
            try:
                if reply.status < 200:
                    raise Unsure(f"the answer of {target.host}:{target.port} is no answer: {reply.status}")
                body = await self._read(reply)
            except BaseException:
                reply.close()
                raise
        except (Unreachable, Unsure):
            raise
        except Exception as error:  # noqa: BLE001 (whatever broke, it broke before or after the request left)
            # Not chained: the library's errors print the whole URL, and a callback's may hold a secret.
            where = f"{target.host}:{target.port}"
            if flight.left:
                raise Unsure(f"the answer of {where} is lost: {_why(error)}") from None
            raise Unreachable(f"no connection to {where}: {_why(error)}") from None
        finally:
            _FLIGHT.reset(mark)
        return HttpReply(reply.status, _lower(reply.headers.items()), body)

    def _target(self, call: HttpCall) -> Target:
        if call.method not in _METHODS:
            raise Unreachable(f"cannot send the method {call.method[:20]!r}")
        if len(call.body) > MAX_BODY_BYTES:
            raise Unreachable(f"cannot send more than {MAX_BODY_BYTES} bytes")
        if not 0 < call.timeout_s <= MAX_TIMEOUT_S:
            raise Unreachable(f"a time-out must be above 0 and at most {MAX_TIMEOUT_S:.0f} s")
        for name, value in call.headers.items():
            if _TOKEN.fullmatch(name) is None or not (value.isascii() and value.isprintable()):
                raise Unreachable(f"cannot send the header {name[:40]!r}")
        try:
            return checked_target(call.url, self._guard.allow) if self._guard else parse_url(call.url)
        except ForbiddenUrl as error:
            raise Unreachable(f"not sent: {error}") from error

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        first = await reply.content.readany()
        if reply.content.at_eof() and len(first) <= self._max_reply_bytes:
            return first
        body = bytearray(first)
        while len(body) <= self._max_reply_bytes:
            piece = await reply.content.readany()
            if not piece:
                return bytes(body)
            body += piece
        raise Unsure(
            f"the answer of {reply.url.host}:{reply.url.port} is longer than {self._max_reply_bytes} bytes"
            f" (status {reply.status})"
        )


class _Flight:
    """How far one `send` came."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


_FLIGHT: Final[ContextVar[_Flight]] = ContextVar("flight")


class _Connector(aiohttp.TCPConnector):
    """Gives a request a clean connection, and notes that from there on its bytes may leave."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (the library's signature)
    ) -> Connection:
        flight = _FLIGHT.get()
        if flight.left:
            # The library repeats GET, PUT and DELETE by itself when a pooled connection breaks.
            raise Unsure(f"the answer of {req.host}:{req.port} is lost: the connection was closed")
        # Tries enough to be rid of all idle connections to that host, and an end if each new one does it too.
        for _ in range((self.limit_per_host or self.limit) + 1):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                flight.left = True
                return connection
            # Bytes came that nobody asked for. The library would take them for the answer to this request and
            # shift every later answer by one: another payment's status would be read as this one's.
            connection.close()
        raise Unreachable(f"{req.host}:{req.port} speaks before it is asked")


class _Guard:
    """The check at connect time. Every socket is opened here, so no way around a resolver matters."""

    def __init__(self, allow: AllowList) -> None:
        self.allow = allow
        # Where allowed names led. Bounded by the list, which the operator writes.
        self._allowed_addresses: set[tuple[str, int]] = set()

    def admit(self, host: str, found: list[ResolveResult]) -> None:
        """Raises `ForbiddenUrl` unless *all* addresses of a name are public, or the name is allowed."""
        for address in found:
            if (host, address["port"]) in self.allow:
                self._allowed_addresses.add((address["host"], address["port"]))
            else:
                check_address(address["host"])

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, proto, _, address = info
        pair = (address[0], address[1])
        if pair not in self.allow and pair not in self._allowed_addresses:
            check_address(address[0])
        return socket.socket(family, kind, proto)


class _Guarded(AbstractResolver):
    """A resolver whose answers were checked; the numeric addresses it gives are the ones connected to."""

    def __init__(self, inner: AbstractResolver, guard: _Guard) -> None:
        self._inner, self._guard = inner, guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        self._guard.admit(host, found)
        return found

    async def close(self) -> None:
        await self._inner.close()


class _Threads(AbstractResolver):
    """Names looked up by the system, in threads of their own: a dead name server must not stall all work."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        infos = await loop.run_in_executor(
            self._pool, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in infos
            if kind in (socket.AF_INET, socket.AF_INET6)
        ]

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@lru_cache(maxsize=64)
def _timeout(total_s: float, connect_s: float, read_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, connect=min(connect_s, total_s), sock_read=read_s)


def _lower(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, repeated fields joined, bytes that are no UTF-8 replaced: fit to be stored."""
    headers: dict[str, str] = {}
    for given, text in items:
        name = given.lower()
        value = text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _why(error: BaseException) -> str:
    """A short reason without URL or address: the system's words for its errors, the kind of any other."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate is not trusted"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause:
        case ForbiddenUrl():
            return str(cause)
        case TimeoutError():
            return "timed out"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed"
        case ssl.SSLError():
            return f"TLS failed ({cause.reason})"
        case socket.gaierror():
            return "the name is not known"
        case OSError(errno=int(number)):
            return os.strerror(number)
    return type(cause).__name__
