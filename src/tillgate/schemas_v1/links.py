"""Payment links as `/v1` takes and shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from tillgate.schemas_v1 import Minor, Time
from tillgate.schemas_v1.bodies import Amount, Currency, Cursor, Name, Url

LinkStatus: TypeAlias = Literal["open", "paid", "expired", "disabled"]


class PaymentLinkCreate(msgspec.Struct, forbid_unknown_fields=True):
    """Without `amount_minor` the payer says how much, within the bounds."""

    title: Annotated[str, Meta(min_length=1, max_length=120, description="What the payer reads.")]
    currency: Currency
    amount_minor: Amount | None = None
    min_minor: Amount | None = None
    max_minor: Amount | None = None
    reference: (
        Annotated[str, Meta(min_length=1, max_length=100, description="Yours; order ids begin with it.")]
        | None
    ) = None
    channels: Annotated[
        list[Name], Meta(max_length=20, description="What the payer may choose; empty: all.")
    ] = []
    once: Annotated[bool, Meta(description="One payment is enough.")] = False
    payment_expires_in_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] | None = None
    expires_at: Time | None = None
    callback_url: Url | None = None
    metadata: dict[str, Any] | None = None


class PaymentLinkV1(msgspec.Struct):
    """`status` `paid` is only said of one that takes one payment."""

    id: str
    reference: str
    status: LinkStatus
    title: str
    url: Annotated[str, Meta(description="The short address for payers.")]
    qr_url: Annotated[str, Meta(description="A picture of it; `.svg` for the other kind.")]
    currency: str
    amount_minor: Minor | None
    min_minor: Minor | None
    max_minor: Minor | None
    channels: list[str]
    once: bool
    payment_expires_in_s: int | None
    callback_url: str | None
    metadata: dict[str, Any]
    created_at: Time
    expires_at: Time | None
    disabled_at: Time | None


class PaymentLinkList(msgspec.Struct):
    data: list[PaymentLinkV1]
    next_cursor: Cursor
