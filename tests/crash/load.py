"""A hub under load, to be killed: run by `test_kill_journal.py`, not by pytest.

The program imports everything once and then forks a hub for each line it reads (JSON, `Orders`); so a round
costs what the hub does, not what Python's start costs. What a hub was answered it appends to a file, by one
`write` each, after the answer came; what the bank did, likewise. Both outlive any kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from support.till import SECRET_KEY, Clock
from support.tinybank import Bank, Charge, notice, providers
from tillgate.domain.errors import TillgateError, Unavailable
from tillgate.hub import Hub, Intent, Key, Kit
from tillgate.outgoing import Outgoing
from tillgate.spi import HttpCall, HttpReply, Order, RefundOrder
from tillgate.ssrf import AllowList
from tillgate.store.database import open_database
from tillgate.store.directory import Directory, Merchant
from tillgate.store.ids import digest
from tillgate.store.journal import Journal
from tillgate.store.reads import Reads
from tillgate.store.sealing import Sealer
from tillgate.worker import Worker

T = TypeVar("T")
PRICE, BACK = 10_000, 2_500
TILLS = 12


@dataclass(frozen=True)
class Orders:
    """One round: which database, where to note what, and the time by our clock."""

    url: str
    folder: str
    merchant_id: str
    allow: str
    round: int
    now: int


class Notes:
    """Lines in a file, each written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)

    def add(self, *words: object) -> None:
        os.write(self._file, (json.dumps(words) + "\n").encode())

    def all(self) -> Iterator[list[Any]]:
        with self._path.open() as file:
            for line in file:
                yield json.loads(line)


class LastingBank(Bank):
    """A bank whose books are a file: what it did it has done, whoever is killed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._notes = Notes(path)
        for what, name, *rest in self._notes.all():
            if what == "paid":
                self.charges[name] = Charge(PRICE, "IDR", "paid", PRICE)
            elif what == "refund":
                self._gave(name, *rest)

    def pay(self, operation_id: str, amount_minor: int | None = None) -> Charge:
        if self.charges.setdefault(operation_id, Charge(PRICE, "IDR")).state != "paid":
            self._notes.add("paid", operation_id)
        return super().pay(operation_id, amount_minor)

    def give_back(self, refund: RefundOrder) -> str:
        if refund.operation_id not in self.refunds:
            self._notes.add("refund", refund.operation_id, refund.payment.operation_id, refund.amount.minor)
            self._gave(refund.operation_id, refund.payment.operation_id, refund.amount.minor)
        return self.refunds[refund.operation_id][2]

    def open(self, order: Order) -> Charge:
        return self.charges.setdefault(order.operation_id, Charge(order.amount.minor, "IDR"))

    def _gave(self, refund_id: str, charge_id: str, amount_minor: int) -> None:
        self.refunds[refund_id] = charge_id, amount_minor, "succeeded"
        self.charges.setdefault(charge_id, Charge(PRICE, "IDR", "paid", PRICE)).refunded_minor += amount_minor


class Teller:
    """One of many: opens, is paid, tells twice, refunds, as fast as it is answered."""

    def __init__(self, hub: Hub, bank: Bank, merchant: Merchant, acknowledged: Notes, name: str) -> None:
        self._hub, self._bank, self._merchant = hub, bank, merchant
        self._acknowledged, self._name = acknowledged, name

    async def work(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                await self._sale(f"{self._name}-{number}")
            except Unavailable:
                await asyncio.sleep(0.01)  # the database is being killed, too
            except TillgateError as error:
                self._acknowledged.add("surprise", repr(error))

    async def _sale(self, order_id: str) -> None:
        hub, noted = self._hub, self._acknowledged
        channel = random.choice(["inviting_qr", "calling_qr"])
        intent = Intent(order_id, PRICE, "IDR", channel)
        key = Key(digest(order_id), digest(order_id, channel), 201) if random.random() < 0.5 else None
        opened = await hub.open(self._merchant, intent, key, lambda payment, _: payment.id.encode())
        payment_id, attempt = opened.payment.id, opened.attempt
        noted.add("payment", payment_id, order_id)
        assert attempt is not None
        account = self._merchant.account(attempt.account_id)
        assert account is not None
        charge = self._bank.pay(attempt.id)
        for _ in range(random.choice([1, 1, 2])):
            call = notice(attempt.id, charge, f"evt-{attempt.id}")
            if (await hub.receive(self._merchant, account, call)).status == 200:
                noted.add("paid", payment_id)
        for _ in range(random.choice([0, 1, 1, 5])):  # five would be more than was paid
            try:
                made = await hub.refund(self._merchant, payment_id, BACK, "crash test")
            except Unavailable:
                raise
            except TillgateError:
                break
            assert made.refund is not None
            noted.add("refund", payment_id, made.refund.id)


async def trade(orders: Orders) -> None:
    folder = Path(orders.folder)
    bank, acknowledged = LastingBank(folder / "bank"), Notes(folder / "acknowledged")
    clock = Clock(orders.now)
    database = open_database(orders.url)
    await there(database.open)
    journal = Journal(database, clock)
    await journal.start()
    directory = Directory(database, journal, Sealer([SECRET_KEY]), clock)
    async with Outgoing(guard=True, allow=AllowList.parse(orders.allow)) as outgoing:
        url = "https://till.example"
        kit = Kit(Reads(database), journal, directory, providers(bank), _nowhere, clock, url)
        hub = Hub(kit)
        worker = Worker(hub, outgoing.send, idle_s=0.02)
        journal.kick = worker.kick
        merchant = await there(lambda: directory.merchant(orders.merchant_id))
        tellers = [
            Teller(hub, bank, merchant, acknowledged, f"{orders.round}-{number}") for number in range(TILLS)
        ]
        await asyncio.gather(worker.run(), *(one.work() for one in tellers))


async def there(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, once the database, which is being killed, too, is there to give it."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(0.01)


async def _nowhere(call: HttpCall) -> HttpReply:
    raise AssertionError(call.url)


def main() -> None:
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            sys.stdin.close()
            asyncio.run(trade(Orders(**json.loads(line))))
            os._exit(1)  # it trades until it is killed
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
