"""Reads that bypass the journal: committed rows, as records."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam, or_, select
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.dialogue import Record
from tillgate.domain.payment import OPEN_REFUND, Attempt, Payment, Refund
from tillgate.store import tables as t
from tillgate.store.book import RecordT, record_of
from tillgate.store.database import Database
from tillgate.store.links import Links
from tillgate.store.reconciling import ReconciliationReads
from tillgate.store.statements import Row
from tillgate.store.work import due_id

STATEMENT_ROWS: Final = 10_000
MOST_FETCHED: Final = 100

_PAYMENT = select(t.payments).where(t.payments.c.id == bindparam("id"))
_ORDER = select(t.payments).where(t.payments.c.order_key == bindparam("id"))
_ATTEMPT = select(t.attempts).where(t.attempts.c.id == bindparam("id"))
_REFUND = select(t.refunds).where(t.refunds.c.id == bindparam("id"))
_LIVE = select(t.attempts).where(t.attempts.c.live_of == bindparam("id"))
_ATTEMPTS = select(t.attempts).where(t.attempts.c.payment_id == bindparam("id")).order_by(t.attempts.c.id)
_REFUNDS = select(t.refunds).where(t.refunds.c.payment_id == bindparam("id")).order_by(t.refunds.c.id)
_OLDEST_OPEN = (
    select(t.refunds.c.id)
    .where(t.refunds.c.payment_id == bindparam("id"), or_(*(t.refunds.c.phase == one for one in OPEN_REFUND)))
    .order_by(t.refunds.c.id)
    .limit(1)
)
_STATEMENT = (
    select(t.attempts, t.payments)
    .join(t.payments, t.payments.c.id == t.attempts.c.payment_id)
    .where(
        t.attempts.c.account_id == bindparam("account_id"),
        t.attempts.c.provider_at >= bindparam("from_ms"),
        t.attempts.c.provider_at <= bindparam("to_ms"),
    )
    .order_by(t.attempts.c.provider_at, t.attempts.c.id)
    .limit(STATEMENT_ROWS)
)
_FETCHED = (
    select(t.attempts, t.payments)
    .join(t.payments, t.payments.c.id == t.attempts.c.payment_id)
    .where(t.attempts.c.account_id == bindparam("id"), t.FETCHED)
    .order_by(t.attempts.c.id)
    .limit(MOST_FETCHED)
)
_EXTERNAL = select(t.attempts).where(
    t.attempts.c.account_id == bindparam("account_id"), t.attempts.c.external_id == bindparam("external_id")
)
_EVENTS = (
    select(t.events)
    .where(t.events.c.merchant_id == bindparam("merchant_id"), t.events.c.seq > bindparam("after"))
    .order_by(t.events.c.seq)
    .limit(bindparam("limit"))
)
_BALANCES = (
    select(t.balances.c.account, t.balances.c.currency, t.balances.c.amount_minor)
    .where(t.balances.c.merchant_id == bindparam("id"))
    .order_by(t.balances.c.account, t.balances.c.currency)
)
_DELIVERIES = (
    select(t.deliveries)
    .where(t.deliveries.c.merchant_id == bindparam("merchant_id"), t.deliveries.c.id > bindparam("after"))
    .order_by(t.deliveries.c.id)
    .limit(bindparam("limit"))
)
_INBOUND = select(t.inbound.c.id, t.inbound.c.merchant_id, t.inbound.c.account_id, t.inbound.c.body).where(
    t.inbound.c.id == bindparam("id")
)
# Ids of one kind and stream have one length and differ in digits only: so they sort alike in any collation.
_STREAM = (
    select(t.due.c.subject, t.due.c.run_at)
    .where(t.due.c.id > bindparam("after"), t.due.c.id <= bindparam("last"))
    .order_by(t.due.c.id)
    .limit(1)
)
_DUE_OF = (
    select(t.due.c.subject, t.due.c.run_at, t.due.c.tries)
    .where(t.due.c.kind == bindparam("kind"), t.due.c.merchant_id == bindparam("merchant_id"))
    .order_by(t.due.c.subject)
    .limit(1000)
)
_PING = select(t.meta.c.key).limit(1)
_WIDTH: Final = len(t.attempts.columns)


class Reads:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.links = Links(database)
        self.reconciliation = ReconciliationReads(database)

    async def payment(self, payment_id: str) -> Payment | None:
        return await self._one(Payment, _PAYMENT, payment_id)

    async def payment_of(self, order_key: bytes) -> Payment | None:
        rows = await self._database.read(_ORDER, {"id": order_key})
        return record_of(Payment, rows[0]) if rows else None

    async def order(self, order_key: bytes) -> Payment | None:
        rows = await self._database.read(_ORDER, {"id": order_key})
        return record_of(Payment, rows[0]) if rows else None

    async def attempt(self, attempt_id: str) -> Attempt | None:
        return await self._one(Attempt, _ATTEMPT, attempt_id)

    async def refund(self, refund_id: str) -> Refund | None:
        return await self._one(Refund, _REFUND, refund_id)

    async def live_attempt(self, payment_id: str) -> Attempt | None:
        return await self._one(Attempt, _LIVE, payment_id)

    async def attempts(self, payment_id: str) -> list[Attempt]:
        """Oldest first."""
        return await self._all(Attempt, _ATTEMPTS, payment_id)

    async def refunds(self, payment_id: str) -> list[Refund]:
        """Oldest first."""
        return await self._all(Refund, _REFUNDS, payment_id)

    async def oldest_open_refund(self, payment_id: str) -> str | None:
        rows = await self._database.read(_OLDEST_OPEN, {"id": payment_id})
        return rows[0][0] if rows else None

    async def statement(self, account_id: str, from_ms: int, to_ms: int) -> Record:
        """What a provider opened by asking in a span of its own time, oldest first."""
        params = {"account_id": account_id, "from_ms": from_ms, "to_ms": to_ms}
        rows = await self._database.read(_STATEMENT, params)
        return Record(
            rows=tuple(
                Record(record_of(Attempt, row[:_WIDTH]), record_of(Payment, row[_WIDTH:])) for row in rows
            )
        )

    async def fetched(self, account_id: str) -> list[tuple[Attempt, Payment]]:
        """What a kiosk is to collect or has taken and not ended, oldest first."""
        rows = await self._database.read(_FETCHED, {"id": account_id})
        return [(record_of(Attempt, row[:_WIDTH]), record_of(Payment, row[_WIDTH:])) for row in rows]

    async def external(self, account_id: str, external_id: str) -> Attempt | None:
        params = {"account_id": account_id, "external_id": external_id}
        rows = await self._database.read(_EXTERNAL, params)
        return record_of(Attempt, rows[0]) if rows else None

    async def events(self, merchant_id: str, after: int, limit: int) -> list[Row]:
        """`events` rows in order, from the one after number `after`."""
        params = {"merchant_id": merchant_id, "after": after, "limit": limit}
        return await self._database.read(_EVENTS, params)

    async def balances(self, merchant_id: str) -> list[tuple[str, str, int]]:
        """(account, currency, amount_minor), sorted."""
        rows = await self._database.read(_BALANCES, {"id": merchant_id})
        return [(row[0], row[1], row[2]) for row in rows]

    async def deliveries(self, merchant_id: str, after: str, limit: int) -> list[Row]:
        params = {"merchant_id": merchant_id, "after": after, "limit": limit}
        return await self._database.read(_DELIVERIES, params)

    async def inbound(self, inbound_id: str) -> Row | None:
        """(id, merchant_id, account_id, body)"""
        rows = await self._database.read(_INBOUND, {"id": inbound_id})
        return (*rows[0][:3], bytes(rows[0][3])) if rows else None

    async def first_due(self, kind: str, subject: str, width: int) -> tuple[str, int] | None:
        """The first work of a stream (the first `width` characters of a subject) that is not after `subject`,
        and when it is due."""
        start = due_id(kind, subject[:width])
        params = {"after": f"{start}in_{'0' * 32}", "last": due_id(kind, subject)}
        rows = await self._database.read(_STREAM, params)
        return (rows[0][0], rows[0][1]) if rows else None

    async def later_due(self, kind: str, subject: str, width: int) -> str | None:
        """The next work of the same stream."""
        start = due_id(kind, subject[:width])
        params = {"after": due_id(kind, subject), "last": f"{start}in_{'f' * 32}"}
        rows = await self._database.read(_STREAM, params)
        return rows[0][0] if rows else None

    async def due_of(self, kind: str, merchant_id: str) -> list[Row]:
        """(subject, run_at, tries) of a kind of work: a bounded scan, for people."""
        return await self._database.read(_DUE_OF, {"kind": kind, "merchant_id": merchant_id})

    async def ping(self) -> None:
        """Raises `Unavailable`."""
        await self._database.read(_PING)

    async def _one(self, kind: type[RecordT], statement: ClauseElement, key: str) -> RecordT | None:
        rows: list[Any] = await self._database.read(statement, {"id": key})
        return record_of(kind, rows[0]) if rows else None

    async def _all(self, kind: type[RecordT], statement: ClauseElement, key: str) -> list[RecordT]:
        return [record_of(kind, row) for row in await self._database.read(statement, {"id": key})]
