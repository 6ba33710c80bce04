"""The merchant API document's dialect, exactly: paths without a prefix, its bodies, its error words."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tillgate import schemas
from tillgate.domain.errors import (
    Fault,
    InvalidCredentials,
    InvalidRequest,
    NoProvider,
    NotFound,
    TillgateError,
    Unavailable,
)
from tillgate.domain.money import UNITS
from tillgate.domain.payment import Attempt, Payment
from tillgate.http.operation import Answer, Call, Operation
from tillgate.hub import Intent
from tillgate.ssrf import check_url

_REPLAYED: Final = ((b"idempotent-replayed", b"true"),)
_ID_CHARS: Final = 64
_PHONE_CHARS: Final = 32


class DocumentDialect:
    """`{"status":"failed","errorCode":"404","errorType":"not_found","errorMessage":"Payment not found"}`.

    A token's error has no `status` in any version of the document."""

    model: type[Any] = schemas.ErrorOut
    content_type = "application/json"

    def __init__(self, *, legacy_error_code_200: bool) -> None:
        self._legacy = legacy_error_code_200

    def error(
        self, error: TillgateError, request_id: str, operation: Operation | None = None
    ) -> tuple[int, bytes, str]:
        status, kind, message = error.status, error.code, str(error)
        name = operation.name if operation else ""
        if isinstance(error, Unavailable | NoProvider):
            status, kind = 503, "service_unavailable"
            if name == "list_wallets":
                message = "Unable to retrieve wallet list at the moment. Please try again later."
        elif isinstance(error, Fault):
            status, kind, message = 500, "server_error", Fault.__doc__ or ""
        code = "200" if self._legacy and isinstance(error, InvalidCredentials) else str(status)
        out = schemas.ErrorOut(
            errorCode=code,
            errorType=kind,
            errorMessage=message,
            status=None if name == "create_token" else "failed",
            param=getattr(error, "param", None),
            request_id=request_id,
        )
        return status, msgspec.json.encode(out), "application/json"


async def create_token(call: Call) -> Answer:
    wanted: schemas.TokenIn = call.body
    runtime = call.runtime
    found, credential_id = await runtime.directory.authenticate(
        wanted.api_key, wanted.api_secret, runtime.kit.clock()
    )
    tokens = call.web.tokens
    out = schemas.TokenOut(tokens.issue(found.id, credential_id), tokens.ttl_s)
    return Answer(msgspec.json.encode(out))


async def list_wallets(call: Call) -> Answer:
    wallets = [
        schemas.Wallet(one.id, one.name, one.currency) for one in call.runtime.kit.channels(call.merchant)
    ]
    return Answer(msgspec.json.encode(schemas.WalletsOut(data=schemas.WalletList(wallets))))


async def create_payment(call: Call) -> Answer:
    wanted: schemas.PaymentIn = call.body
    runtime, merchant = call.runtime, call.merchant
    _checked(wanted, call)
    intent = Intent(
        order_id=wanted.order_id,
        amount_minor=wanted.amount * UNITS[wanted.currency],
        currency=wanted.currency,
        channel=wanted.wallet_id,
        callback_url=wanted.callback_url,
        metadata=_metadata(wanted),
    )
    url = runtime.settings.url

    def render(payment: Payment, attempt: Attempt | None) -> bytes:
        return schemas.created(payment, attempt, url)

    opened = await runtime.hub.open(merchant, intent, call.key, render)
    if opened.stored is not None:
        return Answer(opened.stored[1], opened.stored[0], _REPLAYED)
    body = render(opened.payment, opened.attempt)
    return Answer(body, 200, _REPLAYED if opened.replayed else ())


def _checked(wanted: schemas.PaymentIn, call: Call) -> None:
    if not 1 <= len(wanted.order_id) <= 255 or not readable(wanted.order_id):
        raise InvalidRequest("order_id is 1 to 255 printable characters", param="order_id")
    if len(wanted.wallet_id) > _ID_CHARS:
        raise InvalidRequest("Unknown wallet_id", param="wallet_id")
    if wanted.amount < 1:
        raise InvalidRequest("amount is a whole number of at least 1", param="amount")
    if wanted.amount > 10**12:
        raise InvalidRequest("amount is too large", param="amount")
    if wanted.currency not in UNITS:
        raise InvalidRequest("currency must be IDR", param="currency")
    if wanted.callback_url is not None:
        check_url(wanted.callback_url, call.runtime.allow)
    phone = wanted.customer_phone
    if phone is not None and (len(phone) > _PHONE_CHARS or not phone.isprintable()):
        raise InvalidRequest("customer_phone is at most 32 printable characters", param="customer_phone")


