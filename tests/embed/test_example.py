"""The example shop, and code in the form of the PayTechUZ document with only its import changed."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI
from sqlalchemy import Column, Float, Integer, String, create_engine
from sqlalchemy.orm import declarative_base, sessionmaker

from tillgate import conform
from tillgate.providers.click.simulator import ClickSimulator
from tillgate.providers.payme.conformance import CHECKS, CONFORMANCE
from tillgate.providers.payme.simulator import PaymeSimulator
from tillgate.providers.payme.tests.payme_kit import serve

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOP = EXAMPLES / "payme_fastapi" / "shop.py"
KEY = "the-key-from-your-cash-desk"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("PAYME_ID", "587f72c72cac0d162c722ae2")
    monkeypatch.setenv("PAYME_KEY", KEY)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/shop.db")
    spec = importlib.util.spec_from_file_location("example_shop", SHOP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example_shop", module)
    spec.loader.exec_module(module)
    yield module
    module.engine.dispose()


async def test_the_shop_is_paid_from_its_own_link_and_refunded(shop: Any) -> None:
    async with serve(shop.app) as base, aiohttp.ClientSession() as browser:
        async with browser.post(f"{base}/orders", json={"title": "Tea", "amount": "19.99"}) as made:
            order = await made.json()
        async with PaymeSimulator.of(f"{base}/payments/payme/webhook", KEY) as payme:

            async def status() -> str:
                async with browser.get(f"{base}/orders/{order['id']}") as found:
                    return str((await found.json())["status"])

            given_up = await payme.pay_link(order["pay"], "cancel")
            assert (given_up.state, await status()) == (-1, "new")
            receipt = await payme.pay_link(order["pay"], "crowd")
            assert (receipt.amount, await status()) == (1999, "paid")
            await payme.refund(receipt)
            assert await status() == "refunded"
            assert (await payme.statement(0, 10**13))[0]["amount"] == 1999


async def test_the_shop_keeps_every_rule(shop: Any) -> None:
    async with serve(shop.app) as base, aiohttp.ClientSession() as browser:
        orders = []
        for _ in range(90):
            async with browser.post(f"{base}/orders", json={"title": "Tea", "amount": "500"}) as made:
                orders.append(f"{(await made.json())['id']}:500")
        target = CONFORMANCE.target(f"{base}/payments/payme/webhook", {"key": KEY, "order": orders})
        report = await conform.run(CHECKS, target)
    assert report.passed, conform.as_text(report)


def test_without_a_key_the_webhook_refuses_to_work(shop: Any) -> None:
    with shop.SessionLocal() as db, pytest.raises(ValueError, match="payme_key is empty"):
        shop.ShopPayme(db, "id", "", shop.Order)


# What users of the document have in one file; `app.database.db` and `app.models.models` are their own.
USERS_CODE = """
from typing import Any, Dict

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session

from app.database.db import get_db
from app.models.models import Order
from tillgate.integrations.fastapi import PaymeWebhookHandler


class MyHandler(PaymeWebhookHandler):
    def successfully_payment(self, params: Dict[str, Any], transaction) -> None:
        order = self.db.query(Order).filter(Order.id == transaction.account_id).first()
        if order:
            order.status = "paid"
            self.db.commit()

    def cancelled_payment(self, params: Dict[str, Any], transaction) -> None:
        order = self.db.query(Order).filter(Order.id == transaction.account_id).first()
        if order:
            order.status = "cancelled"
            self.db.commit()


router = APIRouter()


@router.post("/payments/payme/webhook")
async def payme_webhook(request: Request, db: Session = Depends(get_db)):
    handler = MyHandler(
        db=db,
        payme_id="my_id",
        payme_key="my_key",
        account_model=Order,
        account_field="id",
        amount_field="amount",
        one_time_payment=False,
    )
    return await handler.handle_webhook(request)
