"""A real kiosk on real sockets, and terminals played byte by byte from the kiosk document."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from tillgate.providers.mobypay.config import KioskConfig, Limits, TerminalConfig
from tillgate.providers.mobypay.lifecycle import Payment
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.tests import oracle

PATIENCE_S = 30.0
"""How long anything may take on a machine that does ten other things."""


class RawTerminal:
    """A terminal that says exactly what a test makes it say."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pos_id: str | None, secret: str
    ):
        self.reader, self.writer, self.pos_id, self.secret = reader, writer, pos_id, secret

    async def request(self, kind: str = "transaction_request", within_s: float = PATIENCE_S) -> dict:
        async with asyncio.timeout(within_s):
            payload = oracle.payload_of(await self.reader.readline(), self.secret)
        assert payload["type"] == kind
        assert abs(int(payload["timestamp"]) - time.time() * 1000) < 5000
        return payload

    async def hears_nothing(self, for_s: float = 0.15) -> bool:
        try:
            async with asyncio.timeout(for_s):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return True

    async def say(self, *payloads: dict) -> None:
        await self.send(b"".join(oracle.line(payload, self.secret) for payload in payloads))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ack(self, txn_id: str, status: str = "processing", **more: object) -> None:
        await self.say(oracle.ack(txn_id, status, self.pos_id, **more))

    async def result(self, txn_id: str, status: str, **more: object) -> None:
        await self.say(oracle.result(txn_id, status, self.pos_id, **more))

    async def closed_by_kiosk(self, within_s: float = PATIENCE_S) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while await self.reader.read(4096):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def pull_the_plug(self) -> None:
        self.writer.transport.abort()


class Bench:
    """A kiosk and the means to look at it and to connect to it."""

    def __init__(self, server: KioskServer):
        self.server = server
        self.kiosk = server.kiosk
        self.journal = server.journal
        self.terminals: list[RawTerminal] = []
        self.notices: list = []
        server.kiosk.steps.watchers.add(self.notices.append)

    async def terminal(
        self,
        pos_id: str | None = "POS001",
        secret: str = oracle.SECRET,
        *,
        port: int | None = None,
        named: bool = False,
    ) -> RawTerminal:
        before = self.server.connection_count()
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.server.port)
        terminal = RawTerminal(reader, writer, pos_id, secret)
        self.terminals.append(terminal)
        await self.until(lambda: self.server.connection_count() > before)
        if named:
            await terminal.say(oracle.fresh(type="ping", pos_id=pos_id))
            await self.until(lambda: (found := self.server.terminals.get(pos_id)) and found.connected)
        return terminal

    async def pay(self, mode: str = "card", sen: int = 5000, **more: object) -> Payment:
        return await self.kiosk.pay(PaymentMode(mode), sen, **more)

    async def until(self, true: Callable[[], object], within_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                await asyncio.sleep(0.005)

    async def reaches(self, txn_id: str, state: str, within_s: float = PATIENCE_S) -> Payment:
        try:
            await self.until(lambda: self.kiosk.find(txn_id).state == state, within_s)
        except TimeoutError:
            raise AssertionError(f"{self.kiosk.find(txn_id).state} and not {state}") from None
        return self.kiosk.find(txn_id)

    def waits(self, **seconds: float) -> None:
        """From now on the kiosk waits so long; what is timed already keeps its time."""
        self.kiosk.steps._durations = msgspec.structs.replace(self.kiosk.steps._durations, **seconds)

    def stored(self, txn_id: str) -> Payment:
        payment = self.journal.payment(txn_id)
        assert payment is not None
        return payment

    def alerts(self) -> list[str]:
        return [alert.kind for alert in reversed(self.journal.open_alerts())]

    def verdicts(self, txn_id: str) -> list[tuple[str, str]]:
        return [(direction, verdict) for direction, verdict, _ in self.journal.frames(txn_id)]

    async def stop(self) -> None:
        for terminal in self.terminals:
            terminal.pull_the_plug()
        await self.server.stop()


OpenBench = Callable[..., "contextlib.AbstractAsyncContextManager[Bench]"]


@contextlib.asynccontextmanager
async def open_bench(journal: Path, **changes: object) -> AsyncIterator[Bench]:
    """Open a kiosk on this journal; open it again afterwards and it is a restart."""
    settings: dict = {
        "journal": journal,
        "host": "127.0.0.1",
        "port": 0,
        "terminals": (TerminalConfig(pos_id="POS001", secret=oracle.SECRET),),
        "limits": Limits(connections_per_address=64, frame_s=0.5),
    }
    server = KioskServer(KioskConfig(**{**settings, **changes}))
    await server.start()
    bench = Bench(server)
    try:
        yield bench
    finally:
        await bench.stop()


def plans(*ids: str) -> list[dict]:
    return [
        {
            "planId": plan_id,
            "frequency": "Monthly",
            "totalInstallments": 3,
            "installmentDetails": [
                {"installmentNumber": 1, "date": "2026-02-15", "amount": 35.0, "installmentFee": 1.5,
                 "installmentFeePercentage": 1.5},
            ],
        }
        for plan_id in ids
    ]  # fmt: skip
