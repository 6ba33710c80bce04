"""Whoever Payme and Click call, to be killed between any two steps; run by `test_kill_callers.py`.

Imports everything once and then forks for each line it reads (JSON, `Wanted`), so that a call costs what it
does and not what Python's start costs. A step is one statement that the database is given, one commit, or the
way from the commit to the answer. What a call is answered is written to a file, whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import Session, sessionmaker

from tillgate.embed.session import in_session
from tillgate.http import inbound
from tillgate.integrations.fastapi import ClickWebhookHandler
from tillgate.providers.payme.tests.payme_kit import KEY, MERCHANT, Order, SyncHandler
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.spi import Inbound

CLICK_KEY = "TEST-click-secret"
SERVICE = 12345
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True)
class Wanted:
    """`who`: hub, or payme or click for a drop-in handler. `dies_at`: before that step; 0 never.

    With `port_fd` it serves all of them until it is killed, else it makes one call."""

    who: str
    url: str
    body: str = ""
    headers: dict[str, str] | None = None
    account: str = ""
    dies_at: int = 0
    answer: str = ""  # the file to write it to
    port_fd: int = -1


class ShopClick(ClickWebhookHandler):
    """Hooks that count in the order's row, as `SyncHandler` does for Payme."""

    def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
        account.reserved += 1

    def successfully_payment(self, params: Any, transaction: Any) -> None:
        order = self._order(transaction)
        order.status, order.paid = "paid", order.paid + 1
        self.db.commit()

    def cancelled_payment(self, params: Any, transaction: Any) -> None:
        order = self._order(transaction)
        order.status, order.cancelled = "cancelled", order.cancelled + 1
        self.db.commit()

    def _order(self, transaction: Any) -> Order:
        return self.db.scalars(select(Order).where(Order.id == int(transaction.account_id))).one()


def handler(who: str, db: Session) -> Any:
    if who == "payme":
        return SyncHandler(db, MERCHANT, KEY, Order, account_field="order_id")
    return ShopClick(db, SERVICE, CLICK_KEY, Order, account_field="order_id")


class Steps:
    def __init__(self, dies_at: int) -> None:
        self._left = dies_at

    def __call__(self, *_: Any, **__: Any) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def engine_of(url: str) -> Any:
    scheme, _, rest = url.partition(":")
    return create_engine(f"{DRIVERS[scheme]}:{rest}")


async def call(wanted: Wanted) -> None:
    step = Steps(wanted.dies_at)
    request = Inbound(
        "POST", "/", "", wanted.headers or {}, wanted.body.encode(), "127.0.0.1", time.time_ns() // 1_000_000
    )
    if wanted.who == "hub":
        settings = Settings(database_url=wanted.url, sandbox=True)
        async with Runtime(settings, migrate=False) as runtime:
            merchant, account = await runtime.directory.account(wanted.account)
            runtime.database._write.set_trace_callback(step)  # type: ignore[attr-defined]
            reply = await runtime.hub.receive(merchant, account, request)
            _answered(wanted, reply.body, step)
    else:
        engine = engine_of(wanted.url)
        with Session(engine) as db:
            await in_session(db, lambda _: None)  # what a process does once is not a step of a call
            for name in ("before_cursor_execute", "commit"):
                event.listen(engine, name, step)
            reply = await handler(wanted.who, db).answer(request)
            _answered(wanted, reply.body, step)


def _answered(wanted: Wanted, body: bytes, step: Callable[[], None]) -> None:
    step()  # committed, but nobody knows
    Path(wanted.answer).write_bytes(body)


async def serve(wanted: Wanted) -> None:
    """A hub's and a host's webhooks on one socket; `url` is the host's database, `body` the hub's."""
    engine = engine_of(wanted.url)
    sessions, app = sessionmaker(engine, autoflush=False), FastAPI()

    @app.post("/dropin/{who}")
    async def dropin(who: str, request: Request) -> Any:
        with sessions() as db:
            return await handler(who, db).handle_webhook(request)

    async with Runtime(Settings(database_url=wanted.body, sandbox=True), migrate=False) as runtime:
        app.router.routes.extend(inbound.routes(inbound.doors(runtime)))
        listening = socket.socket(fileno=wanted.port_fd)
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
        await uvicorn.Server(config).serve(sockets=[listening])


def main() -> None:
    import logging

    import structlog

    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for line in sys.stdin:
        wanted = Wanted(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            sys.stdin.close()
            asyncio.run(serve(wanted) if wanted.port_fd >= 0 else call(wanted))
            os._exit(0)
        if wanted.port_fd >= 0:
            print(pid, flush=True)
            continue
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