def _metadata(wanted: schemas.PaymentIn) -> str | None:
    """What a rail may need beside the document's fields, where the other API's clients put it."""
    if not wanted.customer_phone:
        return None
    return msgspec.json.encode({"customer_phone": wanted.customer_phone}).decode()


def readable(text: str) -> bool:
    """Whether a person can see it: no control characters, and not only blanks."""
    return text.isprintable() and not text.isspace()


async def get_payment(call: Call) -> Answer:
    payment = await owned(call)
    if payment.status == "pending":
        await call.runtime.hub.polled(call.merchant, payment)
    return Answer(schemas.status(payment))


async def create_refund(call: Call) -> Answer:
    wanted: schemas.RefundIn = call.body
    payment = await owned(call)
    if wanted.amount < 1 or wanted.amount > 10**12:
        raise InvalidRequest("amount is a whole number of at least 1", param="amount")
    if not 1 <= len(wanted.reason) <= 500 or not readable(wanted.reason):
        raise InvalidRequest("reason is 1 to 500 printable characters", param="reason")
    amount_minor = wanted.amount * UNITS[payment.currency]
    opened = await call.runtime.hub.refund(
        call.merchant, payment.id, amount_minor, wanted.reason, call.key, schemas.refunding
    )
    if opened.stored is not None:
        return Answer(opened.stored[1], opened.stored[0], _REPLAYED)
    assert opened.refund is not None
    return Answer(schemas.refunding(opened.payment, opened.refund))


async def list_refunds(call: Call) -> Answer:
    payment = await owned(call)
    rows = [schemas.refund_row(one) for one in await call.runtime.kit.reads.refunds(payment.id)]
    return Answer(msgspec.json.encode(schemas.RefundList(payment.id, rows)))


async def owned(call: Call) -> Payment:
    """The payment that the path names; another merchant's is not found either."""
    payment_id = call.params["payment_id"]
    known = len(payment_id) <= _ID_CHARS and payment_id.isascii() and "\0" not in payment_id
    payment = await call.runtime.kit.reads.payment(payment_id) if known else None
    if payment is None or payment.merchant_id != call.merchant.id:
        raise NotFound("Payment not found")
    return payment


def operations(dialect: DocumentDialect) -> list[Operation]:
    """Both spellings of every path: the document has `/payment` and `/payments`, and two for the token."""
    common: dict[str, Any] = {"dialect": dialect, "tag": "Merchant API"}
    return [
        Operation(
            "POST", ("/token", "/auth/token"), "create_token", "Exchange an API key and secret for a token",
            handler=create_token, body=schemas.TokenIn, replies={200: schemas.TokenOut}, auth=False,
            errors=(400, 401, 413, 415, 429, 503), **common,
        ),
        Operation(
            "GET", ("/wallets",), "list_wallets", "List the wallets that payers can choose",
            handler=list_wallets, replies={200: schemas.WalletsOut},
            errors=(400, 401, 413, 429, 503), **common,
        ),
        Operation(
            "POST", ("/payments", "/payment"), "create_payment", "Open a payment",
            handler=create_payment, body=schemas.PaymentIn, replies={200: schemas.PaymentCreated},
            errors=(400, 401, 409, 413, 415, 422, 429, 503), idempotent=True, **common,
        ),
        Operation(
            "GET", ("/payments/{payment_id}", "/payment/{payment_id}"), "get_payment", "How a payment stands",
            handler=get_payment, replies={200: schemas.PaymentStatus},
            errors=(400, 401, 404, 413, 429, 503), **common,
        ),
        Operation(
            "POST", ("/payments/{payment_id}/refund", "/payment/{payment_id}/refund"), "create_refund",
            "Send money back", handler=create_refund, body=schemas.RefundIn, replies={200: schemas.RefundOut},
            errors=(400, 401, 404, 409, 413, 415, 422, 429, 503), idempotent=True, **common,
        ),
        Operation(
            "GET", ("/payments/{payment_id}/refunds", "/payment/{payment_id}/refunds"), "list_refunds",
            "How the refunds of a payment stand", handler=list_refunds, replies={200: schemas.RefundList},
            errors=(400, 401, 404, 413, 429, 503), **common,
        ),
    ]  # fmt: skip
