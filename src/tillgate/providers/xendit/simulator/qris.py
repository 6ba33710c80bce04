"""A code in the shape of QRIS that every scanner reads and nothing can pay."""

from __future__ import annotations

import binascii

GUID = "INVALID.XENDIT.SIMULATOR"  # .invalid is nobody's, for ever


def field(tag: str, value: str) -> str:
    return f"{tag}{len(value):02d}{value}"


def qris(request_id: str, rupiah: int) -> str:
    account = field("00", GUID) + field("01", "0" * 18) + field("03", "UMI")
    note = field("00", GUID) + field("01", request_id)
    text = (
        field("00", "01") + field("01", "12") + field("26", account) + field("52", "0000")
        + field("53", "360") + field("54", str(rupiah)) + field("58", "ID")
        + field("59", "TEST XENDIT") + field("60", "JAKARTA")
        + field("61", "10000") + field("80", note) + "6304"
    )  # fmt: skip
    return f"{text}{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"
