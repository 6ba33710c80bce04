"""The control API's JSON, as msgspec structs, and the OpenAPI document made from them."""

import hashlib
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from tillgate.providers.mobypay import money, strictjson
from tillgate.providers.mobypay.errors import BadAmount, BadRequest
from tillgate.providers.mobypay.journal import Change, OpenAlert
from tillgate.providers.mobypay.lifecycle import Payment, State
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.terminals import Terminal

MAX_BODY: Final = 64 * 1024


class PaymentIn(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A payment to take. `amount` is in ringgit, as text or number, with at most two decimals."""

    mode: PaymentMode
    amount: msgspec.Raw
    terminal: str | None = None
    reference: str | None = None


class PlanIn(msgspec.Struct, forbid_unknown_fields=True):
    """The plan that the payer chose, one of those offered."""

    plan_id: str


class SettleIn(msgspec.Struct, forbid_unknown_fields=True):
    """What a person found out about a payment that is unknown or requires review."""

    outcome: Literal["paid", "unpaid"]
    reason: str


class TerminalIn(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A terminal to enrol, with a secret of its own; `replace` gives a known one a new secret."""

    pos_id: str
    secret: str
    port: int | None = None
    amount_form: Literal["decimal", "integer"] = "decimal"
    replace: bool = False


class ResultOut(msgspec.Struct, kw_only=True):
    """What the terminal said, as it said it."""

    status: str
    amount: str | None = None
    transaction_id: str | None = None
    authorization_code: str | None = None
    card_last4: str | None = None


class StepOut(msgspec.Struct, kw_only=True):
    """One thing that happened to a payment, and its state afterwards."""

    at: str
    fact: str
    state: str


class PaymentOut(msgspec.Struct, kw_only=True):
    """A payment. `plans` is what the terminal offered, unchanged; `history` is in single answers only."""

    txn_id: str
    state: State
    version: int
    mode: PaymentMode
    amount: str
    amount_sen: int
    currency: Literal["MYR"] = "MYR"
    terminal: str
    reference: str | None
    created_at: str
    updated_at: str
    reason: str | None
    error_message: str | None
    plans: msgspec.Raw
    plan_id: str | None
    result: ResultOut | None
    settled_because: str | None
    history: list[StepOut] | None = None


class PaymentPage(msgspec.Struct, kw_only=True):
    """Payments, newest first; `next` goes into `before` for the page after."""

    payments: list[PaymentOut]
    next: int | None


class TerminalOut(msgspec.Struct, kw_only=True):
    """A terminal. `identified` means that it has proven who it is on this connection; `skew_ms` is
    its clock minus ours.
    """

    pos_id: str
    connected: bool
    identified: bool
    address: str | None
    port: int | None
    busy_with: str | None
    skew_ms: int | None
    last_heard_at: str | None


class TerminalList(msgspec.Struct, kw_only=True):
    """Every terminal that is enrolled or connected."""

    terminals: list[TerminalOut]


class AlertOut(msgspec.Struct, kw_only=True):
    """Something a person has to look at."""

    number: int
    at: str
    kind: str
    text: str
    txn_id: str | None
    terminal: str | None


class AlertList(msgspec.Struct, kw_only=True):
    """Open alerts, newest first."""

    alerts: list[AlertOut]


class EventOut(msgspec.Struct, kw_only=True):
    """One entry of the feed: the payment as it was after `fact`."""

    number: int
    at: str
    fact: str
    payment: PaymentOut


class EventPage(msgspec.Struct, kw_only=True):
    """The feed, oldest first; `next` goes into `after`. Every change appears exactly once, under one
    number for ever.
    """

    events: list[EventOut]
    next: int


class StatusOut(msgspec.Struct, kw_only=True):
    """The kiosk at a glance."""

    kiosk_id: str
    port: int | None
    connections: int
    in_flight: list[str]
    unsettled: list[str]
    refused_frames: dict[str, int]


class Problem(msgspec.Struct, kw_only=True):
    """An error, after RFC 9457; `code` is stable."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


def read_body(raw: bytes, shape: type[Any]) -> Any:
    """A request body. Raises BadRequest, also for members named twice."""
    try:
        strictjson.parse(raw)
        return msgspec.json.decode(raw, type=shape)
    except (ValueError, RecursionError) as error:
        raise BadRequest(str(error)) from error


def digest(raw: bytes) -> bytes:
    """What makes two request bodies the same request: their content, not their spacing."""
    text = strictjson.render(strictjson.parse(raw), ascii_only=True, numbers="lexeme")
    return hashlib.sha256(text.encode()).digest()


def amount_sen(raw: msgspec.Raw) -> int:
    """Sen in an amount given as JSON text or number. Raises BadAmount."""
    value = strictjson.parse(bytes(raw))
    if not isinstance(value, str):
        raise BadAmount("amount is a text or a number, in ringgit")
    return money.parse_ringgit(value)


def payment_out(payment: Payment, history: list[tuple[int, str, str]] | None = None) -> PaymentOut:
    """A payment for a client."""
    result = None
    if payment.told_status is not None:
        result = ResultOut(
            status=payment.told_status,
            amount=payment.told_amount,
            transaction_id=payment.transaction_id,
            authorization_code=payment.authorization_code,
            card_last4=payment.card_last4,
        )
    return PaymentOut(
        txn_id=payment.txn_id,
        state=payment.state,
        version=payment.version,
        mode=payment.mode,
        amount=money.ringgit(payment.amount_sen),
        amount_sen=payment.amount_sen,
        terminal=payment.terminal,
        reference=payment.reference,
        created_at=rfc3339(payment.created_ms),
        updated_at=rfc3339(payment.updated_ms),
        reason=payment.reason,
        error_message=payment.error_message,
        plans=msgspec.Raw((payment.plans or "null").encode()),
        plan_id=payment.plan_id,
        result=result,
        settled_because=payment.settled_because,
        history=[StepOut(at=rfc3339(at), fact=fact, state=state) for at, fact, state in history]
        if history
        else None,
    )


def terminal_out(terminal: Terminal) -> TerminalOut:
    """A terminal for a client, without its secret."""
    connection = terminal.connection if terminal.connected else None
    return TerminalOut(
        pos_id=terminal.pos_id,
        connected=connection is not None,
        identified=connection is not None and connection.identified,
        address=connection.address if connection else None,
        port=terminal.port,
        busy_with=terminal.in_flight,
        skew_ms=terminal.skew_ms,
        last_heard_at=rfc3339(terminal.heard_ms) if terminal.heard_ms else None,
    )


def alert_out(alert: OpenAlert) -> AlertOut:
    """An alert for a client."""
    return AlertOut(
        number=alert.number,
        at=rfc3339(alert.at_ms),
        kind=alert.kind,
        text=alert.text,
        txn_id=alert.txn_id,
        terminal=alert.terminal,
    )


def event_out(change: Change) -> EventOut:
    """An entry of the feed for a client."""
    return EventOut(
        number=change.number, at=rfc3339(change.at_ms), fact=change.fact, payment=payment_out(change.payment)
    )


def rfc3339(at_ms: int) -> str:
    """UTC with milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
