"""A small shop that takes Payme: orders, a checkout link, and the webhook that Payme calls.

    PAYME_ID=… PAYME_KEY=… uvicorn shop:app

The handler works on the shop's own session. What a hook changes is committed together with Payme's
transaction, or not at all, and each hook runs once for each thing that happens, however often Payme asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Numeric, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from tillgate.integrations.fastapi import PaymentTransaction, PaymeWebhookHandler, run_migrations
from tillgate.providers.payme.links import checkout_link

PAYME_ID = os.environ.get("PAYME_ID", "")
PAYME_KEY = os.environ.get("PAYME_KEY", "")
CHECKOUT_URL = os.environ.get("PAYME_CHECKOUT_URL", "https://checkout.paycom.uz")

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///shop.db"))
SessionLocal = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    amount: Mapped[Decimal] = mapped_column(Numeric(14, 2))  # som
    status: Mapped[str] = mapped_column(String(20), default="new")


Base.metadata.create_all(engine)
run_migrations(engine)  # makes the table `payments`, or adopts the one that is there


def get_db() -> Iterator[Session]:
    with SessionLocal() as db:
        yield db


class ShopPayme(PaymeWebhookHandler):
    def successfully_payment(self, params: dict[str, Any], transaction: PaymentTransaction) -> None:
        self._set_status(transaction, "paid")

    def cancelled_payment(self, params: dict[str, Any], transaction: PaymentTransaction) -> None:
        # -1: nothing was paid, so the order may be paid by another transaction. -2: the money went back.
        self._set_status(transaction, "refunded" if transaction.state == -2 else "new")

    def get_check_data(self, params: dict[str, Any], account: Order) -> dict[str, Any]:
        return {"additional": {"title": account.title}}

    def _set_status(self, transaction: PaymentTransaction, status: str) -> None:
        order = self.db.get(Order, int(transaction.account_id or 0))
        order.status = status


app = FastAPI(title="A shop that takes Payme")


# GET as well: Payme wants even that answered with HTTP 200, in its own words.
@app.api_route("/payments/payme/webhook", methods=["POST", "GET"])
async def payme_webhook(request: Request, db: Session = Depends(get_db)) -> Response:  # noqa: B008
    handler = ShopPayme(
        db=db,
        payme_id=PAYME_ID,
        payme_key=PAYME_KEY,
        account_model=Order,
        account_field="order_id",  # Payme's account field; it means the column `id`
        amount_field="amount",
        one_time_payment=True,  # an order is paid once and exactly; False: any amount, many times
    )
    return await handler.handle_webhook(request)


class NewOrder(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    amount: Decimal = Field(gt=0, max_digits=14, decimal_places=2)


@app.post("/orders", status_code=201)
def create_order(new: NewOrder, db: Session = Depends(get_db)) -> dict[str, Any]:  # noqa: B008
    order = Order(title=new.title, amount=new.amount)
    db.add(order)
    db.commit()
    link = checkout_link(
        PAYME_ID, {"order_id": str(order.id)}, int(new.amount * 100), checkout_url=CHECKOUT_URL
    )
    return {"id": order.id, "status": order.status, "pay": link}


@app.get("/orders/{order_id}")
def read_order(order_id: int, db: Session = Depends(get_db)) -> dict[str, Any]:  # noqa: B008
    order = db.get(Order, order_id)
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return {"id": order.id, "title": order.title, "amount": str(order.amount), "status": order.status}
