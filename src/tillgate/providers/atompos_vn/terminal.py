"""`POST /payment-terminal`: a merchant asks for a sale on the terminal. Reading it, and its answers. Pure.

The path is the IPN document's; the body and the order of checks are settled by the ATOM POS facts: the same
codes as for an IPN, 07 where the terminal could not be told, and never a second push under one requestId.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tillgate.domain.errors import (
    AlreadyClosed,
    InFlight,
    NoProvider,
    OrderConflict,
    Refusal,
    RequestError,
    TillgateError,
)
from tillgate.domain.money import Money
from tillgate.providers.atompos_vn import contract, requests
from tillgate.spi import Served, Wanted

CHANNEL: Final = "atompos"
TTL_S: Final = 180
"""How long a sale stands before its end is for a person to find out; a later IPN still counts."""


def wanted(message: Mapping[str, Any]) -> Wanted:
    """The payment is named by its requestId: that is what a repeat repeats. Raises `MissingFields`,
    `WrongType`."""
    asked = requests.payment_request(message)
    metadata: dict[str, Any] = {"requestId": asked.request_id, "orderId": asked.order_id}
    metadata |= {"tip": asked.tip_minor} if asked.tip_minor else {}
    metadata |= {"extraData": asked.extra} if asked.extra else {}
    return Wanted(
        order_id=asked.request_id,
        channel=CHANNEL,
        amount=Money(asked.amount_minor, contract.CURRENCY),
        metadata=msgspec.json.encode(metadata).decode(),
        account=asked.terminal_id,
        ttl_s=TTL_S,
        again=False,
    )


def code(outcome: Served | TillgateError) -> tuple[str, int]:
    """Code and HTTP status of the answer."""
    if isinstance(outcome, Served):
        match outcome.phase:
            case "pending" | "paid":
                return "00", 200
            case "created":
                return "00", 202  # another copy of this request is on its way to the terminal
            case "unsure":
                return "07", 504
        # What the terminal had once may be before a payer: only what it never had may be asked for again.
        return ("07", 504) if outcome.order.external_id else ("07", 502)
    match outcome:
        case NoProvider():
            return "06", 403  # a terminal of nobody's, or of another merchant
        case InFlight():
            return "00", 202
        case OrderConflict() | AlreadyClosed():
            return "04", 409
        case Refusal():
            return contract.worded(outcome)
        case RequestError():
            return "04", 400
    return "99", 503
