"""Payment codes: EMVCo merchant-presented QR and UPI links, read, written, checked and drawn.

    qr = decode(text)                      # strict; QrError says what is wrong and where
    qr.profile, qr.money, qr.payees        # "vietqr", Money(180000, "VND"), (Payee(...),)
    text = vietqr(bank_bin="970403", account="0011012345678", amount_minor=180_000)
    for finding in lint(text): ...         # severity, tag path, what and why, which document says so
    picture = png(text)

Pure: no network, no files, no clock. A web link is never followed, and a code that reads well is no proof of
payment.
"""

from __future__ import annotations

from .builders import duitnow, qris, sandbox_qris, sandbox_ref, vietqr
from .emv import Payee, Qr, amount_text, decode, encode, parse_amount
from .links import UpiLink, decode_upi, read, upi_link
from .lint import Finding, Severity, lint
from .outline import outline
from .profiles import CURRENCIES, NUMERIC, PROFILES, Profile
from .render import png, svg
from .tlv import DataObject, Fields, QrError, crc16

__all__ = [
    "CURRENCIES",
    "NUMERIC",
    "PROFILES",
    "DataObject",
    "Fields",
    "Finding",
    "Payee",
    "Profile",
    "Qr",
    "QrError",
    "Severity",
    "UpiLink",
    "amount_text",
    "crc16",
    "decode",
    "decode_upi",
    "duitnow",
    "encode",
    "lint",
    "outline",
    "parse_amount",
    "png",
    "qris",
    "read",
    "sandbox_qris",
    "sandbox_ref",
    "svg",
    "upi_link",
    "vietqr",
]
