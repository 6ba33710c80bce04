"""What the client raises: one class for each thing that a caller may do next."""

from __future__ import annotations

from typing import Final

from tillgate.domain.errors import TillgateError


class ClientError(TillgateError):
    """A request came to nothing."""


class NoAnswer(ClientError):
    """The hub did not answer. What was asked may have happened: repeat it with the same idempotency_key."""


class ApiError(ClientError):
    """The hub refused the request. `error_code` is for programs, `detail` for people."""

    def __init__(
        self, http_status: int, error_code: str, detail: str, param: str | None, request_id: str | None
    ) -> None:
        """`param` names the field to mend; the hub's operator finds the request by `request_id`."""
        super().__init__(f"{detail} ({error_code}, HTTP {http_status})")
        self.http_status, self.error_code, self.detail = http_status, error_code, detail
        self.param, self.request_id = param, request_id


class BadRequest(ApiError):
    """400, 413, 415, 422: the same request will be refused again."""


class Unauthorized(ApiError):
    """401: the API key or its secret is wrong, rotated or revoked."""


class NotFound(ApiError):
    """404: the id is wrong, or another merchant's."""


class Conflict(ApiError):
    """409: the state of things does not allow it; `in_flight`: the first request of this key still runs."""


class RateLimited(ApiError):
    """429, also after the client has waited and repeated."""


class ProviderFailed(ApiError):
    """502: the provider refused, was not reached, or did not answer (`unsure`: the hub goes on looking)."""


class HubUnavailable(ApiError):
    """503, also after the client has waited and repeated: nothing was changed."""


BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: BadRequest,
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: RateLimited,
    502: ProviderFailed,
    503: HubUnavailable,
}
