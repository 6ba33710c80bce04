"""What `/v1` shows and webhook endpoints are sent: one set of models for both.

Amounts are whole numbers of minor units, times RFC 3339 in UTC. Fields are only ever added.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from tillgate import schemas
from tillgate.domain.payment import (
    Attempt,
    Hold,
    Payment,
    Phase,
    Refund,
    StandingOrder,
    Status,
)
from tillgate.schemas import rfc3339
from tillgate.schemas_kiosk import kept_of

encode: Final = msgspec.json.Encoder().encode

Time: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Minor: TypeAlias = Annotated[int, Meta(description="Minor units of the currency.")]
RefundStatus: TypeAlias = Literal["pending", "unsure", "succeeded", "failed"]


class TerminalAction(msgspec.Struct):
    """Where a payment at a card terminal stands; `waiting`: no kiosk has taken it yet."""

    state: str
    name: str | None
    plans: list[dict[str, Any]] | None  # as the terminal sent them, while one has to be chosen


class NextAction(msgspec.Struct):
    """What the payer is shown. `qr_url` draws the QR to an `<img>` and is a page to a browser."""

    type: str  # qr | redirect | app | account | terminal | wait
    qr_string: str | None
    qr_url: str | None
    url: str | None
    account: dict[str, str] | None
    terminal: TerminalAction | None = None


class PaymentV1(msgspec.Struct):
    """`next_action` is there while the payer can do something; events do not carry it."""

    id: str
    order_id: str
    status: Status
    amount_minor: Minor
    currency: str
    channel: str
    paid_minor: Minor
    tip_minor: Minor
    fee_minor: Minor
    refunding_minor: Minor
    refunded_minor: Minor
    reversed_minor: Minor
    hold: Hold | None
    late: bool
    paid_with: str | None
    account: str
    standing_order: str | None
    callback_url: str | None
    metadata: dict[str, Any]
    created_at: Time
    expires_at: Time
    paid_at: Time | None
    next_action: NextAction | None = None
    payment_link: str | None = None


class TerminalReceipt(msgspec.Struct):
    """What the terminal said; `transaction_id` is what a refund there asks for."""

    name: str
    state: str
    transaction_id: str | None
    authorization_code: str | None
    card_last4: str | None
    plan_id: str | None
    settled_because: str | None


class AttemptV1(msgspec.Struct):
    id: str
    payment_id: str
    provider: str
    account: str
    channel: str
    status: Phase
    reason: str | None
    external_id: str | None
    amount_minor: Minor
    currency: str
    paid_minor: Minor
    tip_minor: Minor
    fee_minor: Minor
    refunded_minor: Minor
    reversed_minor: Minor
    created_at: Time
    expires_at: Time | None
    paid_at: Time | None
    closed_at: Time | None
    terminal: TerminalReceipt | None = None
    details: dict[str, Any] = {}  # what its provider says of it beside the money


class RefundV1(msgspec.Struct):
    id: str
    payment_id: str
    status: RefundStatus
    amount_minor: Minor
    currency: str
    reason: str
    failure: str | None
    created_at: Time
    done_at: Time | None


class StandingOrderV1(msgspec.Struct):
    id: str
    order_id: str
    status: Literal["open", "closed"]
    currency: str
    channel: str
    account: str
    min_minor: Minor
    max_minor: Minor
    callback_url: str | None
    metadata: dict[str, Any]
    created_at: Time
    closed_at: Time | None
    next_action: NextAction | None = None


class EndpointSummary(msgspec.Struct):
    """An endpoint as events tell of it."""

    id: str
    url: str
    event_types: list[str]
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None


class EventData(msgspec.Struct, omit_defaults=True):
    """What the event is about, as it stood afterwards."""

    payment: PaymentV1 | None = None
    attempt: AttemptV1 | None = None
    refund: RefundV1 | None = None
    standing_order: StandingOrderV1 | None = None
    endpoint: EndpointSummary | None = None
    note: dict[str, Any] | None = None


class EventV1(msgspec.Struct):
    """`number` counts a merchant's events from 1 without a gap; `id` is the `webhook-id` it is sent with."""

    id: str
    number: int
    type: str
    timestamp: Time
    data: EventData


