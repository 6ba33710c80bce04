"""Card and account numbers: what may be kept of them, and what may be logged."""

from __future__ import annotations

import re
from typing import Final

_CARD: Final = re.compile(r"[0-9]{13,19}", re.ASCII)
_CARD_IN_BODY: Final = re.compile(rb'("fromAccNo"\s*:\s*")([0-9]{13,19})(")')


def masked_card(account: str) -> str:
    """A whole card number (13 to 19 digits with a right check digit) keeps its last four; else unchanged."""
    if not _CARD.fullmatch(account) or not _luhn(account):
        return account
    return "*" * (len(account) - 4) + account[-4:]


def masked_account(account: str) -> str:
    """For logs: at most the last four characters of any account."""
    return "*" * max(len(account) - 4, 0) + account[-4:] if len(account) > 8 else "*" * len(account)


def scrubbed(body: bytes) -> bytes:
    """A body fit to be kept: no whole card number in `fromAccNo`."""
    return _CARD_IN_BODY.sub(lambda m: m[1] + masked_card(m[2].decode()).encode() + m[3], body)


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
