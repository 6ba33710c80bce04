"""Tables that another library made are adopted: no row is lost, no amount changes, no double stays."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from tillgate.domain.errors import Misconfigured
from tillgate.embed.migrate import migrate
from tillgate.integrations.fastapi import run_async_migrations, run_migrations
from tillgate.providers.payme.tests.payme_kit import (
    HOMES,
    PRICE_TIYIN,
    Base,
    Host,
    calling,
    code,
    creation,
    host_on,
    now_ms,
)

# As paytechuz 0.3 and 0.4 make it.
OLD_TABLE = """
CREATE TABLE payments (
    id {serial} PRIMARY KEY,
    gateway VARCHAR(10),
    transaction_id VARCHAR(255),
    account_id VARCHAR(255),
    amount FLOAT,
    state INTEGER,
    reason INTEGER,
    extra_data JSON,
    created_at TIMESTAMP,
    updated_at TIMESTAMP,
    performed_at TIMESTAMP,
    cancelled_at TIMESTAMP
)
"""
OLD_INDEXES = [
    f"CREATE INDEX ix_payments_{column} ON payments ({column})"
    for column in ("id", "gateway", "transaction_id", "account_id", "state", "created_at", "updated_at")
]
SERIAL = {"sqlite": "INTEGER", "postgresql": "SERIAL"}
AT = "2026-05-01 10:00:00.123456"
AT_MS = 1_777_629_600_123


def old_row(number: int, transaction: str, **changes: Any) -> dict[str, Any]:
    made_at = changes.pop("made_at", AT_MS - 5000)
    account = changes.pop("account", str(number))
    extra = {
        "account_field": "order_id",
        "account_value": account,
        "create_time": made_at,
        "raw_params": {"account": {"order_id": account}, "amount": 1},
    }
    return {
        "gateway": "payme",
        "transaction_id": transaction,
        "account_id": account,
        "amount": 15000.5,
        "state": 1,
        "reason": None,
        "extra_data": json.dumps(extra),
        "created_at": AT,
        "performed_at": None,
        "cancelled_at": None,
    } | changes


INSERT = """
INSERT INTO payments (gateway, transaction_id, account_id, amount, state, reason, extra_data, created_at,
    updated_at, performed_at, cancelled_at)
VALUES (:gateway, :transaction_id, :account_id, :amount, :state, :reason, {extra}, {at}, {at}, {performed},
    {cancelled})
"""


def fill(connection: Any, rows: list[dict[str, Any]]) -> None:
    """An old table with these rows, on either database."""
    name = connection.dialect.name
    connection.execute(text("DROP TABLE IF EXISTS payments"))
    connection.execute(text(OLD_TABLE.format(serial=SERIAL[name])))
    for index in OLD_INDEXES:
        connection.execute(text(index))
    for row in rows:
        literal = {
            "extra": "NULL" if row["extra_data"] is None else "'" + row["extra_data"] + "'",
            "at": f"'{row['created_at']}'",
            "performed": f"'{row['performed_at']}'" if row["performed_at"] else "NULL",
            "cancelled": f"'{row['cancelled_at']}'" if row["cancelled_at"] else "NULL",
        }
        named = {
            key: row[key] for key in ("gateway", "transaction_id", "account_id", "amount", "state", "reason")
        }
        connection.execute(text(INSERT.format(**literal)), named)


async def adopt(host: Host, rows: list[dict[str, Any]], *, migrating: bool = True) -> None:
    if host.is_async:
        async with host.engine.begin() as connection:
            await connection.run_sync(fill, rows)
        if migrating:
            await run_async_migrations(host.engine)
            await run_async_migrations(host.engine)
    else:
        with host.engine.begin() as connection:
            fill(connection, rows)
        if migrating:
            run_migrations(host.engine)
            run_migrations(host.engine)


@pytest.mark.parametrize("home", HOMES)
async def test_old_rows_go_on_where_they_stood(home: str, request: pytest.FixtureRequest) -> None:
    old = [
        old_row(1, "w" * 24, made_at=now_ms() - 60_000),
        old_row(2, "p" * 24, state=2, performed_at="2026-05-01 10:00:05.250000"),
        old_row(3, "r" * 24, state=-2, reason=5, performed_at=AT, cancelled_at="2026-05-02 00:00:00"),
        old_row(4, "c" * 24, state=-1, reason=3, cancelled_at="2026-05-01 11:00:00"),
        old_row(5, "e" * 24),
    ]
    async with host_on(home, request) as host:
        await adopt(host, old)
        async with calling(host) as payme:
            done = await payme("PerformTransaction", {"id": "w" * 24})
            assert done["result"]["state"] == 2
            assert code(await payme("PerformTransaction", {"id": "e" * 24})) == -31008
            found = {name: (await payme("CheckTransaction", {"id": name * 24}))["result"] for name in "wprce"}
            assert [found[name]["state"] for name in "wprce"] == [2, 2, -2, -1, -1]
            assert [found[name]["reason"] for name in "wprce"] == [None, None, 5, 3, 4]
            assert found["p"]["create_time"] == AT_MS
            assert found["p"]["perform_time"] == 1_777_629_605_250
            assert found["c"]["cancel_time"] == 1_777_633_200_000
            repeat = await payme("PerformTransaction", {"id": "p" * 24})
            assert repeat["result"]["perform_time"] == 1_777_629_605_250
            assert code(await payme("CreateTransaction", creation(2))) == -31008
            window = {"from": AT_MS - 5000, "to": AT_MS - 5000}
            rows = (await payme("GetStatement", window))["result"]["transactions"]
            assert sorted((row["id"][0], row["amount"], row["account"]["order_id"]) for row in rows) == [
                ("c", PRICE_TIYIN, "4"),
                ("e", PRICE_TIYIN, "5"),
                ("p", PRICE_TIYIN, "2"),
                ("r", PRICE_TIYIN, "3"),
            ]
        assert [(await host.order(number)).paid for number in (1, 2)] == [1, 0]


@pytest.mark.parametrize("home", HOMES)
async def test_doubles_are_parted_and_the_paid_one_keeps_the_id(
    home: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    old = [
        old_row(1, "d" * 24, account="1"),
        old_row(2, "d" * 24, account="1", state=2, performed_at=AT),
        old_row(3, "d" * 24, account="1"),
        old_row(4, "d" * 24, account="1", gateway="click"),
        old_row(5, None, account="9"),  # type: ignore[arg-type]
        old_row(6, None, account="9"),  # type: ignore[arg-type]
    ]
    async with host_on(home, request) as host:
        await adopt(host, old)
        rows = [(row.id, row.gateway, row.transaction_id, row.state) for row in await host.transactions()]
    assert rows == [
        (1, "payme", "d" * 24 + "#1", 1),
        (2, "payme", "d" * 24, 2),
        (3, "payme", "d" * 24 + "#3", 1),
        (4, "click", "d" * 24, 1),
        (5, "payme", None, 1),
        (6, "payme", None, 1),
    ]
    assert "had 3 rows; row 2 keeps the id" in caplog.text


@pytest.mark.parametrize("home", HOMES)
async def test_a_table_nobody_migrated_is_adopted_at_the_first_request(
    home: str, request: pytest.FixtureRequest
) -> None:
    """The document's snippet never calls a migration."""
    async with host_on(home, request) as host:
        await adopt(host, [old_row(1, "w" * 24, made_at=now_ms() - 60_000)], migrating=False)
        async with calling(host) as payme:
            answers = await asyncio.gather(
                *(payme("PerformTransaction", {"id": "w" * 24}) for _ in range(8)),
                *(payme("CreateTransaction", creation(number)) for number in range(2, 10)),
            )
            assert {answer["result"]["state"] for answer in answers[:8]} == {2}
            assert {answer["result"]["state"] for answer in answers[8:]} == {1}
        assert (await host.order(1)).paid == 1


