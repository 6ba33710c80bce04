"""What `/v1` is sent, and its lists. Unknown fields are refused: a misspelt one would be lost in silence."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tillgate.domain.money import MAX_MINOR
from tillgate.schemas_v1 import (
    AttemptV1,
    EventV1,
    Minor,
    PaymentV1,
    RefundV1,
    StandingOrderV1,
    Time,
)

OrderId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255, description="Yours; unique.")]
Amount: TypeAlias = Annotated[
    int, Meta(ge=1, le=MAX_MINOR // 100, description="Minor units: 15000 is 150.00 in a currency with cents.")
]
Currency: TypeAlias = Annotated[str, Meta(min_length=3, max_length=3, description="ISO 4217.")]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=80)]
Url: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2048, extra_json_schema={"format": "uri"})]
Cursor: TypeAlias = Annotated[str | None, Meta(description="Give it as `cursor`; null: there is no more.")]
OverlapS: TypeAlias = Annotated[
    int, Meta(ge=0, le=30 * 86_400, description="Seconds for which the secret before goes on.")
]
ConfigIn: TypeAlias = Annotated[
    dict[str, Any], Meta(description="The provider's settings, as GET /v1/providers lists them.")
]


class PaymentCreate(msgspec.Struct, forbid_unknown_fields=True):
    order_id: OrderId
    amount_minor: Amount
    currency: Currency
    channel: Name
    account: Name | None = None
    terminal: Name | None = None
    callback_url: Url | None = None
    metadata: dict[str, Any] | None = None
    expires_in_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] | None = None


class CancelIn(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=300)] = "cancelled by the merchant"


class ResolveIn(msgspec.Struct, forbid_unknown_fields=True):
    """accept: fulfil what is held for review · paid, failed: how an unsure payment ended."""

    outcome: Literal["accept", "paid", "failed"]
    reason: Annotated[str, Meta(min_length=1, max_length=300)]
    by: Annotated[str, Meta(max_length=100, description="Who decides; the event names them.")] | None = None


class RefundCreate(msgspec.Struct, forbid_unknown_fields=True):
    amount_minor: Amount
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class StandingOrderCreate(msgspec.Struct, forbid_unknown_fields=True):
    order_id: OrderId
    currency: Currency
    channel: Name
    account: Name | None = None
    min_minor: Amount | None = None
    max_minor: Amount | None = None
    callback_url: Url | None = None
    metadata: dict[str, Any] | None = None


EventTypes: TypeAlias = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]],
    Meta(max_length=50, description="Types, or patterns such as `payment.*`; empty: all."),
]
Description: TypeAlias = Annotated[str, Meta(max_length=200)]


class EndpointCreate(msgspec.Struct, forbid_unknown_fields=True):
    url: Url
    event_types: EventTypes = []
    description: Description | None = None


class EndpointUpdate(msgspec.Struct, forbid_unknown_fields=True):
    url: Url | UnsetType = UNSET
    event_types: EventTypes | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class RotateIn(msgspec.Struct, forbid_unknown_fields=True):
    overlap_s: OverlapS = 86_400


class ReplayIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which events go on their way to this endpoint again, in order."""

    since: Time | None = None
    until: Time | None = None
    after_number: Annotated[int, Meta(ge=0, le=2**53)] = 0
    what: Literal["undelivered", "everything"] = "undelivered"


class ReplayOut(msgspec.Struct):
    """`next_number`: repeat with it as `after_number`; null: done."""

    replayed: int
    events_seen: int
    next_number: int | None


class EndpointV1(msgspec.Struct):
    id: str
    url: str
    event_types: list[str]
    description: str | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    disabled_at: Time | None
    failing_since: Time | None
    signing_secrets: int  # how many sign now
    created_at: Time


class EndpointSecret(EndpointV1):
    """Shown once: verify `webhook-signature` with it."""

    secret: str = ""


class DeliveryTry(msgspec.Struct):
    number: int
    at: Time
    took_ms: int
    status: int | None
    answer: str | None
    error: str | None


class DeliveryV1(msgspec.Struct):
    """`endpoint` is null where it goes to the payment's own callback_url."""

    id: str
    event_number: int
    endpoint: str | None
    url: str
    status: Literal["pending", "delivered", "failed"]
    tries: int
    next_at: Time | None
    done_at: Time | None
    last_status: int | None
    last_error: str | None
    created_at: Time


