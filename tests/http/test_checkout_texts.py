"""The words of the payer's pages: complete in every language, and amounts and times as people write them."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import pytest

import tillgate.http
from tillgate.http.texts import LANGUAGES, Texts, amount_text, choose_language, time_text

LOCALES = Path(tillgate.http.__file__).parent / "locales"
NOV_21_0945_UTC = 1_795_254_300_000
HOUR = 3_600_000


def words(code: str) -> dict[str, str]:
    read: dict[str, str] = json.loads((LOCALES / f"{code}.json").read_text())
    return read


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_the_languages_are_those_of_the_countries_we_serve() -> None:
    assert list(LANGUAGES) == ["en", "id", "uz", "ru", "vi", "ms", "hi"]
    assert {path.stem for path in LOCALES.glob("*.json")} == set(LANGUAGES)


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_says_everything_that_english_says(code: str) -> None:
    english, other = words("en"), words(code)
    assert list(other) == list(english)
    for key, text in other.items():
        # A sentence may leave the merchant's or the wallet's name out; it may not ask for what is not given.
        assert placeholders(text) <= placeholders(english[key]), key
        assert placeholders(english[key]) & {"amount", "refunded", "time"} <= placeholders(text), key
        assert text == text.strip() != "", key
        assert "<" not in text, key


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code != "en"])
def test_nothing_is_left_in_english(code: str) -> None:
    english, other = words("en"), words(code)
    assert [key for key in english if english[key] == other[key]] == []


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    source = "".join(
        path.read_text()
        for path in LOCALES.parent.rglob("*")
        if path.suffix in (".html", ".py") and path.is_file()
    )
    derived = {key for key in words("en") if re.fullmatch(r"\w+_(title|text)", key)}
    for key in set(words("en")) - derived:
        assert re.search(rf"""t\(['"]{key}['"]""", source), key
    for key in re.findall(r"\bt\(['\"](\w+)['\"]", source):
        assert key in words("en")


def test_braces_in_a_name_are_only_a_name() -> None:
    assert Texts().say("en", "title", merchant="{channel} {0}") == "Pay {channel} {0}"


@pytest.mark.parametrize(
    ("wanted", "header", "language"),
    [
        (None, None, "en"),
        (None, "", "en"),
        (None, "id-ID,id;q=0.9,en-US;q=0.8,en;q=0.7", "id"),
        (None, "in-ID", "id"),
        (None, "uz-Latn-UZ, ru;q=0.9", "uz"),
        (None, "fr-FR, de;q=0.9, vi;q=0.2", "vi"),
        (None, "en;q=0.1, ms;q=0.5, hi;q=0.5", "ms"),
        (None, "id;q=0, ru;q=0.001", "ru"),
        (None, "*", "en"),
        (None, "fr", "en"),
        (None, "q=;;,--,hi;q=x,HI", "hi"),
        (None, "x" * 100_000 + ",id", "en"),
        ("ru", "id", "ru"),
        ("xx", "id", "id"),
        ("../en", "id", "id"),
        ("RU", "id", "id"),
    ],
)
def test_a_language_is_chosen_by_wish_then_by_the_browser(
    wanted: str | None, header: str | None, language: str
) -> None:
    assert choose_language(wanted, header) == language


@pytest.mark.parametrize(
    ("minor", "currency", "language", "text"),
    [
        (15_000_000, "IDR", "id", "Rp 150.000"),
        (15_000_000, "IDR", "en", "Rp 150,000"),
        (15_000_050, "IDR", "id", "Rp 150.000,50"),
        (15_000_005, "IDR", "en", "Rp 150,000.05"),
        (1, "IDR", "id", "Rp 0,01"),
        (100_000_000_000_000_0, "IDR", "id", "Rp 10.000.000.000.000"),
        (99_999_999_999_999_9, "IDR", "en", "Rp 9,999,999,999,999.99"),
        (1_500_000, "UZS", "uz", "15 000 soʻm"),
        (1_500_050, "UZS", "ru", "15 000,50 сум"),
        (1_500_000, "UZS", "en", "UZS 15,000"),
        (123_456_750, "INR", "hi", "₹12,34,567.50"),
        (123_456_700, "INR", "en", "₹12,34,567.00"),
        (1_250, "MYR", "ms", "RM 12.50"),
        (1_200, "MYR", "en", "RM 12.00"),
        (180_000, "VND", "vi", "180.000 ₫"),
        (180_000, "VND", "en", "₫180,000"),
        (99, "USD", "en", "$0.99"),
    ],
)
def test_an_amount_is_exact_and_written_as_people_write_it(
    minor: int, currency: str, language: str, text: str
) -> None:
    assert amount_text(minor, currency, language).replace("\xa0", " ") == text


@pytest.mark.parametrize(
    ("currency", "language", "now", "text"),
    [
        ("IDR", "en", NOV_21_0945_UTC, "16:45 (GMT+7)"),
        ("UZS", "ru", NOV_21_0945_UTC, "14:45 (GMT+5)"),
        ("INR", "hi", NOV_21_0945_UTC, "15:15 (GMT+5:30)"),
        ("MYR", "ms", NOV_21_0945_UTC, "17:45 (GMT+8)"),
        ("USD", "en", NOV_21_0945_UTC, "09:45 (GMT)"),
        ("IDR", "id", NOV_21_0945_UTC - 24 * HOUR, "21 Nov 2026, 16:45 (GMT+7)"),
        ("IDR", "en", NOV_21_0945_UTC - 17 * HOUR, "Nov 21, 2026, 16:45 (GMT+7)"),  # 23:45 of the day before
    ],
)
def test_a_time_is_the_one_on_the_payers_clock(currency: str, language: str, now: int, text: str) -> None:
    assert time_text(NOV_21_0945_UTC, currency, language, now) == text
