"""The national schemes as data: who is paid is found by the scheme's identifier, never by a tag number alone.

A profile states where its account template sits and what is in it, with the currency and country that go with
it. The reader uses it to find the payee and to refuse a template that names one badly; the linter states
every breach; the builders write by it. A further EMVCo country is one more entry here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from .tlv import EMVCO, DataObject, fold

BANK_INDONESIA: Final = "QRIS national standard (Bank Indonesia, PADG 21/18/2019)"
NAPAS: Final = "NAPAS VietQR specification 1.5.2"
NPCI_BHARAT: Final = "Bharat QR codes published by acquirers"
PAYNET: Final = "PayNet DuitNow QR specification 1.5"
UZQR_FIELD: Final = "UzQR codes in the field (no public specification)"

CURRENCIES: Final[Mapping[str, str]] = MappingProxyType(
    {"356": "INR", "360": "IDR", "458": "MYR", "704": "VND", "840": "USD", "860": "UZS"}
)
"""ISO 4217 numeric code, as a code carries it in tag 53, to the letters the rest of Tillgate uses."""

NUMERIC: Final[Mapping[str, str]] = MappingProxyType({alpha: number for number, alpha in CURRENCIES.items()})

SANDBOX_GUID: Final = "INVALID.TILLGATE.SANDBOX"
"""A reverse domain name under .invalid, which RFC 2606 keeps from ever existing: no scheme can own it."""

PRIMITIVES: Final = (
    ("visa", range(2, 4)),
    ("mastercard", range(4, 6)),
    ("rupay", range(6, 8)),
    ("ifsc", range(8, 9)),
    ("discover", range(9, 11)),
    ("amex", range(11, 13)),
    ("jcb", range(13, 15)),
    ("unionpay", range(15, 17)),
    ("emvco", range(17, 26)),
)
"""Tags 02 to 25 carry an account flat, without a template. 06 and 08 are read as India uses them."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a sub-object of an account template is and what it may hold. `required` ones name the payee."""

    name: str
    pattern: str
    says: str
    required: bool = False

    def fits(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value, re.ASCII) is not None


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of account template. `nested` sub-objects are templates themselves; no `guids`: any."""

    guids: frozenset[str]
    tags: range
    parts: Mapping[str, Part]
    nested: frozenset[str] = frozenset()
    acquirer: str = ""
    account: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """A scheme: its name in our API, its title for people, and everything a code of it must agree with."""

    name: str
    title: str
    source: str
    currency: str
    country: str
    templates: tuple[Template, ...]
    formats: tuple[str, ...] = ("01",)
    mandatory: tuple[str, ...] = ("52", "53", "58", "59", "60")
    specified: bool = field(default=True)
    """Whether a published document stands behind the parts. A breach of observations is a warning."""


_CRITERIA = Part("merchant criteria", "UMI|UKE|UME|UBE|URE", "UMI, UKE, UME, UBE or URE")

DUITNOW: Final = Profile(
    "duitnow",
    "DuitNow QR (Malaysia)",
    PAYNET,
    "458",
    "MY",
    (
        Template(
            frozenset({"A0000006150001"}),
            range(26, 27),
            {
                "01": Part("acquirer id", "[0-9]{6}", "6 digits", required=True),
                "02": Part(
                    "merchant or QR id", r"[!-~](?:[ -~]{0,26}[!-~])?", "1 to 28 characters", required=True
                ),
                "03": Part("descriptor", ".{1,20}", "at most 20 characters"),
                "04": Part("mobile number", r"\+?[0-9]{1,15}", "at most 15 digits"),
            },
            acquirer="01",
            account="02",
        ),
    ),
    formats=("02", "01"),
)

QRIS: Final = Profile(
    "qris",
    "QRIS (Indonesia)",
    BANK_INDONESIA,
    "360",
    "ID",
    (
        Template(
            frozenset({"ID.CO.QRIS.WWW", "ID.OR.GPNQR.WWW"}),
            range(51, 52),
            {
                "02": Part("NMID", "ID[0-9]{13}", "ID and 13 digits"),
                "03": _CRITERIA,
            },
            account="02",
        ),
        Template(
            frozenset(),
            range(26, 46),
            {
                # The check digit is usually left out, so the number is not to be tested with Luhn.
                "01": Part(
                    "merchant PAN", "9360[0-9]{11,15}", "9360 and 15 to 19 digits in all", required=True
                ),
                "02": Part("merchant id", ".{1,15}", "at most 15 characters"),
                "03": _CRITERIA,
            },
            account="01",
        ),
    ),
)

VIETQR: Final = Profile(
    "vietqr",
    "VietQR (Vietnam)",
    NAPAS,
    "704",
    "VN",
    (
        Template(
            frozenset({"A000000727"}),
            range(38, 39),
            {
                "01": Part("beneficiary", ".+", "a template", required=True),
                "01.00": Part("bank BIN", "[0-9]{6}", "6 digits", required=True),
                "01.01": Part(
                    "account or card", "[0-9A-Za-z]{1,19}", "1 to 19 letters and digits", required=True
                ),
                "02": Part(
                    "service", "QRIBFTTA|QRIBFTTC|QRPUSH|QRCASH", "QRIBFTTA, QRIBFTTC, QRPUSH or QRCASH"
                ),
            },
            nested=frozenset({"01"}),
            acquirer="01.00",
            account="01.01",
            service="02",
        ),
    ),
    mandatory=("53", "58"),
)

VNPAY: Final = Profile(
    "vnpay",
    "VNPay QR (Vietnam)",
    EMVCO,
    "704",
    "VN",
    (Template(frozenset({"A000000775"}), range(26, 52), {}, account="01"),),
    mandatory=("53", "58"),
)

UZQR: Final = Profile(
    "uzqr",
    "UzQR (Uzbekistan)",
    UZQR_FIELD,
    "860",
    "UZ",
    (
        Template(
            frozenset({"QR-ONLINE.UZ"}),
            range(40, 41),
            {
                "01": Part("payee id", "[0-9A-Za-z]{18}", "18 letters and digits", required=True),
                "02": Part("kind", "[0-9]{2}", "2 digits"),
            },
            account="01",
        ),
    ),
    specified=False,
)

BHARATQR: Final = Profile(
    "bharatqr",
    "Bharat QR (India)",
    NPCI_BHARAT,
    "356",
    "IN",
    (
        Template(
            frozenset({"A000000524"}),
            range(26, 27),
            {
                "01": Part("payee VPA", r"[0-9A-Za-z._-]{1,80}@[0-9A-Za-z.]{1,40}", "a VPA", required=True),
                "02": Part("minimum amount", r"[0-9]+(?:\.[0-9]{0,2})?", "an amount"),
            },
            account="01",
        ),
        Template(
            frozenset({"A000000524"}),
            range(27, 28),
            {"01": Part("transaction reference", ".{1,35}", "at most 35 characters")},
        ),
    ),
)

SANDBOX: Final = Profile(
    "sandbox",
    "Tillgate sandbox (not payable)",
    "Tillgate",
    "360",
    "ID",
    (
        Template(
            frozenset({SANDBOX_GUID}),
            range(26, 27),
            {"01": Part("merchant PAN", "0{18}", "18 zeros", required=True), "03": _CRITERIA},
            account="01",
        ),
    ),
)

PROFILES: Final = (SANDBOX, DUITNOW, QRIS, VIETQR, VNPAY, UZQR, BHARATQR)

_BY_GUID: Final[Mapping[str, tuple[tuple[Profile, Template], ...]]] = MappingProxyType(
    {
        guid: tuple((p, t) for p in PROFILES for t in p.templates if guid in t.guids)
        for guid in {guid for p in PROFILES for t in p.templates for guid in t.guids}
    }
)
_NATIONAL, _ACQUIRER = QRIS.templates


def recognise(template: DataObject, *, indonesian: bool) -> tuple[Profile, Template] | None:
    """The scheme that owns an account template (tags 26 to 51, already read), or None.

    Identifiers are compared without regard to case. Every Indonesian acquirer brings its own, so in a code in
    rupiah for Indonesia (`indonesian`) a template with a 9360 merchant PAN or a national merchant id is QRIS
    as well.
    """
    candidates = _BY_GUID.get(fold(template.get("00") or ""), ())
    for candidate in candidates:
        if int(template.tag) in candidate[1].tags:
            return candidate
    if candidates:
        return candidates[0]
    if indonesian:
        tag = int(template.tag)
        if tag in _ACQUIRER.tags and (template.get("01") or "").startswith("9360"):
            return QRIS, _ACQUIRER
        if tag in _NATIONAL.tags and _NATIONAL.parts["02"].fits(template.get("02") or ""):
            return QRIS, _NATIONAL
    return None
