"""Host applications for the tests: orders, a session, the drop-in handler, served over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn
from fastapi import Depends, FastAPI, Request
from sqlalchemy import Float, Integer, Numeric, String, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from tillgate.integrations.fastapi import (
    PaymentTransaction,
    PaymeWebhookHandler,
    run_async_migrations,
    run_migrations,
)

KEY = "the-key-of-this-cash-desk-36-letters"
MERCHANT = "587f72c72cac0d162c722ae2"
PRICE_TIYIN = 1_500_050

EVERY_HOME = {
    "sqlite-sync": "sqlite",
    "sqlite-async": "sqlite+aiosqlite",
    "postgresql-sync": "postgresql+psycopg",
    "postgresql-async": "postgresql+asyncpg",
    "postgresql-psycopg-async": "postgresql+psycopg",
}
"""Every kind of session that a host may have, and its driver."""

HOMES = [home for home in EVERY_HOME if home != "postgresql-psycopg-async"]
"""Enough for what does not depend on the driver alone."""


class Base(DeclarativeBase):
    pass


class Order(Base):
    """Times are counted in the row, so that a hook which ran twice shows."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    amount: Mapped[Any] = mapped_column(Numeric(14, 2))
    status: Mapped[str] = mapped_column(String(20), default="new")
    reserved: Mapped[int] = mapped_column(Integer, default=0)
    paid: Mapped[int] = mapped_column(Integer, default=0)
    cancelled: Mapped[int] = mapped_column(Integer, default=0)
    balance: Mapped[int] = mapped_column(Integer, default=0)
    phone: Mapped[str] = mapped_column(String(20), default="")


class FloatOrder(Base):
    __tablename__ = "float_orders"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    amount: Mapped[float] = mapped_column(Float)


class SyncHandler(PaymeWebhookHandler):
    """The document's hooks: they look the order up by `account_id` and commit by themselves."""

    def transaction_created(self, params: dict[str, Any], transaction: Any, account: Any) -> None:
        account.reserved += 1
        self.db.commit()

    def successfully_payment(self, params: dict[str, Any], transaction: Any) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        order.status, order.paid = "paid", order.paid + 1
        order.balance += transaction.amount_tiyin
        self.db.commit()

    def cancelled_payment(self, params: dict[str, Any], transaction: Any) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        order.status, order.cancelled = "cancelled", order.cancelled + 1
        self.db.commit()


class AsyncHandler(PaymeWebhookHandler):
    """The same for an AsyncSession, with hooks that await."""

    async def transaction_created(self, params: dict[str, Any], transaction: Any, account: Any) -> None:
        account.reserved += 1
        await self.db.commit()

    async def successfully_payment(self, params: dict[str, Any], transaction: Any) -> None:
        order = await self.db.get(Order, int(transaction.account_id))
        order.status, order.paid = "paid", order.paid + 1
        order.balance += transaction.amount_tiyin
        await self.db.commit()

    async def cancelled_payment(self, params: dict[str, Any], transaction: Any) -> None:
        order = await self.db.get(Order, int(transaction.account_id))
        order.status, order.cancelled = "cancelled", order.cancelled + 1
        await self.db.commit()


