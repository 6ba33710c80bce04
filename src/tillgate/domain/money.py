"""Money is an `int` of minor units and an ISO 4217 currency. Floats never touch it.

The exponent is ISO 4217's (IDR has 2, VND has 0); a provider whose wire counts otherwise says so itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

EXPONENTS: Final[dict[str, int]] = {"IDR": 2, "INR": 2, "MYR": 2, "USD": 2, "UZS": 2, "VND": 0}
"""Currencies we take, with the number of decimals ISO 4217 gives them."""

UNITS: Final[dict[str, int]] = {"IDR": 100, "INR": 100, "MYR": 100, "USD": 100, "UZS": 100, "VND": 1}
"""Minor units in one whole unit."""

MAX_MINOR: Final = 10**15
"""More than any till takes, and safely inside a signed 64-bit column when a million of them are added."""

_TEXT: Final = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,4}))?", re.ASCII)


class MoneyError(ValueError):
    """Not an amount of money we can keep exactly."""


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """`minor` units of `currency`; negative only as a difference, never as something to collect."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise MoneyError("an amount is a whole number of minor units")
        if self.currency not in EXPONENTS:
            raise MoneyError(f"unknown currency {self.currency!r}")

    @classmethod
    def parse(cls, text: str, currency: str) -> Money:
        """`"15000.50"`, `"UZS"` → 1 500 050 tiyin. Refuses signs, exponents, spaces and lost digits."""
        exponent = EXPONENTS.get(currency)
        if exponent is None:
            raise MoneyError(f"unknown currency {currency!r}")
        found = _TEXT.fullmatch(text)
        if found is None:
            raise MoneyError(f"not an amount: {text[:40]!r}")
        whole, fraction = found[1], found[2] or ""
        if fraction[exponent:].strip("0"):
            raise MoneyError(f"{currency} has {exponent} decimals, not {len(fraction)}")
        minor = int(whole + fraction[:exponent].ljust(exponent, "0"))
        if minor > MAX_MINOR:
            raise MoneyError("amount too large")
        return cls(minor, currency)

    @classmethod
    def of_major(cls, major: int, currency: str) -> Money:
        """Whole units as a wire without decimals sends them: `150000`, `"IDR"` → 15 000 000 sen."""
        return cls(major * UNITS[currency], currency)

    @property
    def major(self) -> int:
        """Whole units, for a wire without decimals. Raises `MoneyError` when something would be lost."""
        whole, rest = divmod(self.minor, UNITS[self.currency])
        if rest:
            raise MoneyError(f"{self} has a fraction that this wire cannot carry")
        return whole

    def __str__(self) -> str:
        return f"{self.decimal()} {self.currency}"

    def decimal(self) -> str:
        """Exactly as many decimals as the currency has: `"15000.50"`, `"15000"` for VND."""
        exponent = EXPONENTS[self.currency]
        sign, digits = ("-" if self.minor < 0 else ""), str(abs(self.minor)).rjust(exponent + 1, "0")
        return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}" if exponent else f"{sign}{digits}"

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other), self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._same(other)

    def __le__(self, other: Money) -> bool:
        return self.minor <= self._same(other)

    def _same(self, other: Money) -> int:
        if other.currency != self.currency:
            raise MoneyError(f"{self.currency} and {other.currency} do not add up")
        return other.minor
