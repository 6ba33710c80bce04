"""Freshness: the ±60 s window, the nonces seen inside it, and how far a terminal's clock is off."""

from collections import OrderedDict
from typing import Final, Protocol

WINDOW_MS: Final = 60_000
"""59,999 ms away passes, 60,000 does not, in both directions."""
NONCE_KEPT_MS: Final = 3 * WINDOW_MS
"""How long past its own timestamp a nonce is remembered: the window, and room for a clock that is set back.
"""
SKEW_WARNING_MS: Final = 20_000
LONGEST_NONCE: Final = 128

_LONGEST_TIMESTAMP = 16


class NonceStore(Protocol):
    """Remembers which nonces were used. Never forgets one before it expires, whatever arrives."""

    def seen(self, scope: str, nonce: str) -> bool:
        """Whether this nonce was used under this secret."""

    def remember(self, scope: str, nonce: str, expires_ms: int) -> None:
        """Keep it until `expires_ms` at least."""


class MemoryNonces:
    """Nonces of one process. `load` brings back those of an earlier one."""

    def __init__(self) -> None:
        self._expiry: OrderedDict[tuple[str, str], int] = OrderedDict()

    @property
    def count(self) -> int:
        """How many are remembered."""
        return len(self._expiry)

    def seen(self, scope: str, nonce: str) -> bool:
        """Whether this nonce was used under this secret."""
        return (scope, nonce) in self._expiry

    def remember(self, scope: str, nonce: str, expires_ms: int) -> None:
        """Keep it until `expires_ms` at least."""
        self._expiry[scope, nonce] = expires_ms

    def forget_expired(self, now_ms: int) -> None:
        """Drop what can no longer be replayed. Bounded work: entries come in roughly the order of their
        expiry.
        """
        while self._expiry:
            oldest = next(iter(self._expiry))
            if self._expiry[oldest] >= now_ms:
                return
            del self._expiry[oldest]


def timestamp_ms(value: object) -> int | None:
    """Epoch milliseconds from the wire: a text of ASCII digits and nothing else."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= _LONGEST_TIMESTAMP:
        return int(value)
    return None


def nonce_expiry_ms(sent_ms: int, now_ms: int) -> int:
    """When a nonce may be forgotten: later than any moment at which its frame would pass the window."""
    return max(sent_ms, now_ms) + NONCE_KEPT_MS