@dataclass
class Host:
    """A host application. `home` is one of `HOMES`."""

    home: str
    url: str
    one_time: bool = True
    handler: type[PaymeWebhookHandler] | None = None
    model: Any = Order
    settings: dict[str, Any] = field(default_factory=dict)
    engine_settings: dict[str, Any] = field(default_factory=dict)
    orders: int = 20
    engine: Any = None
    sessions: Any = None

    @property
    def is_async(self) -> bool:
        return self.home.endswith("-async")

    async def start(self) -> None:
        if self.is_async:
            self.engine = create_async_engine(self.url, **self.engine_settings)
            self.sessions = async_sessionmaker(self.engine)
            await run_async_migrations(self.engine)
            async with self.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(text(self._fill()))
        else:
            self.engine = create_engine(self.url, **self.engine_settings)
            self.sessions = sessionmaker(self.engine, autoflush=False)
            run_migrations(self.engine)
            with self.engine.begin() as connection:
                Base.metadata.create_all(connection)
                connection.execute(text(self._fill()))

    def _fill(self) -> str:
        rows = ",".join(
            f"({number}, 15000.50, 'new', 0, 0, 0, 0, '99890{number:07d}')"
            for number in range(1, self.orders + 1)
        )
        columns = "id, amount, status, reserved, paid, cancelled, balance, phone"
        return f"INSERT INTO orders ({columns}) VALUES {rows}"

    async def stop(self) -> None:
        if self.is_async:
            await self.engine.dispose()
        else:
            self.engine.dispose()

    def app(self) -> FastAPI:
        app = FastAPI()
        if self.is_async:

            async def get_db() -> AsyncIterator[AsyncSession]:
                async with self.sessions() as db:
                    yield db

        else:

            def get_db() -> Any:
                db = self.sessions()
                try:
                    yield db
                finally:
                    db.close()

        @app.api_route("/payme", methods=["POST", "GET"])
        async def payme(request: Request, db: Any = Depends(get_db)) -> Any:  # noqa: B008
            return await self.made(db).handle_webhook(request)

        return app

    def made(self, db: Session | AsyncSession) -> PaymeWebhookHandler:
        kind = self.handler or (AsyncHandler if self.is_async else SyncHandler)
        settings = {"account_field": "order_id", "one_time_payment": self.one_time} | self.settings
        return kind(db, MERCHANT, KEY, self.model, **settings)

    # --- looking at what is stored --------------------------------------------------------------------------

    async def rows(self, statement: Any) -> list[Any]:
        if self.is_async:
            async with self.sessions() as db:
                return list((await db.scalars(statement)).all())
        with self.sessions() as db:
            return list(db.scalars(statement).all())

    async def order(self, number: int) -> Order:
        return (await self.rows(select(Order).where(Order.id == number)))[0]

    async def transactions(self) -> list[PaymentTransaction]:
        return await self.rows(select(PaymentTransaction).order_by(PaymentTransaction.id))


_database = itertools.count()


@contextlib.asynccontextmanager
async def host_on(home: str, request: Any, **settings: Any) -> AsyncIterator[Host]:
    """A started host on an empty database of its own; `request` is pytest's."""
    if home.startswith("sqlite"):
        url = request.getfixturevalue("sqlite_url").replace("x.db", f"x{next(_database)}.db")
    else:
        url = request.getfixturevalue("pg_url")
    url = f"{EVERY_HOME[home]}:{url.partition(':')[2]}"
    host = Host(home, url, **settings)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


@contextlib.asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    """The application on a loopback port; its address."""
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: else each answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", timeout_keep_alive=5)
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listener.close()


class Caller:
    """Speaks JSON-RPC to an endpoint by hand, knowing nothing of either side's code."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def raw(self, body: bytes, key: str = KEY, method: str = "POST", **headers: str) -> Any:
        login = base64.b64encode(f"Paycom:{key}".encode()).decode()
        merged = {"Authorization": f"Basic {login}", "Content-Type": "text/json", **headers}
        async with self.session.request(method, self.url, data=body, headers=merged) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.read()

    async def __call__(self, method: str, params: Any, rpc_id: int = 1, **more: Any) -> Any:
        return json.loads(await self.bytes(method, params, rpc_id, **more))

    async def bytes(self, method: str, params: Any, rpc_id: int = 1, **more: Any) -> bytes:
        body = json.dumps({"method": method, "params": params, "id": rpc_id}).encode()
        found: bytes = await self.raw(body, **more)
        return found

    async def created(self, order: Any = 1, amount: int = PRICE_TIYIN, **changes: Any) -> str:
        params = creation(order, amount, **changes)
        answer = await self("CreateTransaction", params)
        assert answer["result"]["state"] == 1, answer
        return str(params["id"])

    async def performed(self, order: Any = 1, amount: int = PRICE_TIYIN) -> str:
        transaction = await self.created(order, amount)
        answer = await self("PerformTransaction", {"id": transaction})
        assert answer["result"]["state"] == 2, answer
        return transaction


def creation(order: Any = 1, amount: int = PRICE_TIYIN, **changes: Any) -> dict[str, Any]:
    account = {"order_id": str(order)}
    return {"id": secrets.token_hex(12), "time": now_ms(), "amount": amount, "account": account} | changes


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def calling(host: Host) -> AsyncIterator[Caller]:
    """The host's endpoint over HTTP."""
    async with serve(host.app()) as base, aiohttp.ClientSession() as session:
        yield Caller(f"{base}/payme", session)


def code(answer: dict[str, Any]) -> int | None:
    return answer["error"]["code"] if "error" in answer else None


Wrapped = Callable[..., Any]
