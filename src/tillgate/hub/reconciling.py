"""Reconciliation: a provider's statement beside our books, and what differs, for a person to look at.

Nothing here moves money or changes a payment. A finding is resolved with a reason, by a person, or by a later
statement that has what an earlier one lacked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from tillgate.domain.errors import InvalidRequest, NotAllowed, NotFound
from tillgate.domain.payment import Attempt, Refund
from tillgate.domain.record import record
from tillgate.hub.configuring import Configures
from tillgate.hub.keys import Key, Recalls
from tillgate.hub.kit import Kit, order_key
from tillgate.hub.matching import DAY_MS, Booked, Found, Matched, match, summary, unknown
from tillgate.hub.statement_files import MAX_LINES, Layout, read
from tillgate.spi import StatementFiles, StatementLine, Statements
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import digest, new_id
from tillgate.store.reconciling import MAX_BOOKED, Keep, Span, resolving

MARGIN_MS: Final = 2 * DAY_MS
"""A movement may stand in the books of the day beside: its clocks and its zone are not ours."""
LIFE_MS: Final = 32 * DAY_MS
"""So long before its money came a payment may have been opened."""
LONGEST_MS: Final = 93 * DAY_MS
LOOK_UPS: Final = 2_000

Render = Callable[[Mapping[str, Any]], bytes]


def _unseen(_row: Mapping[str, Any]) -> bytes:
    return b""


@record
class Reconciliation:
    """One comparison; `summary` as `hub.matching.summary` gives it, with `new_findings`."""

    id: str
    account_id: str
    source: str  # file | api
    from_ms: int
    to_ms: int
    summary: dict[str, Any]
    created_at: int


class Reconciling:
    """`Hub.reconciling`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.rows = kit.reads.reconciliation

    async def pull(
        self, merchant: Merchant, account: Account, from_ms: int, to_ms: int
    ) -> list[StatementLine]:
        """Ask the provider. Raises `NotAllowed` where it gives none, `Declined`, `Unreachable`, `Unsure`."""
        connector = self._kit.connector(account)
        if not isinstance(connector, Statements):
            raise NotAllowed(f"{account.provider} has no statement to ask for; give a file of it")
        lines: list[StatementLine] = []
        async for line in connector.statement(from_ms, to_ms, self._kit.out):
            lines.append(line)
            if len(lines) > MAX_LINES:
                raise NotAllowed(f"the statement has more than {MAX_LINES} lines: take a shorter time")
        return lines

    async def read_file(self, account: Account, content: str, layout: Layout | None) -> list[StatementLine]:
        """A file by the given layout, or as the account's provider writes it. Raises `InvalidRequest`."""
        if layout is not None:
            return await asyncio.to_thread(read, content, layout)  # the loop has payers to serve
        connector = self._kit.connector(account)
        if not isinstance(connector, StatementFiles):
            raise InvalidRequest(f"say which column is what: {account.provider} has no file of its own",
                                 param="columns")  # fmt: skip
        return await asyncio.to_thread(connector.statement_file, content.encode())

    async def compare(
        self,
        merchant: Merchant,
        account: Account,
        lines: Sequence[StatementLine],
        *,
        source: str,
        from_ms: int,
        to_ms: int,
        day_offset_ms: int = 0,
    ) -> Reconciliation:
        """Compare `lines` with what we booked from `from_ms` up to, not including, `to_ms`; and keep both.

        Raises `InvalidRequest` for a time that is none, or too long."""
        if not 0 <= from_ms < to_ms or to_ms - from_ms > LONGEST_MS:
            raise InvalidRequest("the time to compare is above 0 and at most 93 days", param="to")
        booked = await self._booked(merchant, account, from_ms, to_ms)
        strange = await asyncio.to_thread(unknown, lines, booked)
        booked += await self._looked_up(merchant, account, strange)
        matched = await asyncio.to_thread(partial(match, lines, booked, day_offset_ms=day_offset_ms))
        matched = await self._without_stated(matched, from_ms, to_ms)
        now = self._kit.clock()
        expected = sum(one.done and one.expected for one in booked)
        made = Reconciliation(
            new_id("rec_", now),
            account.id,
            source,
            from_ms,
            to_ms,
            dict(summary(lines, matched, expected)),
            now,
        )
        keep = await asyncio.to_thread(_kept, merchant, made, lines, matched)
        made.summary["new_findings"] = await self._kit.journal.run(keep)
        return made

    async def resolve(
        self,
        merchant: Merchant,
        finding_id: str,
        reason: str,
        key: Key | None = None,
        render: Render = _unseen,
    ) -> tuple[int, bytes] | None:
        """The first answer, where the key was used before. Raises `NotFound`. The first reason stays."""
        row = await self.rows.finding(merchant.id, finding_id)
        if row is None:
            raise NotFound("There is no such finding")
        changes = []
        if row["resolved_at"] is None:
            row = {**row, "resolved_at": self._kit.clock(), "reason": reason}
            changes = [resolving(finding_id, reason, row["resolved_at"])]
        command = Configures(merchant.id, tuple(changes), key, render(row))
        return await self._kit.journal.submit(command)

    async def known(self, merchant: Merchant, key: Key | None) -> tuple[int, bytes] | None:
        """The answer that is kept for this key."""
        return await self._kit.journal.submit(Recalls(merchant.id, key)) if key else None

    async def remember(self, merchant: Merchant, key: Key | None, body: bytes) -> tuple[int, bytes] | None:
        """Keep an answer. It comes after the comparison's own commit: a repeat in between finds nothing."""
        return await self._kit.journal.submit(Configures(merchant.id, (), key, body)) if key else None

    # --- our books ---

    async def _booked(self, merchant: Merchant, account: Account, from_ms: int, to_ms: int) -> list[Booked]:
        span = Span(
            merchant.id, account.id, from_ms - MARGIN_MS, to_ms + MARGIN_MS,
            from_ms - MARGIN_MS - LIFE_MS, to_ms + MARGIN_MS,
        )  # fmt: skip
        paid, refunded = await self.rows.paid(span), await self.rows.refunded(span)
        if max(len(paid), len(refunded)) > MAX_BOOKED:
            raise InvalidRequest(
                "there are too many payments to compare at once: take a shorter time", param="to"
            )
        found = [_attempt(one, order_id, from_ms, to_ms) for one, order_id in paid]
        found += [_refund(one, external, order, from_ms, to_ms) for one, external, order in refunded]
        return found

    async def _looked_up(
        self, merchant: Merchant, account: Account, lines: Sequence[StatementLine]
    ) -> list[Booked]:
        """What lines name that did not move money in this time: unpaid, or long ago."""
        found: dict[str, Booked] = {}
        for line in lines[:LOOK_UPS]:
            for attempt, order_id in await self._attempts(merchant, account, line):
                if line.kind == "payment":
                    found.setdefault(attempt.id, _attempt(attempt, order_id, 0, 0))
                    continue
                for refund in await self._kit.reads.refunds(attempt.payment_id):
                    if refund.attempt_id == attempt.id:
                        booked = _refund(refund, attempt.external_id, order_id, 0, 0)
                        found.setdefault(refund.id, booked)
        return list(found.values())

    async def _attempts(
        self, merchant: Merchant, account: Account, line: StatementLine
    ) -> list[tuple[Attempt, str]]:
        reads, reference = self._kit.reads, line.reference or ""
        attempts: list[Attempt] = []
        if line.external_id:
            one = await self.rows.by_external(account.id, line.external_id)
            attempts = [one] if one else []
        if not attempts and reference.startswith("att_"):
            one = await reads.attempt(reference)
            attempts = [one] if one else []
        if not attempts and reference.startswith("refund_"):
            refund = await reads.refund(reference)
            one = await reads.attempt(refund.attempt_id) if refund else None
            attempts = [one] if one else []
        if not attempts and reference:
            payment = (
                await reads.payment(reference)
                if reference.startswith("pay_")
                else await reads.order(order_key(merchant.id, reference))
            )
            attempts = await reads.attempts(payment.id) if payment else []
        own = [one for one in attempts if (one.merchant_id, one.account_id) == (merchant.id, account.id)]
        found = []
        for one in own:
            payment = await reads.payment(one.payment_id)
            found.append((one, payment.order_id if payment else ""))
        return found

    async def _without_stated(self, matched: Matched, from_ms: int, to_ms: int) -> Matched:
        """A movement that the statement of another day had is not missing on this one."""
        findings: list[Found] = []
        for one in matched.findings:
            lacking = one.subject if one.kind == "missing_there" else None
            if lacking and await self.rows.is_stated(lacking, from_ms, to_ms):
                continue
            findings.append(one)
        return Matched(matched.subjects, tuple(findings))


