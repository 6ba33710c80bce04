"""What is wrong with a code, where, and which document says so.

An `error` is a breach that makes the code unpayable or dangerous to show, a `warning` something that readers
may trip over or an operator should look at, `info` what is worth knowing. Nothing here repairs a code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from .emv import MAX_GUID, Qr, assess, parse_amount
from .links import UPI, UpiLink, decode_upi, is_upi
from .outline import NAMES
from .profiles import CURRENCIES, DUITNOW, PAYNET, PROFILES, QRIS, SANDBOX, VIETQR, Part, Profile, recognise
from .tlv import EMVCO, DataObject, QrError, find, parse

FIELD: Final = "codes in the field"


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """`path` is dotted tags (`"38.01.01"`) or a link's parameter (`"am"`), empty for the whole code."""

    severity: Severity
    path: str
    message: str
    source: str = EMVCO

    def as_dict(self) -> dict[str, str]:
        return {k: str(v) for k, v in asdict(self).items()}


_ROOT: Final = {
    "01": Part("initiation", "11|12", "11 (static) or 12 (dynamic)"),
    "52": Part("merchant category code", "[0-9]{4}", "4 digits"),
    "53": Part("currency", "[0-9]{3}", "3 digits (ISO 4217)"),
    "55": Part("tip indicator", "0[123]", "01, 02 or 03"),
    "58": Part("country", "[A-Z]{2}", "2 capital letters (ISO 3166)"),
    "59": Part("merchant name", "(?s:.{1,25})", "at most 25 characters"),
    "60": Part("city", "(?s:.{1,15})", "at most 15 characters"),
    "61": Part("postal code", "(?s:.{1,10})", "at most 10 characters"),
}
_ADDITIONAL: Final = {
    **{
        f"{n:02d}": Part(name, "(?s:.{1,25})", "at most 25 characters")
        for n, name in enumerate(
            ("bill", "mobile", "store", "loyalty", "reference", "customer", "terminal", "purpose"), start=1
        )
    },
    "09": Part("consumer data request", "[AME]{1,3}", "some of A, M and E"),
    "10": Part("merchant tax id", "(?s:.{1,20})", "at most 20 characters"),
    "11": Part("merchant channel", "[0-9A-Za-z]{3}", "3 characters"),
}
_LANGUAGE: Final = {
    "00": Part("language", "[A-Za-z]{2}", "2 letters (ISO 639)"),
    "01": Part("merchant name", "(?s:.{1,25})", "at most 25 characters"),
    "02": Part("city", "(?s:.{1,15})", "at most 15 characters"),
}
_BY_NAME: Final = {p.name: p for p in PROFILES}
_JOMPAY: Final = "898989"
_PERCENT_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}", re.ASCII)


def lint(text: str) -> list[Finding]:
    """Every finding about a code or a UPI link, worst first. Never raises: unreadable is a finding."""
    findings = list(_link(text) if isinstance(text, str) and is_upi(text) else _code(text))
    order = list(Severity)
    return sorted(findings, key=lambda f: order.index(f.severity))


def _code(text: str) -> Iterator[Finding]:
    qr, problems = assess(text)
    for problem in problems:
        yield Finding(Severity.ERROR, problem.path, problem.message, problem.source)
    if problems and isinstance(text, str) and _PERCENT_ESCAPE.search(text[:1024]):
        yield Finding(Severity.INFO, "", "looks percent-encoded; decode it as a URL part first", FIELD)
    if qr is None:
        return
    profile = _BY_NAME.get(qr.profile or "")
    reported = {problem.path for problem in problems}
    for finding in (
        *_root(qr, profile),
        *_accounts(qr, reported),
        *_extras(qr),
        *_text(qr.objects),
        *_advice(qr),
    ):
        if finding.path not in reported or finding.severity is not Severity.ERROR:
            yield finding


def _root(qr: Qr, profile: Profile | None) -> Iterator[Finding]:
    formats = profile.formats if profile else ("01",)
    if qr.get("00") not in formats:
        yield Finding(Severity.ERROR, "00", f"payload format is {' or '.join(formats)}")
    for tag in profile.mandatory if profile else ("52", "53", "58", "59", "60"):
        if qr.get(tag) is None:
            yield Finding(
                Severity.ERROR, tag, f"{NAMES[tag]} is missing", profile.source if profile else EMVCO
            )
    yield from _parts(qr.objects, _ROOT, "")
    if profile and qr.get("53") not in (None, profile.currency):
        yield Finding(
            Severity.ERROR, "53", f"currency of {profile.title} is {profile.currency}", profile.source
        )
    if profile and qr.get("58") not in (None, profile.country):
        yield Finding(
            Severity.ERROR, "58", f"country of {profile.title} is {profile.country}", profile.source
        )
    if qr.crc != qr.crc.upper():
        yield Finding(Severity.WARNING, "63", "checksum in lower-case letters; some readers refuse it")
    if not qr.payees:
        yield Finding(Severity.ERROR, "", "names nobody to pay (tags 02 to 51)")
    yield from _fee(qr)
    yield from _amount(qr)


