"""Compares a statement's lines with our books. Pure: no store, no clock.

By name first (the provider's, then ours), equal amounts before unequal ones; a line that names nothing is
compared by amount and day. What carries a name that we do not know is never paired by its amount: that would
hide two mistakes behind each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from tillgate.domain.record import record
from tillgate.spi import StatementLine

FindingKind: TypeAlias = Literal[
    "missing_here", "missing_there", "amount_differs", "currency_differs", "unpaid_here", "repeated_there",
    "fee_differs",
]  # fmt: skip
KINDS: Final = (
    "missing_here", "missing_there", "amount_differs", "currency_differs", "unpaid_here", "repeated_there",
    "fee_differs",
)  # fmt: skip
"""unpaid_here: they say that money moved, we know the payment or refund and have nothing paid or returned."""

DAY_MS: Final = 86_400_000


@record
class Booked:
    """One movement in our books: what an attempt brought, or a refund."""

    kind: str  # payment | refund
    subject: str  # the payment's or the refund's id
    key: str  # the attempt's or the refund's id: unique
    names: tuple[str, ...]  # by which a statement may call it
    amounts: tuple[int, ...]  # what a statement may say: with and without a tip
    currency: str
    at: int
    fee_minor: int = 0
    done: bool = True  # money moved; else it is only known
    expected: bool = True  # its time is within what is compared
    parents: tuple[str, ...] = ()  # of a refund: its payment's names, where the line knows only them


@record
class Found:
    """One difference. `line` counts from 1."""

    kind: FindingKind
    line: int | None
    subject: str | None
    reference: str | None
    external_id: str | None
    ours_minor: int | None
    theirs_minor: int | None
    currency: str
    at: int | None


@record
class Matched:
    """`subjects` is per line: the payment or refund that it is about; None where we know none."""

    subjects: tuple[str | None, ...]
    findings: tuple[Found, ...]


class _Matching:
    def __init__(self, lines: Sequence[StatementLine], booked: Iterable[Booked], day_offset_ms: int) -> None:
        self.lines, self.booked = lines, list(booked)
        self.of: list[Booked | None] = [None] * len(lines)  # what each line is about
        self.taken: set[str] = set()
        self.repeats: set[int] = set()
        self.in_parts: set[int] = set()  # lines that make up one movement together
        self._offset = day_offset_ms
        self._named: dict[tuple[str, str], list[Booked]] = defaultdict(list)
        self._parents: dict[str, list[Booked]] = defaultdict(list)
        for one in self.booked:
            for name in one.names:
                self._named[one.kind, name].append(one)
            for name in one.parents:
                self._parents[name].append(one)

    def candidates(self, line: StatementLine) -> list[Booked]:
        """By the first of its names that we know."""
        for name in (line.external_id, line.reference):
            if name:
                found = self._named.get((line.kind, name))
                if not found and line.kind == "refund":
                    found = self._parents.get(name)
                if found:
                    return found
        return []

    def by_name(self) -> None:
        known = [self.candidates(line) for line in self.lines]
        for exact in (True, False):
            if not exact:
                self._in_parts(known)
            for number, line in enumerate(self.lines):
                if self.of[number] is not None or not known[number]:
                    continue
                free = [one for one in known[number] if one.key not in self.taken]
                if exact:
                    free = [one for one in free if _says(line, one)]
                if free:
                    self._take(number, max(free, key=lambda one: (one.done, one.expected)))
        for number, found in enumerate(known):
            if found and self.of[number] is None:  # all that it could be about have a line already
                self.of[number] = found[0]
                self.repeats.add(number)

    def _in_parts(self, known: Sequence[Sequence[Booked]]) -> None:
        """A code that was paid twice is one movement in our books and two lines on theirs."""
        parts: dict[str, list[int]] = defaultdict(list)
        for number, line in enumerate(self.lines):
            free = [
                one for one in known[number] if one.key not in self.taken and one.currency == line.currency
            ]
            if self.of[number] is None and line.kind == "payment" and len(free) == 1:
                parts[free[0].key].append(number)
        for numbers in parts.values():
            one = next(one for one in known[numbers[0]] if one.key not in self.taken)
            if len(numbers) > 1 and sum(self.lines[number].amount_minor for number in numbers) in one.amounts:
                self.in_parts.update(numbers)
                for number in numbers:
                    self._take(number, one)

    def by_amount(self) -> None:
        """Lines that name nothing, in the order of their times within a day."""
        lines: dict[tuple[str, str, int, int], list[int]] = defaultdict(list)
        for number, line in enumerate(self.lines):
            if not line.reference and not line.external_id and line.at is not None:
                lines[line.kind, line.currency, line.amount_minor, self._day(line.at)].append(number)
        ours: dict[tuple[str, str, int, int], list[Booked]] = defaultdict(list)
        for one in self.booked:
            if one.done and one.key not in self.taken:
                for amount in dict.fromkeys(one.amounts):
                    ours[one.kind, one.currency, amount, self._day(one.at)].append(one)
        for key, numbers in lines.items():
            free = sorted((one for one in ours[key] if one.key not in self.taken), key=lambda one: one.at)
            numbers.sort(key=lambda number: self.lines[number].at or 0)
            for number, one in zip(numbers, free, strict=False):
                self._take(number, one)

    def findings(self) -> list[Found]:
        judged = (self._judge(number, line) for number, line in enumerate(self.lines))
        found = [one for one in judged if one is not None]
        for ours in self.booked:
            if ours.done and ours.expected and ours.key not in self.taken:
                name = next(iter(ours.names), None)
                found.append(
                    Found("missing_there", None, ours.subject, ours.key, name, ours.amounts[0], None,
                          ours.currency, ours.at)
                )  # fmt: skip
        return found

    def _judge(self, number: int, line: StatementLine) -> Found | None:
        one = self.of[number]
        kind: FindingKind
        ours: int | None = None if one is None else one.amounts[0]
        theirs: int | None = line.amount_minor
        if one is None:
            kind = "missing_here"
        elif number in self.repeats:
            kind = "repeated_there"
        elif not one.done:
            kind, ours = "unpaid_here", 0
        elif line.currency != one.currency:
            kind = "currency_differs"
        elif number in self.in_parts:
            return None
        elif line.amount_minor not in one.amounts:
            kind = "amount_differs"
        elif line.fee_minor is not None and one.fee_minor and line.fee_minor != one.fee_minor:
            kind, ours, theirs = "fee_differs", one.fee_minor, line.fee_minor
        else:
            return None
        return Found(
            kind, number + 1, one.subject if one else None, line.reference, line.external_id, ours, theirs,
            line.currency, line.at,
        )  # fmt: skip

    def _take(self, number: int, one: Booked) -> None:
        self.of[number] = one
        self.taken.add(one.key)

    def _day(self, at: int) -> int:
        return (at + self._offset) // DAY_MS


def _says(line: StatementLine, one: Booked) -> bool:
    return line.currency == one.currency and line.amount_minor in one.amounts


def match(lines: Sequence[StatementLine], booked: Iterable[Booked], *, day_offset_ms: int = 0) -> Matched:
    """`day_offset_ms`: how far the statement's days are ahead of UTC."""
    work = _Matching(lines, booked, day_offset_ms)
    work.by_name()
    work.by_amount()
    return Matched(tuple(one.subject if one else None for one in work.of), tuple(work.findings()))


