"""Making codes for tests by hand: lengths and checksums that share nothing with the code under test."""

from __future__ import annotations


def crc(text: str) -> str:
    """CRC-16/CCITT-FALSE, bit by bit."""
    register = 0xFFFF
    for byte in text.encode():
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1) ^ 0x1021 if register & 0x8000 else register << 1
            register &= 0xFFFF
    return f"{register:04X}"


def signed(body: str) -> str:
    """`body` with its checksum object."""
    return body + "6304" + crc(body + "6304")


def o(tag: str, value: str) -> str:
    """One object."""
    return f"{tag}{len(value):02d}{value}"
