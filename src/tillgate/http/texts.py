"""The words, amounts and times of the pages that payers see, in seven languages.

A language is one file in `locales/`; every file has the same keys and placeholders (a test holds that).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_decimal

from tillgate.domain.money import EXPONENTS, UNITS

LANGUAGES: Final[dict[str, str]] = {
    "en": "English",
    "id": "Bahasa Indonesia",
    "uz": "Oʻzbekcha",
    "ru": "Русский",
    "vi": "Tiếng Việt",
    "ms": "Bahasa Melayu",
    "hi": "हिन्दी",
}
"""Code and the language's own name, in the order of the menu."""

DEFAULT_LANGUAGE: Final = "en"
_FORMER: Final = {"in": "id"}  # what old Android and Java still call Indonesian
_HEADER_CHARS: Final = 500
_PREFERENCE: Final = re.compile(
    r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?"
)

_SYMBOLS: Final = {"IDR": "Rp", "INR": "₹", "MYR": "RM", "USD": "$", "VND": "₫", "UZS": "UZS"}
_LOCAL_SYMBOLS: Final = {("UZS", "uz"): "soʻm", ("UZS", "ru"): "сум"}
WHOLE: Final = frozenset({"IDR", "UZS"})
"""Currencies with decimals in ISO 4217 that nobody writes: shown only where there is a fraction."""

_OFFSET_MINUTES: Final = {"IDR": 420, "INR": 330, "MYR": 480, "UZS": 300, "VND": 420}
"""Where a currency is spent, clocks have one offset all year; so no time zone database is needed."""


class Texts:
    """Every language's words; read once."""

    def __init__(self, directory: Path = Path(__file__).parent / "locales") -> None:
        decode = msgspec.json.Decoder(dict[str, str]).decode
        self._texts = {code: decode((directory / f"{code}.json").read_bytes()) for code in LANGUAGES}

    def say(self, language: str, key: str, /, **values: str) -> str:
        """A text with its placeholders filled. Not escaped: that is the template's business."""
        return self._texts[language][key].format_map(values)


def choose_language(wanted: str | None, accept_language: str | None) -> str:
    """One of `LANGUAGES`: the wanted one, else by `Accept-Language` (RFC 9110 §12.5.4), else English."""
    if wanted in LANGUAGES:
        return wanted
    ranked: list[tuple[float, str]] = []
    for part in (accept_language or "")[:_HEADER_CHARS].split(","):
        found = _PREFERENCE.fullmatch(part)
        if found is None:
            continue
        code = found[1].lower()
        weight = float(found[2]) if found[2] else 1.0
        if weight > 0:
            ranked.append((weight, _FORMER.get(code, code)))
    ranked.sort(key=lambda one: -one[0])  # stable: of equals the first named
    return next((code for _, code in ranked if code in LANGUAGES), DEFAULT_LANGUAGE)


def amount_text(amount_minor: int, currency: str, language: str) -> str:
    """An exact amount as people write it: `Rp 150.000` in Indonesian, `₹12,34,567.50` in Hindi."""
    pattern = _pattern(currency, language)
    whole = currency in WHOLE and amount_minor % UNITS[currency] == 0
    decimals = 0 if whole else EXPONENTS[currency]
    pattern = pattern.replace(".00", "." + "0" * decimals if decimals else "")
    value = Decimal(amount_minor).scaleb(-EXPONENTS[currency])
    return format_decimal(value, pattern, _locale(currency, language), decimal_quantization=False)


def _locale(currency: str, language: str) -> str:
    # English is read in all these countries, but lakhs and crores are grouped only in India.
    return "en_IN" if currency == "INR" and language == "en" else language


def _pattern(currency: str, language: str) -> str:
    """The locale's pattern with our symbol in it; a symbol of letters keeps a space from the digits."""
    pattern = Locale.parse(_locale(currency, language)).currency_formats["standard"].pattern
    symbol = _LOCAL_SYMBOLS.get((currency, language), _SYMBOLS[currency])
    head, _, tail = pattern.partition("¤")
    if symbol.isalpha():
        head, tail = head and head.rstrip("\xa0 ") + "\xa0", tail and "\xa0" + tail.lstrip("\xa0 ")
    return f"{head}'{symbol}'{tail}"


def time_text(at: int, currency: str, language: str, now: int) -> str:
    """Epoch ms as a time where the currency is spent: `16:45 (GMT+7)`, with the date if not today."""
    minutes = _OFFSET_MINUTES.get(currency, 0)
    zone = timezone(timedelta(minutes=minutes))
    moment = datetime.fromtimestamp(at // 1000, UTC).astimezone(zone)
    clock = format_time(moment, "HH:mm", zone, language)
    hours, rest = divmod(minutes, 60)
    offset = f"GMT+{hours}" + (f":{rest:02d}" if rest else "") if minutes else "GMT"
    text = f"{clock} ({offset})"
    if moment.date() == datetime.fromtimestamp(now // 1000, UTC).astimezone(zone).date():
        return text
    return f"{format_date(moment.date(), 'medium', language)}, {text}"
