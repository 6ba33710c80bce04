"""A client for `/v1`: typed answers, tokens that renew themselves, requests that are safe to repeat.

    from tillgate.client import Tillgate

    async with Tillgate("https://till.example", api_key, api_secret) as till:
        payment = await till.create_payment(
            order_id="ORDER-1001", amount_minor=15_000_000, currency="IDR", channel="gopay"
        )
        print(payment.next_action.url)

Every POST carries an `Idempotency-Key`, so what may have been lost on the way is repeated without harm. What
the hub refuses is an `ApiError`. A webhook's raw body is verified with `verify_event`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import time

import msgspec

from tillgate.client.errors import (
    ApiError,
    BadRequest,
    ClientError,
    Conflict,
    HubUnavailable,
    NoAnswer,
    NotFound,
    ProviderFailed,
    RateLimited,
    Unauthorized,
)
from tillgate.client.till import Tillgate
from tillgate.schemas_v1 import EventV1
from tillgate.webhooks import WebhookVerificationError, verify

__all__ = [
    "ApiError",
    "BadRequest",
    "ClientError",
    "Conflict",
    "HubUnavailable",
    "NoAnswer",
    "NotFound",
    "ProviderFailed",
    "RateLimited",
    "Tillgate",
    "Unauthorized",
    "WebhookVerificationError",
    "verify",
    "verify_event",
]


def verify_event(
    secrets: Sequence[str], headers: Mapping[str, str], body: bytes, *, now_s: float | None = None
) -> EventV1:
    """The event in a webhook's raw `body`, once its signature and its time are right.

    `secrets` are the endpoint's `whsec_…`, two while one is replaced. Raises `WebhookVerificationError`.
    Remember `webhook-id`: the same event may come again. What a payment's `callback_url` is sent is in the
    merchant document's words: check it with `verify` and the merchant's callback secret."""
    verify(secrets, headers, body, now_s=time() if now_s is None else now_s)
    try:
        return msgspec.json.decode(body, type=EventV1)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WebhookVerificationError("signed, but not an event of /v1") from None
