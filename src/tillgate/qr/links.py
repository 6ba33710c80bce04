"""UPI payment links (India) and telling the kinds of scanned text apart.

A link's parameters are kept in their order and its text untouched: a signed link is only valid letter by
letter. A web link is never followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from tillgate.domain.money import Money, MoneyError

from .emv import Qr, decode, parse_amount
from .tlv import QrError, check_text

UPI: Final = "NPCI UPI linking specification 1.6"

MAX_LINK: Final = 2048
MAX_PARAMS: Final = 64

_VPA: Final = re.compile(r"[0-9A-Za-z._-]{1,255}@[0-9A-Za-z][0-9A-Za-z.-]{0,63}", re.ASCII)
_AMOUNT: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,2})?", re.ASCII)
_PAYNET_PREFIX: Final = "https://app.paynet.uz/qr-online/"


@dataclass(frozen=True, slots=True)
class UpiLink:
    """A `upi://pay` link, read. Amounts are rupees on the wire and paise here."""

    text: str = field(repr=False)
    params: tuple[tuple[str, str], ...] = field(repr=False)
    """Names and percent-decoded values, in order. A `+` stays a plus."""
    vpa: str = field(repr=False)
    money: Money | None
    """None: the payer enters the amount."""
    minimum: Money | None

    def get(self, name: str) -> str | None:
        return next((v for k, v in self.params if k == name), None)

    @property
    def name(self) -> str | None:
        return self.get("pn")

    @property
    def reference(self) -> str | None:
        return self.get("tr")

    @property
    def note(self) -> str | None:
        return self.get("tn")

    @property
    def amount_minor(self) -> int | None:
        return self.money.minor if self.money else None

    def as_dict(self) -> dict[str, Any]:
        """What a person or a program wants to know, ready for JSON."""
        return {
            "kind": "upi",
            "profile": "upi",
            "currency": "INR",
            "amount": self.get("am"),
            "amount_minor": self.amount_minor,
            "payee_vpa": self.vpa,
            "merchant_name": self.name,
            "merchant_category_code": self.get("mc"),
            "reference": self.reference,
            "note": self.note,
            "params": [list(pair) for pair in self.params],
        }


def is_upi(text: str) -> bool:
    return text[:6].lower() == "upi://"


def decode_upi(text: str) -> UpiLink:
    """Read a `upi://pay` link.

    Raises QrError for other UPI links (a mandate is a permission to collect, not a payment), a repeated
    parameter, a missing or malformed payee address, another currency than INR, and an amount that is not one.
    """
    check_text(text, MAX_LINK)
    if any(c < " " or c == "\x7f" for c in text):
        raise QrError("holds control characters", source=UPI)
    head, _, query = text.partition("?")
    if head.lower().rstrip("/") != "upi://pay":
        raise QrError("not a upi://pay link", source=UPI)
    if "#" in query:
        raise QrError("holds an unescaped #; apps differ on whether anything after it counts", source=UPI)
    pieces = query.split("&")
    if len(pieces) > MAX_PARAMS:
        raise QrError(f"more than {MAX_PARAMS} parameters", source=UPI)
    params: list[tuple[str, str]] = []
    for piece in filter(None, pieces):
        name, _, raw = piece.partition("=")
        name = _unquoted(name, "")
        if any(name.lower() == seen.lower() for seen, _ in params):
            raise QrError("occurs twice; apps differ on which one they pay", ascii(name)[1:-1][:20], UPI)
        params.append((name, _unquoted(raw, name)))
    values = dict(params)
    vpa = values.get("pa", "")
    if _VPA.fullmatch(vpa) is None:
        raise QrError("the payee's address is missing or malformed", "pa", UPI)
    if values.get("cu", "INR") != "INR":
        raise QrError("the currency is INR", "cu", UPI)
    amount = _rupees(values.get("am", ""), "am")
    if amount is not None and not amount.minor:
        raise QrError("an amount is more than zero", "am", UPI)
    minimum = values.get("mam", "")
    return UpiLink(text, tuple(params), vpa, amount, _rupees("" if minimum == "null" else minimum, "mam"))


def upi_link(
    *,
    vpa: str,
    name: str,
    amount_minor: int | None = None,
    reference: str | None = None,
    note: str | None = None,
    mcc: str | None = None,
    url: str | None = None,
    mode: str | None = None,
    lock_amount: bool = False,
) -> str:
    """A `upi://pay` link in the specification's order. `amount_minor` is paise; None lets the payer enter it.

    `lock_amount` also sends the amount as the minimum, which stops the payer from lowering it. Raises
    QrError; a merchant's link (an `mcc` other than 0000) needs a `reference`.
    """
    if _VPA.fullmatch(vpa) is None:
        raise QrError("the payee's address is missing or malformed", "pa", UPI)
    if not name:
        raise QrError("the payee's name is missing", "pn", UPI)
    if mcc is not None and re.fullmatch("[0-9]{4}", mcc, re.ASCII) is None:
        raise QrError("a merchant category code is 4 digits", "mc", UPI)
    if (mcc or "0000") != "0000" and not reference:
        raise QrError("a merchant's link needs a reference", "tr", UPI)
    for key, value, limit in (("tr", reference, 35), ("tn", note, 50)):
        if value is not None and not 1 <= len(value) <= limit:
            raise QrError(f"1 to {limit} characters", key, UPI)
    amount = None
    if amount_minor is not None:
        try:
            money = Money(amount_minor, "INR")
        except MoneyError as error:
            raise QrError(str(error), "am", UPI) from error
        if money.minor <= 0:
            raise QrError("an amount is more than zero", "am", UPI)
        amount = money.decimal()
    elif lock_amount:
        raise QrError("there is no amount to lock", "am", UPI)
    params = (
        ("pa", vpa),
        ("pn", name),
        ("mc", mcc),
        ("tr", reference),
        ("tn", note),
        ("am", amount),
        ("mam", amount if lock_amount else None),
        ("cu", "INR"),
        ("url", url),
        ("mode", mode),
    )
    try:
        text = "upi://pay?" + "&".join(f"{k}={quote(v, safe='@')}" for k, v in params if v is not None)
    except UnicodeEncodeError as error:
        raise QrError("holds half a character (a lone surrogate)", source=UPI) from error
    decode_upi(text)
    return text


def read(text: str) -> Qr | UpiLink:
    """Read whatever a scanner gave: an EMVCo code, a UPI link, or a code wrapped in Paynet's link
    (Uzbekistan).

    Spaces and line ends around it are dropped, as scanners add them. Raises QrError; any other link is
    refused by name and not followed.
    """
    check_text(text, MAX_LINK)
    text = check_text(text.strip(" \t\r\n"), MAX_LINK)
    if is_upi(text):
        return decode_upi(text)
    if text.startswith(_PAYNET_PREFIX):
        return decode(_unquoted(text.removeprefix(_PAYNET_PREFIX), ""))
    if text[:8].lower().startswith(("http://", "https://")):
        raise QrError("a web link, not a payment code; it is not followed")
    return decode(text)


def _unquoted(raw: str, path: str) -> str:
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError as error:
        raise QrError("percent-encoded bytes that are not UTF-8", ascii(path)[1:-1][:20]) from error


def _rupees(text: str, path: str) -> Money | None:
    if not text:
        return None
    if _AMOUNT.fullmatch(text) is None:
        raise QrError(f"not an amount in rupees: {ascii(text)[:20]}", path, UPI)
    return parse_amount(text, "INR", path)
