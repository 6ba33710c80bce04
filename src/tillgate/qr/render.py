"""Drawing a code. The drawing library is loaded on the first drawing, not with this module.

Error level M or better, never a micro code, a quiet zone of four modules, black on white: what scanners of
every scheme take. Text goes in as UTF-8 without an ECI marker, which payment apps do not expect. Drawing
takes a few tens of milliseconds for a long payload, so callers keep the result.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from .tlv import QrError, check_text

if TYPE_CHECKING:
    from segno import QRCode

MAX_DRAWN: Final = 2048
MAX_SCALE: Final = 40
QUIET_ZONE: Final = 4


def png(text: str, scale: int = 8) -> bytes:
    """A PNG of `text`, `scale` pixels to a module (1 to 40). Raises QrError."""
    if type(scale) is not int or not 1 <= scale <= MAX_SCALE:
        raise QrError(f"a scale is a whole number from 1 to {MAX_SCALE}")
    out = io.BytesIO()
    _code(text).save(out, kind="png", scale=scale, border=QUIET_ZONE)
    return out.getvalue()


def svg(text: str) -> str:
    """An SVG of `text`, with a viewBox and no size: it fills what it is put in. Raises QrError."""
    out = io.BytesIO()
    _code(text).save(
        out,
        kind="svg",
        border=QUIET_ZONE,
        light="white",
        xmldecl=False,
        nl=False,
        omitsize=True,
        svgclass=None,
        lineclass=None,
    )
    return out.getvalue().decode()


def _code(text: str) -> QRCode:
    check_text(text, MAX_DRAWN)
    import segno

    try:
        return segno.make(text, error="m", micro=False, encoding="utf-8", eci=False)
    except segno.DataOverflowError as error:
        raise QrError("too long to be drawn as one code") from error
