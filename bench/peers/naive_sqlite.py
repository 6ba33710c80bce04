"""A payments endpoint as FastAPI developers commonly write it: pydantic, Depends, SQLAlchemy's ORM, SQLite.

It does less than the hub (no attempts, no events in order, no balances), and it is not made slow on
purpose: the same server, no access log, and a pool wide enough, because with the default one it freezes at
32 connections.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import ForeignKey, UniqueConstraint, create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

SECRET = os.environ["PEER_SECRET"]
engine = create_engine(
    os.environ["PEER_DATABASE_URL"], pool_size=64, connect_args={"check_same_thread": False}
)
make_session = sessionmaker(engine)


@event.listens_for(engine, "connect")
def _foreign_keys_on(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.execute("PRAGMA foreign_keys = ON")


class Base(DeclarativeBase):
    pass


class Payment(Base):
    __tablename__ = "payments"
    __table_args__ = (UniqueConstraint("merchant_id", "order_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    merchant_id: Mapped[str]
    order_id: Mapped[str]
    wallet_id: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    entries: Mapped[list[LedgerEntry]] = relationship(back_populates="payment")


class LedgerEntry(Base):
    __tablename__ = "ledger_entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), index=True)
    account: Mapped[str] = mapped_column(index=True)
    amount: Mapped[int]
    payment: Mapped[Payment] = relationship(back_populates="entries")


class OutboxMessage(Base):
    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"))
    event: Mapped[str]
    body: Mapped[str]
    sent_at: Mapped[datetime | None] = mapped_column(index=True)
    payment: Mapped[Payment] = relationship()


class CreatePayment(BaseModel):
    wallet_id: str = Field(min_length=1, max_length=32)
    amount: int = Field(gt=0)
    currency: str = Field(pattern="^[A-Z]{3}$")
    order_id: str = Field(min_length=1, max_length=64)


class PaymentView(BaseModel):
    payment_id: str
    status: str
    qr_url: str
    expires_at: datetime


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)


def get_session() -> Iterator[Session]:
    with make_session() as session:
        yield session


def get_merchant(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    try:
        claims = jwt.decode(
            credentials.credentials, SECRET, algorithms=["HS256"], options={"require": ["exp", "sub"]}
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "Access token is missing or expired.") from error
    return str(claims["sub"])


def view(payment: Payment) -> PaymentView:
    return PaymentView(
        payment_id=payment.id,
        status=payment.status,
        qr_url=f"http://127.0.0.1/qr/{payment.id}.png",
        expires_at=payment.expires_at,
    )


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/payments")
async def create_payment(
    body: CreatePayment,
    merchant: Annotated[str, Depends(get_merchant)],
    session: Annotated[Session, Depends(get_session)],
) -> PaymentView:
    same_order = select(Payment).where(Payment.merchant_id == merchant, Payment.order_id == body.order_id)
    known = session.scalar(same_order)
    if known is not None:
        return view(known)
    now = datetime.now(UTC)
    payment = Payment(
        id=f"pay_{uuid.uuid4().hex}",
        merchant_id=merchant,
        created_at=now,
        expires_at=now + timedelta(minutes=15),
        **body.model_dump(),
    )
    payment.entries = [
        LedgerEntry(account=f"merchant:{merchant}", amount=body.amount),
        LedgerEntry(account="provider:sandbox", amount=-body.amount),
    ]
    session.add(payment)
    session.add(OutboxMessage(payment=payment, event="payment.pending", body=body.model_dump_json()))
    try:
        session.commit()
    except IntegrityError:
        session.rollback()
        return view(session.scalars(same_order).one())
    return view(payment)
