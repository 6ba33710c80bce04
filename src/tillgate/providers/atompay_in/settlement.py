"""Settlement files of AtomPay, CSV or JSON, read by a column map: what was settled, for how much, less what.

NDPS publishes no settlement API. The default map names the columns of its legacy report; a merchant whose
dashboard exports others gives a map of its own (AtomPay facts, settlement). Nothing is guessed: a row that
does not read or does not add up is a problem with its number, and the others are still read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final

from tillgate.domain.errors import InvalidRequest
from tillgate.providers.atompay_in import wire
from tillgate.spi import StatementLine

CURRENCY: Final = "INR"
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_ROWS: Final = 500_000

LEGACY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "merch_id": "merchantID",
        "merch_txn_id": "merchantTxnID",
        "atom_txn_id": "atomTxnID",
        "gross": "grossTxnAmount",
        "fee": "totalChargeable",
        "net": "netAmountToBePaid",
        "settled_on": "settlementDate",
        "bank_ref": "bankRefNo",
        "refund_ref": "refundRefNo",
        "state": "paymentStatus",
    }
)
"""Our name → the column's. `merch_txn_id`, `gross` and `net` are needed; the others may be left out."""

_NEEDED: Final = ("merch_txn_id", "gross", "net")
_NOTHING: Final = re.compile(rb"\s*(?:\[\s*\]|no data found\.?)\s*", re.IGNORECASE)
_DATES: Final = ("%Y-%m-%d", "%d-%m-%Y", "%d/%m/%Y", "%d-%b-%Y", "%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, slots=True)
class Settled:
    """One row. Amounts in paise; `fee_minor` is what the gateway kept, taxes included."""

    merch_txn_id: str
    gross_minor: int
    net_minor: int
    fee_minor: int
    atom_txn_id: str = ""
    settled_on: date | None = None
    bank_ref: str = ""
    refund_ref: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that could not be taken; `row` counts from 1."""

    row: int
    why: str


@dataclass(frozen=True, slots=True)
class Settlement:
    rows: tuple[Settled, ...] = ()
    problems: tuple[Problem, ...] = ()


def read(data: bytes, columns: Mapping[str, str] = LEGACY, *, merch_id: str | None = None) -> Settlement:
    """A settlement file. `merch_id`: rows of another merchant are a problem.

    Raises `InvalidRequest` for a file that is none of this kind at all.
    """
    unknown, missing = set(columns) - set(LEGACY), [name for name in _NEEDED if not columns.get(name)]
    if unknown or missing:
        raise InvalidRequest(f"the column map: unknown {sorted(unknown)}, missing {missing}")
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the file is larger than {MAX_BYTES >> 20} MiB")
    if not data.strip() or _NOTHING.fullmatch(data):
        return Settlement()
    rows: list[Settled] = []
    problems: list[Problem] = []
    seen: set[tuple[str, str, str]] = set()
    for number, record in enumerate(_records(data, columns), 1):
        if number > MAX_ROWS:
            raise InvalidRequest(f"the file has more than {MAX_ROWS} rows")
        try:
            row = _row(record, columns, merch_id)
        except ValueError as error:
            problems.append(Problem(number, str(error)))
            continue
        key = (row.merch_txn_id, row.atom_txn_id, row.refund_ref)
        if key in seen:
            problems.append(Problem(number, f"{row.merch_txn_id} stands in the file twice"))
            continue
        seen.add(key)
        rows.append(row)
    return Settlement(tuple(rows), tuple(problems))


def statement(data: bytes, merch_id: str) -> list[StatementLine]:
    """The rows as a statement's lines. Raises `InvalidRequest` that names the rows which are a problem."""
    found = read(data, merch_id=merch_id)
    if found.problems:
        said = "; ".join(f"row {one.row}: {one.why}" for one in found.problems[:5])
        raise InvalidRequest(said, param="content")
    return [
        StatementLine(
            kind="refund" if row.refund_ref else "payment",
            amount_minor=abs(row.gross_minor),
            currency=CURRENCY,
            reference=row.merch_txn_id,
            external_id=row.atom_txn_id or None,
            fee_minor=abs(row.fee_minor),
            settled_on=row.settled_on.isoformat() if row.settled_on else None,
        )
        for row in found.rows
        if row.gross_minor
    ]


def _records(data: bytes, columns: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    if data.lstrip()[:1] in (b"[", b"{"):
        yield from _json(data)
        return
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        absent = [columns[name] for name in _NEEDED if columns[name] not in (reader.fieldnames or ())]
        if absent:
            raise InvalidRequest(f"the file has no column {', '.join(absent)}")
        yield from reader
    except (UnicodeDecodeError, csv.Error):
        raise InvalidRequest("the file is neither CSV nor JSON in UTF-8") from None


def _json(data: bytes) -> Sequence[Mapping[str, Any]]:
    """A list of objects, or the one list in an object."""
    try:
        found = wire.loads(data)
    except ValueError:
        raise InvalidRequest("the file is not JSON") from None
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else None
    if not isinstance(found, list):
        raise InvalidRequest("the file holds no list of rows")
    return [item if isinstance(item, dict) else {} for item in found]


def _row(record: Mapping[str, Any], columns: Mapping[str, str], merch_id: str | None) -> Settled:
    """Raises `ValueError` with the reason."""

    def text(name: str) -> str:
        return wire.text(record.get(columns.get(name, ""))).strip()

    def amount(name: str) -> int:
        value = record.get(columns[name])
        try:
            return wire.paise(value.strip().replace(",", "") if isinstance(value, str) else value)
        except ValueError:
            raise ValueError(f"{columns[name]} is no amount: {str(value)[:40]!a}") from None

    if merch_id is not None and text("merch_id") not in ("", merch_id):
        raise ValueError(f"it is merchant {text('merch_id')[:20]!a}'s")
    if not text("merch_txn_id"):
        raise ValueError(f"{columns['merch_txn_id']} is empty")
    gross, net = amount("gross"), amount("net")
    fee = amount("fee") if columns.get("fee") else gross - net
    if gross - fee != net:
        raise ValueError(f"{wire.rupees(gross)} less {wire.rupees(fee)} is not {wire.rupees(net)}")
    return Settled(
        merch_txn_id=text("merch_txn_id"),
        gross_minor=gross,
        net_minor=net,
        fee_minor=fee,
        atom_txn_id=text("atom_txn_id"),
        settled_on=_date(text("settled_on")),
        bank_ref=text("bank_ref"),
        refund_ref=text("refund_ref"),
        state=text("state"),
    )


def _date(given: str) -> date | None:
    """Raises `ValueError` for text that is no date we know."""
    if not given:
        return None
    for form in _DATES:
        try:
            return datetime.strptime(given, form).date()  # noqa: DTZ007 (a date, with no time of day)
        except ValueError:
            continue
    raise ValueError(f"{given[:30]!a} is no date")
