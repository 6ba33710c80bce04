"""`tillgate ledger verify`: prove the books, the chain of events and every row that follows from them.

Nothing that was written is believed: each merchant's chain is computed again from its first event, balances
are added up again from postings and once more from payments, and every row is compared with what the last
event that tells of it says. All is read from one snapshot, in pages, beside a hub that goes on working.
Damage never raises: it is what is reported.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import bindparam, literal_column, select, text

from tillgate.domain.ledger import Posting
from tillgate.store import tables as t
from tillgate.store.audit_rows import Rows
from tillgate.store.book import link
from tillgate.store.database import Database, Tx
from tillgate.store.statements import Row

PAGE: Final = 500
KEPT: Final = 1_000
"""Findings that are listed; more are counted."""

Progress = Callable[[str, int], None]
"""Told after each page: what is being read, and how many of them were."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not fit, and where: a table and a key."""

    what: str
    where: str
    expected: str
    found: str


@dataclass(slots=True)
class Report:
    findings: list[Finding] = field(default_factory=list)
    omitted: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not self.findings

    def add(self, what: str, where: str, expected: object, found: object) -> None:
        if len(self.findings) < KEPT:
            self.findings.append(Finding(what, where, _short(expected), _short(found)))
        else:
            self.omitted += 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "counts": dict(self.counts),
            "findings": [asdict(one) for one in self.findings],
            "omitted": self.omitted,
        }

    def text(self) -> str:
        read = ", ".join(
            f"{number} {what if number != 1 else what[:-1]}" for what, number in self.counts.items()
        )
        if self.clean:
            return f"Everything fits: {read}."
        lines = [
            f"{one.what}: {one.where}\n    expected {one.expected}\n    found    {one.found}"
            for one in self.findings
        ]
        if self.omitted:
            lines.append(f"… and {self.omitted} more")
        number = len(self.findings) + self.omitted
        end = f"{number} {'thing does' if number == 1 else 'things do'} not fit ({read})."
        return "\n".join([*lines, end])


async def verify(
    database: Database,
    merchants: Sequence[str] | None = None,
    *,
    progress: Progress | None = None,
    page: int = PAGE,
) -> Report:
    """Check the given merchants (ids), or everything. Raises `Unavailable` only where nothing can be read."""
    report = Report()
    async with database.snapshot() as tx:
        await _Audit(tx, report, progress or _silent, page).run(database.engine, merchants)
    return report


def _silent(what: str, number: int) -> None:
    pass


def _short(value: object) -> str:
    shown = value.hex() if isinstance(value, bytes) else str(value)
    return shown if len(shown) <= 160 else f"{shown[:160]}…"


class _Line(NamedTuple):
    """A posting as it is found, which may be no posting at all."""

    kind: str
    source: str
    destination: str
    amount_minor: int
    currency: str