def payment(one: Payment, next_action: NextAction | None = None) -> PaymentV1:
    return PaymentV1(
        id=one.id,
        order_id=one.order_id,
        status=one.status,
        amount_minor=one.amount_minor,
        currency=one.currency,
        channel=one.channel,
        paid_minor=one.paid_minor,
        tip_minor=one.tip_minor,
        fee_minor=one.fee_minor,
        refunding_minor=one.refunding_minor,
        refunded_minor=one.refunded_minor,
        reversed_minor=one.reversed_minor,
        hold=one.hold,
        late=one.late,
        paid_with=one.paid_with,
        account=one.account_id,
        standing_order=None if one.of_link else one.standing_id,
        callback_url=one.callback_url,
        metadata=_metadata(one.metadata),
        created_at=at(one.created_at),
        expires_at=at(one.expires_at),
        paid_at=rfc3339(one.paid_at),
        next_action=next_action,
        payment_link=one.standing_id if one.of_link else None,
    )


def attempt(one: Attempt) -> AttemptV1:
    return AttemptV1(
        id=one.id,
        payment_id=one.payment_id,
        provider=one.provider,
        account=one.account_id,
        channel=one.channel,
        status=one.phase,
        reason=one.reason,
        external_id=one.external_id,
        amount_minor=one.amount_minor,
        currency=one.currency,
        paid_minor=one.paid_minor,
        tip_minor=one.tip_minor,
        fee_minor=one.fee_minor,
        refunded_minor=one.refunded_minor,
        reversed_minor=one.reversed_minor,
        created_at=at(one.created_at),
        expires_at=rfc3339(one.expires_at),
        paid_at=rfc3339(one.paid_at),
        closed_at=rfc3339(one.closed_at),
        terminal=_receipt(one.details),
        details=_metadata(one.details),
    )


def _receipt(details: str | None) -> TerminalReceipt | None:
    kept = kept_of(details)
    said = kept.report if kept else None
    if said is None:
        return None
    return TerminalReceipt(
        said.terminal,
        said.state,
        said.transaction_id,
        said.authorization_code,
        said.card_last4,
        said.plan_id,
        said.settled_because,
    )


def terminal_action(details: str | None) -> TerminalAction:
    kept = kept_of(details)
    said = kept.report if kept else None
    if said is None:
        return TerminalAction("waiting" if kept is None else "pending", None, None)
    plans = msgspec.json.decode(said.plans) if said.plans and said.state == "awaiting_plan" else None
    return TerminalAction(said.state, said.terminal, plans if isinstance(plans, list) else None)


def refund(one: Refund) -> RefundV1:
    return RefundV1(
        id=one.id,
        payment_id=one.payment_id,
        status="pending" if one.phase == "created" else one.phase,
        amount_minor=one.amount_minor,
        currency=one.currency,
        reason=one.reason,
        failure=one.failure,
        created_at=at(one.created_at),
        done_at=rfc3339(one.done_at),
    )


def standing_order(one: StandingOrder, next_action: NextAction | None = None) -> StandingOrderV1:
    return StandingOrderV1(
        id=one.id,
        order_id=one.order_id,
        status="open" if one.closed_at is None else "closed",
        currency=one.currency,
        channel=one.channel,
        account=one.account_id,
        min_minor=one.min_minor,
        max_minor=one.max_minor,
        callback_url=one.callback_url,
        metadata=_metadata(one.metadata),
        created_at=at(one.created_at),
        closed_at=rfc3339(one.closed_at),
        next_action=next_action,
    )


class _Body(schemas.EventBody):
    endpoint: EndpointSummary | None = None


_body: Final = msgspec.json.Decoder(_Body).decode


def event(event_id: str, number: int, kind: str, occurred_at: int, body: bytes) -> EventV1:
    """An event from what its row keeps."""
    kept = _body(body)
    data = EventData(
        payment=payment(kept.payment) if kept.payment else None,
        attempt=attempt(kept.attempt) if kept.attempt else None,
        refund=refund(kept.refund) if kept.refund else None,
        standing_order=standing_order(kept.standing_order) if kept.standing_order else None,
        endpoint=kept.endpoint,
        note=kept.note,
    )
    return EventV1(event_id, number, kind, at(occurred_at), data)


def at(ms: int) -> str:
    return rfc3339(ms) or ""


def _metadata(text: str | None) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.Raw((text or "{}").encode()))  # it goes out as it came in
