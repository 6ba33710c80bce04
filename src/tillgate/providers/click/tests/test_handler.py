"""`ClickWebhookHandler` on a host's own tables: FastAPI, a real server, every kind of session."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from sqlalchemy import JSON, Numeric, String, create_engine, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from tillgate import conform
from tillgate.conform import Payable
from tillgate.domain.errors import Misconfigured
from tillgate.embed import PaymentTransaction
from tillgate.providers.click.conformance import CONFORMANCE, target
from tillgate.providers.click.handler import ClickWebhookHandler
from tillgate.providers.click.request import prepare_id
from tillgate.providers.click.simulator import FAULTS, ClickSimulator
from tillgate.spi import Inbound

KEY = "TEST-click-secret"


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(40), unique=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(15, 2))
    status: Mapped[str] = mapped_column(String(20), default="new")
    told: Mapped[list[Any]] = mapped_column(JSON, default=list)


HOOKS: Counter[tuple[str, str]] = Counter()


class Handler(ClickWebhookHandler):
    """Hooks as users write them, with a query and a commit of their own."""

    def _mark(self, transaction: PaymentTransaction, status: str) -> Any:
        HOOKS[status, transaction.account_id or ""] += 1
        found = select(Order).where(Order.id == int(transaction.account_id or 0))
        if isinstance(self.db, AsyncSession):
            return self._mark_async(found, status)
        self.db.scalars(found).one().status = status
        self.db.commit()
        return None

    async def _mark_async(self, found: Any, status: str) -> None:
        (await self.db.scalars(found)).one().status = status
        await self.db.commit()

    def transaction_created(self, params: Any, transaction: Any, account: Any) -> Any:
        HOOKS["created", transaction.account_id] += 1

    def transaction_already_exists(self, params: Any, transaction: Any) -> Any:
        HOOKS["repeated", transaction.account_id] += 1

    def successfully_payment(self, params: Any, transaction: Any) -> Any:
        return self._mark(transaction, "paid")

    def cancelled_payment(self, params: Any, transaction: Any) -> Any:
        return self._mark(transaction, "cancelled")

    def needs_review(self, params: Any, transaction: Any, why: str) -> Any:
        HOOKS["review", transaction.account_id] += 1


HOMES = {
    "sqlite-sync": "sqlite",
    "sqlite-async": "sqlite+aiosqlite",
    "postgresql-sync": "postgresql+psycopg",
    "postgresql-async": "postgresql+asyncpg",
    "postgresql-psycopg-async": "postgresql+psycopg",
}


@pytest.fixture(params=["sqlite-sync", "postgresql-async"])
async def shop(request: pytest.FixtureRequest, open_app: Callable[..., Any]) -> AsyncIterator[Any]:
    """An application with a hundred orders of 15 000.50 som behind a real server."""
    HOOKS.clear()
    app, home = FastAPI(), request.param
    url = request.getfixturevalue("sqlite_url" if home.startswith("sqlite") else "pg_url")
    url = f"{HOMES[home]}:{url.partition(':')[2]}"
    if home.endswith("-sync"):
        engine = create_engine(url)
        Base.metadata.create_all(engine)
        made = sessionmaker(engine)

        def sessions() -> Any:
            with made() as session:
                yield session

        async def ask(work: Callable[[Session], Any]) -> Any:
            with made.begin() as session:
                return work(session)
    else:
        async_engine = create_async_engine(url)
        async with async_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        made_async = async_sessionmaker(async_engine)

        async def sessions() -> Any:  # type: ignore[misc]
            async with made_async() as session:
                yield session

        async def ask(work: Callable[[Session], Any]) -> Any:
            async with made_async.begin() as session:
                return await session.run_sync(work)

    options: dict[str, Any] = {}

    @app.post("/payments/click/webhook")
    async def webhook(request: Request, db: Any = Depends(sessions)) -> Any:  # noqa: B008
        handler = Handler(db=db, service_id="12345", secret_key=KEY, account_model=Order, **options)
        return await handler.handle_webhook(request)

    await ask(
        lambda s: s.add_all([Order(number=f"N-{n}", amount=Decimal("15000.50")) for n in range(1, 101)])
    )
    async with open_app(app) as base:
        yield SimpleNamespace(
            url=f"{base}/payments/click/webhook", ask=ask, options=options, rows=lambda: ask(rows)
        )
    if home.endswith("-sync"):
        engine.dispose()
    else:
        await async_engine.dispose()


def rows(session: Session) -> list[tuple[Any, ...]]:
    t = PaymentTransaction
    return [tuple(row) for row in session.execute(select(t.account_id, t.state, t.amount_tiyin, t.reason))]


def status_of(order_id: int) -> Callable[[Session], str]:
    return lambda session: session.scalars(select(Order.status).where(Order.id == order_id)).one()


def click(shop: Any, **over: Any) -> ClickSimulator:
    return ClickSimulator(shop.url, **({"service_id": 12345, "secret_key": KEY, "late_s": 0.05} | over))


@pytest.mark.parametrize("shop", HOMES, indirect=True)
async def test_every_rule_of_the_conformance_suite(shop: Any) -> None:
    numbers = iter(range(1, 101))

    async def fresh() -> Payable:
        return Payable(str(next(numbers)), 1_500_050)

    described = target(shop.url, {"service-id": 12345, "key": KEY}, fresh)
    report = await conform.run(CONFORMANCE.checks, described)
    assert [(o.check.id, o.why) for o in report.outcomes if o.verdict != "pass"] == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_row_order_and_hook_agree_however_click_behaves(shop: Any, fault: str) -> None:
    async with click(shop) as payer:
        receipt = await payer.pay("7", "15000.50", fault=fault)
    assert receipt.surprises == ()
    found = await shop.rows()
    paid = [row for row in found if row[1] == 2]
    assert len(paid) == (receipt.status == "paid")
    assert HOOKS["paid", "7"] == len(paid)
    assert await shop.ask(status_of(7)) == {"paid": "paid", "cancelled": "cancelled"}.get(
        receipt.status, "new"
    )
    assert not [row for row in found if row[1] in (0, 1)]


async def test_twenty_transactions_at_once_pay_one_order_once(shop: Any) -> None:
    async with click(shop) as payer:
        receipts = await asyncio.gather(*(payer.pay("9", "15000.50") for _ in range(20)))
    assert [r.status for r in receipts].count("paid") == 1
    assert HOOKS["paid", "9"] == 1
    assert [row[1] for row in await shop.rows()] == [2]


async def test_a_failing_hook_undoes_row_and_order_and_click_may_ask_again(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(self: Any, params: Any, transaction: Any) -> None:
        raise RuntimeError("the host's own code failed")

    async with click(shop) as payer:
        with monkeypatch.context() as patched:
            patched.setattr(Handler, "successfully_payment", explode)
            receipt = await payer.pay("3", "15000.50")
        assert (receipt.codes, await shop.rows()) == ([0, -7], [("3", 1, 1_500_050, None)])
        visit = receipt.payment
        again = await payer.wire.shop(payer.fields(visit, 1))
    assert again.code == 0
    assert await shop.ask(status_of(3)) == "paid"


async def test_a_cancellation_after_success_changes_nothing_and_is_kept_for_review(shop: Any) -> None:
    async with click(shop) as payer:
        receipt = await payer.pay("4", "15000.50", fault="cancel_after_paid")
        again = await payer.wire.shop(payer.fields(receipt.payment, 1, error="-5017"))
    assert again.code == -9
    assert (await shop.rows())[0][1] == 2
    assert HOOKS["review", "4"] == 1
    kept = await shop.ask(lambda s: s.scalars(select(PaymentTransaction.extra_data)).one())
    assert kept["needs_review"] == ["Click cancels what it had confirmed (-5017)"]


async def test_a_payment_after_the_cancellation_is_refused_and_kept_for_review(shop: Any) -> None:
    async with click(shop) as payer:
        await payer.pay("4", "15000.50", fault="paid_after_cancel")
    assert (await shop.rows())[0][1:] == (-1, 1_500_050, -5017)
    assert (HOOKS["review", "4"], HOOKS["paid", "4"], HOOKS["cancelled", "4"]) == (1, 0, 1)


async def test_the_row_is_what_users_of_the_table_know(shop: Any) -> None:
    async with click(shop) as payer:
        receipt = await payer.pay("5", "15000.50")
    row = await shop.ask(lambda s: s.scalars(select(PaymentTransaction)).one().__dict__.copy())
    assert row["gateway"] == "click"
    assert row["transaction_id"] == str(receipt.payment.trans_id)
    assert (row["account_id"], row["amount"], row["amount_tiyin"], row["state"]) == (
        "5", 15000.5, 1_500_050, 2,
    )  # fmt: skip
    assert row["extra_data"]["click_paydoc_id"] == receipt.payment.paydoc_id
    assert row["extra_data"]["raw_params"]["merchant_trans_id"] == "5"
    assert "sign_string" not in row["extra_data"]["raw_params"]
    assert KEY not in json.dumps(row["extra_data"])


async def test_the_commission_is_on_top_and_exact(shop: Any) -> None:
    shop.options["commission_percent"] = 1.5
    async with click(shop) as payer:
        assert (await payer.pay("6", "15000.50")).codes == [-2]
        assert (await payer.pay("6", "15225.51")).status == "paid"  # 15000.50 * 1.015 = 15225.5075


async def test_another_column_may_name_the_order(shop: Any) -> None:
    shop.options["account_field"] = "number"
    async with click(shop) as payer:
        assert (await payer.pay("N-8", "15000.50", fault="foreign_prepare_id")).surprises == ()
        assert (await payer.pay("8", "15000.50")).codes == [-5]
    assert HOOKS["paid", "8"] == 1


async def test_an_account_takes_any_amount_many_times(shop: Any) -> None:
    shop.options["one_time_payment"] = False
    async with click(shop) as payer:
        for amount in ("1.15", "19.99", "0.01"):
            assert (await payer.pay("2", amount)).status == "paid"
    assert [row[2] for row in await shop.rows()] == [115, 1999, 1]


async def test_one_payment_on_an_account_is_booked_once_whatever_attempt_it_comes_as(shop: Any) -> None:
    """Where many payments are taken, Click's number of the payment alone says that it is the same one."""
    shop.options["one_time_payment"] = False
    async with click(shop) as payer:
        first, early, late = (payer.open("3", 1_500_050) for _ in range(3))
        early.paydoc_id = late.paydoc_id = first.paydoc_id
        for one in (first, early):
            assert (await payer.wire.shop(payer.fields(one, 0))).code == 0
            one.prepare_id = prepare_id(one.trans_id, "3")
        assert (await payer.wire.shop(payer.fields(first, 1))).code == 0
        assert (await payer.wire.shop(payer.fields(late, 0))).code == -4
        assert (await payer.wire.shop(payer.fields(early, 1))).code == -4
        assert (HOOKS["paid", "3"], HOOKS["review", "3"]) == (1, 1)
        assert (await payer.pay("3", "15000.50")).status == "paid"  # another payment
    assert HOOKS["paid", "3"] == 2


