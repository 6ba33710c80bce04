"""Codes of the national schemes, written by their own tables.

A builder refuses whatever `lint` calls an error, so a code that leaves here is one that readers take. None of
them can make money move to a hub: the ids in a code are given by an acquirer or a bank, and a payment is
known only from their callback, never from a scan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .emv import DYNAMIC, STATIC, Qr, amount_text, decode, encode, sign
from .lint import Severity, lint
from .profiles import DUITNOW, QRIS, SANDBOX, SANDBOX_GUID, VIETQR, Profile
from .tlv import MAX_VALUE, Fields, QrError, fold, write

MAX_SANDBOX_REF: Final = MAX_VALUE - len(SANDBOX_GUID) - 8

_REF: Final = re.compile(r"[0-9A-Za-z._~-]+", re.ASCII)
_SANDBOX_HEAD: Final = "000201010212" + write(
    {"26": {"00": SANDBOX_GUID, "01": "0" * 18, "03": "UMI"}, "52": "0000", "53": "360"}
)


def qris(
    *,
    acquirer: str,
    merchant_pan: str,
    merchant_name: str,
    city: str,
    postal_code: str,
    merchant_id: str | None = None,
    criteria: str = "UMI",
    nmid: str | None = None,
    mcc: str = "0000",
    amount_minor: int | None = None,
    dynamic: bool | None = None,
    bill: str | None = None,
    reference: str | None = None,
    terminal: str | None = None,
    tip_ask: bool = False,
    tip_fixed_minor: int | None = None,
    tip_percent: str | None = None,
) -> str:
    """A QRIS code (Bank Indonesia's national standard). Amounts are sen and must be whole rupiah.

    `acquirer` is the acquirer's reverse domain (`"ID.CO.EXAMPLE.WWW"`), `merchant_pan` 9360 and 15 to 19
    digits in all, `nmid` the national merchant id (`ID` and 13 digits). Dynamic when it carries an amount,
    unless `dynamic` says otherwise. At most one of the tips. Raises QrError.

    An amount put into a printed merchant code makes a code that shows the right sum and nothing more: the
    acquirer still reports "a payment to this merchant". Codes that belong to one order come from the
    acquirer.
    """
    if tip_ask + (tip_fixed_minor is not None) + (tip_percent is not None) > 1:
        raise QrError("one kind of tip at most", "55", QRIS.source)
    pan = QRIS.templates[1].parts["01"]
    if not pan.fits(merchant_pan):
        raise QrError(f"{pan.name} is {pan.says}", "26.01", QRIS.source)
    fixed = amount_text(tip_fixed_minor, "IDR") if tip_fixed_minor is not None else None
    indicator = "01" if tip_ask else "02" if fixed else "03" if tip_percent is not None else None
    account = {"00": acquirer, "01": merchant_pan, "02": merchant_id, "03": criteria}
    national = {"00": "ID.CO.QRIS.WWW", "02": nmid, "03": criteria} if nmid is not None else None
    return _build(
        QRIS,
        {"26": account, "51": national},
        amount=amount_text(amount_minor, "IDR") if amount_minor is not None else None,
        dynamic=amount_minor is not None if dynamic is None else dynamic,
        root={"52": mcc, "55": indicator, "56": fixed, "57": tip_percent},
        place={"59": merchant_name, "60": city, "61": postal_code},
        additional={"01": bill, "05": reference, "07": terminal},
    )


def duitnow(
    *,
    acquirer_id: str,
    merchant_id: str,
    merchant_name: str,
    city: str = "MY",
    postal_code: str | None = None,
    mcc: str = "0000",
    amount_minor: int | None = None,
    dynamic: bool = False,
    bill: str | None = None,
    reference: str | None = None,
    terminal: str | None = None,
    purpose: str | None = None,
    channel: str | None = None,
    jompay_ref1: str | None = None,
    jompay_ref2: str | None = None,
) -> str:
    """A DuitNow QR code (PayNet, version 1.5). `amount_minor` is sen of ringgit. Raises QrError.

    `acquirer_id` (6 digits) and `merchant_id` come from the acquirer; a DuitNow id such as a phone or
    identity card number has no place in a code. `mcc` 0000 is person to person. `dynamic` is for ids the
    acquirer made for one order: adding an amount to a static id does not make it one. JomPAY (acquirer
    898989) needs `jompay_ref1`.
    """
    return _build(
        DUITNOW,
        {"26": {"00": "A0000006150001", "01": acquirer_id, "02": merchant_id}},
        amount=amount_text(amount_minor, "MYR") if amount_minor is not None else None,
        dynamic=dynamic,
        root={"52": mcc},
        place={"59": merchant_name, "60": city, "61": postal_code},
        additional={
            "01": bill,
            "05": reference,
            "07": terminal,
            "08": purpose,
            "11": channel,
            "90": jompay_ref1,
            "91": jompay_ref2,
        },
    )


def vietqr(
    *,
    bank_bin: str,
    account: str,
    service: str = "QRIBFTTA",
    amount_minor: int | None = None,
    dynamic: bool | None = None,
    bill: str | None = None,
    purpose: str | None = None,
    merchant_name: str | None = None,
    city: str | None = None,
) -> str:
    """A VietQR bank-transfer code (NAPAS 1.5.2). `amount_minor` is dong, which has no smaller unit. Raises
    QrError.

    `service` is QRIBFTTA to an account, QRIBFTTC to a card, QRPUSH to a merchant; cash withdrawal is refused,
    it is no payment. `purpose` is the transfer's memo, by which the bank's message is matched: letters,
    digits and spaces only, because banks strip everything else.
    """
    if service == "QRCASH":
        raise QrError("a cash withdrawal is not a payment", "38.02", VIETQR.source)
    if purpose is not None and re.fullmatch("[A-Za-z0-9 ]{1,25}", purpose, re.ASCII) is None:
        raise QrError("a memo is 1 to 25 letters, digits and spaces", "62.08", VIETQR.source)
    return _build(
        VIETQR,
        {"38": {"00": "A000000727", "01": {"00": bank_bin, "01": account}, "02": service}},
        amount=amount_text(amount_minor, "VND") if amount_minor is not None else None,
        dynamic=amount_minor is not None if dynamic is None else dynamic,
        root={},
        place={"59": merchant_name, "60": city},
        additional={"01": bill, "08": purpose},
    )


def sandbox_qris(payment_ref: str, amount_minor: int, merchant_name: str, city: str) -> str:
    """A dynamic code in the shape of QRIS for the sandbox: scanners read it, nothing can pay it.

    It cannot be mistaken for a real payee, for four reasons, each enough alone. Its account is under the
    identifier INVALID.TILLGATE.SANDBOX, a name in the domain .invalid that RFC 2606 reserves for ever, so no
    acquirer can own it. Its merchant PAN is eighteen zeros, where every QRIS acquirer is found by a PAN that
    begins with 9360. It has no national merchant id (tag 51). And the payer sees a name that begins with
    "TEST ".

    `amount_minor` is sen and must be whole rupiah; `payment_ref` is 1 to 67 of letters, digits and `._~-` and
    is found again by `sandbox_ref`. Name and city are cut to what a code can hold and lose what cannot be
    shown. Raises QrError.
    """
    if not 1 <= len(payment_ref) <= MAX_SANDBOX_REF or _REF.fullmatch(payment_ref) is None:
        raise QrError(
            f"a reference is 1 to {MAX_SANDBOX_REF} letters, digits and ._~-", "80.01", SANDBOX.source
        )
    amount = amount_text(amount_minor, "IDR")
    name = _shown(f"TEST {merchant_name}", 25)
    city = _shown(city, 15) or "JAKARTA"
    note = f"00{len(SANDBOX_GUID)}{SANDBOX_GUID}01{len(payment_ref):02d}{payment_ref}"
    return sign(
        f"{_SANDBOX_HEAD}54{len(amount):02d}{amount}5802ID59{len(name):02d}{name}60{len(city):02d}{city}"
        f"61051000080{len(note)}{note}"
    )


def sandbox_ref(qr: Qr) -> str | None:
    """The `payment_ref` a sandbox code was made for; None for every other code."""
    return qr.get("80.01") if qr.sandbox and fold(qr.get("80.00") or "") == SANDBOX_GUID else None


def _shown(text: str, limit: int) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text[:limit].strip()


def _build(
    profile: Profile,
    accounts: Mapping[str, object],
    *,
    amount: str | None,
    dynamic: bool,
    root: Mapping[str, str | None],
    place: Mapping[str, str | None],
    additional: Mapping[str, str | None],
) -> str:
    fields: dict[str, object] = {
        "00": profile.formats[0],
        "01": DYNAMIC if dynamic else STATIC,
        **accounts,
        "52": root.get("52"),
        "53": profile.currency,
        "54": amount,
        **{tag: root.get(tag) for tag in ("55", "56", "57")},
        "58": profile.country,
        **place,
        "62": additional,
    }
    text = encode(_given(fields))
    for payee in decode(text).payees:
        if payee.scheme != profile.name:
            raise QrError(f"not an account of {profile.title}", payee.tag, profile.source)
    for finding in lint(text):
        if finding.severity is Severity.ERROR:
            raise QrError(finding.message, finding.path, finding.source)
    return text


def _given(fields: Mapping[str, object]) -> Fields:
    """Without what was not given, and without templates that are empty then."""
    given: dict[str, object] = {}
    for tag, value in fields.items():
        value = _given(value) if isinstance(value, Mapping) else value
        if value is not None and value != {}:
            given[tag] = value
    return given  # type: ignore[return-value]
