"""One SHOP API request, read strictly and verified on its raw text."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from tillgate.domain.errors import (
    AlreadyClosed,
    Unauthenticated,
    UnknownMethod,
    Unreadable,
    WrongAmount,
)
from tillgate.domain.money import Money, MoneyError
from tillgate.domain.record import record
from tillgate.providers.click import form
from tillgate.providers.click.config import Config

PREPARE: Final = "0"
COMPLETE: Final = "1"

TASHKENT: Final = timezone(timedelta(hours=5))  # no summer time since 1991; Click writes local time
MAX_BIGINT: Final = 2**63 - 1

_ID: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_SERVICE: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_ACTION: Final = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)
_ERROR: Final = re.compile(r"0|-?[1-9][0-9]{0,9}", re.ASCII)
_AMOUNT: Final = re.compile(r"(?:0|[1-9][0-9]{0,12})(?:\.[0-9]{1,4})?", re.ASCII)
_PREPARE_ID: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)

# error_note is described but decides nothing: its absence must not stop a payer's money.
_REQUIRED: Final = (
    "click_trans_id",
    "service_id",
    "click_paydoc_id",
    "merchant_trans_id",
    "amount",
    "action",
    "error",
    "sign_time",
    "sign_string",
)


@record
class Request:
    """A verified Prepare or Complete."""

    action: str
    click_trans_id: int
    click_paydoc_id: int
    merchant_trans_id: str
    merchant_prepare_id: int | None  # None where Click had none to send
    amount: Money
    error: int
    note: str  # unsigned, trimmed, for an operator's eyes
    signed_at: int  # epoch ms

    @property
    def prepare_id(self) -> int:
        return prepare_id(self.click_trans_id, self.merchant_trans_id)

    @property
    def linked(self) -> bool:
        """Whether this Complete names the Prepare that we answered.

        A cancellation may name none: where our answer to Prepare was lost, Click never learnt the id.
        """
        if self.error < 0 and not self.merchant_prepare_id:
            return True
        return self.merchant_prepare_id == self.prepare_id


def read(config: Config, body: bytes) -> Request:
    """Refuses in the order of Click's own template: -8 parameters, -1 sign, -3 action, -2 amount.

    What needs our books (-5, -4, -6, -9) comes after, from the ruling. Raises a `Refusal`.
    """
    fields = form.parse(body)
    texts = _texts(fields)
    trans_id = _bigint(texts, "click_trans_id")
    paydoc_id = _bigint(texts, "click_paydoc_id")
    service = _shaped(texts, "service_id", _SERVICE)
    action = _shaped(texts, "action", _ACTION)
    error = int(_shaped(texts, "error", _ERROR))
    signed_at = sign_moment(texts["sign_time"])
    prepared = _prepare_id(texts.get("merchant_prepare_id"), needed=action == COMPLETE and error >= 0)
    _verify(config, texts)
    if service != config.service:
        raise Unreadable("service_id is not the one of this account")
    if action not in (PREPARE, COMPLETE):
        raise UnknownMethod("Action not found")
    if error > 0:
        raise Unreadable("error is neither 0 nor negative")
    request = Request(
        action=action,
        click_trans_id=trans_id,
        click_paydoc_id=paydoc_id,
        merchant_trans_id=texts["merchant_trans_id"],
        merchant_prepare_id=prepared,
        amount=amount(texts["amount"]),
        error=error,
        note=_note(fields.get("error_note", b"")),
        signed_at=signed_at,
    )
    if action == PREPARE and error < 0:
        raise AlreadyClosed("Click gave this payment up before it began")
    return request


def prepare_id(click_trans_id: int, merchant_trans_id: str) -> int:
    """What Prepare answers and Complete must repeat: a pure function of what both name.

    Being a checksum and not a key, it needs no look-up to be checked, is the same for every repeat and every
    process, and fits the 32-bit `int` that Click's documentation gives it (its own ids are `bigint`).
    """
    text = f"click prepare\0{click_trans_id}\0{merchant_trans_id}".encode()
    return (int.from_bytes(hashlib.sha256(text).digest()[:4]) >> 1) or 1


def signatures(keys: Iterable[str], before: str, after: str) -> list[str]:
    """MD5 over `before + key + after`, as Click prescribes, one for each key."""
    return [hashlib.md5(f"{before}{key}{after}".encode(), usedforsecurity=False).hexdigest() for key in keys]


def same(sent: str, ours: list[str]) -> bool:
    """Compares with every candidate in constant time, whichever matches."""
    given = sent.lower().encode("utf-8", "surrogatepass")
    found = False
    for candidate in ours:
        found |= hmac.compare_digest(given, candidate.encode())
    return found


def _verify(config: Config, texts: dict[str, str]) -> None:
    prepared = texts.get("merchant_prepare_id", "") if texts["action"] == COMPLETE else ""
    before = texts["click_trans_id"] + texts["service_id"]
    after = texts["merchant_trans_id"] + prepared + texts["amount"] + texts["action"] + texts["sign_time"]
    if not same(texts["sign_string"], signatures(config.keys, before, after)):
        raise Unauthenticated("SIGN CHECK FAILED!")


def _texts(fields: dict[str, bytes]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name in (*_REQUIRED, "merchant_prepare_id"):
        value = fields.get(name)
        if value is None:
            continue
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable(f"{name} is not UTF-8") from None
        if not text.isprintable():
            raise Unreadable(f"{name} has control characters")
        texts[name] = text
    missing = [name for name in _REQUIRED if not texts.get(name)]
    if missing:
        raise Unreadable(f"missing: {', '.join(missing)}")
    if len(texts["merchant_trans_id"]) > 255:
        raise Unreadable("merchant_trans_id is too long")
    return texts


def _shaped(texts: dict[str, str], name: str, shape: re.Pattern[str]) -> str:
    text = texts[name]
    if not shape.fullmatch(text):
        raise Unreadable(f"{name} is malformed")
    return text


def _bigint(texts: dict[str, str], name: str) -> int:
    number = int(_shaped(texts, name, _ID))
    if number > MAX_BIGINT:
        raise Unreadable(f"{name} is malformed")
    return number


def _prepare_id(text: str | None, *, needed: bool) -> int | None:
    if not text:
        if needed:
            raise Unreadable("missing: merchant_prepare_id")
        return None
    if not _PREPARE_ID.fullmatch(text):
        raise Unreadable("merchant_prepare_id is malformed")
    return int(text)


def sign_moment(text: str) -> int:
    """`"2026-11-21 15:04:05"`, Tashkent's clock → epoch ms. Raises `Unreadable`."""
    if not _TIME.fullmatch(text):
        raise Unreadable("sign_time is malformed")
    try:
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=TASHKENT)
        seconds = (local - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    except ValueError:
        raise Unreadable("sign_time is malformed") from None
    return seconds * 1000


def amount(text: str) -> Money:
    """Som as Click writes them: `"5000.00"`. Exact to the tiyin. Raises `WrongAmount`."""
    if not _AMOUNT.fullmatch(text):
        raise WrongAmount("Incorrect parameter amount")
    try:
        return Money.parse(text, "UZS")
    except MoneyError:
        raise WrongAmount("Incorrect parameter amount") from None


def _note(raw: bytes) -> str:
    text = raw[:400].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:100]