async def test_a_row_that_another_library_prepared_is_completed(shop: Any) -> None:
    """Its merchant_prepare_id was the row's id: the import line may change between Prepare and Complete."""
    async with click(shop) as payer:
        await payer.pay("1", "15000.50", fault="cancel")  # makes the table
        visit = payer.open("11", 1_500_050)
        stranger = payer.open("12", 1_500_050)

        def others(session: Session) -> int:
            row = PaymentTransaction(
                gateway="click", transaction_id=str(visit.trans_id), account_id="11", amount=15000.5, state=1
            )
            session.add(row)
            session.flush()
            return row.id

        visit.prepare_id = await shop.ask(others)
        stranger.prepare_id = visit.prepare_id
        assert (await payer.wire.shop(payer.fields(stranger, 1))).code == -6
        wrong_order = {"merchant_trans_id": "12"}
        assert (await payer.wire.shop(payer.fields(visit, 1, **wrong_order))).code == -5
        assert (await payer.wire.shop(payer.fields(visit, 1, amount="15000.51"))).code == -2
        assert (await payer.wire.shop(payer.fields(visit, 1))).code == 0
    assert HOOKS["paid", "11"] == 1


async def test_the_number_of_a_row_of_ours_is_no_prepare_id(shop: Any) -> None:
    async with click(shop) as payer:
        visit = payer.open("14", 1_500_050)
        assert (await payer.wire.shop(payer.fields(visit, 0))).code == 0
        visit.prepare_id = await shop.ask(lambda s: s.scalars(select(PaymentTransaction.id)).one())
        assert (await payer.wire.shop(payer.fields(visit, 1))).code == -6


