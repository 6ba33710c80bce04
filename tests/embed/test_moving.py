"""Code and rows that were written for paytechuz: what is taken as it is, and what is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Integer, SmallInteger, create_engine, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from tillgate.embed import BadSettings, PaymentTransaction
from tillgate.integrations.fastapi import (
    ClickWebhookHandler,
    PaymeWebhookHandler,
    run_async_migrations,
    run_migrations,
)
from tillgate.providers.click.tests.conftest import SECRET, SERVICE, click_form
from tillgate.providers.payme.tests.payme_kit import (
    HOMES,
    KEY,
    PRICE_TIYIN,
    Base,
    Host,
    Order,
    SyncHandler,
    calling,
    code,
    creation,
    host_on,
    now_ms,
)
from tillgate.spi import Inbound

from .test_migration import AT_MS, adopt, fill, old_row
from .test_transactions import asked


class Course(Base):
    """Another thing that is sold, with keys of its own that begin at 1, too."""

    __tablename__ = "courses"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    amount: Mapped[int] = mapped_column(Integer, default=1000)


class Wide(Base):
    """Keys as a bot has them: whole numbers of any width, in whatever column."""

    __tablename__ = "wide"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    small: Mapped[int] = mapped_column(SmallInteger)
    big: Mapped[int] = mapped_column(BigInteger)
    amount: Mapped[int] = mapped_column(Integer, default=1000)


# --- adopted rows -------------------------------------------------------------------------------------------


async def kinds(host: Host) -> list[str | None]:
    return [row.account_kind for row in await host.transactions()]


@pytest.mark.parametrize("home", HOMES)
async def test_the_host_may_say_whose_the_old_rows_are(home: str, request: pytest.FixtureRequest) -> None:
    async with host_on(home, request) as host:
        old = [
            old_row(1, "a" * 24, state=2, performed_at="2026-05-01 10:00:05"),
            old_row(2, "b" * 24, state=-1, cancelled_at="2026-05-01 10:00:05"),
        ]
        await adopt(host, old)
        assert await kinds(host) == [None, None]
        for _ in range(2):
            if host.is_async:
                await run_async_migrations(host.engine, account_model=Order)
            else:
                run_migrations(host.engine, account_model=Order)
        assert await kinds(host) == ["orders", "orders"]
        if not host.is_async:
            run_migrations(host.engine, account_model=Course)  # nothing says none any more
            assert await kinds(host) == ["orders", "orders"]
            assert b"allow" in await sold(host, Course)
        async with calling(host) as payme:
            assert code(await payme("CreateTransaction", creation(1))) == -31008


async def sold(host: Host, model: Any) -> bytes:
    """What Payme hears of course 1."""
    with host.sessions() as db:
        if db.get(Course, 1) is None:
            db.add(Course(id=1))
            db.commit()
        handler = PaymeWebhookHandler(db, "id", KEY, model)
        check = {"amount": 100_000, "account": {"id": "1"}}
        return (await handler.answer(asked("CheckPerformTransaction", check))).body


@pytest.mark.parametrize(
    "method", ["CreateTransaction", "PerformTransaction", "repeated", "CancelTransaction"]
)
async def test_an_old_row_that_is_named_through_a_handler_is_its_orders(
    method: str, request: pytest.FixtureRequest
) -> None:
    made_at = now_ms() - 60_000
    paid = {"state": 2, "performed_at": "2026-05-01 10:00:05"} if method == "repeated" else {}
    async with host_on("sqlite-sync", request) as host:
        await adopt(host, [old_row(1, "a" * 24, made_at=made_at, **paid)])
        async with calling(host) as payme:
            await payme("CheckTransaction", {"id": "a" * 24})
            assert await kinds(host) == [None]  # who only looks knows nothing
            params: dict[str, Any] = {"id": "a" * 24}
            if method == "CreateTransaction":
                params = creation(1) | {"id": "a" * 24, "time": made_at}
            elif method == "CancelTransaction":
                params |= {"reason": 3}
            answer = await payme("PerformTransaction" if method == "repeated" else method, params)
        assert code(answer) is None
        assert await kinds(host) == ["orders"]
        assert b"allow" in await sold(host, Course)


def test_a_row_without_a_state_waits(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        fill(connection, [old_row(1, "a", state=None), old_row(2, "b", state=-1)])
    run_migrations(engine)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT state, updated_at FROM payments ORDER BY id")).all()
    engine.dispose()
    assert [(state, str(at)) for state, at in rows] == [
        (0, "2026-05-01 10:00:00.123456"),
        (-1, "2026-05-01 10:00:00.123456"),
    ]


async def test_a_row_without_a_state_can_be_paid(request: pytest.FixtureRequest) -> None:
    async with host_on("sqlite-sync", request) as host:
        await adopt(host, [old_row(1, "a" * 24, state=None, made_at=now_ms() - 1000)])
        async with calling(host) as payme:
            assert (await payme("PerformTransaction", {"id": "a" * 24}))["result"]["state"] == 2


@pytest.mark.parametrize("home", ["sqlite-sync", "postgresql-sync"])
@pytest.mark.parametrize("amount", ["Infinity", "NaN"])
async def test_a_row_that_holds_no_amount_keeps_nothing_else_from_payme(
    home: str, amount: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds its order, as any other; it is no price."""
    if home == "sqlite-sync" and amount == "NaN":
        pytest.skip("SQLite keeps no NaN")
    async with host_on(home, request) as host:
        await adopt(host, [old_row(1, "a" * 24, amount=float(amount), made_at=now_ms() - 1000)])
        async with calling(host) as payme:
            waiting = await payme.created(2)
            shown = (await payme("GetStatement", {"from": 0, "to": now_ms()}))["result"]["transactions"]
            assert [(row["id"], row["amount"]) for row in shown] == [("a" * 24, 0), (waiting, PRICE_TIYIN)]
            check = {"amount": PRICE_TIYIN, "account": {"order_id": "1"}}
            assert code(await payme("CheckPerformTransaction", check)) == -31053
            assert code(await payme("CreateTransaction", creation(1) | {"id": "a" * 24})) == -31001
            assert (await payme("CheckTransaction", {"id": "a" * 24}))["result"]["state"] == 1
            assert (await payme("CancelTransaction", {"id": "a" * 24, "reason": 3}))["result"]["state"] == -1
            await payme.created(1)
    assert "row 1 holds no amount" in caplog.text


