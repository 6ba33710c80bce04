"""Ringgit on the wire and at the counter, counted in whole sen (int). No float ever holds an amount."""

import re
from decimal import Decimal, InvalidOperation
from typing import Literal

from tillgate.providers.mobypay.errors import BadAmount

AmountForm = Literal["decimal", "integer"]
"""How a whole amount leaves us: `50.0`, as the published kiosk sends it, or `50`, which every language
signs alike.
"""

WIRE_LIMIT_SEN = 1_000_000_000
"""RM 10,000,000: from here on, implementations print the same number differently and signatures stop
matching.
"""

_TYPED = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?")
_LONGEST_LEXEME = 40
_ABSURD_SEN = 10**15  # no amount, and more than a database column should be offered


def parse_ringgit(text: str) -> int:
    """Sen in an amount a person or a client typed: `25`, `25.5` or `25.50`.

    Raises BadAmount for anything else: signs, separators, exponents, more than two decimals.
    """
    match = _TYPED.fullmatch(text.strip())
    if match is None:
        raise BadAmount("write the amount in ringgit with at most two decimals, for example 25.50")
    whole, decimals = match.groups()
    return int(whole) * 100 + int((decimals or "0").ljust(2, "0"))


def check_amount(amount_sen: int, limit_sen: int) -> int:
    """The amount, if a terminal may be asked for it. Raises BadAmount."""
    if amount_sen <= 0:
        raise BadAmount("the amount must be more than zero")
    if amount_sen >= WIRE_LIMIT_SEN:
        raise BadAmount("the amount must be below RM 10,000,000")
    if amount_sen > limit_sen:
        raise BadAmount(f"the amount is above this kiosk's limit of RM {ringgit(limit_sen)}")
    return amount_sen


def ringgit(amount_sen: int) -> str:
    """Two decimals for people: 1050 is `10.50`."""
    sign, amount_sen = ("-", -amount_sen) if amount_sen < 0 else ("", amount_sen)
    return f"{sign}{amount_sen // 100}.{amount_sen % 100:02d}"


def wire_amount(amount_sen: int, form: AmountForm = "decimal") -> bytes:
    """The JSON number a terminal receives, in the shortest decimal form, which is also what gets signed.

    1000 is `10.0` (or `10`), 1050 is `10.5`, 1 is `0.01`: the forms on which all known terminals agree.
    """
    whole, sen = divmod(amount_sen, 100)
    if sen == 0:
        return b"%d" % whole if form == "integer" else b"%d.0" % whole
    if sen % 10 == 0:
        return b"%d.%d" % (whole, sen // 10)
    return b"%d.%02d" % (whole, sen)


def sen_of(lexeme: str) -> int | None:
    """Sen in a JSON number, read from its digits. None when it is not a whole number of sen, absurd, or no
    number at all, as what a terminal told us may be.
    """
    if len(lexeme) > _LONGEST_LEXEME:
        return None
    try:
        sign, digits, exponent = Decimal(lexeme).as_tuple()
    except InvalidOperation:
        return None
    if not isinstance(exponent, int) or abs(exponent) > _LONGEST_LEXEME:
        return None
    value: int = int("".join(map(str, digits)))
    factor: int = 10 ** abs(exponent + 2)
    if exponent + 2 < 0:
        value, rest = divmod(value, factor)
        if rest:
            return None
    else:
        value *= factor
    if value >= _ABSURD_SEN:
        return None
    return -value if sign else value
