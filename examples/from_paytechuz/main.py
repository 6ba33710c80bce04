# ruff: noqa: B008
"""A shop in the form of the PayTechUZ document. What was changed is one import line.

PAYME_KEY=… CLICK_SECRET_KEY=… uvicorn main:app
"""

import os
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import Column, Float, Integer, String, create_engine
from sqlalchemy.orm import Session, declarative_base, sessionmaker

# Before: from paytechuz.integrations.fastapi import ClickWebhookHandler, PaymeWebhookHandler
from tillgate.integrations.fastapi import ClickWebhookHandler, PaymeWebhookHandler

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///shop.db"))
SessionLocal = sessionmaker(autocommit=False, autoflush=False, bind=engine)
Base = declarative_base()


class Order(Base):
    __tablename__ = "orders"

    id = Column(Integer, primary_key=True)
    amount = Column(Float)
    status = Column(String, default="pending")


Base.metadata.create_all(bind=engine)


def get_db():
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


class CustomPaymeWebhookHandler(PaymeWebhookHandler):
    def successfully_payment(self, params: dict[str, Any], transaction) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        if order:
            order.status = "paid"
            self.db.commit()

    def cancelled_payment(self, params: dict[str, Any], transaction) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        if order:
            order.status = "cancelled"
            self.db.commit()


class CustomClickWebhookHandler(ClickWebhookHandler):
    def successfully_payment(self, params: dict[str, Any], transaction) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        if order:
            order.status = "paid"
            self.db.commit()

    def cancelled_payment(self, params: dict[str, Any], transaction) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        if order:
            order.status = "cancelled"
            self.db.commit()


router = APIRouter()


@router.post("/payments/payme/webhook")
async def payme_webhook(request: Request, db: Session = Depends(get_db)):
    handler = CustomPaymeWebhookHandler(
        db=db,
        payme_id=os.environ.get("PAYME_ID", "your_payme_id"),
        payme_key=os.environ.get("PAYME_KEY"),
        account_model=Order,
        account_field="id",
        amount_field="amount",
        one_time_payment=False,
    )
    return await handler.handle_webhook(request)


@router.post("/payments/click/webhook")
async def click_webhook(request: Request, db: Session = Depends(get_db)):
    handler = CustomClickWebhookHandler(
        db=db,
        service_id=os.environ.get("CLICK_SERVICE_ID", "12345"),
        secret_key=os.environ.get("CLICK_SECRET_KEY"),
        account_model=Order,
        commission_percent=0.0,
        account_field="id",
        one_time_payment=True,
    )
    return await handler.handle_webhook(request)


app = FastAPI()
app.include_router(router)