def unknown(lines: Sequence[StatementLine], booked: Iterable[Booked]) -> list[StatementLine]:
    """Lines with a name that none of these has: to be looked up one by one."""
    work = _Matching(lines, booked, 0)
    return [line for line in lines if (line.reference or line.external_id) and not work.candidates(line)]


def summary(lines: Sequence[StatementLine], matched: Matched, expected: int) -> dict[str, object]:
    """Counts, and money by currency and by the day on which it is settled."""
    money: dict[str, Counter[str]] = defaultdict(Counter)
    settled: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for line in lines:
        sign = -1 if line.kind == "refund" else 1
        rows = [money[line.currency]]
        if line.settled_on:
            rows.append(settled[line.settled_on][line.currency])
        for row in rows:
            row["lines"] += 1
            row["gross_minor"] += sign * line.amount_minor
            row["fee_minor"] += line.fee_minor or 0
            row["net_minor"] += sign * line.amount_minor - (line.fee_minor or 0)
    counts = Counter(one.kind for one in matched.findings)
    return {
        "lines": len(lines),
        "matched": sum(one is not None for one in matched.subjects),
        "ours": expected,
        "findings": {kind: counts[kind] for kind in KINDS if counts[kind]},
        "money": {currency: dict(row) for currency, row in sorted(money.items())},
        "settled": {
            day: {currency: dict(row) for currency, row in rows.items()}
            for day, rows in sorted(settled.items())
        },
    }
