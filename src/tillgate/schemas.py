"""The JSON of the merchant API document (`wallet_id`, whole rupiah, `success`), and what an event keeps.

Replies and callbacks are the same models. What the document does not name is additive. `/v1` speaks through
`schemas_v1`, over the same rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt, Payment, Refund, StandingOrder

_encode: Final = msgspec.json.Encoder().encode

STATUS_WORDS: Final = {
    "pending": "pending", "unsure": "pending", "review": "pending", "paid": "success",
    "failed": "failed", "expired": "failed", "cancelled": "failed",
}  # fmt: skip
"""Our status in the document's three words: a documented client polls until it is no longer `pending`."""

TYPE_WORDS: Final = {
    "payment.paid": "payment.success",
    "refund.succeeded": "refund.success",
}
"""Event types in the document's words; the others are the same."""

REFUND_WORDS: Final = {
    "created": "processing", "pending": "processing", "unsure": "processing",
    "succeeded": "success", "failed": "failed",
}  # fmt: skip


def rfc3339(at: int | None) -> str | None:
    """Epoch ms as `2026-11-21T09:45:00Z`, with milliseconds only where there are some."""
    if at is None:
        return None
    at_s, ms = divmod(at, 1000)
    return f"{_second(at_s)}.{ms:03d}Z" if ms else f"{_second(at_s)}Z"


@lru_cache(1024)  # many payments end in the same second
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().removesuffix("+00:00")


def number(amount_minor: int, currency: str) -> msgspec.Raw:
    """An exact JSON number of whole units: `150000`; `150000.50` where there is a fraction."""
    text = Money(amount_minor, currency).decimal()
    whole, _, fraction = text.partition(".")
    return msgspec.Raw((text if fraction.strip("0") else whole).encode())


def _described(**json_schema: Any) -> Meta:
    """What the OpenAPI document says of a field; the rule itself is where the field is checked."""
    return Meta(extra_json_schema=json_schema)


Time = Annotated[str, _described(format="date-time", examples=["2026-11-21T09:45:00Z"])]
Url = Annotated[str, _described(format="uri")]
StatusWord = Annotated[str, _described(enum=["pending", "success", "failed"])]
RefundWord = Annotated[str, _described(enum=["processing", "success", "failed"])]
WholeAmount = Annotated[
    int, _described(minimum=1, maximum=10**12, description="In whole units: 150000 is Rp150.000.")
]
CallbackType = Annotated[
    str,
    _described(
        enum=[
            "payment.success", "payment.failed", "payment.expired", "payment.cancelled",
            "refund.success", "refund.failed",
        ]
    ),
]  # fmt: skip
CurrencyCode = Annotated[str, _described(pattern="^[A-Z]{3}$", examples=["IDR"])]
StatusDetail = Annotated[
    str,
    _described(
        description="What is behind `status`.",
        enum=[
            "pending", "unsure", "review", "paid", "paid_late", "partially_refunded", "refunded", "reversed",
            "failed", "expired", "cancelled",
        ],
    ),
]  # fmt: skip


# --- the document's dialect ---------------------------------------------------------------------------------


class TokenIn(msgspec.Struct):
    api_key: str
    api_secret: str


class TokenOut(msgspec.Struct):
    access_token: str
    expires_in: int
    token_type: str = "Bearer"  # noqa: S105


class Wallet(msgspec.Struct):
    id: str
    name: str
    currency: str


class WalletList(msgspec.Struct):
    wallets: list[Wallet]


class WalletsOut(msgspec.Struct, kw_only=True):
    status: str = "success"
    message: str = "Wallet channels retrieved successfully"
    data: WalletList


class PaymentIn(msgspec.Struct):
    wallet_id: Annotated[str, _described(minLength=1, maxLength=64, examples=["gopay"])]
    amount: WholeAmount
    currency: CurrencyCode
    order_id: Annotated[str, _described(minLength=1, maxLength=255, examples=["ORD-1"])]
    callback_url: Annotated[str, _described(format="uri", maxLength=2048)] | None = None
    customer_phone: (
        Annotated[
            str,
            _described(
                maxLength=32,
                examples=["+6281234567890"],
                description="The payer's phone, where a wallet is collected by a push to it.",
            ),
        ]
        | None
    ) = None


class PaymentCreated(msgspec.Struct, omit_defaults=True):
    payment_id: str
    status: StatusWord
    qr_url: Url
    expires_at: Time
    qr_string: str | None = None
    status_detail: StatusDetail | None = None


