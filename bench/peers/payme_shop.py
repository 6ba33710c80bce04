"""A shop that takes Payme on its own SQLAlchemy session, as the PayTechUZ document writes it.

One file for both libraries, and only the import differs: `PEER_LIBRARY` says which. The engine has its
defaults (on SQLite the rollback journal and an fsync for each commit) but for a pool wide enough: with the
default one the published package freezes at 16 connections.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import Column, Float, Integer, String, create_engine, insert
from sqlalchemy.orm import Session, declarative_base, sessionmaker

if os.environ["PEER_LIBRARY"] == "tillgate":
    from tillgate.integrations.fastapi import PaymeWebhookHandler, run_migrations
else:
    from paytechuz.integrations.fastapi import PaymeWebhookHandler
    from paytechuz.integrations.fastapi.models import run_migrations

Base = declarative_base()


class Order(Base):  # type: ignore[misc, valid-type]
    __tablename__ = "orders"

    id = Column(Integer, primary_key=True)
    amount = Column(Float)
    status = Column(String, default="pending")


_url = os.environ["PEER_DATABASE_URL"]
_lite = {"connect_args": {"check_same_thread": False}} if _url.startswith("sqlite") else {}
engine = create_engine(_url, pool_size=int(os.environ.get("PEER_POOL", "60")), **_lite)
SessionLocal = sessionmaker(autocommit=False, autoflush=False, bind=engine)
Base.metadata.create_all(engine)
run_migrations(engine)
with engine.begin() as connection:
    connection.execute(insert(Order), [{"id": number, "amount": 500.0} for number in range(1000, 2000)])


def get_db() -> Iterator[Session]:
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


class ShopPayme(PaymeWebhookHandler):  # type: ignore[misc, valid-type]
    def successfully_payment(self, params: dict[str, Any], transaction: Any) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        order.status = "paid"
        self.db.commit()

    def cancelled_payment(self, params: dict[str, Any], transaction: Any) -> None:
        order = self.db.query(Order).filter(Order.id == int(transaction.account_id)).first()
        order.status = "cancelled"
        self.db.commit()


app = FastAPI()
router = APIRouter()


@router.post("/payments/payme/webhook")
async def payme_webhook(request: Request, db: Session = Depends(get_db)) -> Any:  # noqa: B008
    handler = ShopPayme(
        db=db,
        payme_id="my_id",
        payme_key=os.environ["PEER_SECRET"],
        account_model=Order,
        account_field="id",
        amount_field="amount",
        one_time_payment=False,
    )
    return await handler.handle_webhook(request)


app.include_router(router)


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"ok": True}
