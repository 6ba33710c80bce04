"""Every error Tillgate knows. A class carries its code and HTTP status; its docstring is its message.

Four families, by what the caller may do next:

- `Refusal`: a provider asked and we say no. Normal, answered in the provider's own words.
- `RequestError`: a merchant's request cannot be done as sent. Normal, answered with a 4xx.
- `Unreachable` / `Unsure`: a call of ours. Nothing left us (safe to repeat) / it did and the answer is lost.
- `Fault`: ours to mend. Someone is paged; the caller may repeat the same request later.
"""

from __future__ import annotations

from typing import ClassVar


class TillgateError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])

    @property
    def message(self) -> str:
        return str(self)


# --- what an ask may be refused with -----------------------------------------------------------------------


class Refusal(TillgateError):
    """The provider's request is refused."""

    code, status = "refused", 409


class Unauthenticated(Refusal):
    """The credentials or the signature are missing or wrong."""

    code, status = "unauthenticated", 401


class Unreadable(Refusal):
    """The message is malformed."""

    code, status = "unreadable", 400


class UnknownMethod(Refusal):
    """There is no such method."""

    code, status = "unknown_method", 404


class UnknownReference(Refusal):
    """There is no order for this account."""

    code, status = "unknown_reference", 404


class UnknownTransaction(Refusal):
    """There is no such transaction."""

    code, status = "unknown_transaction", 404


class WrongAmount(Refusal):
    """The amount is not what is due."""

    code = "wrong_amount"


class AlreadyPaid(Refusal):
    """The order is paid already."""

    code = "already_paid"


class AlreadyClosed(Refusal):
    """The transaction or the order is closed."""

    code = "already_closed"


class Busy(Refusal):
    """Another transaction holds this order."""

    code = "busy"


class NotCancellable(Refusal):
    """The payment can no longer be cancelled."""

    code = "not_cancellable"


class TryLater(Refusal):
    """The system cannot answer now."""

    code, status = "try_later", 503


# --- what a merchant's request may be answered with --------------------------------------------------------


class RequestError(TillgateError):
    """The request cannot be done as sent."""

    code, status = "invalid_request", 400

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """The request is malformed."""


class InvalidCredentials(RequestError):
    """API key or secret is incorrect."""

    code, status = "invalid_credentials", 401


class Unauthorized(RequestError):
    """Access token is missing or expired."""

    code, status = "unauthorized", 401


class NotFound(RequestError):
    """Not found"""

    code, status = "not_found", 404


class OrderConflict(RequestError):
    """This order_id was used with other content."""

    code, status = "order_conflict", 409


class RefundNotAllowed(RequestError):
    """Refund not allowed for this transaction"""

    code, status = "refund_not_allowed", 409


class NotAllowed(RequestError):
    """The state of this object does not allow that."""

    code, status = "not_allowed", 409


class IdempotencyMismatch(RequestError):
    """This Idempotency-Key was used with another request."""

    code, status = "idempotency_mismatch", 422


class InFlight(RequestError):
    """The first request with this Idempotency-Key is still being worked on."""

    code, status = "in_flight", 409


class TooManyRequests(RequestError):
    """Too many requests. Try again later."""

    code, status = "rate_limited", 429


class NoProvider(RequestError):
    """No payment provider can take this now. Please try again later."""

    code, status = "service_unavailable", 503


# --- our own calls -----------------------------------------------------------------------------------------


class Unreachable(TillgateError):
    """Nothing left us: the call is safe to repeat."""

    code, status = "unreachable", 502


class Unsure(TillgateError):
    """The request left us and its answer is lost: neither failed nor safe to repeat."""

    code, status = "unsure", 502


class Declined(TillgateError):
    """The provider understood the call and said no."""

    code, status = "declined", 502


# --- ours to mend ------------------------------------------------------------------------------------------


class Fault(TillgateError):
    """An unexpected error occurred on the server."""

    code, status = "server_error", 500


class Unavailable(Fault):
    """The store cannot be reached now. Nothing was changed; please try again later."""

    code, status = "service_unavailable", 503


class InDoubt(Unavailable):
    """The store went away while this was being written: look, or repeat it with the same order_id or key."""


class Misconfigured(Fault):
    """The configuration is incomplete or unsafe."""

    code = "misconfigured"


class OutOfOrder(TillgateError):
    """This evidence cannot be true yet: look at the provider before believing it."""

    code, status = "out_of_order", 409
