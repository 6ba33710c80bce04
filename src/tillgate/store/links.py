"""Payment links as rows: read past the journal, written as changes of a merchant's configuration."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, desc, insert, select, update

from tillgate.domain.payment import Payment
from tillgate.store import tables as t
from tillgate.store.book import Change, record_of
from tillgate.store.database import Database
from tillgate.store.statements import columns

_NAMES: Final = columns(t.payment_links)
_BY_CODE = select(t.payment_links).where(t.payment_links.c.code == bindparam("code"))
_BY_ID = select(t.payment_links).where(t.payment_links.c.id == bindparam("id"))
_BY_REFERENCE = select(t.payment_links).where(
    t.payment_links.c.merchant_id == bindparam("owner"), t.payment_links.c.reference == bindparam("reference")
)
_PAYMENTS = (
    select(t.payments)
    .where(t.payments.c.standing_id == bindparam("id"))
    .order_by(desc(t.payments.c.id))
    .limit(bindparam("limit"))
)
_NEW = insert(t.payment_links)
_DISABLE = (
    update(t.payment_links)
    .where(t.payment_links.c.id == bindparam("row_id"), t.payment_links.c.disabled_at.is_(None))
    .values(disabled_at=bindparam("new_disabled_at"))
    .returning(t.payment_links.c.id)
)


@dataclass(frozen=True, slots=True)
class PaymentLink:
    """An address at which payers open payments. Fields in the order of the table's columns.

    `amount_minor` None: the payer says how much, from `min_minor` to `max_minor`. `channels` empty: any of
    the merchant's in this currency. `once`: one payment is enough."""

    id: str
    merchant_id: str
    code: str
    reference: str
    title: str
    currency: str
    amount_minor: int | None
    min_minor: int | None
    max_minor: int | None
    channels: tuple[str, ...]
    once: bool
    ttl_s: int | None
    callback_url: str | None
    metadata: str | None  # JSON object
    created_at: int
    expires_at: int | None
    disabled_at: int | None = None


def link_of(row: dict[str, Any]) -> PaymentLink:
    """From a row by column name."""
    channels = tuple(msgspec.json.decode(row["channels"], type=list[str]))
    return PaymentLink(**{**row, "channels": channels, "once": bool(row["once"])})


def new_link(link: PaymentLink) -> Change:
    row = dict(zip(_NAMES, astuple(link), strict=True))
    return Change(_NEW, {**row, "channels": msgspec.json.encode(link.channels).decode()})


def disable_link(link_id: str, now: int) -> Change:
    """Only where it is on: of several who switch it off, one does."""
    return Change(_DISABLE, {"row_id": link_id, "new_disabled_at": now}, guarded=True)


class Links:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_code(self, code: str) -> PaymentLink | None:
        return await self._one(_BY_CODE, {"code": code})

    async def by_id(self, link_id: str) -> PaymentLink | None:
        return await self._one(_BY_ID, {"id": link_id})

    async def by_reference(self, merchant_id: str, reference: str) -> PaymentLink | None:
        return await self._one(_BY_REFERENCE, {"owner": merchant_id, "reference": reference})

    async def payments(self, link_id: str, limit: int) -> list[Payment]:
        """Of one link, the newest first."""
        rows = await self._database.read(_PAYMENTS, {"id": link_id, "limit": limit})
        return [record_of(Payment, row) for row in rows]

    async def _one(self, statement: Any, params: dict[str, Any]) -> PaymentLink | None:
        rows = await self._database.read(statement, params)
        return link_of(dict(zip(_NAMES, rows[0], strict=True))) if rows else None