_HEADS: Final = select(t.heads).where(t.heads.c.merchant_id > bindparam("after")).order_by("merchant_id")
_HEAD_PAGE: Final = _HEADS.limit(bindparam("limit"))
_EVENT_PAGE: Final = (
    select(t.events)
    .where(t.events.c.merchant_id == bindparam("merchant"), t.events.c.seq > bindparam("after"))
    .order_by(t.events.c.seq)
    .limit(bindparam("limit"))
)
_LINES: Final = (
    select(t.postings)
    .where(
        t.postings.c.merchant_id == bindparam("merchant"),
        t.postings.c.seq > bindparam("after"),
        t.postings.c.seq <= bindparam("last"),
    )
    .order_by(t.postings.c.seq, t.postings.c.line)
)
_LINES_BEYOND: Final = (
    select(t.postings)
    .where(t.postings.c.merchant_id == bindparam("merchant"), t.postings.c.seq > bindparam("last"))
    .order_by(t.postings.c.seq, t.postings.c.line)
    .limit(bindparam("limit"))
)
_BALANCES: Final = select(t.balances).where(t.balances.c.merchant_id == bindparam("merchant"))
_OF_MERCHANTS: Final = {
    one: select(one.c.merchant_id)
    .select_from(one.outerjoin(t.heads, t.heads.c.merchant_id == one.c.merchant_id))
    .where(t.heads.c.merchant_id.is_(None))
    .distinct()
    .limit(20)
    for one in (t.events, t.postings, t.balances, t.payments, t.attempts, t.refunds, t.standing_orders)
}
_HEADLESS: Final = (
    select(t.merchants.c.id)
    .select_from(t.merchants.outerjoin(t.heads, t.heads.c.merchant_id == t.merchants.c.id))
    .where(t.heads.c.merchant_id.is_(None))
    .limit(20)
)
_ORPHANS: Final = {
    child: select(child.c.id, child.c.payment_id)
    .select_from(child.outerjoin(t.payments, t.payments.c.id == child.c.payment_id))
    .where(t.payments.c.id.is_(None))
    .limit(100)
    for child in (t.attempts, t.refunds)
}
_UNTOLD: Final = (
    select(t.deliveries.c.id, t.deliveries.c.merchant_id, t.deliveries.c.seq)
    .select_from(
        t.deliveries.outerjoin(
            t.events,
            (t.events.c.merchant_id == t.deliveries.c.merchant_id) & (t.events.c.seq == t.deliveries.c.seq),
        )
    )
    .where(t.events.c.seq.is_(None))
    .limit(100)
)
_QUICK_CHECK: Final[Any] = select(literal_column("quick_check")).select_from(text("pragma_quick_check(10)"))


