"""Card numbers: a whole one is kept nowhere, whatever field it comes in and however it is written.

A number of 13 to 19 digits with a right check digit is taken for one, with up to three spaces, dashes or dots
between two digits. By chance one number in ten has a right check digit. So names and amounts are never
touched, and in a text only what begins as the cards in use do. What is no JSON at all is cut wherever a
check digit fits.
"""

from __future__ import annotations

import json
import re
from typing import Final

_BEGINS_RUN: Final = r"(?<![0-9])[0-9](?:[ .\-\0]{0,3}[0-9])"
_LONG: Final = re.compile(_BEGINS_RUN + "{12}")
_RUN: Final = re.compile(_BEGINS_RUN.encode() + b"{12,18}")
_WHOLE_RUN: Final = re.compile(_BEGINS_RUN.encode() + b"{12,}")
_DIGIT: Final = re.compile(rb"[0-9]")
_DIGITS: Final = re.compile(rb"[0-9]+")
_ISSUED: Final = re.compile(rb"2[2-7]|[3-6]|9704")
"""Visa, Mastercard, American Express, JCB, Diners, Discover, UnionPay, Mir, Maestro; Vietnam's NAPAS."""
_UNTOUCHED: Final = frozenset({"requestId", "requestID", "orderId", "resultTxnID", "amount", "tip"})
_ACCOUNT: Final = "fromAccNo"
_TOKEN: Final = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|-?[0-9][0-9.eE+-]*', re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\u00(2[0dDeE]|3[0-9])")
_PATIENCE: Final = 500
"""After so many long numbers in one text, all further ones are cut unseen, and whole."""
_VALUE: Final = bytes(n - 48 if 48 <= n <= 57 else 0 for n in range(256))
_DOUBLED: Final = bytes(2 * n - 9 if n > 4 else 2 * n for n in _VALUE)


def kept(name: str, text: str) -> str:
    """What may be kept of the text of a member: of card numbers the last four digits."""
    return text if name in _UNTOUCHED else masked(text, issued=name != _ACCOUNT)


def masked(text: str, *, issued: bool = True) -> str:
    """`issued`: only what begins as the cards in use do."""
    if _LONG.search(text) is None:
        return text
    found = bytearray(text.encode("utf-8", "surrogatepass"))
    return found.decode("utf-8", "surrogatepass") if _mask(found, issued) else text


def scrubbed(body: bytes) -> bytes:
    """A body fit to be kept. Where it is JSON, `read_ipn` reads the same from it as from what was sent."""
    found = bytearray(body)
    if b"\\u" not in body and not _mask(found, issued=False):
        return body
    try:
        text = body.decode()
        json.loads(text)
    except (ValueError, RecursionError):
        found = bytearray(_ESCAPED.sub(lambda one: bytes([int(one[1], 16)]), body))
        return bytes(found) if _mask(found, issued=False) else body
    return _spliced(text).encode()


def _spliced(text: str) -> str:
    """JSON with what must not be kept cut out of its texts and numbers, and every other byte as it was."""
    name = ""

    def token(found: re.Match[str]) -> str:
        nonlocal name
        written = found[0]
        if not found[2] and "\\" not in written and _LONG.search(written) is None:
            return written
        said: str = json.loads(found[1]) if found[1] else written
        if found[2]:
            name, fit = said, masked(said)
        else:
            fit = kept(name, said)
        return written if fit == said else json.dumps(fit) + (found[2] or "")

    return _TOKEN.sub(token, text)


def _mask(found: bytearray, issued: bool) -> bool:
    """Put stars for digits, in place; whether there was anything to hide."""
    at, changed = 0, False
    for _ in range(_PATIENCE):
        run = _RUN.search(found, at)
        if run is None:
            return changed
        places = _card(found, run, issued)
        if places:
            for place in places[:-4]:
                found[place] = 42
            # Its last four stay, and may begin another: so what was masked once is left alone later.
            at, changed = places[-4], True
        else:
            at = _DIGITS.match(found, run.start()).end()  # type: ignore[union-attr]
    cut = _WHOLE_RUN.sub(lambda one: _DIGIT.sub(b"*", one[0]), found[at:])
    changed = changed or cut != found[at:]
    found[at:] = cut
    return changed


def _card(found: bytearray, run: re.Match[bytes], issued: bool) -> list[int]:
    """Where the digits of a card are that begins with this run."""
    digits = run[0].translate(None, b" .-\0")
    if issued and not _ISSUED.match(digits):
        return []
    if len(digits) == len(run[0]):  # all in one
        whole = not _DIGIT.match(found, run.end()) and _luhn(digits)
        return list(range(*run.span())) if whole else []
    places = [place for place in range(*run.span()) if 48 <= found[place] <= 57]
    for count in range(len(digits), 12, -1):
        if not _DIGIT.match(found, places[count - 1] + 1) and _luhn(digits[:count]):
            return places[:count]
    return []


def _luhn(digits: bytes) -> bool:
    total = sum(digits[::-2].translate(_VALUE)) + sum(digits[-2::-2].translate(_DOUBLED))
    return total % 10 == 0