def _fee(qr: Qr) -> Iterator[Finding]:
    indicator, currency = qr.get("55"), CURRENCIES.get(qr.get("53") or "")
    for tag, needs in (("56", "02"), ("57", "03")):
        value = qr.get(tag)
        if (value is not None) != (indicator == needs):
            yield Finding(Severity.ERROR, tag, f"present exactly when tag 55 is {needs}")
        elif value is not None and tag == "57":
            if not (len(value) <= 5 and re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,2})?", value, re.ASCII)):
                yield Finding(Severity.ERROR, "57", "a percentage from 00.01 to 99.99")
            elif not value.strip("0."):
                yield Finding(Severity.ERROR, "57", "a percentage is more than zero")
        elif value is not None:
            try:
                parse_amount(value, currency or "USD", "56")
            except QrError as error:
                yield Finding(Severity.ERROR, "56", error.message)


def _amount(qr: Qr) -> Iterator[Finding]:
    text = qr.amount
    if text is None:
        if qr.dynamic:
            yield Finding(Severity.INFO, "54", "a dynamic code without an amount: the payer enters it")
        return
    number = qr.get("53")
    if number and number not in CURRENCIES:
        yield Finding(Severity.INFO, "53", "not a currency we take; the amount is kept as text")
    if not text.strip("0."):
        yield Finding(Severity.WARNING, "54", "zero on a static code is read as an open amount", FIELD)
    elif not qr.dynamic:
        yield Finding(Severity.INFO, "54", "a static code with an amount: every payer pays the same")
    if qr.currency == "IDR" and text.partition(".")[2].strip("0"):
        yield Finding(Severity.WARNING, "54", "apps take whole rupiah only", FIELD)


def _accounts(qr: Qr, reported: set[str]) -> Iterator[Finding]:
    indonesian = qr.get("53") == QRIS.currency and qr.get("58") == QRIS.country
    for item in qr.objects:
        if not 26 <= int(item.tag) <= 51 or item.tag in reported:
            continue
        guid = item.get("00") or ""
        if len(guid) > MAX_GUID:
            yield Finding(
                Severity.ERROR, f"{item.tag}.00", f"an identifier has at most {MAX_GUID} characters"
            )
        known = recognise(item, indonesian=indonesian)
        if known is None:
            yield Finding(Severity.INFO, item.tag, "a scheme we do not know; kept as it is")
            continue
        profile, template = known
        if int(item.tag) not in template.tags:
            where = f"{template.tags[0]:02d}" + (f" to {template.tags[-1]}" if len(template.tags) > 1 else "")
            yield Finding(
                Severity.ERROR, item.tag, f"{profile.title} has its account in tag {where}", profile.source
            )
        severity = Severity.ERROR if profile.specified else Severity.WARNING
        yield from _parts(item.children, template.parts, item.tag, profile.source, severity)


def _extras(qr: Qr) -> Iterator[Finding]:
    for item in qr.objects:
        number = int(item.tag)
        if item.tag in ("62", "64"):
            if not item.children:
                try:
                    parse(item.value, item.tag)
                except QrError as error:
                    yield Finding(Severity.ERROR, error.path, error.message)
            yield from _parts(item.children, _ADDITIONAL if item.tag == "62" else _LANGUAGE, item.tag)
        elif 65 <= number <= 79:
            yield Finding(Severity.WARNING, item.tag, "reserved for future use")
    language = next((o for o in qr.objects if o.tag == "64" and o.children), None)
    if language and (language.get("00") is None or language.get("01") is None):
        yield Finding(Severity.ERROR, "64", "needs a language (00) and a name (01)")


def _parts(
    objects: tuple[DataObject, ...],
    parts: Mapping[str, Part],
    path: str,
    source: str = EMVCO,
    severity: Severity = Severity.ERROR,
) -> Iterator[Finding]:
    for at, part in parts.items():
        value = find(objects, at)
        # "***" asks the payer's app to fill the field in, whatever it normally holds.
        if value is None or part.fits(value) or (path == "62" and value == "***"):
            continue
        yield Finding(severity, f"{path}.{at}" if path else at, f"{part.name} is {part.says}", source)


