"""Money is exact or refused. The expectations are written by hand, from ISO 4217 and from arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillgate.domain.money import Money, MoneyError

# ISO 4217, "List One": the minor unit of each currency that we take.
ISO_4217 = {"IDR": 2, "INR": 2, "MYR": 2, "USD": 2, "UZS": 2, "VND": 0}

currencies = st.sampled_from(sorted(ISO_4217))


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("0", "IDR", 0),
        ("150000", "IDR", 15_000_000),
        ("150000.00", "IDR", 15_000_000),
        ("150000.5", "IDR", 15_000_050),
        ("0.01", "MYR", 1),
        ("0.10", "MYR", 10),
        ("00012.30", "UZS", 1230),
        ("15000.50", "UZS", 1_500_050),
        ("19.9900", "INR", 1999),  # zeros carry nothing
        ("1", "VND", 1),
        ("250000", "VND", 250_000),
        ("250000.00", "VND", 250_000),
        ("0.29", "USD", 29),  # float("0.29") * 100 is 28.999999999999996
        ("4.35", "USD", 435),  # and of this 434.99999999999994
        ("9999999999999.99", "IDR", 999_999_999_999_999),
        ("10000000000000.00", "IDR", 10**15),
    ],
)
def test_text_is_read_exactly(text: str, currency: str, minor: int) -> None:
    assert Money.parse(text, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-1", "+1", "1e3", "1E3", "0x10", "1_000", "1,5", "1,000.00", "1.", ".5", "1.2.3", " 1",
        "1 ", "1\n", "\n1", "NaN", "nan", "Infinity", "inf", "１００", "١٠", "1.005", "0.001", "1.00001",
        "Rp1", "1 IDR", "10000000000000.01", "99999999999999999999", "9" * 400, "1\0",
    ],
)  # fmt: skip
def test_what_is_not_an_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        Money.parse(text, "IDR")


@pytest.mark.parametrize("text", ["1.5", "0.01", "1.1000"])
def test_a_fraction_of_a_dong_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        Money.parse(text, "VND")


@pytest.mark.parametrize("currency", ["", "idr", "IDR ", "XXX", "EUR", "BTC", "ID"])
def test_an_unknown_currency_is_refused(currency: str) -> None:
    for make in (
        lambda: Money(1, currency),
        lambda: Money.parse("1", currency),
        lambda: Money.parse("rubbish", currency),
    ):
        with pytest.raises(MoneyError):
            make()


@pytest.mark.parametrize("minor", [1.0, 1.5, float("nan"), "1", None, True, False])
def test_only_whole_numbers_are_money(minor: object) -> None:
    with pytest.raises(MoneyError):
        Money(minor, "IDR")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (0, "IDR", "0.00"),
        (1, "IDR", "0.01"),
        (99, "MYR", "0.99"),
        (100, "MYR", "1.00"),
        (1_500_050, "UZS", "15000.50"),
        (15_000, "VND", "15000"),
        (0, "VND", "0"),
        (-5, "IDR", "-0.05"),
        (-12_345, "USD", "-123.45"),
        (-7, "VND", "-7"),
        (10**15, "INR", "10000000000000.00"),
    ],
)
def test_money_is_printed_with_all_its_decimals(minor: int, currency: str, text: str) -> None:
    money = Money(minor, currency)
    assert money.decimal() == text
    assert str(money) == f"{text} {currency}"


@pytest.mark.parametrize(
    ("major", "currency", "minor"), [(150_000, "IDR", 15_000_000), (1, "VND", 1), (0, "MYR", 0)]
)
def test_whole_units_for_a_wire_without_decimals(major: int, currency: str, minor: int) -> None:
    assert Money.of_major(major, currency) == Money(minor, currency)
    assert Money(minor, currency).major == major


@pytest.mark.parametrize("minor", [1, 99, 101, -1, 15_000_050])
def test_a_wire_without_decimals_never_loses_any(minor: int) -> None:
    with pytest.raises(MoneyError):
        _ = Money(minor, "IDR").major


def test_sums_differences_and_order() -> None:
    assert Money(150, "IDR") + Money(50, "IDR") == Money(200, "IDR")
    assert Money(150, "IDR") - Money(200, "IDR") == Money(-50, "IDR")
    assert Money(1, "IDR") < Money(2, "IDR") <= Money(2, "IDR")
    assert not Money(2, "IDR") < Money(2, "IDR")
    assert Money(100, "IDR") != Money(100, "MYR")
    assert Money(1, "IDR") != 1


@pytest.mark.parametrize("other", [Money(100, "VND"), Money(100, "MYR")])
def test_two_currencies_do_not_mix(other: Money) -> None:
    mine = Money(100, "IDR")
    for mix in (
        lambda: mine + other,
        lambda: mine - other,
        lambda: mine < other,
        lambda: mine <= other,
        lambda: mine > other,
        lambda: mine >= other,
    ):
        with pytest.raises(MoneyError):
            mix()


@given(minor=st.integers(0, 10**15), currency=currencies)
def test_what_is_printed_is_read_back(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    assert Money.parse(money.decimal(), currency) == money
    whole, _, fraction = money.decimal().partition(".")
    assert len(fraction) == ISO_4217[currency]
    assert int(whole + fraction) == minor


@given(text=st.text(max_size=20), currency=currencies)
def test_no_text_breaks_it(text: str, currency: str) -> None:
    try:
        money = Money.parse(text, currency)
    except MoneyError:
        return
    assert 0 <= money.minor <= 10**15


@given(a=st.integers(-(10**15), 10**15), b=st.integers(-(10**15), 10**15), currency=currencies)
def test_arithmetic_is_that_of_whole_numbers(a: int, b: int, currency: str) -> None:
    one, two = Money(a, currency), Money(b, currency)
    assert (one + two).minor == a + b
    assert one + two - two == one
    assert (one < two, one <= two) == (a < b, a <= b)
