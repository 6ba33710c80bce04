"""Reconciliation as `/v1` takes and shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from tillgate.schemas_v1 import Minor, Time
from tillgate.schemas_v1.bodies import Currency, Cursor, Name

MAX_FILE: int = 8 * 1024 * 1024

FindingKind: TypeAlias = Literal[
    "missing_here", "missing_there", "amount_differs", "currency_differs", "unpaid_here", "repeated_there",
    "fee_differs",
]  # fmt: skip
Offset: TypeAlias = Annotated[str, Meta(pattern=r"^[+-]\d\d:\d\d$", description="Such as +07:00.")]
Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=300)]


class StatementFile(msgspec.Struct, forbid_unknown_fields=True):
    """`columns`: our name → the file's, of kind, reference, external_id, amount, currency, fee, at,
    settled_on. Without it: the file that the account's provider writes, where it is known."""

    content: Annotated[str, Meta(min_length=1, max_length=MAX_FILE, description="CSV or JSON.")]
    columns: dict[str, Name] | None = None
    currency: Currency | None = None
    unit: Annotated[Literal["major", "minor"], Meta(description="Of the file's amounts.")] = "major"
    kinds: dict[str, Literal["payment", "refund"]] = {}
    passed_over: list[Name] = []


class ReconciliationCreate(msgspec.Struct, forbid_unknown_fields=True):
    """`since` up to, not including, `until`. Without `file` the provider is asked, where it can be."""

    account: Name
    since: Time
    until: Time
    utc_offset: Offset = "+00:00"
    file: StatementFile | None = None


class ReconciliationV1(msgspec.Struct):
    """`summary`: lines, matched, ours, new_findings, findings by kind, money by currency and settlement."""

    id: str
    account: str
    source: Literal["file", "api"]
    since: Time
    until: Time
    summary: dict[str, Any]
    created_at: Time


class StatementLineV1(msgspec.Struct):
    """`subject`: the payment or refund that it is about; null where we know none."""

    line: int
    kind: str
    reference: str | None
    external_id: str | None
    amount_minor: Minor
    currency: str
    fee_minor: Minor | None
    at: Time | None
    settled_on: str | None
    subject: str | None


class FindingV1(msgspec.Struct):
    """Something for a person to look at. Money is never moved by it."""

    id: str
    reconciliation: str
    account: str
    kind: FindingKind
    status: Literal["open", "resolved"]
    subject: str | None
    reference: str | None
    external_id: str | None
    ours_minor: Minor | None
    theirs_minor: Minor | None
    currency: str
    at: Time | None
    created_at: Time
    resolved_at: Time | None
    reason: str | None


class FindingResolve(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason


class ReconciliationList(msgspec.Struct):
    data: list[ReconciliationV1]
    next_cursor: Cursor


class StatementLineList(msgspec.Struct):
    data: list[StatementLineV1]
    next_cursor: Cursor


class FindingList(msgspec.Struct):
    data: list[FindingV1]
    next_cursor: Cursor