class PaymentStatus(msgspec.Struct):
    payment_id: str
    order_id: str
    status: StatusWord
    amount: msgspec.Raw
    currency: CurrencyCode
    wallet_id: str
    paid_at: Time | None
    status_detail: StatusDetail
    refunded_amount: msgspec.Raw
    paid_with: str | None
    expires_at: Time | None


class RefundIn(msgspec.Struct):
    amount: WholeAmount
    reason: Annotated[str, _described(minLength=1, maxLength=500, examples=["returned goods"])]


class RefundOut(msgspec.Struct):
    refund_id: str
    payment_id: str
    status: RefundWord
    amount: msgspec.Raw


class RefundRow(msgspec.Struct):
    refund_id: str
    payment_id: str
    status: RefundWord
    amount: msgspec.Raw
    reason: str
    created_at: Time | None
    failure: str | None


class RefundList(msgspec.Struct):
    payment_id: str
    refunds: list[RefundRow]


class ErrorOut(msgspec.Struct, kw_only=True, omit_defaults=True):
    status: str | None = None  # "failed", except in a token's error
    errorCode: str  # noqa: N815
    errorType: str  # noqa: N815
    errorMessage: str  # noqa: N815
    param: str | None = None
    request_id: str | None = None


class Callback(msgspec.Struct):
    """What a `callback_url` is sent: the status body at the top, and what happened."""

    type: CallbackType
    timestamp: Time | None
    payment_id: str
    order_id: str
    status: StatusWord
    amount: msgspec.Raw
    currency: CurrencyCode
    wallet_id: str
    paid_at: Time | None
    status_detail: StatusDetail
    refunded_amount: msgspec.Raw
    paid_with: str | None
    expires_at: Time | None
    refund: RefundRow | None


def created(payment: Payment, attempt: Attempt | None, public_url: str) -> bytes:
    return _encode(
        PaymentCreated(
            payment_id=payment.id,
            status=STATUS_WORDS[payment.status],
            qr_url=f"{public_url}/pay/{payment.id}",
            expires_at=rfc3339(payment.expires_at) or "",
            qr_string=qr_string(attempt.show if attempt else None),
            status_detail="unsure" if payment.status == "unsure" else None,
        )
    )


class _QrOnly(msgspec.Struct):
    qr_string: str | None = None


_qr_only: Final = msgspec.json.Decoder(_QrOnly).decode


def qr_string(show: str | None) -> str | None:
    return _qr_only(show).qr_string if show else None


def status_fields(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": payment.id,
        "order_id": payment.order_id,
        "status": STATUS_WORDS[payment.status],
        "amount": number(payment.amount_minor, payment.currency),
        "currency": payment.currency,
        "wallet_id": payment.channel,
        "paid_at": rfc3339(payment.paid_at),
        "status_detail": status_detail(payment),
        "refunded_amount": number(payment.refunded_minor, payment.currency),
        "paid_with": payment.paid_with,
        "expires_at": rfc3339(payment.expires_at),
    }


def status_detail(payment: Payment) -> str:
    if payment.status != "paid":
        return "reversed" if payment.reversed_minor else payment.status
    if payment.refunded_minor:
        return "refunded" if payment.refunded_minor >= payment.paid_minor else "partially_refunded"
    return "paid_late" if payment.late else "paid"


def status(payment: Payment) -> bytes:
    return _encode(PaymentStatus(**status_fields(payment)))


def refund_row(refund: Refund) -> RefundRow:
    return RefundRow(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        status=REFUND_WORDS[refund.phase],
        amount=number(refund.amount_minor, refund.currency),
        reason=refund.reason,
        created_at=rfc3339(refund.created_at),
        failure=refund.failure,
    )


def refunding(_payment: Payment, refund: Refund) -> bytes:
    """The answer to a refund request: documented as `processing`, whatever comes of it later."""
    amount = number(refund.amount_minor, refund.currency)
    return _encode(RefundOut(refund.id, refund.payment_id, REFUND_WORDS["created"], amount))


# --- events -------------------------------------------------------------------------------------------------


class EventBody(msgspec.Struct):
    """What an event keeps: every row it changed, as it stood afterwards."""

    payment: Payment | None = None
    attempt: Attempt | None = None
    refund: Refund | None = None
    standing_order: StandingOrder | None = None
    note: dict[str, Any] | None = None


event_body: Final = msgspec.json.Decoder(EventBody).decode


def callback(kind: str, occurred_at: int, body: bytes) -> bytes:
    """An event in the document's dialect."""
    event = event_body(body)
    assert event.payment is not None
    return _encode(
        Callback(
            type=TYPE_WORDS.get(kind, kind),
            timestamp=rfc3339(occurred_at),
            refund=refund_row(event.refund) if event.refund else None,
            **status_fields(event.payment),
        )
    )
