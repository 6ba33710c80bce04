"""The outgoing client against real sockets that misbehave: what left us, and what may be repeated."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import secrets
import socket
import ssl
import struct
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tillgate.domain.errors import Unreachable, Unsure
from tillgate.outgoing import Outgoing, _Guard
from tillgate.spi import HttpCall, HttpReply
from tillgate.ssrf import AllowList, ForbiddenUrl

Answer = Callable[["Wire", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HUSH = secrets.token_hex(16)  # made at run time, so that a traceback's source lines do not hold it
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Wire:
    """A server on loopback that keeps what it was sent, byte for byte."""

    port: int = 0
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    requests: list[bytes] = field(default_factory=list)

    def url(self, rest: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{rest}"

    def post(self, rest: str = "/hook", timeout_s: float = 5.0) -> HttpCall:
        return HttpCall("POST", self.url(rest), {"content-type": "application/json"}, b"{}", timeout_s)

    def get(self, rest: str = "/status", timeout_s: float = 5.0) -> HttpCall:
        return HttpCall("GET", self.url(rest), timeout_s=timeout_s)


async def take(wire: Wire, reader: asyncio.StreamReader) -> bytes:
    """Read one whole request and keep it."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    request = head + await reader.readexactly(length)
    wire.requests.append(request)
    return request


@contextlib.asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    wire = Wire()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        wire.connections += 1
        wire.open_now += 1
        wire.most_open = max(wire.most_open, wire.open_now)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await answer(wire, reader, writer)
        finally:
            wire.open_now -= 1
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def always(reply: bytes) -> Answer:
    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take(wire, reader)
            writer.write(reply)
            await writer.drain()

    return answer


def once(reply: bytes, *, reset: bool = False) -> Answer:
    """Answer one request with these bytes and close, gently or not."""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(wire, reader)
        writer.write(reply)
        await writer.drain()
        if reset:
            await asyncio.sleep(0.05)
            plain: socket.socket = writer.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        await writer.wait_closed()

    return answer


async def silence(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await take(wire, reader)
    await reader.read()  # until the client hangs up


class Names(AbstractResolver):
    """Answers every look-up from a list, one after another; the last one again and again."""

    def __init__(self, *answers: list[str], delay_s: float = 0) -> None:
        self.answers, self.asked, self.delay_s = list(answers), 0, delay_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=text, port=port, family=socket.AF_UNSPEC, proto=0, flags=0)
            for text in addresses
        ]

    async def close(self) -> None: ...


@pytest.fixture
async def plain() -> AsyncIterator[Outgoing]:
    async with Outgoing(guard=False, connect_timeout_s=1.0) as outgoing:
        yield outgoing


# --- what goes out and what comes back ----------------------------------------------------------------------