def _attempt(one: Attempt, order_id: str, from_ms: int, to_ms: int) -> Booked:
    at = one.paid_at or one.created_at
    names = tuple(name for name in (one.external_id, one.id, one.payment_id, order_id) if name)
    return Booked(
        kind="payment",
        subject=one.payment_id,
        key=one.id,
        names=names,
        amounts=(one.paid_minor, one.paid_minor + one.tip_minor) if one.paid_minor else (one.amount_minor,),
        currency=one.currency,
        at=at,
        fee_minor=one.fee_minor,
        done=one.paid_minor > 0,
        expected=from_ms <= at < to_ms,
    )


def _refund(one: Refund, attempt_external: str | None, order_id: str, from_ms: int, to_ms: int) -> Booked:
    at = one.done_at or one.created_at
    parents = (attempt_external, one.attempt_id, one.payment_id, order_id)
    return Booked(
        kind="refund",
        subject=one.id,
        key=one.id,
        names=tuple(name for name in (one.external_id, one.id) if name),
        amounts=(one.amount_minor,),
        currency=one.currency,
        at=at,
        done=one.phase == "succeeded",
        expected=from_ms <= at < to_ms,
        parents=tuple(name for name in parents if name),
    )


def _kept(merchant: Merchant, made: Reconciliation, lines: Sequence[StatementLine], matched: Matched) -> Keep:
    rows = [
        (made.id, number, one.kind, one.reference, one.external_id, one.amount_minor, one.currency,
         one.fee_minor, one.at, one.settled_on, subject)
        for number, (one, subject) in enumerate(zip(lines, matched.subjects, strict=True), 1)
    ]  # fmt: skip
    seen: Counter[bytes] = Counter()
    findings = []
    for one in matched.findings:
        # Its time tells only a line that has no other name: of a line told twice either may come first.
        nameless = not (one.subject or one.reference or one.external_id)
        said = [one.kind, one.subject, one.reference, one.external_id, one.ours_minor, one.theirs_minor,
                one.currency, one.at if nameless else None]  # fmt: skip
        about = digest("finding", made.account_id, *(str(part) for part in said))
        seen[about] += 1  # two lines that say the same are two findings, and the same two when read again
        findings.append(
            (new_id("fnd_", made.created_at), merchant.id, made.id, made.account_id,
             digest("finding", about.hex(), str(seen[about])), one.kind, one.subject, one.reference,
             one.external_id, one.ours_minor, one.theirs_minor, one.currency, one.at, made.created_at,
             None, None)
        )  # fmt: skip
    reconciliation = (
        made.id, merchant.id, made.account_id, made.source, made.from_ms, made.to_ms,
        None, made.created_at,
    )  # fmt: skip
    found = frozenset(one for one in matched.subjects if one)
    return Keep(merchant.id, reconciliation, made.summary, rows, findings, found)
