"""What a kiosk and its hub say to each other. The kiosk calls; the hub never has to reach it.

The kiosk takes an order before it asks a terminal for it, and reports every change of a payment as the whole
payment with a version: so a report that is repeated, late or out of order moves nothing, and one that is lost
is told by the next. Amounts are minor units, times epoch milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from tillgate.domain.money import MAX_MINOR

MOST_REPORTS: Final = 50
MOST_ORDERS: Final = 100
LONGEST_WAIT_S: Final = 25

TxnId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9._-]+$")]
AttemptId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=80)]
_Text: TypeAlias = Annotated[str, Meta(max_length=500)]
_Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
KioskState: TypeAlias = Literal[
    "pending", "processing", "awaiting_plan", "cancelling", "succeeded", "failed", "cancelled", "unknown",
    "requires_review",
]  # fmt: skip


class EnrolIn(msgspec.Struct, forbid_unknown_fields=True):
    """`key` is the kiosk's own, made by it and kept by it; with the same one a repeat is answered again."""

    code: Annotated[str, Meta(min_length=1, max_length=200)]
    key: Annotated[str, Meta(min_length=32, max_length=128, pattern="^[A-Za-z0-9_-]+$")]


class EnrolOut(msgspec.Struct):
    account: str
    name: str


class WorkIn(msgspec.Struct, forbid_unknown_fields=True):
    """Answered at once where it would differ from what `mark` stood for, else after `wait_s`.

    `doubts`: payments whose end the kiosk does not know, so that it learns what was decided here."""

    mark: Annotated[str, Meta(max_length=64)] = ""
    wait_s: Annotated[int, Meta(ge=0, le=LONGEST_WAIT_S)] = 0
    doubts: Annotated[list[TxnId], Meta(max_length=MOST_ORDERS)] = []


class KioskOrder(msgspec.Struct):
    """To collect. `txn_id` is set where it was taken and nothing has been reported of it."""

    attempt: str
    order_id: str
    channel: str
    amount_minor: int
    currency: str
    terminal: str | None
    txn_id: str | None
    expires_at: int


class Wish(msgspec.Struct):
    """What somebody wants done with a payment that the kiosk has."""

    txn_id: str
    kind: Literal["cancel", "plan", "settle"]
    plan_id: str | None = None
    outcome: Literal["paid", "unpaid"] | None = None
    reason: str | None = None


class WorkOut(msgspec.Struct):
    mark: str
    orders: list[KioskOrder]
    wishes: list[Wish]


class TakeIn(msgspec.Struct, forbid_unknown_fields=True):
    attempt: AttemptId
    txn_id: TxnId


class TakeOut(msgspec.Struct):
    """`yours`: nobody else will be given it. `go`: a terminal may still be asked for it now."""

    yours: bool
    go: bool
    why: str = ""


class Report(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A payment as the kiosk keeps it. `paid_minor`: what the terminal says it charged, where it says so."""

    txn_id: TxnId
    version: _Number
    attempt: AttemptId | None = None
    mode: Annotated[str, Meta(max_length=32)]
    amount_minor: Annotated[int, Meta(ge=1, le=MAX_MINOR)]
    currency: Annotated[str, Meta(min_length=3, max_length=3)] = "MYR"
    terminal: Annotated[str, Meta(max_length=80)]
    state: KioskState
    at: _Number
    created_at: _Number
    reference: Annotated[str, Meta(max_length=255)] | None = None
    paid_minor: Annotated[int, Meta(ge=0, le=MAX_MINOR)] = 0
    transaction_id: _Text | None = None
    authorization_code: _Text | None = None
    card_last4: Annotated[str, Meta(max_length=4)] | None = None
    plans: Annotated[str, Meta(max_length=65536)] | None = None
    plan_id: _Text | None = None
    reason: _Text | None = None
    settled_because: _Text | None = None


class ReportsIn(msgspec.Struct, forbid_unknown_fields=True):
    reports: Annotated[list[Report], Meta(max_length=MOST_REPORTS)]


class ReportOut(msgspec.Struct):
    """`foreign`: the hub gave this payment to somebody else; it is not booked and an operator has to look."""

    txn_id: str
    version: int
    verdict: Literal["applied", "repeated", "foreign"]
    payment: str | None = None


class ReportsOut(msgspec.Struct):
    results: list[ReportOut]


# --- what the hub keeps of it -------------------------------------------------------------------------------


class Decision(msgspec.Struct, omit_defaults=True):
    """An operator's word at the hub, for the kiosk to follow."""

    paid: bool
    reason: str
    by: str


class Held(msgspec.Struct, omit_defaults=True, tag_field="held_by", tag="kiosk"):
    """What is kept with a kiosk's attempt, as `Attempt.details`. `at`: when it was last heard of."""

    at: int = 0
    report: Report | None = None
    wish: Wish | None = None
    decision: Decision | None = None


_held: Final = msgspec.json.Decoder(Held).decode


def kept_of(details: str | None) -> Held | None:
    """None for an attempt that no kiosk has: a missing tag is none of its errors for the decoder."""
    if details is None or '"held_by":"kiosk"' not in details:
        return None
    try:
        return _held(details)
    except msgspec.ValidationError:
        return None