class _Audit:
    def __init__(self, tx: Tx, report: Report, progress: Progress, page: int) -> None:
        self._tx, self._report, self._progress, self._page = tx, report, progress, page
        self._rows = Rows(tx, report, self._counted, page)

    async def run(self, engine: str, merchants: Sequence[str] | None) -> None:
        if merchants is None:
            if engine == "sqlite":
                await self._try("the file's structure", self._file())
            await self._try("rows of no merchant", self._strays())
        await self._try("chains", self._chains(merchants))
        await self._try("payments", self._rows.payments(merchants))
        await self._try("standing orders", self._rows.standing_orders(merchants))
        self._rows.compare_balances()

    async def _try(self, what: str, work: Any) -> None:
        """Whatever breaks while damage is read is damage."""
        try:
            await work
        except Exception as error:  # noqa: BLE001
            self._report.add("unreadable", what, "rows that can be read", f"{type(error).__name__}: {error}")

    def _counted(self, what: str, number: int) -> None:
        self._report.counts[what] += number
        self._progress(what, self._report.counts[what])

    async def _file(self) -> None:
        for (said,) in await self._tx.execute(_QUICK_CHECK, {}):
            if said != "ok":
                self._report.add("damaged file", "quick_check", "ok", said)

    async def _strays(self) -> None:
        for (merchant,) in await self._tx.execute(_HEADLESS, {}):
            self._report.add("missing row", f"heads {merchant}", "a row", "none")
        for table, statement in _OF_MERCHANTS.items():
            for (merchant,) in await self._tx.execute(statement, {}):
                self._report.add("rows of no merchant", table.name, "a merchant with a head", merchant)
        for table, statement in _ORPHANS.items():
            for row_id, payment_id in await self._tx.execute(statement, {}):
                self._report.add("row without its payment", f"{table.name} {row_id}", payment_id, "none")
        for row_id, merchant, seq in await self._tx.execute(_UNTOLD, {}):
            self._report.add(
                "delivery without its event", f"deliveries {row_id}", f"event {merchant} {seq}", "none"
            )

    # --- the chain ---

    async def _chains(self, merchants: Sequence[str] | None) -> None:
        if merchants is not None:
            heads = await self._tx.select(t.heads, ("merchant_id",), [(one,) for one in merchants])
            for missing in sorted(set(merchants) - {head[0] for head in heads}):
                self._report.add("missing row", f"heads {missing}", "a row", "none")
            for head in heads:
                await self._chain(*head)
            return
        after = ""
        while heads := await self._tx.execute(_HEAD_PAGE, {"after": after, "limit": self._page}):
            for head in heads:
                await self._chain(*head)
            after = heads[-1][0]

    async def _chain(self, merchant: str, head_seq: int, head_chain: Any) -> None:
        """Walk one merchant's events and postings from the first to the last, and add the postings up."""
        self._counted("merchants", 1)
        chain, last, sums = merchant.encode(), 0, Counter[tuple[str, str]]()
        while True:
            params = {"merchant": merchant, "after": last, "limit": self._page}
            events = await self._tx.execute(_EVENT_PAGE, params)
            if not events:
                break
            span = {"merchant": merchant, "after": last, "last": events[-1][1]}
            lines = self._by_event(await self._tx.execute(_LINES, span), sums)
            for event in events:
                seq = event[1]
                if seq != last + 1:
                    self._gap(merchant, last + 1, seq - 1)
                found = _bytes(event[7])
                mine = lines.pop(seq, [])
                if found != (expected := _linked(chain, event, mine)):
                    self._report.add(
                        "event or posting changed", f"events {merchant} {seq}", expected or "a chain", found
                    )
                self._rows.tell(merchant, event, mine)
                chain, last = found, seq  # each later event is judged by itself
            for seq in lines:
                self._stray_postings(merchant, seq)
            await self._rows.look_for_made()
            self._counted("events", len(events))
            await asyncio.sleep(0)
        await self._beyond(merchant, last, sums)
        if head_seq != last:
            self._report.add("sequence", f"heads {merchant}", f"last event {head_seq}", last)
        if _bytes(head_chain) != chain:
            self._report.add("end of the chain", f"heads {merchant}", chain, _bytes(head_chain))
        await self._add_up(merchant, sums)

    def _gap(self, merchant: str, first: int, last: int) -> None:
        where = f"events {merchant} {first}" + (f" to {last}" if last > first else "")
        self._report.add("missing row", where, "an event", "none")

    def _stray_postings(self, merchant: str, seq: int) -> None:
        self._report.add("posting without its event", f"postings {merchant} {seq}", "an event", "none")

    def _by_event(self, rows: Sequence[Row], sums: Counter[tuple[str, str]]) -> dict[int, list[_Line]]:
        found: dict[int, list[_Line]] = {}
        for row in rows:
            line = _Line(*row[3:8])
            found.setdefault(row[1], []).append(line)
            if type(line.amount_minor) is int:
                sums[line.source, line.currency] -= line.amount_minor
                sums[line.destination, line.currency] += line.amount_minor
        self._counted("postings", len(rows))
        return found

    async def _beyond(self, merchant: str, last: int, sums: Counter[tuple[str, str]]) -> None:
        params = {"merchant": merchant, "last": last, "limit": self._page}
        for seq in self._by_event(await self._tx.execute(_LINES_BEYOND, params), sums):
            self._stray_postings(merchant, seq)

    async def _add_up(self, merchant: str, sums: Counter[tuple[str, str]]) -> None:
        """Every balance is the sum of its postings; the rows' own sums come after the rows."""
        kept = {(row[1], row[2]): row[3] for row in await self._tx.execute(_BALANCES, {"merchant": merchant})}
        for account, currency in sorted(sums.keys() | kept.keys()):
            expected, found = sums[account, currency], kept.get((account, currency), 0)
            if expected != found:
                self._report.add("balance", f"balances {merchant} {account} {currency}", expected, found)
        self._rows.books[merchant] = sums
        self._counted("balances", len(kept))


def _linked(chain: bytes, event: Row, lines: Sequence[_Line]) -> bytes | None:
    """None where the row holds something that no event can."""
    _, seq, event_id, kind, subject, occurred_at, body, _ = event
    try:
        postings = cast("Sequence[Posting]", lines)
        return link(chain, seq, event_id, kind, subject, occurred_at, bytes(body), postings)
    except (TypeError, ValueError):
        return None


def _bytes(value: Any) -> bytes:
    """A column's bytes, also where somebody made a text or a number of them."""
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value).encode()
