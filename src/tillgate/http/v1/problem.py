"""Errors on `/v1`: RFC 9457 problems."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tillgate.domain import errors
from tillgate.domain.errors import Fault, TillgateError, Unavailable
from tillgate.http.operation import (
    MethodNotAllowed,
    Operation,
    TooLarge,
    UnsupportedMediaType,
)

CONTENT_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, omit_defaults=True):
    """`code` is for programs and does not change; `detail` is for people. `param` names what to mend."""

    type: str  # a page that says more
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    param: str | None = None


class ProblemDialect:
    model: type[Any] = Problem
    content_type = CONTENT_TYPE

    def error(
        self, error: TillgateError, request_id: str, operation: Operation | None = None
    ) -> tuple[int, bytes, str]:
        status, code, detail, kind = error.status, error.code, str(error), type(error)
        if isinstance(error, Fault) and not isinstance(error, Unavailable):
            status, code, detail, kind = 500, Fault.code, title(Fault), Fault
        problem = Problem(
            type=f"/problems/{code}",
            title=title(kind),
            status=status,
            detail=detail,
            code=code,
            param=getattr(error, "param", None),
            request_id=request_id,
        )
        return status, msgspec.json.encode(problem), CONTENT_TYPE


def title(kind: type[TillgateError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")


CODES: Final[dict[str, tuple[int, str]]] = {
    kind.code: (kind.status, title(kind))
    for kind in (
        errors.InvalidRequest,
        errors.Unauthorized,
        errors.InvalidCredentials,
        errors.NotFound,
        MethodNotAllowed,
        errors.NotAllowed,
        errors.OrderConflict,
        errors.RefundNotAllowed,
        errors.InFlight,
        errors.IdempotencyMismatch,
        TooLarge,
        UnsupportedMediaType,
        errors.TooManyRequests,
        errors.Declined,
        errors.Unreachable,
        errors.Unsure,
        Fault,
        Unavailable,
    )
}
"""Every `code` that `/v1` answers with: its status and what it means."""

ADVICE: Final = {
    "invalid_request": "Mend the field that `param` names; the same request will be refused again.",
    "unauthorized": "Get a new token with POST /v1/token.",
    "invalid_credentials": "Check the API key and secret; a rotated or revoked one is no longer known.",
    "not_found": "The id is wrong, or it belongs to another merchant.",
    "order_conflict": "Use another order_id, or the amount, currency and channel of the first request.",
    "not_allowed": "Read the object again: its state does not allow this.",
    "refund_not_allowed": "Refund at most what was paid and is not refunded yet, of a payment that is paid.",
    "in_flight": "The first request with this Idempotency-Key still runs: repeat it after Retry-After.",
    "idempotency_mismatch": "This Idempotency-Key belongs to another request: use a new one.",
    "rate_limited": "Slow down, and repeat after Retry-After.",
    "unsure": "The provider did not answer: read the payment again; the hub goes on looking.",
    "unreachable": "The provider could not be reached and nothing was changed: repeat later.",
    "declined": "The provider said no; `detail` has its words.",
    "service_unavailable": "Nothing was changed; repeat after Retry-After.",
    "server_error": "Repeat with the same Idempotency-Key, and tell the operator the request_id.",
}
