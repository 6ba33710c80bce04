"""A shop that dies at the n-th step of its database, for every n: run by `test_kill.py`, not by pytest.

The program imports everything once and forks a shop for each death, so that a hundred cost seconds. A step
is a statement about to run, a statement done, a commit about to be asked for, a commit done. What the shop
answers is appended to a file before it goes on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import sys
import time
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Numeric, String, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from tillgate.integrations.fastapi import ClickWebhookHandler, PaymeWebhookHandler, run_migrations
from tillgate.spi import Inbound

MOST = 200
KEY = "the-key-of-this-shop-is-long-enough"
DOOR = "Basic " + base64.b64encode(f"Paycom:{KEY}".encode()).decode()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Any] = mapped_column(Numeric(14, 2))
    status: Mapped[str] = mapped_column(String(20), default="new")
    reserved: Mapped[int] = mapped_column(default=0)
    paid: Mapped[int] = mapped_column(default=0)
    cancelled: Mapped[int] = mapped_column(default=0)


class Hooks:
    """As the document writes them: a query, a change, a commit of their own."""

    db: Any

    def _order(self, transaction: Any) -> Order:
        order: Order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).one()
        return order

    def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
        account.reserved += 1
        self.db.commit()

    def successfully_payment(self, params: Any, transaction: Any) -> None:
        order = self._order(transaction)
        order.status, order.paid = "paid", order.paid + 1
        self.db.commit()

    def cancelled_payment(self, params: Any, transaction: Any) -> None:
        order = self._order(transaction)
        order.status, order.cancelled = "cancelled", order.cancelled + 1
        self.db.commit()


class ShopPayme(Hooks, PaymeWebhookHandler):
    pass


class ShopClick(Hooks, ClickWebhookHandler):
    pass


async def payme(db: Session, method: str, **params: Any) -> Any:
    handler = ShopPayme(db, "merchant", KEY, Order)
    body = json.dumps({"method": method, "params": params, "id": 1}).encode()
    call = Inbound("POST", "/", "", {"authorization": DOOR}, body, "127.0.0.1", time.time_ns() // 1_000_000)
    return json.loads((await handler.answer(call)).body)


async def click(db: Session, order: int, action: int, prepared: Any = "", error: int = 0) -> Any:
    number, moment = str(10**9 + order), time.strftime("%Y-%m-%d %H:%M:%S")
    signed = number, "777", KEY, str(order), str(prepared), "500.00", str(action), moment
    form = {
        "click_trans_id": number,
        "service_id": "777",
        "click_paydoc_id": "5",
        "merchant_trans_id": str(order),
        "amount": "500.00",
        "action": str(action),
        "error": str(error),
        "error_note": "",
        "sign_time": moment,
        "sign_string": hashlib.md5("".join(signed).encode(), usedforsecurity=False).hexdigest(),
    } | ({"merchant_prepare_id": str(prepared)} if action else {})
    body = urllib.parse.urlencode(form).encode()
    handler = ShopClick(db, 777, KEY, Order)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    call = Inbound("POST", "/", "", kind, body, "127.0.0.1", time.time_ns() // 1_000_000)
    return json.loads((await handler.answer(call)).body)


async def by_payme(sessions: Any, order: int, said: dict[str, Any], say: Any, made_at: int) -> None:
    """Create, Perform, Cancel, from the first that was not answered; then how it stands. Each request has a
    session of its own."""
    name = f"{order:024}"
    creation = {"id": name, "time": made_at, "amount": 50_000, "account": {"id": str(order)}}
    for method, params in (
        ("CreateTransaction", creation),
        ("PerformTransaction", {"id": name}),
        ("CancelTransaction", {"id": name, "reason": 5}),
        ("CheckTransaction", {"id": name}),
    ):
        if method not in said:
            with sessions() as db:
                say(method, (await payme(db, method, **params))["result"])


async def by_click(sessions: Any, order: int, said: dict[str, Any], say: Any, made_at: int) -> None:
    """Prepare, Complete; where an answer was lost, Click asks again from Prepare on."""
    with sessions() as db:
        prepared = await click(db, order, 0)
    say("Prepare", prepared)
    if prepared["error"] == 0:
        with sessions() as db:
            say("Complete", await click(db, order, 1, prepared["merchant_prepare_id"]))


def dying_at(engine: Engine, step: int) -> None:
    """From now on every step of the database is counted, and the one with this number is the last."""
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(engine, name, count)
    event.listen(Session, "after_commit", count)


def lives(engine: Engine, gateway: str, orders: range, step: int, notes: Path, made_at: int) -> None:
    """All of these payments, or as much of them as is done before the death at this step (0: none)."""
    engine.dispose(close=False)  # what is open belongs to the parent
    sessions = sessionmaker(engine, autoflush=False)
    file = os.open(notes, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o600)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")  # the driver's own first words are no step
    if step:
        dying_at(engine, step)
    for order in orders:

        def say(what: str, answer: Any, order: int = order) -> None:
            os.write(file, (json.dumps([order, what, answer]) + "\n").encode())

        heard = (json.loads(line) for line in notes.read_text().splitlines())
        said = {what: answer for whose, what, answer in heard if whose == order}
        asyncio.run({"payme": by_payme, "click": by_click}[gateway](sessions, order, said, say, made_at))
    engine.dispose()


def main(url: str, gateway: str, folder: str) -> None:
    """Dies at step 1, 2, 3, … with an order for each, until a life ends by itself; waits for the test to look
    at them, then finishes all."""
    engine = create_engine(url)
    run_migrations(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as db:
        db.add_all(Order(id=number, amount=500) for number in range(1, MOST))
        db.commit()
    notes, made_at = Path(folder) / "notes", time.time_ns() // 1_000_000
    order, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL and order < MOST:
        order += 1
        code = child(lives, engine, gateway, range(order, order + 1), order, notes, made_at)
    print(json.dumps([order, code]), flush=True)
    sys.stdin.readline()
    print(json.dumps(child(lives, engine, gateway, range(1, order), 0, notes, made_at)), flush=True)


def child(work: Any, *arguments: Any) -> int:
    """Its exit code; the negative of a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main(*sys.argv[1:4])
