"""Who signed a frame: HMAC-SHA256 over the canonical payload, as the kiosk document defines it, and its
honest relatives.

Terminals are written in languages that print the same value differently (50.0 or 50, `卡` or `\\u5361`), so
a frame is checked against the norm first and then against the other forms known from real implementations.
Every form is injective: two different payloads never share a signed text. (The unescaped `"key":"value"`
form of two published samples is not, and is never accepted: a chosen error text would turn a failure into a
success.) Which forms a terminal can be using is remembered and only ever narrowed, so a terminal that signs
one way cannot later be played by another way.
"""

import hashlib
import hmac
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import msgspec

from tillgate.providers.mobypay import strictjson


class Form(StrEnum):
    """One way to print a payload before signing it: `<text>.<numbers>`."""

    NORM = "ascii.norm"
    UTF8 = "utf8.norm"
    LEXEME = "ascii.lexeme"
    UTF8_LEXEME = "utf8.lexeme"
    INTEGER = "ascii.integer"
    UTF8_INTEGER = "utf8.integer"
    POINT = "ascii.point"
    UTF8_POINT = "utf8.point"


Forms = tuple[Form, ...]
ALL_FORMS: Final[Forms] = tuple(Form)

_AS_SENT = frozenset({Form.NORM, Form.UTF8, Form.LEXEME, Form.UTF8_LEXEME})
_ONLY_TEXT = frozenset({str})


class Secret:
    """A shared secret, ready to sign with; it never shows itself."""

    __slots__ = ("_inner", "_outer", "raw")

    def __init__(self, raw: bytes):
        self.raw = raw
        # HMAC (RFC 2104) with its two keyed blocks hashed once: half the cost of `hmac.digest` on short
        # texts.
        block = (raw if len(raw) <= 64 else hashlib.sha256(raw).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __repr__(self) -> str:
        return "Secret(***)"

    def sign(self, text: bytes) -> str:
        """64 lower-case hex digits."""
        inner = self._inner.copy()
        inner.update(text)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()

    def matches(self, text: bytes, signature: str) -> bool:
        """Constant-time. Only lower-case hex matches, as with the published kiosk."""
        return signature.isascii() and hmac.compare_digest(self.sign(text), signature)


def canonical(payload: Any, form: Form = Form.NORM) -> bytes:
    """The signed text of a payload parsed by `strictjson.parse`. Raises ValueError if a number has no such
    form.
    """
    text, _, numbers = form.value.partition(".")
    return strictjson.render(payload, ascii_only=text == "ascii", numbers=numbers).encode()  # type: ignore[arg-type]


def surviving_forms(secret: Secret, payload: Any, signature: str, forms: Forms) -> Forms:
    """Those of `forms` under which the signature is good; empty when it is forged."""
    by_text: dict[bytes, list[Form]] = {}
    for form in forms:
        try:
            by_text.setdefault(canonical(payload, form), []).append(form)
        except ValueError:  # a number beyond a double: this form cannot print it
            continue
    for text, same in by_text.items():
        if secret.matches(text, signature):
            return tuple(same)
    return ()


class OpenedFrame(msgspec.Struct, gc=False):
    """A frame cut open but not yet believed."""

    payload: dict[str, Any]
    signature: str
    text: bytes | None
    """The canonical text, where it was found without parsing number by number; None asks for
    `surviving_forms`.
    """


def open_frame(line: bytes) -> OpenedFrame:
    """Parse one frame. Raises UnicodeDecodeError (not UTF-8) or ValueError (not strict JSON, or not an
    envelope).
    """
    return _open_ordinary(line) or _open_any(line)


def verify(secret: Secret, frame: OpenedFrame, forms: Forms) -> Forms:
    """The forms, of those given, that this frame's signature allows; empty when it is forged."""
    if frame.text is not None:
        # Without numbers, or where they are signed as sent, every form still possible is this very text.
        same = _ONLY_TEXT.issuperset(map(type, frame.payload.values())) or _AS_SENT.issuperset(forms)
        if same and secret.matches(frame.text, frame.signature):
            return forms
    return surviving_forms(secret, frame.payload, frame.signature, forms)


def _exact(lexeme: str) -> Decimal:
    if repr(float(lexeme)) != lexeme:
        raise ValueError("not printed in the norm's own way")
    return Decimal(lexeme)


_decode = msgspec.json.Decoder(float_hook=_exact).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
_encode_sorted = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


def _open_ordinary(line: bytes) -> OpenedFrame | None:
    """The fast way, for the frames real terminals send: plain ASCII, numbers already in the norm's form,
    shallow.

    Decoding forgets duplicate members and rewrites unusual text or numbers; a frame that encodes back to
    exactly the bytes that came has none of these. Anything else returns None and takes the strict way.
    """
    if not line.isascii() or b"\\" in line or b"\x7f" in line or line.count(b"{") + line.count(b"[") > 12:
        return None
    try:
        frame = _decode(line)
        again = _encode(frame)
        if again != line and again != msgspec.json.format(line, indent=-1):
            return None
    except (ValueError, RecursionError, OverflowError):  # msgspec's errors are ValueErrors
        return None
    if type(frame) is not dict:
        return None
    payload, signature = frame.get("payload"), frame.get("signature")
    if type(payload) is not dict or type(signature) is not str:
        return None
    return OpenedFrame(payload, signature, _encode_sorted(payload))


def _open_any(line: bytes) -> OpenedFrame:
    payload, signature = _members(strictjson.parse(line))
    return OpenedFrame(payload, signature, None)


def _members(frame: Any) -> tuple[dict[str, Any], str]:
    if not isinstance(frame, dict):
        raise TypeError("a frame is a JSON object")
    payload, signature = frame.get("payload"), frame.get("signature")
    if not isinstance(payload, dict):
        raise TypeError("a frame has an object named payload")
    if not isinstance(signature, str) or isinstance(signature, strictjson.Number):
        raise TypeError("a frame has a text named signature")
    return payload, signature