"""


async def test_code_in_the_documents_form_runs_with_only_the_import_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_class = declarative_base()

    class Order(base_class):  # type: ignore[misc,valid-type]
        __tablename__ = "orders"

        id = Column(Integer, primary_key=True)
        amount = Column(Float)
        status = Column(String, default="pending")

    engine = create_engine(f"sqlite:///{tmp_path}/users.db")
    base_class.metadata.create_all(engine)
    sessions = sessionmaker(autocommit=False, autoflush=False, bind=engine)

    def get_db() -> Iterator[Any]:
        db = sessions()
        try:
            yield db
        finally:
            db.close()

    with sessions() as db:
        db.add_all([Order(id=1, amount=1000.0), Order(id=2, amount=1000.0)])
        db.commit()
    for name, members in {
        "app": {},
        "app.database": {},
        "app.database.db": {"get_db": get_db},
        "app.models": {},
        "app.models.models": {"Order": Order},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    written: dict[str, Any] = {}
    exec(USERS_CODE, written)
    app = FastAPI()
    app.include_router(written["router"])

    async with serve(app) as base:
        url = f"{base}/payments/payme/webhook"
        async with PaymeSimulator.of(url, "my_key") as payme:
            receipt = await payme.pay({"id": "1"}, 100_000, "crowd")
            await payme.pay({"id": "2"}, 55)
            await payme.refund(receipt)
            await payme.statement(0, 10**13)
        with sessions() as db:
            assert [db.get(Order, number).status for number in (1, 2)] == ["cancelled", "paid"]
        target = CONFORMANCE.target(
            url, {"key": "my_key", "kind": "accumulative", "account-field": "id", "order": ["1:5", "2:5"]}
        )
        report = await conform.run(CHECKS, target)
    # Its route takes POST only, so that a GET never reaches the handler.
    assert [o.check.id for o in report.outcomes if o.verdict in ("fail", "error")] == ["http.get"]
    engine.dispose()


@pytest.mark.parametrize(
    "line",
    [
        "from tillgate.integrations.fastapi.models import run_migrations, PaymentTransaction, Base",
        "from tillgate.integrations.fastapi.routes import PaymeWebhookHandler, router",
        "from tillgate.integrations.fastapi.schemas import PaymentTransactionList",
        "from tillgate.integrations.fastapi import PaymentTransactionSchema, Base as PaymentsBase",
    ],
)
def test_the_import_lines_that_users_have_work(line: str) -> None:
    exec(line, {})


def test_the_helpers_of_the_model_move_rows_only_where_the_rules_allow(tmp_path: Path) -> None:
    from tillgate.integrations.fastapi import PaymentTransaction, run_migrations

    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    run_migrations(engine)
    with sessionmaker(engine)() as db:
        row = PaymentTransaction.create_transaction(db, "payme", "a", 5, 19.99, {"x": 1})
        assert PaymentTransaction.create_transaction(db, "payme", "a", 5, 19.99) is row
        assert (row.state, row.amount_tiyin, row.account_id) == (0, 1999, "5")
        assert row.mark_as_paid(db).state == 2
        paid_at = row.performed_at
        assert row.mark_as_paid(db).performed_at == paid_at
        assert row.mark_as_cancelled(db, "3").state == -2
        assert row.mark_as_cancelled(db, 5).reason == 3
        with pytest.raises(ValueError, match="cannot be paid"):
            row.mark_as_paid(db)
        other = PaymentTransaction.create_transaction(db, "payme", "b", 5, "19.99")
        assert (other.mark_as_cancelled(db).state, other.reason) == (-1, 5)
    engine.dispose()


async def test_the_example_in_the_documents_form_takes_payme_and_click(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/moved.db")
    monkeypatch.setenv("PAYME_KEY", KEY)
    monkeypatch.setenv("CLICK_SECRET_KEY", "TEST-click-secret")
    spec = importlib.util.spec_from_file_location("example_moved", EXAMPLES / "from_paytechuz" / "main.py")
    assert spec is not None
    assert spec.loader is not None
    moved = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(moved)
    with moved.SessionLocal() as db:
        db.add_all([moved.Order(id=number, amount=1000.0) for number in (1, 2, 3)])
        db.commit()
    async with serve(moved.app) as base:
        async with PaymeSimulator.of(f"{base}/payments/payme/webhook", KEY) as payme:
            assert (await payme.pay({"id": "1"}, 100_000, "crowd")).state == 2
            await payme.refund(await payme.pay({"id": "2"}, 55))
        target = f"{base}/payments/click/webhook"
        async with ClickSimulator(target, service_id=12345, secret_key="TEST-click-secret") as click:
            assert (await click.pay("3", "1000.00", fault="concurrent")).status == "paid"
    with moved.SessionLocal() as db:
        assert [db.get(moved.Order, number).status for number in (1, 2, 3)] == ["paid", "cancelled", "paid"]
    moved.engine.dispose()