async def test_the_reservation_ends_and_the_order_can_be_paid(shop: Any) -> None:
    async with click(shop) as payer:
        first = payer.open("13", 1_500_050)
        assert (await payer.wire.shop(payer.fields(first, 0))).code == 0
        past = time.time_ns() // 1_000_000 - 1
        await shop.ask(lambda s: s.execute(text(f"UPDATE payments SET expires_at = {past}")))
        assert (await payer.pay("13", "15000.50")).status == "paid"
    assert sorted(row[1] for row in await shop.rows()) == [-1, 2]
    assert HOOKS["cancelled", "13"] == 1


@pytest.mark.parametrize(
    "over",
    [{"secret_key": None}, {"secret_key": ""}, {"secret_key": "  "}, {"secret_key": "short"},
     {"service_id": ""}, {"service_id": None}, {"commission_percent": -1}, {"commission_percent": "nan"},
     {"commission_percent": True}, {"account_model": None}, {"db": object()}, {"reserve_minutes": 0}],
)  # fmt: skip
def test_defect_8_unsafe_settings_do_not_start(sqlite_url: str, over: dict[str, Any]) -> None:
    engine = create_engine(sqlite_url)
    good = {"db": Session(engine), "service_id": "12345", "secret_key": KEY, "account_model": Order}
    Handler(**good)
    with pytest.raises((Misconfigured, ValueError)):
        Handler(**(good | over))
    good["db"].close()
    engine.dispose()


@pytest.mark.parametrize("service_id", [12345, "12345"])
async def test_without_a_framework(sqlite_url: str, form: Callable[..., bytes], service_id: Any) -> None:
    engine = create_engine(sqlite_url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Order(id=1, number="N-1", amount=Decimal("0.01")))
        session.commit()
        handler = Handler(session, service_id, KEY, Order)
        call = Inbound("POST", "/", "", {}, form(0, "1", "0.01", 5), "", time.time_ns() // 1_000_000)
        answer = json.loads((await handler.answer(call)).body)
        assert answer["error"] == 0
        assert session.scalar(select(func.count()).select_from(PaymentTransaction)) == 1
    engine.dispose()