async def test_without_any_table_the_first_request_makes_it(request: pytest.FixtureRequest) -> None:
    async with host_on("sqlite-sync", request) as host:
        with host.engine.begin() as connection:
            connection.execute(text("DROP TABLE payments"))
        async with calling(host) as payme:
            assert code(await payme("CheckTransaction", {"id": "a" * 24})) == -31003
            assert (await payme("CreateTransaction", creation()))["result"]["state"] == 1


@pytest.mark.parametrize(
    ("som", "tiyin"),
    [
        (1.15, 115),
        (19.99, 1999),
        (0.29, 29),
        (4.35, 435),
        (1234567.89, 123456789),
        (0.1 + 0.2, 30),
        (1e9, 10**11),
    ],
)
def test_every_float_means_the_amount_it_was_made_from(tmp_path: Path, som: float, tiyin: int) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        fill(connection, [old_row(1, "a", amount=som)])
    run_migrations(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT amount_tiyin, amount FROM payments")).one() == (tiyin, som)
    engine.dispose()


def test_rows_that_say_little_are_kept_as_they_are(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    odd = [
        old_row(1, "a", amount=None, extra_data=None),
        old_row(2, "b", amount="inf", extra_data="[1]"),
        old_row(3, "c", extra_data='{"create_time": "soon"}'),
    ] + [old_row(number, str(number)) for number in range(4, 1300)]
    with engine.begin() as connection:
        fill(connection, odd)
    run_migrations(engine)
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT amount_tiyin, provider_time, expires_at FROM payments ORDER BY id")
        ).all()
        assert rows[0] == (None, AT_MS, AT_MS + 43_200_000)
        assert rows[1] == (None, AT_MS, AT_MS + 43_200_000)
        assert rows[2] == (PRICE_TIYIN, AT_MS, AT_MS + 43_200_000)
        assert set(rows[3:]) == {(PRICE_TIYIN, AT_MS - 5000, AT_MS - 5000 + 43_200_000)}
        assert len(rows) == 1299
    engine.dispose()


def test_afterwards_the_database_forbids_doubles(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        fill(connection, [old_row(1, "a")])
        migrate(connection)
    assert {"uq_payments_gateway_transaction", "uq_payments_order_hold"} <= {
        index["name"] for index in inspect(engine).get_indexes("payments")
    }
    with engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text("INSERT INTO payments (gateway, transaction_id) VALUES ('payme', 'a')"))
    engine.dispose()


def test_only_our_table_is_touched(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    Base.metadata.create_all(engine)
    before = set(inspect(engine).get_table_names())
    run_migrations(engine)
    assert set(inspect(engine).get_table_names()) - before == {"payments"}
    engine.dispose()


def test_a_table_of_something_else_is_named_and_left_alone(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE payments (id INTEGER PRIMARY KEY, order_id TEXT, amount FLOAT)")
        )
    with pytest.raises(Misconfigured, match=r"payments is not a table of .* transaction_id"):
        run_migrations(engine)
    assert [column["name"] for column in inspect(engine).get_columns("payments")] == [
        "id",
        "order_id",
        "amount",
    ]
    engine.dispose()
