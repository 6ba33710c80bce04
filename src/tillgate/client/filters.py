"""What lists can be asked for. A time is RFC 3339 or a datetime with a zone; `limit` is a page's size."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias, TypedDict

from tillgate.domain.payment import Status

When: TypeAlias = datetime | str


class Created(TypedDict, total=False):
    created_after: When
    created_before: When
    limit: int


class Payments(Created, total=False):
    order_id: str
    status: Status
    channel: str


class Events(Created, total=False):
    """`subject`: id of a payment, a standing order or a webhook endpoint."""

    type: str
    subject: str


class Deliveries(TypedDict, total=False):
    status: Literal["pending", "delivered", "failed"]
    endpoint: str
    event: str
    limit: int


class Inbound(Created, total=False):
    account: str
    payment: str
    verdict: str


class Export(TypedDict, total=False):
    """`tz`: the zone of times in the file, and of dates given here."""

    status: Status
    created_after: When
    created_before: When
    tz: str