class DeliveryDetail(DeliveryV1):
    """With its event and every try."""

    event: EventV1 | None = None
    log: list[DeliveryTry] = []


class AccountCreate(msgspec.Struct, forbid_unknown_fields=True):
    provider: Name
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    config: ConfigIn
    priority: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class AccountRotate(msgspec.Struct, forbid_unknown_fields=True):
    config: ConfigIn


class AccountV1(msgspec.Struct):
    """Secrets are never shown: `secrets` names those that are set."""

    id: str
    name: str
    provider: str
    status: Literal["enabled", "disabled"]
    default: bool
    priority: int
    channels: list[str]
    config: dict[str, Any]
    secrets: list[str]
    inbound_url: str
    created_at: Time


class ConfigField(msgspec.Struct):
    name: str
    type: str
    required: bool
    secret: bool
    default: Any


class ChannelV1(msgspec.Struct):
    id: str
    name: str
    currency: str
    min_minor: Minor
    max_minor: Minor


class ProviderV1(msgspec.Struct):
    """`asks`: the provider calls us for each payment; only such channels take standing orders."""

    name: str
    title: str
    asks: bool
    channels: list[ChannelV1]
    config: list[ConfigField]
    paths: dict[str, str]


AccountNames: TypeAlias = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=20)
]
Preferences: TypeAlias = Annotated[dict[str, AccountNames], Meta(max_length=50)]
"""Which accounts serve a channel, in their order: the next where nothing was sent to the one before."""


class SettingsV1(msgspec.Struct):
    merchant: str
    name: str
    callback_url: str | None
    payment_ttl_s: int
    late_money: Literal["accept", "review"]
    callback_secrets: int  # how many sign now
    preferences: dict[str, tuple[str, ...]] = {}  # channel → names of accounts, the first first


class SettingsUpdate(msgspec.Struct, forbid_unknown_fields=True):
    callback_url: Url | UnsetType | None = UNSET
    payment_ttl_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] | UnsetType = UNSET
    late_money: Literal["accept", "review"] | UnsetType = UNSET
    preferences: Preferences | UnsetType = UNSET


class CallbackSecret(msgspec.Struct):
    """Shown once. The secret before signs beside it until then."""

    secret: str
    previous_until: Time | None


class BalanceV1(msgspec.Struct):
    account: str
    currency: str
    amount_minor: Minor


class PostingV1(msgspec.Struct):
    event: str
    event_number: int
    line: int
    subject: str
    kind: str
    source: str
    destination: str
    amount_minor: Minor
    currency: str
    at: Time


class InboundV1(msgspec.Struct):
    """A provider's message, what we made of it, and our answer; secrets and card numbers are struck out."""

    id: str
    account: str
    payment_id: str | None
    verdict: str
    received_at: Time
    method: str
    path: str
    reply_status: int | None


class InboundDetail(InboundV1):
    query: str = ""
    headers: dict[str, str] = {}
    body: str = ""
    reply: str | None = None


class PaymentList(msgspec.Struct):
    """Without `next_action`: ask for the payment."""

    data: list[PaymentV1]
    next_cursor: Cursor


class AttemptList(msgspec.Struct):
    data: list[AttemptV1]
    next_cursor: Cursor


class RefundListV1(msgspec.Struct):
    data: list[RefundV1]
    next_cursor: Cursor


class StandingOrderList(msgspec.Struct):
    data: list[StandingOrderV1]
    next_cursor: Cursor


class EventList(msgspec.Struct):
    data: list[EventV1]
    next_cursor: Cursor


class EndpointList(msgspec.Struct):
    data: list[EndpointV1]
    next_cursor: Cursor


class DeliveryList(msgspec.Struct):
    data: list[DeliveryV1]
    next_cursor: Cursor


class AccountList(msgspec.Struct):
    data: list[AccountV1]
    next_cursor: Cursor


class ProviderList(msgspec.Struct):
    data: list[ProviderV1]
    next_cursor: Cursor


class ChannelList(msgspec.Struct):
    data: list[ChannelV1]
    next_cursor: Cursor


class BalanceList(msgspec.Struct):
    data: list[BalanceV1]
    next_cursor: Cursor


class PostingList(msgspec.Struct):
    data: list[PostingV1]
    next_cursor: Cursor


class InboundList(msgspec.Struct):
    data: list[InboundV1]
    next_cursor: Cursor
