"""The IPN contract of ATOM POS: bodies, the order of checks, codes 00 to 07 and 99 and their HTTP statuses.

Source: the IPN document (fields, codes, retries); what it leaves open is settled by the ATOM POS facts,
contract. Order: path, method, authentication, size, JSON, missing fields (all of them), types. Authentication
comes before the body, so that a stranger learns nothing about it. The sender repeats whatever is answered
with 300 or more, for ever.
"""
# ruff: noqa: N815 - the document's own field names

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Final

from tillgate.domain.errors import Refusal, TryLater, Unauthenticated, UnknownMethod, Unreadable
from tillgate.providers.atompos_vn.cards import kept, masked

MAX_BODY: Final = 1 << 20
MAX_DEPTH: Final = 8
CURRENCY: Final = "VND"

SUCCESS: Final = "00"
MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "00": "success",
        "01": "Authenticate error",
        "02": "The requested URL was not found on the server.",
        "03": "Missing one or more required fields.",
        "04": "Invalid Field Type",
        "05": "Unauthorized Access",
        "06": "Permission Denied",
        "07": "POS Connect failed",
        "99": "Internal error",
    }
)
"""Code → message, as the IPN document prints them; 99 is ours, because it has none for our own trouble."""


@cache
def reply(code: str) -> bytes:
    """The body of every answer: `{"code":"00","message":"success"}`."""
    return json.dumps({"code": code, "message": MESSAGES[code]}, separators=(",", ":")).encode()


# --- refusals, each with its word in this dialect -----------------------------------------------------------


class Worded(Refusal):
    """A refusal that knows its code and HTTP status here."""

    word: ClassVar[str]
    http: ClassVar[int]


class BadCredential(Worded, Unauthenticated):
    """The credential that was presented is bad."""

    word, http = "01", 401


class NoCredential(Worded, Unauthenticated):
    """There is no bearer token."""

    word, http = "05", 401


class TooManyLogins(Worded, Unauthenticated):
    """Passwords are guessed too often."""

    word, http = "01", 429


class NotPermitted(Worded, Unauthenticated):
    """The sender may not do that."""

    word, http = "06", 403


class UnknownPath(Worded, UnknownMethod):
    """There is no such URL."""

    word, http = "02", 404


class WrongMethod(Worded, UnknownMethod):
    """This URL takes POST only."""

    word, http = "02", 405


class MissingFields(Worded, Unreadable):
    """Required fields are missing."""

    word, http = "03", 400


class WrongType(Worded, Unreadable):
    """A field or the body has the wrong type."""

    word, http = "04", 400


class TooLarge(Worded, Unreadable):
    """The body is larger than 1 MiB."""

    word, http = "04", 413


def worded(refusal: Refusal) -> tuple[str, int]:
    """Code and HTTP status for any refusal, also those of the hub."""
    if isinstance(refusal, Worded):
        return refusal.word, refusal.http
    if isinstance(refusal, TryLater):
        return "99", 503
    if isinstance(refusal, Unauthenticated):
        return "01", 401
    if isinstance(refusal, Unreadable):
        return "04", 400
    if isinstance(refusal, UnknownMethod):
        return "02", 404
    return "99", 500


# --- the IPN ------------------------------------------------------------------------------------------------

AMOUNT: Final = re.compile(r"[0-9]{1,15}(?:\.0{1,2})?", re.ASCII)
_LIMITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "requestId": 128,
        "orderId": 256,
        "amount": 18,
        "tip": 18,
        "paymentType": 64,
        "narrative": 4096,
        "fromAccNo": 128,
    }
)
"""Longest text of each field, in characters."""
FIELDS: Final = (*_LIMITS, "extraData")
EXTRA_PAIRS, EXTRA_CHARS = 64, 4096


