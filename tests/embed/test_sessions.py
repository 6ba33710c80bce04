"""Sessions as hosts make them: scoped, routing, with recipes of their own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Update, create_engine, func, select
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import Session

from tillgate.embed import PaymentTransaction
from tillgate.integrations.fastapi import run_migrations
from tillgate.providers.payme.handler import PaymeWebhookHandler
from tillgate.providers.payme.tests.payme_kit import (
    KEY,
    AsyncHandler,
    Base,
    Order,
    calling,
    creation,
    host_on,
)

from .test_transactions import asked


async def test_an_async_scoped_session_is_used_as_it_is(request: pytest.FixtureRequest) -> None:
    async with host_on("sqlite-async", request) as host:
        scoped = async_scoped_session(host.sessions, asyncio.current_task)
        params = creation()
        for method, wanted, state in (
            ("CreateTransaction", params, b'"state":1'),
            ("PerformTransaction", {"id": params["id"]}, b'"state":2'),
        ):
            handler = AsyncHandler(scoped, "id", KEY, Order, account_field="order_id")
            assert state in (await handler.answer(asked(method, wanted))).body
        await scoped.remove()
        assert (await host.order(1)).paid == 1


async def test_a_session_may_choose_its_database_by_mapper_and_statement(tmp_path: Any) -> None:
    """SQLAlchemy's own recipes: they are given a mapper and a statement, and writes go to the leader."""
    leader, follower = (create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("leader", "follower"))
    for engine in (leader, follower):
        run_migrations(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as db:
            db.add(Order(id=1, amount=15000.5))
            db.commit()

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
            assert mapper is None or issubclass(mapper.class_, Order | PaymentTransaction)
            return leader if self._flushing or isinstance(clause, Update) else follower

    with Routing() as db:
        handler = PaymeWebhookHandler(db, "id", KEY, Order, account_field="order_id")
        assert b'"state":1' in (await handler.answer(asked("CreateTransaction", creation()))).body
    counts = []
    for engine in (leader, follower):
        with Session(engine) as db:
            counts.append(db.scalar(select(func.count()).select_from(PaymentTransaction)))
        engine.dispose()
    assert counts == [1, 0]


async def test_a_hook_made_around_the_base_hook_is_called(request: pytest.FixtureRequest) -> None:
    called: list[str] = []

    def logged(hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def around(*arguments: Any) -> Any:
            called.append(hook.__name__)
            return hook(*arguments)

        return around

    class Logged(PaymeWebhookHandler):
        transaction_created = logged(PaymeWebhookHandler.transaction_created)
        successfully_payment = logged(PaymeWebhookHandler.successfully_payment)

    async with host_on("sqlite-sync", request, handler=Logged) as host, calling(host) as payme:
        await payme.performed()
    assert called == ["transaction_created", "successfully_payment"]
