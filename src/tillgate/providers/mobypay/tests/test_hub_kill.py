"""kill -9 of the kiosk and of the hub, again and again, while payments run: nothing is charged twice, nothing
is lost, and both books end equal."""

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from pathlib import Path

from support.postgres import free_port
from support.serving import Process, client, new_merchant, rows
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import RawTerminal
from tillgate.providers.mobypay.tests.process import KioskProcess
from tillgate.store import audit
from tillgate.store.database import open_database


class Player:
    """A terminal that approves all it is asked, and says its results again on a new connection."""

    def __init__(self, pos_id: str) -> None:
        self.pos_id, self.port = pos_id, 0
        self.asked: Counter[str] = Counter()
        self.results: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, ValueError, AssertionError):
                await self._talk()
            await asyncio.sleep(0.02)

    async def _talk(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        terminal = RawTerminal(reader, writer, self.pos_id, oracle.SECRET)
        try:
            await terminal.say(oracle.fresh(type="ping", pos_id=self.pos_id))
            for txn_id, amount in list(self.results.items()):
                await self._approve(terminal, txn_id, amount)
            while line := await reader.readline():
                said = oracle.payload_of(line)
                if said["type"] != "transaction_request":
                    continue
                txn_id, amount = said["txn_id"], said["amount"]
                self.asked[txn_id] += 1
                self.results[txn_id] = amount
                await terminal.ack(txn_id)
                await self._approve(terminal, txn_id, amount)
        finally:
            terminal.pull_the_plug()

    async def _approve(self, terminal: RawTerminal, txn_id: str, amount: float) -> None:
        await terminal.result(txn_id, "success", amount=amount, transaction_id=txn_id[-6:])


async def test_killed_anywhere_both_books_end_equal(tmp_path: Path) -> None:
    rng = random.Random(7)
    port, journal = free_port(), tmp_path / "kiosk.db"
    database_url = f"sqlite:///{tmp_path}/hub.db"
    settings = {"database_url": database_url, "sandbox": 1, "rate_limit": 0}

    def start_hub() -> Process:
        return Process(tmp_path, ["up", "--port", str(port)], settings).start().listening()

    hub = await asyncio.to_thread(start_hub)
    players = [Player("POS001"), Player("POS002")]
    tasks: list[asyncio.Task[None]] = []
    kiosk: KioskProcess | None = None
    try:
        credentials = await asyncio.to_thread(new_merchant, database_url)
        async with client(hub.url, credentials) as shop:
            body = {"provider": "mobypay", "name": "till", "config": {}}
            account = (await shop.ask("POST", "/v1/accounts", body)).json["id"]
            code = (await shop.ask("POST", f"/v1/accounts/{account}/enrolment")).json["code"]
            kiosk = await KioskProcess.start(journal, "--hub", hub.url, "--enrol", code)
            await kiosk.until(lambda event: event["type"] == "enrolled")
            for player in players:
                player.port = kiosk.port
                tasks.append(asyncio.create_task(player.run()))
            opened: list[str] = []

            async def shop_opens(count: int) -> None:
                for _ in range(count):
                    order = f"K-{secrets.token_hex(4)}"
                    body = {"order_id": order, "amount_minor": 1000, "currency": "MYR", "channel": "card"}
                    made = await shop.ask("POST", "/v1/payments", body)
                    assert made.status == 201
                    opened.append(made.json["id"])

            for _ in range(3):
                await shop_opens(3)
                await asyncio.sleep(rng.random() * 0.15)
                await kiosk.kill()
                kiosk = await KioskProcess.start(journal)
                for player in players:
                    player.port = kiosk.port
            for number in range(2):
                await shop_opens(3)
                own = await kiosk.pay("7.00", reference=f"own-{number}")
                assert "txn_id" in own or own["code"] == "terminal_busy"
                await asyncio.sleep(rng.random() * 0.1)
                await asyncio.to_thread(hub.kill)
                hub = await asyncio.to_thread(start_hub)

            # A kiosk that was killed between writing a payment down and sending it asked nobody, and cannot
            # know that: the payment is unknown at both ends. Every other one is paid at both.
            query = (
                "SELECT a.payment_id, a.external_id, p.status FROM attempts a"
                " JOIN payments p ON p.id = a.payment_id WHERE a.external_id IS NOT NULL"
            )
            deadline = time.monotonic() + 60
            while True:
                asked = players[0].asked + players[1].asked
                listed = (await kiosk.call("GET", "/payments?limit=200"))["payments"]
                ours = {one["txn_id"]: one["state"] for one in listed}
                found = await rows(database_url, query)
                theirs = {txn_id: status for _, txn_id, status in found}
                wanted = {txn_id: "paid" if txn_id in asked else "unsure" for txn_id in ours}
                collected = {payment_id for payment_id, _, _ in found}
                if theirs == wanted and collected >= set(opened):
                    break
                assert time.monotonic() < deadline, (ours, theirs, asked)
                await asyncio.sleep(0.1)
            assert set(asked) <= set(ours)
            assert set(asked.values()) == {1}, "a terminal was asked twice"
            assert ours == {txn_id: "succeeded" if txn_id in asked else "unknown" for txn_id in ours}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if kiosk is not None:
            await kiosk.stop()
        await asyncio.to_thread(hub.stop)
    database = open_database(database_url)
    await database.open()
    try:
        assert (await audit.verify(database, None)).clean
    finally:
        await database.close()
