"""The kiosk's link: what a signed message costs, with and without its journal, and what an idle terminal
costs.

The peer is an asyncio-streams server that does the same with the standard library: split lines, verify the
signature over the re-serialised payload, check nonce and time, answer signed. Both are driven by the same
client, which signs fresh frames of the form that real terminals send.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import sys
import time
import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contestant import REPOSITORY, Sample
from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub
from bench.process import BenchError, Server, clean_environment, free_port, port_answers, slug
from bench.rounds import interleave, say

if TYPE_CHECKING:
    from bench.storage import Storage

TITLE = "the kiosk's link: signed messages, journalled payments, idle terminals"

SECRET = "a-secret-for-the-benchmark-and-nothing-else"
TERMINALS = 50
WINDOW = 10
IDLE = 1000
OURS, STDLIB, JOURNAL, HUB = "kiosk link", "stdlib json streams", "kiosk journal", "hub sqlite"


def run(setup: Setup) -> Outcome:
    outcome = Outcome([_cpu_per_message(setup), *_idle_and_latency(setup)])
    how: dict[str, Any] = {"rounds": setup.rounds, "seconds": setup.seconds}
    links = interleave([Frames(OURS, "link"), Frames(STDLIB, "stdlib")], setup.memory(), **how)
    where = f"loopback, {TERMINALS} terminals"
    less_cpu = links.ratios(STDLIB, OURS, "cpu_per_1k")
    outcome.figures += [
        Figure("messages, kiosk link / stdlib json", where, links.ratios(OURS, STDLIB), "×", 1.5),
        Figure("CPU per message, stdlib json / kiosk link", where, less_cpu, "×"),
    ]
    journals = interleave([Payments(JOURNAL), Hub(HUB)], setup.memory(), **how)
    ratios = journals.ratios(JOURNAL, HUB)
    outcome.figures.append(Figure("journalled messages / hub creates", "1 ms", ratios, "×", 0.5))
    outcome.rounds += [links, journals]
    return outcome


# --- one message, in this process


def _cpu_per_message(setup: Setup) -> Figure:
    from tillgate.providers.mobypay import messages
    from tillgate.providers.mobypay.protocol import Key, Link, Received, Role
    from tillgate.providers.mobypay.replay import MemoryNonces
    from tillgate.providers.mobypay.signing import Secret

    values = []
    for _ in range(setup.rounds):
        link = Link(
            Role.KIOSK, [Key(name="P", secret=Secret(SECRET.encode()))], MemoryNonces(), sender="KIOSK001"
        )
        frames = list(itertools.islice(_acks(), 10_000))
        now_ms = int(time.time() * 1000)
        began = time.process_time()
        for frame in frames:
            link.receive_data(frame)
            event = link.next_event(now_ms)
            assert isinstance(event, Received)
            link.send(messages.CancelTransaction(txn_id="TXN1757482355464"), now_ms)
        values.append((time.process_time() - began) / len(frames) * 1e6)
    say(f"  verify and sign: {min(values):.1f} µs")
    return Figure("CPU per message, verify + sign", "in process", values, "µs", 12, at_most=True)


def _acks() -> Any:
    """Signed acks as a terminal sends them, each with a nonce of its own."""
    mac = hmac.new(SECRET.encode(), digestmod="sha256")
    start = uuid.uuid4().bytes[:8]
    for number in itertools.count():
        nonce = b64encode(start + number.to_bytes(8, "big")).decode()
        stamp = str(int(time.time() * 1000))
        text = (
            f'{{"nonce":"{nonce}","pos_id":"POS001","status":"processing","timestamp":"{stamp}",'
            '"txn_id":"TXN1757482355464","type":"ack"}'
        )
        wire = (
            '{"type":"ack","txn_id":"TXN1757482355464","status":"processing","pos_id":"POS001",'
            f'"timestamp":"{stamp}","nonce":"{nonce}"}}'
        )
        one = mac.copy()
        one.update(text.encode())
        yield f'{{"payload":{wire},"signature":"{one.hexdigest()}"}}\n'.encode()


# --- contestants


@dataclass
class Frames:
    """A server that answers every good frame with a signed one."""

    name: str
    kind: str
    server: Server = field(init=False, repr=False)

    def start(self, storage: Storage) -> None:
        self.port = free_port()
        self.server = _serve(self.name, storage, self.port, self.kind, str(self.port))

    def measure(self, seconds: float) -> Sample:
        self.server.check()
        cpu = self.server.cpu_s()
        began = time.perf_counter()
        count = asyncio.run(_drive(self.port, seconds))
        elapsed = time.perf_counter() - began
        return Sample(count / elapsed, cpu_per_1k=(self.server.cpu_s() - cpu) / count * 1000)

    def finish(self) -> None:
        self.server.check()
        self.server.stop()


@dataclass
class Payments:
    """A whole kiosk with its journal, taking payments from all terminals as fast as they answer.

    The rate counts durable messages: request, ack and result are each in the journal before anything follows.
    """

    name: str
    server: Server = field(init=False, repr=False)
    answered: int = field(default=0, init=False)

    def start(self, storage: Storage) -> None:
        self.port = free_port()
        self.journal = storage.directory(slug(self.name)) / "kiosk.db"
        self.server = _serve(self.name, storage, self.port, "payments", str(self.port), str(self.journal))

    def measure(self, seconds: float) -> Sample:
        self.server.check()
        cpu = self.server.cpu_s()
        began = time.perf_counter()
        payments = asyncio.run(_answer(self.port, seconds))
        elapsed = time.perf_counter() - began
        self.answered += payments
        messages = 3 * payments
        return Sample(messages / elapsed, cpu_per_1k=(self.server.cpu_s() - cpu) / messages * 1000)

    def finish(self) -> None:
        import sqlite3

        self.server.check()
        self.server.stop()
        with sqlite3.connect(self.journal) as database:
            (stored,) = database.execute("SELECT count(*) FROM payments WHERE state = 'succeeded'").fetchone()
        database.close()
        if stored < self.answered:
            raise BenchError(f"{self.name}: {self.answered} payments were answered but {stored} are stored")


def _serve(name: str, storage: Storage, port: int, *arguments: str) -> Server:
    argv = [sys.executable, "-m", "bench.figures.kiosk", *arguments]
    environment = clean_environment(**storage.env(), PYTHONPATH=str(REPOSITORY))
    server = Server(name, argv, environment, storage.directory(slug(f"{name}-server")), port=port)
    server.wait_until(lambda: port_answers(port))
    return server


# --- clients


async def _drive(port: int, seconds: float) -> int:
    """Each of the terminals keeps a window of frames under way; returns how many were answered."""
    frames, counts = _acks(), [0] * TERMINALS
    end = time.perf_counter() + seconds

    async def one(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while time.perf_counter() < end:
                writer.write(b"".join(itertools.islice(frames, WINDOW)))
                for _ in range(WINDOW):
                    if not await reader.readline():
                        raise BenchError("the server closed a connection")
                counts[index] += WINDOW
        finally:
            writer.close()

    await asyncio.gather(*map(one, range(TERMINALS)))
    return sum(counts)


async def _answer(port: int, seconds: float) -> int:
    """Terminals that say who they are and approve everything; returns how many payments they approved."""
    counts = [0] * TERMINALS
    end = time.perf_counter() + seconds

    async def one(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name = {"pos_id": f"POS{index:03d}"}
        try:
            writer.write(_signed({"type": "ping", **name}))
            while time.perf_counter() < end:
                async with asyncio.timeout(10):
                    request = json.loads(await reader.readline())["payload"]
                members = {"txn_id": request["txn_id"], **name}
                ack = _signed({"type": "ack", "status": "processing", **members})
                result = {
                    "type": "transaction_result",
                    "status": "success",
                    "amount": request["amount"],
                    **members,
                }
                writer.write(ack + _signed(result))
                counts[index] += 1
            await asyncio.sleep(0.3)  # the last results are still on their way to the journal
        finally:
            writer.close()

    await asyncio.gather(*map(one, range(TERMINALS)))
    return sum(counts)


def _signed(members: dict[str, Any]) -> bytes:
    payload = {**members, "timestamp": str(int(time.time() * 1000)), "nonce": str(uuid.uuid4())}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    signature = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    return json.dumps({"payload": payload, "signature": signature}, separators=(",", ":")).encode() + b"\n"


# --- an idle kiosk, and a slow one


def _idle_and_latency(setup: Setup) -> list[Figure]:
    storage, port = setup.memory(), free_port()
    journal = storage.directory("kiosk-idle") / "kiosk.db"
    server = _serve("kiosk idle", storage, port, "paced", str(port), str(journal))
    slices = [sorted(asyncio.run(_paced(port, 3.0))) for _ in range(setup.rounds)]
    before = server.rss_mib()
    after = asyncio.run(_idle(port, server))
    server.stop()
    p99s = [times[int(len(times) * 0.99)] for times in slices]
    middle = slices[0][len(slices[0]) // 2]
    say(f"  {len(slices[0])} paced requests: p50 {middle:.1f} ms, p99 {p99s[0]:.1f} ms")
    per_terminal = (after - before) * 1024 / IDLE
    return [
        Figure("request to terminal, p99 at 50 payments/s", "1 ms", p99s, "ms", 10, at_most=True),
        Figure(f"memory per idle terminal of {IDLE}", "1 ms", [per_terminal], "KiB", 10, at_most=True),
    ]


async def _paced(port: int, seconds: float) -> list[float]:
    """Milliseconds from the moment the kiosk is asked (told in the reference) to the terminal's
    having the request.
    """
    latencies: list[float] = []
    warm = time.time() + 0.5  # until then, terminals still introduce themselves
    end = warm + seconds

    async def one(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name = {"pos_id": f"POS{index:03d}"}
        writer.write(_signed({"type": "ping", **name}))
        while time.time() < end:
            try:
                async with asyncio.timeout(2):
                    request = json.loads(await reader.readline())["payload"]
            except TimeoutError:
                break
            # The amount carries the moment of asking, in milliseconds modulo RM 4,000.00.
            asked = round(request["amount"] * 100) - 1
            if time.time() > warm:
                latencies.append((time.time() * 1000 - asked) % 400_000)
            result = {"type": "transaction_result", "status": "failed", "txn_id": request["txn_id"], **name}
            writer.write(_signed(result))
        writer.close()

    await asyncio.gather(*map(one, range(TERMINALS)))
    return latencies


async def _idle(port: int, server: Server) -> float:
    links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
    await asyncio.sleep(1.0)
    after = server.rss_mib()
    for _, writer in links:
        writer.close()
    return after


# --- servers, each in a process of its own


async def _serve_link(port: int) -> None:
    from tillgate.providers.mobypay import messages
    from tillgate.providers.mobypay.protocol import NEED_DATA, Key, Link, Received, Role
    from tillgate.providers.mobypay.replay import MemoryNonces
    from tillgate.providers.mobypay.signing import Secret

    nonces, key = MemoryNonces(), Key(name="P", secret=Secret(SECRET.encode()))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(Role.KIOSK, [key], nonces, sender="KIOSK001")
        while data := await reader.read(16384):
            now_ms = int(time.time() * 1000)
            link.receive_data(data)
            while (event := link.next_event(now_ms)) is not NEED_DATA:
                assert isinstance(event, Received)
                assert isinstance(event.message, messages.Ack)
                writer.write(link.send(messages.CancelTransaction(txn_id=event.message.txn_id), now_ms))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


async def _serve_stdlib(port: int) -> None:
    nonces: dict[str, int] = {}
    secret = SECRET.encode()

    def sign(payload: dict[str, Any]) -> str:
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
        return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            now_ms = int(time.time() * 1000)
            envelope = json.loads(line.decode("utf-8"))
            payload = envelope["payload"]
            assert hmac.compare_digest(sign(payload), envelope["signature"])
            assert payload["nonce"] not in nonces
            assert abs(now_ms - int(payload["timestamp"])) < 60_000
            nonces[payload["nonce"]] = now_ms + 180_000
            assert payload["type"] == "ack"
            answer = {
                "type": "cancel_transaction", "txn_id": payload["txn_id"], "kiosk_id": "KIOSK001",
                "timestamp": str(now_ms), "nonce": str(uuid.uuid4()),
            }  # fmt: skip
            writer.write((json.dumps({"payload": answer, "signature": sign(answer)}) + "\n").encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


async def _serve_kiosk(port: int, journal: Path, *, paced: bool) -> None:
    from tillgate.providers.mobypay.config import KioskConfig, Limits
    from tillgate.providers.mobypay.errors import KioskRefusal
    from tillgate.providers.mobypay.messages import PaymentMode
    from tillgate.providers.mobypay.server import KioskServer

    limits = Limits(connections=4096, connections_per_address=4096, messages_per_s=1e6)
    server = KioskServer(
        KioskConfig(journal=journal, host="127.0.0.1", port=port, shared_secret=SECRET, limits=limits)
    )
    await server.start()

    async def keep_busy(name: str) -> None:
        """As soon as a terminal is free, give it the next payment."""
        while True:
            terminal = server.terminals.get(name)
            if terminal is None or not terminal.connected or terminal.in_flight is not None:
                await asyncio.sleep(0.002)
                continue
            try:
                await server.kiosk.pay(PaymentMode.CARD, 100, terminal=name, reference=uuid.uuid4().hex)
            except KioskRefusal:
                await asyncio.sleep(0.01)

    async def keep_pace() -> None:
        """Fifty payments a second, whoever is free."""
        while True:
            await asyncio.sleep(0.02)
            amount_sen = int(time.time() * 1000) % 400_000 + 1
            try:
                asking = server.kiosk.pay(PaymentMode.CARD, amount_sen, reference=uuid.uuid4().hex)
                await asyncio.wait_for(asking, 5)
            except (KioskRefusal, TimeoutError):
                continue

    if paced:
        await keep_pace()
    else:
        await asyncio.gather(*(keep_busy(f"POS{index:03d}") for index in range(TERMINALS)))


def _main(kind: str, port: str, journal: str = "") -> None:
    if kind == "link":
        asyncio.run(_serve_link(int(port)))
    elif kind == "stdlib":
        asyncio.run(_serve_stdlib(int(port)))
    else:
        asyncio.run(_serve_kiosk(int(port), Path(journal), paced=kind == "paced"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