async def test_the_request_is_exactly_the_call(plain: Outgoing) -> None:
    async with serving(always(OK)) as wire:
        await plain.send(
            HttpCall(
                "POST",
                wire.url("/a%2fb/%7Eme?sum=1+2&sig=a%2Bb%3d'"),
                {"Content-Type": "application/json", "webhook-id": "evt_1"},
                b'{"total":"15000.00"}',
            )
        )

    head, _, body = wire.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /a%2fb/%7Eme?sum=1+2&sig=a%2Bb%3d' HTTP/1.1"
    assert body == b'{"total":"15000.00"}'
    assert sorted(headers) == [
        "Accept-Encoding: identity",
        "Accept: */*",
        "Content-Length: 20",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{wire.port}",
        "User-Agent: Tillgate",
        "webhook-id: evt_1",
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_an_empty_body_is_sent_as_one(plain: Outgoing, method: str) -> None:
    async with serving(always(OK)) as wire:
        assert await plain.send(HttpCall(method, wire.url())) == HttpReply(
            200, {"content-length": "2"}, b"ok"
        )

    assert wire.requests[0].startswith(f"{method} /hook HTTP/1.1\r\n".encode())
    assert b"chunked" not in wire.requests[0]
    assert b"Content-Type" not in wire.requests[0]
    assert (b"Content-Length: 0" in wire.requests[0]) == (method != "GET")


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", HttpReply(204, {}, b"")),
        (
            b"HTTP/1.1 404 Nope\r\nContent-Length: 4\r\n\r\nnope",
            HttpReply(404, {"content-length": "4"}, b"nope"),
        ),
        (
            b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            HttpReply(500, {"transfer-encoding": "chunked"}, b"abc"),
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\nSet-Cookie: a=1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n",
            HttpReply(200, {"x-a": "1, 2", "set-cookie": "a=1", "content-length": "0"}, b""),
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-A: caf\xe9 \xc3\xa9\r\nContent-Length: 1\r\n\r\n\xff",
            HttpReply(200, {"x-a": "caf\ufffd é", "content-length": "1"}, b"\xff"),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            HttpReply(200, {"content-length": "2"}, b"ok"),
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil closed", HttpReply(200, {}, b"until closed")),
    ],
    ids=["empty", "error", "chunked", "repeated", "not utf-8", "continue", "no length"],
)
async def test_the_reply_is_exactly_the_answer(plain: Outgoing, raw: bytes, reply: HttpReply) -> None:
    async with serving(once(raw)) as wire:
        assert await plain.send(wire.post()) == reply


