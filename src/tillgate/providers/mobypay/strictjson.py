"""JSON as signed messages need it: every number kept as it was written, nothing lenient.

`json.loads` accepts duplicate keys, NaN, lone surrogates and any depth, and turns 10.10 into a float. A
signature that covers a re-serialised value can rest on none of these.
"""

import json
import re
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Literal

MAX_DEPTH = 16  # the deepest message known, a plan's instalments inside the envelope, has 6
MAX_NUMBER_LENGTH = 40

NumberForm = Literal["norm", "lexeme", "integer", "point"]
MONEY_MEMBERS = frozenset({"amount", "installmentFee", "installmentFeePercentage"})

_INTEGER = re.compile(r"-?[0-9]+")


class Number(str):
    """A JSON number as the characters that were sent."""

    __slots__ = ()


def parse(line: bytes) -> Any:
    """One JSON value from one frame; numbers come back as Number.

    Raises UnicodeDecodeError for bytes that are not UTF-8, and ValueError for everything else that is not
    strict JSON.
    """
    text = line.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check(value, MAX_DEPTH)
    return value


def render(value: Any, *, ascii_only: bool, numbers: NumberForm) -> str:
    """Canonical text: keys sorted at every depth, no spaces, `,` and `:`.

    With `ascii_only=True, numbers="norm"` this is Python's `json.dumps(value, sort_keys=True,
    separators=(",", ":"))` of the value the published kiosk would have read, which is what the kiosk
    document signs. Raises ValueError for a number beyond a double.
    """
    quote = encode_basestring_ascii if ascii_only else encode_basestring
    return _render(value, quote, numbers, None)


def _render(value: Any, quote: Any, numbers: NumberForm, member: str | None) -> str:
    if isinstance(value, Number):
        return _number_text(value, numbers, member)
    if isinstance(value, str):
        return str(quote(value))
    if isinstance(value, dict):
        inner = (f"{quote(key)}:{_render(value[key], quote, numbers, key)}" for key in sorted(value))
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_render(item, quote, numbers, member) for item in value]) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    return _number_text(str(value), numbers, member)  # int or Decimal, read by a decoder that kept the digits


def _number_text(lexeme: str, numbers: NumberForm, member: str | None) -> str:
    if numbers == "lexeme":
        return str(lexeme)
    if _INTEGER.fullmatch(lexeme):
        whole = str(int(lexeme))
        return f"{whole}.0" if numbers == "point" and member in MONEY_MEMBERS else whole
    value = float(lexeme)
    if value in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    if numbers == "integer" and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def as_sent(value: Any) -> str:
    """The value as JSON text with the sender's key order and digits, for keeping and showing."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{as_sent(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(as_sent(item) for item in value) + "]"
    if isinstance(value, str) and not isinstance(value, Number):
        return json.dumps(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def _number(lexeme: str) -> Number:
    if len(lexeme) > MAX_NUMBER_LENGTH:
        raise ValueError("a number is too long")
    return Number(lexeme)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("a text contains NUL")
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError("a text contains half a surrogate pair") from None
        return
    if not isinstance(value, dict | list):
        return
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, 0)
            _check(item, depth - 1)
    else:
        for item in value:
            _check(item, depth - 1)
