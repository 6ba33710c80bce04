"""The `payments` table of a host application, with the columns of the PayTechUZ document and five of ours.

Ours are nullable, so that rows which other code wrote stay readable. Times are naive UTC, as they always were
in this table; whole milliseconds, because Payme compares a repeated answer with the first one.
"""

from __future__ import annotations

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, ClassVar, Final, cast

from sqlalchemy import JSON, BigInteger, DateTime, Float, Index, Integer, String, Table, select, text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 — the table's times are naive UTC
_MS: Final = dt.timedelta(milliseconds=1)
_Moment: Final = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


class Base(DeclarativeBase):
    """Metadata of the `payments` table; `Base.metadata.create_all` works as for any other."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


class PaymentTransaction(Base):
    """One transaction of a gateway. `account_id` and `transaction_id` are text; `amount` is in som."""

    __tablename__ = "payments"

    PAYME: ClassVar[str] = "payme"
    CLICK: ClassVar[str] = "click"

    CREATED: ClassVar[int] = 0
    INITIATING: ClassVar[int] = 1
    SUCCESSFULLY: ClassVar[int] = 2
    CANCELLED: ClassVar[int] = -2
    CANCELLED_DURING_INIT: ClassVar[int] = -1

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    gateway: Mapped[str | None] = mapped_column(String(10))
    transaction_id: Mapped[str | None] = mapped_column(String(255))
    account_id: Mapped[str | None] = mapped_column(String(255), index=True)
    amount: Mapped[float | None] = mapped_column(Float)
    state: Mapped[int | None] = mapped_column(Integer, default=CREATED)
    reason: Mapped[int | None] = mapped_column(Integer)
    extra_data: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    created_at: Mapped[dt.datetime | None] = mapped_column(_Moment, default=_now)
    updated_at: Mapped[dt.datetime | None] = mapped_column(_Moment, default=_now, onupdate=_now)
    performed_at: Mapped[dt.datetime | None] = mapped_column(_Moment)
    cancelled_at: Mapped[dt.datetime | None] = mapped_column(_Moment)

    # Ours: the exact amount, the gateway's own clock, when the transaction dies, which table `account_id`
    # points into, and what a one-time order can be given to only once.
    amount_tiyin: Mapped[int | None] = mapped_column(BigInteger)
    provider_time: Mapped[int | None] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    account_kind: Mapped[str | None] = mapped_column(String(255))
    order_hold: Mapped[str | None] = mapped_column(String(255))

    __table_args__ = (
        Index("uq_payments_gateway_transaction", "gateway", "transaction_id", unique=True),
        Index(
            "uq_payments_order_hold",
            "order_hold",
            unique=True,
            sqlite_where=text("order_hold IS NOT NULL"),
            postgresql_where=text("order_hold IS NOT NULL"),
        ),
        Index("ix_payments_gateway_provider_time", "gateway", "provider_time"),
    )

    @classmethod
    def create_transaction(
        cls,
        db: Session,
        gateway: str,
        transaction_id: str,
        account_id: Any,
        amount: Any,
        extra_data: dict[str, Any] | None = None,
    ) -> PaymentTransaction:
        """The row of this transaction, made in state 0 if there is none. Commits."""
        known = select(cls).where(cls.gateway == gateway, cls.transaction_id == transaction_id)
        row = db.scalars(known).first()
        if row is None:
            tiyin = to_tiyin(amount)
            row = cls(
                gateway=gateway,
                transaction_id=transaction_id,
                account_id=str(account_id),
                amount=tiyin / 100,
                amount_tiyin=tiyin,
                state=cls.CREATED,
                extra_data=extra_data or {},
            )
            db.add(row)
            db.commit()
        return row

    def mark_as_paid(self, db: Session) -> PaymentTransaction:
        """Paid by other means than the gateway's call. Raises `ValueError` for a cancelled one. Commits."""
        if self.state in (self.CANCELLED, self.CANCELLED_DURING_INIT):
            raise ValueError("a cancelled transaction cannot be paid")
        if self.state != self.SUCCESSFULLY:
            self.state, self.performed_at = self.SUCCESSFULLY, _now()
            db.commit()
        return self

    def mark_as_cancelled(self, db: Session, reason: int | str | None = None) -> PaymentTransaction:
        """Cancelled by other means. The first reason and time are kept. Commits."""
        if self.state not in (self.CANCELLED, self.CANCELLED_DURING_INIT):
            paid = self.state == self.SUCCESSFULLY
            self.state = self.CANCELLED if paid else self.CANCELLED_DURING_INIT
            self.cancelled_at = _now()
            self.reason = int(reason) if reason is not None and str(reason).isdigit() else 5
            if not paid:
                self.order_hold = None
            db.commit()
        return self


TABLE: Final = cast("Table", PaymentTransaction.__table__)


def to_tiyin(amount: Any) -> int:
    """Som as a host keeps them (Decimal, int, float, text) → tiyin. A float means the decimal it prints as.

    Raises `ValueError` for what is no amount.
    """
    try:
        exact = Decimal(repr(amount) if isinstance(amount, float) else str(amount))
        if not exact.is_finite() or abs(exact) >= 10**15 or isinstance(amount, bool):
            raise ValueError(f"not an amount: {amount!r}")
        return int((exact * 100).quantize(Decimal(1), ROUND_HALF_UP))
    except InvalidOperation:
        raise ValueError(f"not an amount: {amount!r}") from None


def to_ms(moment: dt.datetime | None) -> int | None:
    """Naive UTC → epoch ms, whatever zone the machine is in."""
    if moment is None:
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return (moment - EPOCH) // _MS


def to_moment(epoch_ms: int | None) -> dt.datetime | None:
    return None if epoch_ms is None else EPOCH + dt.timedelta(milliseconds=epoch_ms)