def _text(objects: tuple[DataObject, ...], path: str = "") -> Iterator[Finding]:
    for item in objects:
        here = path + item.tag
        if item.children:
            yield from _text(item.children, here + ".")
            continue
        kinds = {unicodedata.category(c) for c in item.value}
        if "Cc" in kinds:
            yield Finding(Severity.ERROR, here, "holds control characters")
        if kinds & {"Cf", "Zl", "Zp", "Co", "Cn"}:
            yield Finding(Severity.WARNING, here, "holds invisible or direction-changing characters", FIELD)
        if item.value != item.value.strip(" "):
            yield Finding(Severity.INFO, here, "begins or ends with a space", FIELD)


def _advice(qr: Qr) -> Iterator[Finding]:
    """What one scheme's practice adds to its tables."""
    if qr.profile == SANDBOX.name:
        yield Finding(
            Severity.INFO, "", "a Tillgate sandbox code: no bank or wallet can pay it", SANDBOX.source
        )
    elif qr.profile == QRIS.name:
        if qr.get("61") is None:
            yield Finding(Severity.WARNING, "61", "QRIS apps expect a postal code", QRIS.source)
        for payee in qr.payees:
            if 26 <= int(payee.tag) <= 45 and not payee.scheme:
                yield Finding(
                    Severity.WARNING, payee.tag, "an acquirer's account has a 9360 PAN", QRIS.source
                )
    elif qr.profile == VIETQR.name:
        if any(p.service == "QRCASH" for p in qr.payees):
            yield Finding(
                Severity.WARNING, "38.02", "a cash withdrawal, never to be shown as a payment", VIETQR.source
            )
        if not re.fullmatch("[A-Za-z0-9 ]*", qr.get("62.08") or "", re.ASCII):
            yield Finding(Severity.WARNING, "62.08", "banks strip all but letters, digits and spaces", FIELD)
    elif qr.profile == DUITNOW.name:
        yield from _duitnow(qr)


def _duitnow(qr: Qr) -> Iterator[Finding]:
    if qr.get("00") == "01":
        yield Finding(Severity.INFO, "00", "PayNet's table says 02; codes with 01 are common", PAYNET)
    if qr.get("27") is not None:
        yield Finding(Severity.WARNING, "27", "reserved", PAYNET)
    if any(p.acquirer == _JOMPAY for p in qr.payees) and qr.get("62.90") is None:
        yield Finding(Severity.ERROR, "62.90", "JomPAY needs a reference (Ref-1)", PAYNET)
    check = qr.get("82")
    if check is None:
        return
    if re.fullmatch("[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}", check, re.ASCII):
        yield Finding(
            Severity.INFO, "82", "the acquirer's own integrity check; only the acquirer can verify it", PAYNET
        )
    else:
        yield Finding(Severity.WARNING, "82", "not a hash of 32, 40 or 64 hex digits", PAYNET)


def _link(text: str) -> Iterator[Finding]:
    try:
        link = decode_upi(text)
    except QrError as error:
        yield Finding(Severity.ERROR, error.path, error.message, error.source)
        return
    yield from _upi(link)


def _upi(link: UpiLink) -> Iterator[Finding]:
    if link.name is None:
        yield Finding(Severity.ERROR, "pn", "the payee's name is missing", UPI)
    if (link.get("mc") or "0000") != "0000" and not link.reference:
        yield Finding(Severity.ERROR, "tr", "a merchant's link needs a reference", UPI)
    for name, limit in (("tr", 35), ("tn", 50)):
        if len(link.get(name) or "") > limit:
            yield Finding(Severity.WARNING, name, f"at most {limit} characters", UPI)
    if link.get("mam") == "null":
        yield Finding(Severity.INFO, "mam", "says null, which is read as absent", FIELD)
    if any(c in link.text for c in ' "<>'):
        yield Finding(Severity.WARNING, "", "holds characters that should be percent-encoded", FIELD)
    if link.get("sign"):
        yield Finding(
            Severity.INFO, "sign", "signed: the text must be kept exactly; the signature is not checked", UPI
        )
    for name, value in link.params:
        if any(unicodedata.category(c) in ("Cf", "Zl", "Zp") for c in value):
            yield Finding(Severity.WARNING, name, "holds invisible or direction-changing characters", FIELD)
