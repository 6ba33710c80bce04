"""What a comparison reads of our books, and how its lines and findings are kept, in one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, or_, select, update

from tillgate.domain.payment import Attempt, Refund
from tillgate.store import tables as t
from tillgate.store.book import Change, record_of
from tillgate.store.database import Database, Tx
from tillgate.store.statements import Row, columns

MAX_BOOKED: Final = 100_000

_PAID = (
    select(t.attempts, t.payments.c.order_id)
    .join(t.payments, t.payments.c.id == t.attempts.c.payment_id)
    .where(
        t.payments.c.merchant_id == bindparam("owner"),
        t.payments.c.id >= bindparam("low"),
        t.payments.c.id < bindparam("high"),
        t.attempts.c.account_id == bindparam("account_id"),
        t.attempts.c.paid_minor > 0,
        t.attempts.c.paid_at >= bindparam("from_ms"),
        t.attempts.c.paid_at < bindparam("to_ms"),
    )
    .limit(MAX_BOOKED + 1)
)
_REFUNDED = (
    select(t.refunds, t.attempts.c.external_id, t.payments.c.order_id)
    .join(t.attempts, t.attempts.c.id == t.refunds.c.attempt_id)
    .join(t.payments, t.payments.c.id == t.refunds.c.payment_id)
    .where(
        t.refunds.c.merchant_id == bindparam("owner"),
        t.refunds.c.id >= bindparam("low"),
        t.refunds.c.id < bindparam("high"),
        t.attempts.c.account_id == bindparam("account_id"),
        t.refunds.c.phase == "succeeded",
        t.refunds.c.done_at >= bindparam("from_ms"),
        t.refunds.c.done_at < bindparam("to_ms"),
    )
    .limit(MAX_BOOKED + 1)
)
_BY_EXTERNAL = select(t.attempts).where(
    t.attempts.c.account_id == bindparam("account_id"), t.attempts.c.external_id == bindparam("external_id")
)
_STATED = (
    select(t.statement_lines.c.subject)
    .join(t.reconciliations, t.reconciliations.c.id == t.statement_lines.c.reconciliation_id)
    .where(
        t.statement_lines.c.subject == bindparam("id"),
        or_(
            t.reconciliations.c.from_ms != bindparam("from_ms"),
            t.reconciliations.c.to_ms != bindparam("to_ms"),
        ),
    )
    .limit(1)
)
_LINES = (
    select(t.statement_lines)
    .where(
        t.statement_lines.c.reconciliation_id == bindparam("id"),
        t.statement_lines.c.line > bindparam("after"),
    )
    .order_by(t.statement_lines.c.line)
    .limit(bindparam("limit"))
)
_FINDING = select(t.findings).where(
    t.findings.c.id == bindparam("id"), t.findings.c.merchant_id == bindparam("owner")
)
_OPEN_MISSING = select(t.findings.c.id, t.findings.c.subject).where(
    t.findings.c.merchant_id == bindparam("owner"),
    t.findings.c.kind == "missing_there",
    t.findings.c.resolved_at.is_(None),
)
_RESOLVE = (
    update(t.findings)
    .where(t.findings.c.id == bindparam("row_id"), t.findings.c.resolved_at.is_(None))
    .values(resolved_at=bindparam("new_at"), reason=bindparam("new_reason"))
)
_WIDTH: Final = len(t.attempts.columns)
_REFUND_WIDTH: Final = len(t.refunds.columns)
FINDING: Final = columns(t.findings)
RECONCILIATION: Final = columns(t.reconciliations)
LINE: Final = columns(t.statement_lines)


@dataclass(frozen=True, slots=True)
class Span:
    """Whose books, and of which time. `low` and `high` bound when a row was made: by its id."""

    merchant_id: str
    account_id: str
    from_ms: int
    to_ms: int
    low: int
    high: int

    def params(self, prefix: str) -> dict[str, Any]:
        return {
            "owner": self.merchant_id,
            "account_id": self.account_id,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "low": f"{prefix}{max(0, self.low):012x}",
            "high": f"{prefix}{min(self.high, 2**48 - 1):012x}",
        }


class ReconciliationReads:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def paid(self, span: Span) -> list[tuple[Attempt, str]]:
        """Attempts that brought money, with their order ids."""
        rows = await self._database.read(_PAID, span.params("pay_"))
        return [(record_of(Attempt, row[:_WIDTH]), row[_WIDTH]) for row in rows]

    async def refunded(self, span: Span) -> list[tuple[Refund, str | None, str]]:
        """Refunds that went through, with their attempt's external id and their order id."""
        rows = await self._database.read(_REFUNDED, span.params("refund_"))
        width = _REFUND_WIDTH
        return [(record_of(Refund, row[:width]), row[width], row[width + 1]) for row in rows]

    async def by_external(self, account_id: str, external_id: str) -> Attempt | None:
        rows = await self._database.read(_BY_EXTERNAL, {"account_id": account_id, "external_id": external_id})
        return record_of(Attempt, rows[0]) if rows else None

    async def is_stated(self, subject: str, from_ms: int, to_ms: int) -> bool:
        """Whether a statement of another time had it. One of the same time that is asked for again and has
        it no more does not count: the provider took it back."""
        found = await self._database.read(_STATED, {"id": subject, "from_ms": from_ms, "to_ms": to_ms})
        return bool(found)

    async def finding(self, merchant_id: str, finding_id: str) -> dict[str, Any] | None:
        rows = await self._database.read(_FINDING, {"id": finding_id, "owner": merchant_id})
        return dict(zip(FINDING, rows[0], strict=True)) if rows else None

    async def lines(self, reconciliation_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        rows = await self._database.read(_LINES, {"id": reconciliation_id, "after": after, "limit": limit})
        return [dict(zip(LINE, row, strict=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class Keep:
    """One comparison. A finding that is known already is not kept again; what an earlier comparison missed
    and this one has is resolved."""

    merchant_id: str
    reconciliation: Row  # None in the place of the summary
    summary: Mapping[str, Any]
    lines: Sequence[Row]
    findings: Sequence[Row]
    found: frozenset[str]  # subjects that this statement has

    async def run(self, tx: Tx, now: int) -> int:
        """How many findings are new."""
        place = FINDING.index("digest")
        known: set[bytes] = set()
        if self.findings:
            rows = await tx.select(t.findings, ("digest",), [(row[place],) for row in self.findings])
            known = {bytes(row[place]) for row in rows}
        fresh = [row for row in self.findings if row[place] not in known]
        summary = msgspec.json.encode({**self.summary, "new_findings": len(fresh)}).decode()
        head = [summary if one is None else one for one in self.reconciliation]
        await tx.insert(t.reconciliations, [tuple(head)])
        if self.lines:
            await tx.insert(t.statement_lines, list(self.lines))
        if fresh:
            await tx.insert(t.findings, fresh)
        missing = await tx.execute(_OPEN_MISSING, {"owner": self.merchant_id})
        reason = f"found on a later statement ({self.reconciliation[0]})"
        closing = [
            {"row_id": row[0], "new_at": now, "new_reason": reason} for row in missing if row[1] in self.found
        ]
        if closing:
            await tx.execute_many(_RESOLVE, closing)
        return len(fresh)


def resolving(finding_id: str, reason: str, now: int) -> Change:
    """A person's word on a finding; the first one stays."""
    return Change(_RESOLVE, {"row_id": finding_id, "new_at": now, "new_reason": reason})