def test_many_starting_at_once_adopt_one_table_by_an_async_engine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        fill(connection, [old_row(number, str(number)) for number in range(1, 1500)])
    program = f"""
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
from tillgate.integrations.fastapi import run_async_migrations
print("ready", flush=True)
input()
asyncio.run(run_async_migrations(create_async_engine("{url.replace(":", "+aiosqlite:", 1)}")))
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with engine.connect() as connection:
        filled = "SELECT count(*), sum(provider_time = :at) FROM payments WHERE amount_tiyin = :price"
        row = connection.execute(text(filled), {"price": PRICE_TIYIN, "at": AT_MS - 5000}).one()
    engine.dispose()
    assert tuple(row) == (1499, 1499)


async def test_a_row_without_an_amount_can_be_paid_and_given_back(request: pytest.FixtureRequest) -> None:
    async with host_on("sqlite-sync", request, handler=PaymeWebhookHandler) as host:
        await adopt(host, [old_row(1, "a" * 24, amount=None, made_at=now_ms() - 1000)])
        async with calling(host) as payme:
            for method, more, state in (
                ("PerformTransaction", {}, 2),
                ("PerformTransaction", {}, 2),
                ("CancelTransaction", {"reason": 5}, -2),
                ("CancelTransaction", {"reason": 3}, -2),
                ("CheckTransaction", {}, -2),
            ):
                assert (await payme(method, {"id": "a" * 24, **more}))["result"]["state"] == state
            assert code(await payme("PerformTransaction", {"id": "a" * 24})) == -31008
        (row,) = await host.transactions()
        assert (row.state, row.reason) == (-2, 5)


# --- handlers -----------------------------------------------------------------------------------------------


def there(name: str) -> Exception:
    """An exception as paytechuz.core.exceptions makes it."""
    module = {"__module__": "paytechuz.core.exceptions"}
    base = types.new_class("PaymentException", (Exception,), {}, lambda body: body.update(module))
    made: Exception = types.new_class(name, (base,), {}, lambda body: body.update(module))("in its words")
    return made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AccountNotFound", -31050),
        ("InvalidAccount", -31050),
        ("InvalidAmount", -31001),
        ("TransactionNotFound", -31003),
        ("PermissionDenied", -32504),
        ("MethodNotFound", -32601),
        ("InsufficientFunds", -32400),
    ],
)
async def test_exceptions_of_paytechuz_are_answered_as_it_answers_them(
    request: pytest.FixtureRequest, name: str, expected: int
) -> None:
    class Refusing(SyncHandler):
        def before_check_perform_transaction(self, params: Any, account: Any) -> None:
            raise there(name)

        def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
            account.status = "half"
            self.db.commit()
            raise there(name)

    check = {"amount": PRICE_TIYIN, "account": {"order_id": "1"}}
    async with host_on("sqlite-sync", request, handler=Refusing) as host, calling(host) as payme:
        assert code(await payme("CheckPerformTransaction", check)) == expected
        assert code(await payme("CreateTransaction", creation())) == expected
        assert (await host.transactions(), (await host.order(1)).status) == ([], "new")


async def test_an_exception_of_the_same_name_is_a_fault(request: pytest.FixtureRequest) -> None:
    class AccountNotFound(Exception):
        pass

    class Failing(SyncHandler):
        def before_check_perform_transaction(self, params: Any, account: Any) -> None:
            raise AccountNotFound

    check = {"amount": PRICE_TIYIN, "account": {"order_id": "1"}}
    async with host_on("sqlite-sync", request, handler=Failing) as host, calling(host) as payme:
        assert code(await payme("CheckPerformTransaction", check)) == -32400


OF_BOTH = ["_check_auth", "_find_account", "_validate_amount"]
OF_PAYME = [
    *("_check_perform_transaction", "_create_transaction", "_perform_transaction", "_check_transaction"),
    *("_cancel_transaction", "_cancel_response", "_get_statement", "_error_response", "check_basic_auth"),
]


@pytest.mark.parametrize(
    ("base", "name"),
    [(PaymeWebhookHandler, name) for name in OF_BOTH + OF_PAYME]
    + [(ClickWebhookHandler, name) for name in OF_BOTH],
)
def test_a_rule_that_would_be_passed_over_is_refused_by_name(base: type, name: str) -> None:
    with pytest.raises(TypeError, match=f"Mine.{name} would never be called: "):
        type("Mine", (base,), {name: lambda self: None})
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match=name):
        type("Mine", (mixin, base), {})
    type("Mine", (base,), {f"_my{name}": lambda self: None})


@pytest.mark.parametrize("previous", [" ", "\t\n", 5])
def test_a_blank_previous_key_opens_no_door(previous: Any) -> None:
    with Session() as db, pytest.raises(BadSettings, match="previous_key"):
        PaymeWebhookHandler(db, "id", KEY, Order, previous_key=previous)


@pytest.mark.parametrize("previous", ["", None])
def test_no_previous_key_is_none(previous: Any) -> None:
    with Session() as db:
        PaymeWebhookHandler(db, "id", KEY, Order, previous_key=previous)


async def test_a_number_is_as_wide_as_the_database_keeps_it(request: pytest.FixtureRequest) -> None:
    wide = 5_000_000_000
    async with host_on("sqlite-sync", request) as host:
        with host.sessions() as db:
            db.add(Wide(id=wide, small=wide + 1, big=wide + 2))
            db.commit()
            for field, value in (("id", wide), ("small", wide + 1), ("big", wide + 2)):
                handler = PaymeWebhookHandler(db, "id", KEY, Wide, account_field=field)
                check = {"amount": 100_000, "account": {field: str(value)}}
                assert b"allow" in (await handler.answer(asked("CheckPerformTransaction", check))).body
                check["account"] = {field: str(2**63)}
                assert b"-31050" in (await handler.answer(asked("CheckPerformTransaction", check))).body


async def test_a_number_too_wide_for_postgresqls_column_is_nobodys(request: pytest.FixtureRequest) -> None:
    async with host_on("postgresql-sync", request) as host, calling(host) as payme:
        for number in (2**31, 2**63 - 1):
            check = {"amount": PRICE_TIYIN, "account": {"order_id": str(number)}}
            assert code(await payme("CheckPerformTransaction", check)) == -31050


async def test_the_first_complete_is_no_repeat_whatever_the_clock_says(
    request: pytest.FixtureRequest,
) -> None:
    """A table may keep whole seconds, and a clock may be set back: the answer to a first one is 0."""
    async with host_on("sqlite-sync", request) as host:
        with host.sessions() as db:
            heard = []
            for action in (0, 1, 1):
                prepared = None if not action else heard[0]["merchant_prepare_id"]
                form = click_form(action, "1", "15000.50", 9, prepared=prepared)
                call = Inbound("POST", "/", "", {}, form, "", now_ms() + 5_000)
                handler = ClickWebhookHandler(db, SERVICE, SECRET, Order)
                heard.append(json.loads((await handler.answer(call)).body))
            assert [answer["error"] for answer in heard] == [0, 0, -4]
            assert db.scalar(select(PaymentTransaction.state)) == 2
