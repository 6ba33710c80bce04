"""A code in the shape of QRIS that every scanner reads and nothing can pay."""

from __future__ import annotations

import binascii

GUID = "INVALID.MIDTRANS.SIMULATOR"  # .invalid is nobody's, for ever


def qris(transaction_id: str, rupiah: int) -> str:
    def field(tag: str, value: str) -> str:
        return f"{tag}{len(value):02d}{value}"

    text = "000201" + "010212"
    text += field("26", field("00", GUID) + field("01", "0" * 18) + field("03", "UMI"))
    text += "52040000" + "5303360" + field("54", str(rupiah)) + "5802ID"
    text += field("59", "TEST MIDTRANS") + field("60", "JAKARTA") + field("61", "10000")
    text += field("80", field("00", GUID) + field("01", transaction_id)) + "6304"
    return f"{text}{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"