async def test_head_has_no_body(plain: Outgoing) -> None:
    async with serving(always(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")) as wire:
        assert (await plain.send(HttpCall("HEAD", wire.url()))).body == b""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(plain: Outgoing, status: int) -> None:
    async with serving(always(OK)) as elsewhere:
        location = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url()}\r\nContent-Length: 0\r\n\r\n"
        async with serving(always(location.encode())) as wire:
            reply = await plain.send(wire.post())

    assert (reply.status, reply.headers["location"]) == (status, elsewhere.url())
    assert (len(wire.requests), elsewhere.connections) == (1, 0)


async def test_cookies_are_not_kept(plain: Outgoing) -> None:
    async with serving(
        always(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n")
    ) as wire:
        await plain.send(wire.post())
        await plain.send(wire.post())

    assert len(wire.requests) == 2
    assert b"ookie" not in wire.requests[1]


async def test_a_proxy_in_the_environment_is_not_used(
    plain: Outgoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(always(OK)) as proxy, serving(always(OK)) as wire:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        await plain.send(wire.post())

    assert (proxy.connections, wire.connections) == (0, 1)


async def test_a_connection_is_used_again(plain: Outgoing) -> None:
    async with serving(always(OK)) as wire:
        for _ in range(5):
            await plain.send(wire.post())

    assert (wire.connections, len(wire.requests)) == (1, 5)


# --- nothing left us: safe to repeat ------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_refused(plain: Outgoing) -> None:
    port = closed_port()
    with pytest.raises(Unreachable) as lost:
        await plain.send(HttpCall("POST", f"http://127.0.0.1:{port}/pay?key=hush"))
    assert str(lost.value) == f"no connection to 127.0.0.1:{port}: Connection refused"


async def test_no_such_name() -> None:
    async with Outgoing(guard=False, resolver=Names([])) as outgoing:
        with pytest.raises(Unreachable, match=r"^no connection to bank\.test:443: the name is not known$"):
            await outgoing.send(HttpCall("POST", "https://bank.test/pay"))


async def test_a_name_server_that_does_not_answer() -> None:
    async with Outgoing(
        guard=False, resolver=Names(["127.0.0.1"], delay_s=30), connect_timeout_s=0.2
    ) as outgoing:
        with pytest.raises(Unreachable, match="timed out"):
            await outgoing.send(HttpCall("POST", "https://bank.test/pay"))


@pytest.mark.parametrize(("connect_s", "total_s"), [(0.2, 5.0), (5.0, 0.2)], ids=["connect", "total"])
async def test_tls_that_never_answers(connect_s: float, total_s: float) -> None:
    async def mute(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with serving(mute) as wire, Outgoing(guard=False, connect_timeout_s=connect_s) as outgoing:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            await outgoing.send(
                HttpCall("POST", wire.url().replace("http:", "https:"), body=b"secret", timeout_s=total_s)
            )
        assert time.monotonic() - began < 4
    assert (wire.connections, wire.requests) == (1, [])


async def test_tls_spoken_to_a_plain_server(plain: Outgoing) -> None:
    async def banner(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.requests.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(banner) as wire:
        with pytest.raises(Unreachable, match="TLS failed"):
            await plain.send(HttpCall("POST", wire.url().replace("http:", "https:"), body=b"secret"))
    assert b"secret" not in wire.requests[0]


async def test_no_free_connection_in_time() -> None:
    async with (
        serving(silence) as wire,
        Outgoing(guard=False, connections=1, connect_timeout_s=0.2) as outgoing,
    ):
        first = asyncio.create_task(outgoing.send(wire.post(timeout_s=1.0)))
        await asyncio.sleep(0.05)
        with pytest.raises(Unreachable, match="timed out"):
            await outgoing.send(wire.post())
        with pytest.raises(Unsure):
            await first
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (HttpCall("CONNECT", "http://127.0.0.1/"), "method"),
        (HttpCall("GET /x HTTP/1.1\r\nHost: inside\r\n\r\n", "http://127.0.0.1/"), "method"),
        (HttpCall("get", "http://127.0.0.1/"), "method"),
        (HttpCall("GET", "http://127.0.0.1/", {"x-a": "1\r\nx-b: 2"}), "header 'x-a'"),
        (HttpCall("GET", "http://127.0.0.1/", {"x-a": "hush\x00"}), "header 'x-a'"),
        (HttpCall("GET", "http://127.0.0.1/", {"x-a": "hush é"}), "header 'x-a'"),
        (HttpCall("GET", "http://127.0.0.1/", {"x a": "1"}), "header 'x a'"),
        (HttpCall("GET", "http://127.0.0.1/", {"": "1"}), "header ''"),
        (HttpCall("GET", "http://127.0.0.1/", timeout_s=0), "time-out"),
        (HttpCall("GET", "http://127.0.0.1/", timeout_s=-1), "time-out"),
        (HttpCall("GET", "http://127.0.0.1/", timeout_s=float("inf")), "time-out"),
        (HttpCall("GET", "http://127.0.0.1/", timeout_s=float("nan")), "time-out"),
        (HttpCall("POST", "http://127.0.0.1/", body=b"x" * (1024 * 1024 + 1)), "1048576 bytes"),
        (HttpCall("GET", "file:///etc/passwd"), "the URL must start with"),
        (HttpCall("GET", "http://127.0.0.1/a b"), "unescaped"),
        (HttpCall("GET", "http://127.0.0.1/\r\nx: y"), "unescaped"),
        (HttpCall("GET", "http://hush@127.0.0.1/"), "user name"),
        (HttpCall("GET", "http://127.0.0.1:99999/"), "port"),
        (HttpCall("GET", ""), "the URL must start with"),
    ],
)
async def test_what_cannot_be_sent_is_not(plain: Outgoing, call: HttpCall, says: str) -> None:
    with pytest.raises(Unreachable, match=says) as refused:
        await plain.send(call)
    assert "hush" not in str(refused.value)


async def test_a_client_that_is_not_open_sends_nothing() -> None:
    async with serving(always(OK)) as wire:
        outgoing = Outgoing(guard=False)
        with pytest.raises(Unreachable, match="not open"):
            await outgoing.send(wire.post())
        async with outgoing:
            await outgoing.send(wire.post())
        with pytest.raises(Unreachable, match="not open"):
            await outgoing.send(wire.post())
    assert wire.connections == 1


# --- it left us and the answer is lost ----------------------------------------------------------------------

BIG = b"x" * (5 * 1024 * 1024)


def with_length(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body) if length is None else length,
        body,
    )


def chunked(body: bytes, *, end: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [body[i : i + 4096] for i in range(0, len(body), 4096)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + chunks + (b"0\r\n\r\n" if end else b"")


@pytest.mark.parametrize(
    "answer",
    [
        once(b""),
        once(b"", reset=True),
        once(b"HTTP/1.1 200 OK\r\nContent-Le"),
        once(with_length(b"half", 100)),
        once(with_length(b"half", 100), reset=True),
        once(chunked(b"half", end=False)),
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        once(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"),
        once(b"\x16\x03\x01\x00\xff" * 50),
        once(b"\x00" * 1000),
        once(b"HTTP/1.1 OK\r\n\r\n"),
        once(b"HTTP/9.9 200 OK\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 10_000 + b"\r\n"),
        once(with_length(BIG)),
        once(chunked(BIG)),
        once(b"HTTP/1.0 200 OK\r\n\r\n" + BIG),
        once(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello", reset=True),
    ],
    ids=[
        "closed", "reset", "cut head", "cut body", "reset body", "cut chunks", "bad chunk", "negative length",
        "two lengths", "ssh", "tls", "zeros", "no status", "version", "long header", "many headers",
        "5 MB", "5 MB chunked", "5 MB unannounced", "upgrade",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
async def test_a_lost_answer_is_unsure_and_not_asked_for_again(
    plain: Outgoing, method: str, answer: Answer
) -> None:
    async with serving(answer) as wire:
        with pytest.raises(Unsure, match=f"^the answer of 127.0.0.1:{wire.port} ") as lost:
            await plain.send(HttpCall(method, wire.url("/pay?key=" + HUSH), timeout_s=2.0))
        await asyncio.sleep(0.05)

    assert HUSH not in "".join(traceback.format_exception(lost.value))
    assert [request.split(b" ")[0].decode() for request in wire.requests] == [method]


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
async def test_a_used_connection_that_breaks_is_unsure_too(plain: Outgoing, method: str) -> None:
    async def second_time_unlucky(
        wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await take(wire, reader)
        writer.write(OK)
        await take(wire, reader)

    async with serving(second_time_unlucky) as wire:
        await plain.send(wire.post())
        with pytest.raises(Unsure):
            await plain.send(HttpCall(method, wire.url()))
        await asyncio.sleep(0.05)

        assert (wire.connections, len(wire.requests)) == (1, 2)


async def test_bytes_that_nobody_asked_for_are_not_the_next_answer(plain: Outgoing) -> None:
    """A doubled answer must not shift all later ones by one: they may tell of other payments."""

    async def stutter(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await take(wire, reader)).split(b" ")[1]
            writer.write(with_length(path))
            await asyncio.sleep(0.1)
            writer.write(with_length(path))

    async with serving(stutter) as wire:
        for turn in range(3):
            paths = [f"/{turn}/{number}" for number in range(5)]
            replies = await asyncio.gather(*(plain.send(wire.get(path)) for path in paths))
            assert [reply.body.decode() for reply in replies] == paths
            await asyncio.sleep(0.2)

        assert wire.connections == 15


async def test_silence_is_given_up_in_time(plain: Outgoing) -> None:
    async with serving(silence) as wire:
        began = time.monotonic()
        with pytest.raises(Unsure, match="timed out"):
            await plain.send(wire.post(timeout_s=0.3))
        assert 0.25 < time.monotonic() - began < 10
        await asyncio.sleep(0.05)
        assert (len(wire.requests), wire.open_now) == (1, 0)


async def test_silence_in_the_middle_has_its_own_limit() -> None:
    async def half(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(wire, reader)
        writer.write(with_length(b"half", 100))
        await asyncio.sleep(60)

    async with serving(half) as wire, Outgoing(guard=False, read_timeout_s=0.2) as outgoing:
        began = time.monotonic()
        with pytest.raises(Unsure, match="timed out"):
            await outgoing.send(wire.post(timeout_s=30))
        assert time.monotonic() - began < 10


async def test_a_slow_drip_cannot_hold_us(plain: Outgoing) -> None:
    async def drip(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(wire, reader)
        for byte in with_length(b"x" * 2000):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as wire:
        began = time.monotonic()
        with pytest.raises(Unsure, match="timed out"):
            await plain.send(wire.post(timeout_s=0.5))
        assert time.monotonic() - began < 10


async def test_an_answer_before_the_request_was_read_never_looks_safe_to_repeat(plain: Outgoing) -> None:
    async def rude(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with serving(rude) as wire:
        call = HttpCall("POST", wire.url(), body=b"x" * 1024 * 1024, timeout_s=2.0)
        with contextlib.suppress(Unsure):  # where the reset overtakes the answer
            assert (await plain.send(call)).status == 413

    async def rest_unread(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    async with serving(rest_unread) as wire:
        with pytest.raises(Unsure, match="timed out"):
            await plain.send(HttpCall("POST", wire.url(), body=b"x" * 1024 * 1024, timeout_s=0.5))


async def test_the_limit_is_exact_and_by_purpose() -> None:
    async def as_asked(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = int((await take(wire, reader)).split(b" ")[1][1:])
            writer.write(with_length(b"x" * size))
            await writer.drain()

    async with serving(as_asked) as wire:
        allow = AllowList.parse(f"127.0.0.1:{wire.port}")
        for outgoing, limit in (
            (Outgoing(guard=True, allow=allow), 65_536),
            (Outgoing(guard=False), 1_048_576),
            (Outgoing(guard=False, max_reply_bytes=10), 10),
        ):
            async with outgoing:
                assert len((await outgoing.send(wire.get(f"/{limit}"))).body) == limit
                with pytest.raises(Unsure, match=f"longer than {limit} bytes"):
                    await outgoing.send(wire.get(f"/{limit + 1}"))


async def test_a_decompression_bomb_stays_packed(plain: Outgoing) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with serving(once(head + bomb)) as wire:
        reply = await plain.send(wire.post())
    assert reply.body == bomb
    assert reply.headers["content-encoding"] == "gzip"


async def test_the_pool_is_bounded() -> None:
    async def slowly(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take(wire, reader)
            await asyncio.sleep(0.02)
            writer.write(OK)

    async with serving(slowly) as wire:
        for outgoing in (
            Outgoing(guard=False, connections=3),
            Outgoing(guard=False, connections_per_host=3),
        ):
            async with outgoing:
                replies = await asyncio.gather(*(outgoing.send(wire.post()) for _ in range(30)))
            assert {reply.status for reply in replies} == {200}
            assert wire.most_open == 3


async def test_a_cancelled_call_is_cancelled_and_leaves_nothing_open(plain: Outgoing) -> None:
    async with serving(silence) as wire:
        task = asyncio.create_task(plain.send(wire.post()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert (len(wire.requests), wire.open_now) == (1, 0)
    async with serving(always(OK)) as wire:
        assert (await plain.send(wire.post())).body == b"ok"


async def test_no_secret_of_a_url_or_header_reaches_an_error_or_a_log(
    plain: Outgoing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port = closed_port()
    async with serving(once(f"garbage {HUSH}\r\n\r\n".encode())) as wire:
        for url in (wire.url("/?token="), f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/"):
            with pytest.raises((Unreachable, Unsure)) as lost:
                await plain.send(HttpCall("POST", url + HUSH, {"authorization": HUSH}, HUSH.encode(), 1.0))
            assert HUSH not in "".join(traceback.format_exception(lost.value))
    assert HUSH not in caplog.text


# --- the guard ----------------------------------------------------------------------------------------------

# Public by every table and given to nobody (2000::/3, not allocated): no test may knock at a stranger's door.
NOWHERE = "2e00::1"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "0177.0.0.1"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_guard_lets_no_spelling_of_loopback_through(scheme: str, host: str) -> None:
    async with serving(always(OK)) as wire, Outgoing(guard=True) as outgoing:
        with pytest.raises(Unreachable, match=r"^not sent: "):
            await outgoing.send(HttpCall("POST", f"{scheme}://{host}:{wire.port}/"))
        assert wire.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [NOWHERE, "127.0.0.1"],
        ["127.0.0.1", NOWHERE],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::127.0.0.1"],
        ["2002:7f00:1::"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["fe80::1%lo"],
        ["0.0.0.0"],
        ["localhost"],
        ["127.1"],
        ["2130706433"],
        [""],
    ],
)
async def test_a_public_name_that_leads_inside_is_not_followed(addresses: list[str]) -> None:
    async with serving(always(OK)) as wire:
        async with Outgoing(guard=True, resolver=Names(addresses)) as outgoing:
            with pytest.raises(Unreachable) as refused:
                await outgoing.send(HttpCall("POST", f"https://shop.example:{wire.port}/hook", timeout_s=1.0))
        assert wire.connections == 0
    assert str(refused.value).startswith(
        f"no connection to shop.example:{wire.port}: the host does not lead to "
    )
    assert not any(address and address in str(refused.value) for address in addresses)


async def test_a_name_that_changes_its_address_never_leads_inside() -> None:
    names = Names([NOWHERE], ["127.0.0.1"], [NOWHERE, "127.0.0.1"], ["::1"])
    async with serving(always(OK)) as wire:
        for _ in range(4):
            async with Outgoing(guard=True, resolver=names, connect_timeout_s=0.2) as outgoing:
                for _ in range(3):
                    with pytest.raises(Unreachable):
                        await outgoing.send(HttpCall("POST", f"https://shop.example:{wire.port}/hook"))
        assert wire.connections == 0
    assert names.asked >= 4


def test_behind_all_other_checks_no_socket_is_opened_for_an_inside_address() -> None:
    guard = _Guard(AllowList.parse("127.0.0.1:9000"))

    guard.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9000))).close()
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 9001)),
        (socket.AF_INET, ("169.254.169.254", 80)),
        (socket.AF_INET6, ("::1", 9000, 0, 0)),
        (socket.AF_INET, ("localhost", 9000)),
    ):
        with pytest.raises(ForbiddenUrl):
            guard.open_socket((family, socket.SOCK_STREAM, 0, "", address))


async def test_an_allowed_receiver_is_called_by_address_and_by_name() -> None:
    async with serving(always(OK)) as wire:
        allow = AllowList.parse(f"127.0.0.1:{wire.port},receiver.test:{wire.port},localhost:{wire.port}")
        async with Outgoing(guard=True, allow=allow, resolver=Names(["127.0.0.1"])) as outgoing:
            assert (await outgoing.send(wire.post())).body == b"ok"
            assert (await outgoing.send(HttpCall("POST", f"http://receiver.test:{wire.port}/"))).body == b"ok"
            with pytest.raises(Unreachable):
                await outgoing.send(HttpCall("POST", f"https://other.test:{wire.port}/"))
        async with Outgoing(guard=True, allow=allow) as outgoing:
            assert (await outgoing.send(HttpCall("POST", f"http://LOCALHOST.:{wire.port}/"))).body == b"ok"

    assert f"Host: receiver.test:{wire.port}\r\n".encode() in wire.requests[1]
    assert len(wire.requests) == 3


async def test_what_is_not_on_the_list_stays_closed_next_to_what_is() -> None:
    async with serving(always(OK)) as inside, serving(always(OK)) as wire:
        async with Outgoing(guard=True, allow=AllowList.parse(f"127.0.0.1:{wire.port}")) as outgoing:
            await outgoing.send(wire.post())
            with pytest.raises(Unreachable):
                await outgoing.send(inside.post())
        assert inside.connections == 0


async def test_a_guarded_call_never_uses_an_unguarded_connection(plain: Outgoing) -> None:
    async with serving(always(OK)) as wire, Outgoing(guard=True) as guarded:
        await plain.send(wire.post())
        with pytest.raises(Unreachable):
            await guarded.send(wire.post())
    assert len(wire.requests) == 1


async def test_without_the_guard_a_provider_may_live_inside(plain: Outgoing) -> None:
    async with serving(always(OK)) as wire:
        assert (await plain.send(HttpCall("POST", f"http://localhost:{wire.port}/"))).body == b"ok"


# --- TLS ----------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority of the test's own, and a server certificate for `shop.example`."""

    trust: ssl.SSLContext
    server: ssl.SSLContext
    asked_for: list[str | None]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test")])
    alternatives = [x509.DNSName("shop.example"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    asked_for: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    return Authority(ssl.create_default_context(cafile=str(folder / "cert.pem")), server, asked_for)


async def test_the_numeric_address_is_called_by_its_name(authority: Authority) -> None:
    async with serving(always(OK), tls=authority.server) as wire:
        allow = AllowList.parse(f"shop.example:{wire.port}")
        async with Outgoing(
            guard=True, allow=allow, resolver=Names(["127.0.0.1"]), tls=authority.trust
        ) as outgoing:
            assert (await outgoing.send(HttpCall("POST", f"https://shop.example:{wire.port}/"))).body == b"ok"

    assert authority.asked_for[-1] == "shop.example"
    assert f"Host: shop.example:{wire.port}\r\n".encode() in wire.requests[0]


async def test_a_certificate_we_do_not_trust(authority: Authority) -> None:
    async with serving(always(OK), tls=authority.server) as wire, Outgoing(guard=False) as outgoing:
        with pytest.raises(Unreachable, match="the certificate is not trusted"):
            await outgoing.send(HttpCall("POST", f"https://127.0.0.1:{wire.port}/", body=b"secret"))
    assert wire.requests == []


async def test_a_certificate_for_another_name(authority: Authority) -> None:
    async with (
        serving(always(OK), tls=authority.server) as wire,
        Outgoing(guard=False, resolver=Names(["127.0.0.1"]), tls=authority.trust) as outgoing,
    ):
        with pytest.raises(Unreachable, match="the certificate is not trusted"):
            await outgoing.send(HttpCall("POST", f"https://bank.example:{wire.port}/", body=b"secret"))
    assert wire.requests == []


# --- the production event loop ------------------------------------------------------------------------------


def test_it_says_the_same_on_uvloop() -> None:
    async def main() -> None:
        async with Outgoing(guard=False, connect_timeout_s=0.3) as outgoing:
            async with serving(always(OK)) as wire:
                assert (await outgoing.send(wire.post())).body == b"ok"
            with pytest.raises(Unreachable, match="Connection refused"):
                await outgoing.send(HttpCall("POST", f"http://127.0.0.1:{closed_port()}/"))
            for answer in (
                once(b""),
                once(with_length(b"half", 100), reset=True),
                silence,
                once(with_length(BIG)),
            ):
                async with serving(answer) as wire:
                    with pytest.raises(Unsure):
                        await outgoing.send(wire.post(timeout_s=0.3))
                    assert len(wire.requests) == 1
        async with (
            serving(always(OK)) as wire,
            Outgoing(guard=True, resolver=Names(["127.0.0.1"])) as guarded,
        ):
            for url in (wire.url(), f"https://shop.example:{wire.port}/"):
                with pytest.raises(Unreachable):
                    await guarded.send(HttpCall("POST", url))
            assert wire.connections == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