@dataclass(frozen=True, slots=True)
class Ipn:
    """One payment at a terminal: the document's eight fields, their text exactly as sent.

    The one exception: a whole card number, in `fromAccNo` or any text but names and amounts, is cut down to
    its last four digits before anyone sees it.
    """

    requestId: str
    orderId: str
    amount: str
    tip: str
    paymentType: str
    narrative: str
    fromAccNo: str
    extraData: Mapping[str, str]

    @property
    def amount_minor(self) -> int:
        """Dong, without the tip."""
        return dong(self.amount)

    @property
    def tip_minor(self) -> int:
        return dong(self.tip)

    @property
    def digest(self) -> bytes:
        """16 bytes over the eight fields: the same whatever the order of keys and the white space were."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).digest()[:16]

    def model_dump(self) -> dict[str, Any]:
        """As a plain dict, by the name that code written for the sample service calls."""
        return {name: getattr(self, name) for name in FIELDS} | {"extraData": dict(self.extraData)}

    dict = model_dump

    def __str__(self) -> str:
        return f"IPN {self.requestId!a} order {self.orderId!a} amount {self.amount} tip {self.tip}"

    __repr__ = __str__


def read_ipn(body: bytes) -> Ipn:
    """Raises `TooLarge`, `WrongType` or `MissingFields`, in the contract's order."""
    return ipn(read_object(body))


def read_object(body: bytes) -> dict[str, Any]:
    """One strict JSON object: UTF-8, no key twice, no NaN, eight deep. Raises `TooLarge`, `WrongType`."""
    if len(body) > MAX_BODY:
        raise TooLarge
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise WrongType from None
    few = body.count(b"{") + body.count(b"[") <= MAX_DEPTH  # then it cannot be deep
    if not isinstance(found, dict) or not (few or _shallow(found)):
        raise WrongType
    return found


def ipn(message: Mapping[str, Any]) -> Ipn:
    """The eight fields; anything else in the object is ignored. Raises `MissingFields`, `WrongType`."""
    if any(name not in message for name in FIELDS):
        raise MissingFields
    for name, limit in _LIMITS.items():
        text_of(message[name], limit)
    if not message["requestId"] or "\0" in message["requestId"] + message["orderId"]:
        raise WrongType
    if not AMOUNT.fullmatch(message["amount"]) or not AMOUNT.fullmatch(message["tip"]):
        raise WrongType
    if not dong(message["amount"]):  # it means "paid", and nothing was
        raise WrongType
    extra = message["extraData"]
    if not isinstance(extra, dict) or len(extra) > EXTRA_PAIRS:
        raise WrongType
    for key, value in extra.items():
        text_of(key, EXTRA_CHARS)
        text_of(value, EXTRA_CHARS)
    texts = {name: kept(name, message[name]) for name in _LIMITS}
    return Ipn(**texts, extraData={masked(key): kept(key, value) for key, value in extra.items()})


def dong(text: str) -> int:
    """An amount the contract let through, in dong: "10000", "10000.00" → 10000."""
    return int(text.partition(".")[0])


def kind_of_payment(payment_type: str) -> str:
    """qr · card · wallet · other; an unknown value is never refused."""
    word = payment_type.casefold()
    for kind, signs in _KINDS.items():
        if any(sign in word for sign in signs):
            return kind
    return "other"


_KINDS: Final = {"qr": ("qr",), "card": ("card", "visa", "master", "napas"), "wallet": ("wallet", "momo")}


# --- the older notification ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notification:
    """What terminals sent before the IPN document; the meaning of its two states is not published."""

    request_id: str
    transaction_id: str
    status: str
    response_code: str
    amount_minor: int
    tip_minor: int


def is_notification(message: Mapping[str, Any]) -> bool:
    return "resultTxnID" in message and "requestID" in message


def notification(message: Mapping[str, Any]) -> Notification:
    """Raises `MissingFields`, `WrongType`."""
    names = ("requestID", "resultTxnID", "Status", "resultResponseCode", "amount")
    if any(name not in message for name in names):
        raise MissingFields
    for name in names:
        text_of(message[name], 128)
    tip = message.get("tip", "0")
    text_of(tip, 18)
    if not message["requestID"] or not AMOUNT.fullmatch(message["amount"]) or not AMOUNT.fullmatch(tip):
        raise WrongType
    return Notification(
        message["requestID"],
        message["resultTxnID"],
        message["Status"],
        message["resultResponseCode"],
        dong(message["amount"]),
        dong(tip),
    )


# --- small parts --------------------------------------------------------------------------------------------


def text_of(value: Any, limit: int) -> None:
    """Raises `WrongType` unless it is text of at most `limit` characters."""
    if not isinstance(value, str) or len(value) > limit:
        raise WrongType
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no text that could be kept
        raise WrongType from None


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for item in level for inner in _inner(item)]
        if not level:
            return True
    return all(not isinstance(item, (dict, list)) for item in level)


def _inner(item: Any) -> Sequence[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else ()


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number")
