"""A careful developer's FastAPI endpoint on PostgreSQL: SQLAlchemy's async Core over asyncpg, no ORM.

One transaction per request on a pool of one connection per client, which is about the best that this way of
working gives.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    select,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import create_async_engine

SECRET = os.environ["PEER_SECRET"]
engine = create_async_engine(os.environ["PEER_DATABASE_URL"], pool_size=32, max_overflow=0)
metadata = MetaData()

payments = Table(
    "payments", metadata,
    Column("id", String, primary_key=True),
    Column("merchant_id", String, nullable=False),
    Column("order_id", String, nullable=False),
    Column("wallet_id", String, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String, nullable=False),
    Column("status", String, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("merchant_id", "order_id"),
)  # fmt: skip
ledger_entries = Table(
    "ledger_entries", metadata,
    Column("id", BigInteger, primary_key=True),
    Column("payment_id", ForeignKey("payments.id"), nullable=False, index=True),
    Column("account", String, nullable=False, index=True),
    Column("amount", BigInteger, nullable=False),
)  # fmt: skip
outbox = Table(
    "outbox", metadata,
    Column("id", BigInteger, primary_key=True),
    Column("payment_id", ForeignKey("payments.id"), nullable=False),
    Column("event", String, nullable=False),
    Column("body", String, nullable=False),
    Column("sent_at", DateTime(timezone=True)),
)  # fmt: skip
Index("outbox_waiting", outbox.c.id, postgresql_where=outbox.c.sent_at.is_(None))


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
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def get_merchant(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    try:
        claims = jwt.decode(
            credentials.credentials, SECRET, algorithms=["HS256"], options={"require": ["exp", "sub"]}
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "Access token is missing or expired.") from error
    return str(claims["sub"])


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/payments")
async def create_payment(body: CreatePayment, merchant: Annotated[str, Depends(get_merchant)]) -> PaymentView:
    now = datetime.now(UTC)
    new = {
        "id": f"pay_{uuid.uuid4().hex}",
        "merchant_id": merchant,
        "status": "pending",
        "created_at": now,
        "expires_at": now + timedelta(minutes=15),
        **body.model_dump(),
    }
    shown = (payments.c.id, payments.c.status, payments.c.expires_at)
    async with engine.begin() as connection:
        made = (
            await connection.execute(insert(payments).values(new).on_conflict_do_nothing().returning(*shown))
        ).first()
        if made is None:
            same_order = (payments.c.merchant_id == merchant) & (payments.c.order_id == body.order_id)
            made = (await connection.execute(select(*shown).where(same_order))).one()
        else:
            entries = [
                {"payment_id": made.id, "account": f"merchant:{merchant}", "amount": body.amount},
                {"payment_id": made.id, "account": "provider:sandbox", "amount": -body.amount},
            ]
            await connection.execute(insert(ledger_entries).values(entries))
            message = {"payment_id": made.id, "event": "payment.pending", "body": body.model_dump_json()}
            await connection.execute(insert(outbox).values(message))
    return PaymentView(
        payment_id=made.id,
        status=made.status,
        qr_url=f"http://127.0.0.1/qr/{made.id}.png",
        expires_at=made.expires_at,
    )
