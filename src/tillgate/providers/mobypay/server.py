"""The kiosk's ports: terminals connect here. The only part of the link that touches sockets."""

import asyncio
import hashlib
import itertools
import socket
import ssl
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Final

from tillgate.providers.mobypay.config import KioskConfig, Limits, TerminalConfig, TlsConfig, check_config
from tillgate.providers.mobypay.enrolment import Enrolment
from tillgate.providers.mobypay.errors import BadRequest, Reason, RemoteProtocolError
from tillgate.providers.mobypay.journal import Journal
from tillgate.providers.mobypay.kiosk import Kiosk
from tillgate.providers.mobypay.protocol import NEED_DATA, Link, NeedData, Received, Role, SignedButRefused
from tillgate.providers.mobypay.steps import epoch_ms
from tillgate.providers.mobypay.terminals import Terminal
from tillgate.providers.mobypay.vault import vault_for

READ_BYTES: Final = 16 * 1024
HANDSHAKE_S: Final = 10.0
BACKLOG: Final = 128
# A terminal is silent between payments, so only the kernel can notice that it is gone: after about 15 s.
KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 6),
    ("TCP_KEEPINTVL", 3),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 15_000),
)


class TcpConnection:
    """One terminal's connection."""

    def __init__(self, number: int, address: str, link: Link, writer: asyncio.StreamWriter, limits: Limits):
        self.number = number
        self.address = address
        self.link = link
        self.terminal: Terminal | None = None
        self.identified = False
        self.bad_frames = 0
        self._writer = writer
        self._write_s = limits.write_s
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether bytes could still leave on it."""
        return not self._closed and not self._writer.is_closing()

    async def send(self, frame: bytes) -> None:
        """Hand over bytes. Raises ConnectionError when they may not all have left; the connection is
        closed then.
        """
        try:
            self._writer.write(frame)
            async with asyncio.timeout(self._write_s):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            self.close("it does not take what it is sent")
            raise ConnectionError(str(error)) from error

    def close(self, why: str) -> None:
        """Let go of it at once."""
        self._closed = True
        self._writer.transport.abort()


class KioskServer:
    """A running kiosk: journal, register of terminals, counter and ports."""

    def __init__(self, config: KioskConfig):
        """Opens the journal. Raises a KioskRefusal when the configuration or the journal will not do."""
        check_config(config)
        self.config = config
        self.refused_frames: Counter[str] = Counter()
        self._tls = _tls_context(config.tls) if config.tls else None
        self.journal = Journal(config.journal)
        try:
            self.vault = vault_for(config.journal)
            self.enrolment = Enrolment(config, self.journal, self.vault, epoch_ms)
        except BaseException:
            self.journal.let_go()
            raise
        self.terminals = self.enrolment.terminals
        self.kiosk = Kiosk(config, self.journal, self.terminals)
        self.port: int | None = None
        self._servers: dict[str | None, asyncio.Server] = {}
        self._connections: dict[int, TcpConnection] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._per_address: Counter[str] = Counter()
        # Numbers name connections in the journal, so they must not repeat after a restart.
        self._numbers = itertools.count(epoch_ms())

    async def start(self) -> None:
        """Resume what the journal holds, then listen. Raises OSError when a port cannot be had."""
        await self.kiosk.start()
        self.port = await self._listen(None, self.config.port)
        for terminal in self.terminals:
            if terminal.port is not None:
                terminal.port = await self._listen(terminal.pos_id, terminal.port)

    async def stop(self) -> None:
        """Close ports and connections, write down what that does to payments, and close the journal."""
        for server in self._servers.values():
            server.close()
        for connection in list(self._connections.values()):
            connection.close("the kiosk is stopping")
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=5)
        await self.kiosk.stop()
        await self.journal.close()

    async def enrol(self, terminal: TerminalConfig, *, replace: bool = False) -> Terminal:
        """Add a terminal while running, and open its own port if it has one. Raises KioskRefusal."""
        enrolled = await self.enrolment.enrol(terminal, replace=replace)
        if terminal.port is not None and terminal.pos_id not in self._servers:
            try:
                enrolled.port = await self._listen(terminal.pos_id, terminal.port)
            except OSError as error:
                raise BadRequest(f"port {terminal.port} cannot be used: {error.strerror}") from error
        for connection in list(self._connections.values()):
            # Strangers were let in before this secret was known; back again, they are tried against it.
            if not connection.identified and connection.terminal is not enrolled:
                connection.close("a terminal was enrolled")
        return enrolled

    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def _listen(self, owner: str | None, port: int) -> int:
        handler = partial(self._accept, owner)
        extra = {"ssl_handshake_timeout": HANDSHAKE_S} if self._tls else {}
        server = await asyncio.start_server(
            handler, self.config.host, port, limit=READ_BYTES, backlog=BACKLOG, ssl=self._tls, **extra
        )
        self._servers[owner] = server
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def _accept(
        self, owner: str | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        host, port = (writer.get_extra_info("peername") or ("?", 0))[:2]
        self._per_address[host] += 1
        try:
            await self._serve(owner, f"{host}:{port}", host, reader, writer)
        except (OSError, ssl.SSLError):
            pass  # the peer's network; its end is reported like any other
        finally:
            self._per_address[host] -= 1
            if not self._per_address[host]:
                del self._per_address[host]
            writer.transport.abort()
            self._handlers.discard(task)

    async def _serve(
        self,
        owner: str | None,
        address: str,
        host: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        limits = self.config.limits
        if (
            len(self._connections) >= limits.connections
            or self._per_address[host] > limits.connections_per_address
        ):
            self.kiosk.show("terminal", f"{address}: refused, too many connections")
            return
        named = _certified_name(writer) if self._tls and self._tls.verify_mode is ssl.CERT_REQUIRED else None
        terminal = self.terminals.get(named or owner or "")
        keys = self.terminals.keys_for(terminal)
        if (named and (terminal is None or terminal.learned or owner not in (None, named))) or not keys:
            self.kiosk.show("terminal", f"{address}: refused, no such terminal is enrolled")
            return
        _keep_alive(writer)
        link = Link(Role.KIOSK, keys, self.kiosk.nonces, sender=self.config.kiosk_id)
        connection = TcpConnection(next(self._numbers), address, link, writer, limits)
        self._connections[connection.number] = connection
        older = self.terminals.opened(connection, terminal, proven=named is not None)
        self.kiosk.show("terminal", f"{address}: connected", _name(connection))
        try:
            if older is not None:
                await self.kiosk.evidence.superseded(older)
            await self._read(connection, reader)
        finally:
            connection.close("it ended")
            self._connections.pop(connection.number, None)
            self.kiosk.show("terminal", f"{address}: disconnected", _name(connection))
            await self.kiosk.evidence.lost(connection)

    async def _read(self, connection: TcpConnection, reader: asyncio.StreamReader) -> None:
        loop, link, limits = asyncio.get_running_loop(), connection.link, self.config.limits
        pace = _Pace(limits.messages_per_s)
        partial_since: float | None = None
        while connection.alive:
            if partial_since is None:
                data = await reader.read(READ_BYTES)
            else:
                try:
                    async with asyncio.timeout_at(partial_since + limits.frame_s):
                        data = await reader.read(READ_BYTES)
                except TimeoutError:
                    self.kiosk.show("frame", f"{connection.address}: closed, a frame took too long")
                    return
            if not data:
                return
            link.receive_data(data)
            complete = False
            while (event := await self._next(connection)) is not NEED_DATA:
                complete = True
                if isinstance(event, Received):
                    await pace.wait()
                    await self.kiosk.evidence.heard(connection, event)
                    if connection.terminal is not None:
                        await self.enrolment.learnt(connection.terminal, link.forms)
                if connection.bad_frames >= limits.bad_frames:
                    self.kiosk.show("frame", f"{connection.address}: closed, too many bad frames")
                    return
            if not link.partial:
                partial_since = None
            elif complete or partial_since is None:
                partial_since = loop.time()

    async def _next(self, connection: TcpConnection) -> Received | NeedData | None:
        """The next message, NEED_DATA, or None for a frame that was refused."""
        try:
            return connection.link.next_event(self.kiosk.clock())
        except SignedButRefused as refusal:
            self._count(connection, refusal)
            await self.kiosk.evidence.refused(connection, refusal)
        except RemoteProtocolError as error:
            self._count(connection, error)
            digest = hashlib.sha256(error.raw).hexdigest()[:12]
            self.kiosk.show(
                "frame", f"{connection.address}: refused, {error} (frame {digest})", _name(connection)
            )
            if error.fatal:
                connection.bad_frames = self.config.limits.bad_frames
        return None

    def _count(self, connection: TcpConnection, error: RemoteProtocolError) -> None:
        self.refused_frames[error.reason] += 1
        if error.reason is not Reason.OUTSIDE_WINDOW:  # a wrong clock is an operator's matter, not an attack
            connection.bad_frames += 1


class _Pace:
    """A token bucket: a peer that is too fast waits in its own socket, and nothing of it is dropped."""

    def __init__(self, per_second: float):
        self._per_second = per_second
        self._tokens = per_second
        self._at = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second) - 1
        self._at = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._per_second)


def _name(connection: TcpConnection) -> str | None:
    return connection.terminal.pos_id if connection.terminal else None


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _tls_context(tls: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise BadRequest(f"the TLS certificate, key or authority cannot be used: {error}") from error
    return context


def _certified_name(writer: asyncio.StreamWriter) -> str:
    """The common name of the client's certificate; a name no terminal can have when there is none."""
    certificate = writer.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else "?"
