"""Payme and Click want one order at the same moment: one of them gets it, whichever comes first."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from tillgate.integrations.fastapi import run_migrations

from .dying_shop import Base, Order, click, payme

ORDERS, RIVALS = 4, 8
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


@pytest.mark.parametrize("home", DRIVERS)
async def test_one_order_is_sold_once_by_two_gateways(home: str, request: pytest.FixtureRequest) -> None:
    empty = request.getfixturevalue("sqlite_url" if home == "sqlite" else "pg_url")
    engine = create_engine(f"{DRIVERS[home]}:{empty.partition(':')[2]}")
    sessions = sessionmaker(engine, autoflush=False)
    run_migrations(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as db:
        db.add_all(Order(id=number, amount=500) for number in range(1, ORDERS + 1))
        db.commit()

    async def by_payme(order: int, name: str) -> bool:
        account = {"id": str(order)}
        with sessions() as db:
            made: Any = await payme(
                db, "CreateTransaction", id=name, time=now_ms(), amount=50_000, account=account
            )
        if "result" not in made:
            return False
        with sessions() as db:
            return bool((await payme(db, "PerformTransaction", id=name))["result"]["state"] == 2)

    async def by_click(order: int) -> bool:
        with sessions() as db:
            prepared = await click(db, order, 0)
        if prepared["error"]:
            return False
        with sessions() as db:
            return bool((await click(db, order, 1, prepared["merchant_prepare_id"]))["error"] == 0)

    for order in range(1, ORDERS + 1):
        rivals = [by_payme(order, secrets.token_hex(12)) for _ in range(RIVALS)]
        contest = [by_click(order), *rivals] if order % 2 else [*rivals, by_click(order)]
        assert sum(await asyncio.gather(*contest)) == 1
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT account_id, state FROM payments ORDER BY account_id")).all()
        hooks = connection.execute(text("SELECT status, reserved, paid, cancelled FROM orders")).all()
    engine.dispose()
    assert rows == [(str(order), 2) for order in range(1, ORDERS + 1)]
    assert hooks == [("paid", 1, 1, 0)] * ORDERS


def now_ms() -> int:
    return time.time_ns() // 1_000_000
