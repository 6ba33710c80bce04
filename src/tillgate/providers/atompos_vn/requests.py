"""What merchants and partners send to the documented paths: `/payment-terminal` and `/authorize`. Pure.

The paths are the IPN document's; no document prints their fields, so the ATOM POS facts settle them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tillgate.providers.atompos_vn.contract import (
    AMOUNT,
    EXTRA_CHARS,
    EXTRA_PAIRS,
    MissingFields,
    WrongType,
    dong,
    text_of,
)


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """A sale to be shown on a terminal. Amounts in dong."""

    request_id: str
    order_id: str
    amount_minor: int
    tip_minor: int
    extra: Mapping[str, str]
    terminal_id: str | None


_SPELLINGS: Final = ("requestId", "requestID")


def payment_request(message: Mapping[str, Any]) -> PaymentRequest:
    """`/payment-terminal`: amounts as text or whole numbers. Raises `MissingFields`, `WrongType`."""
    request_id = next((message[name] for name in _SPELLINGS if name in message), None)
    if request_id is None or any(name not in message for name in ("orderId", "amount")):
        raise MissingFields
    text_of(request_id, 128)
    text_of(message["orderId"], 256)
    kind, terminal = message.get("requestType", "SALE"), message.get("terminalId")
    if kind != "SALE" or not request_id or "\0" in request_id + message["orderId"]:
        raise WrongType
    if terminal is not None:
        text_of(terminal, 128)
    amount = _whole(message["amount"])
    if not amount:
        raise WrongType
    extra = _pairs(message.get("extraData") or {})
    return PaymentRequest(
        request_id, message["orderId"], amount, _whole(message.get("tip", 0)), extra, terminal
    )


_LOGINS: Final = (("username", "password"), ("api_key", "api_secret"), ("client_id", "client_secret"))


def login(message: Mapping[str, Any]) -> tuple[str, str]:
    """User and password of `/authorize`, under any of three names. Raises `MissingFields`, `WrongType`."""
    for user, password in _LOGINS:
        if user in message and password in message:
            text_of(message[user], 256)
            text_of(message[password], 1024)
            return message[user], message[password]
    raise MissingFields


def _whole(value: Any) -> int:
    if type(value) is int and 0 <= value < 10**15:
        return value
    if isinstance(value, str) and AMOUNT.fullmatch(value):
        return dong(value)
    raise WrongType


def _pairs(value: Any) -> dict[str, str]:
    """An object of texts, or the list of one-key objects that terminals take."""
    items = value if isinstance(value, list) else [value]
    pairs: dict[str, str] = {}
    for item in items:
        if not isinstance(item, dict):
            raise WrongType
        pairs |= item
    if len(pairs) > EXTRA_PAIRS:
        raise WrongType
    for key, text in pairs.items():
        text_of(key, EXTRA_CHARS)
        text_of(text, EXTRA_CHARS)
    return pairs
