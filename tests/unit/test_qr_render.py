"""Pictures of codes, read back by another program's reader."""

from __future__ import annotations

import struct
import zlib
from typing import Any
from xml.etree import ElementTree

import pytest
import zxingcpp

from tillgate import qr
from tillgate.qr import QrError

SANDBOX = qr.sandbox_qris("pay_01JDXYZ", 15_000_00, "Warung Bu Sri", "Bandung")
CJK = "000201" + "最佳运输 Кофе" + "é"


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and one grey byte a pixel of a one-bit PNG, by the PNG specification."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, width, height = 8, b"", 0, 0
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (1, 0), "black and white"
        if kind == b"IDAT":
            data += body
        at += 12 + length
    rows = zlib.decompress(data)
    stride = (width + 7) // 8 + 1
    grey = bytearray()
    row = bytes(stride - 1)
    for y in range(height):
        above, kept = row, rows[y * stride + 1 : (y + 1) * stride]
        assert rows[y * stride] in (0, 2), "filter types None and Up"
        row = (
            kept if rows[y * stride] == 0 else bytes((a + b) & 255 for a, b in zip(kept, above, strict=True))
        )
        grey += bytes(255 if row[x // 8] >> (7 - x % 8) & 1 else 0 for x in range(width))
    return width, height, bytes(grey)


def scan(png: bytes) -> Any:
    width, height, grey = pixels(png)
    found = zxingcpp.read_barcodes(
        memoryview(grey).cast("B", (height, width)),
        formats=zxingcpp.BarcodeFormat.QRCode,
        text_mode=zxingcpp.TextMode.Plain,
    )
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "text",
    [
        SANDBOX,
        CJK,
        "000201CAFÉ",
        "点茗",
        "upi://pay?pa=nadeem@npci&pn=nadeem%20chinna&am=10&cu=INR",
        "https://example.com/pay/abc",
        "1",
        "000201" + "x" * 294,
    ],
    ids=["sandbox", "other scripts", "Latin-1", "kanji", "upi", "web", "one digit", "300 characters"],
)
@pytest.mark.parametrize("scale", [2, 8])
def test_a_picture_is_read_back_exactly(text: str, scale: int) -> None:
    barcode = scan(qr.png(text, scale))
    assert barcode.text == text
    assert barcode.bytes == text.encode(), "UTF-8, whatever smaller encoding would do"
    assert barcode.format == zxingcpp.BarcodeFormat.QRCode, "never a micro code"
    assert "]Q1" in barcode.symbology_identifier, "no ECI marker"


def test_a_code_goes_from_paper_to_fields() -> None:
    code = qr.read(scan(qr.png(SANDBOX)).text)
    assert isinstance(code, qr.Qr)
    assert qr.sandbox_ref(code) == "pay_01JDXYZ"


def test_the_error_level_is_at_least_m() -> None:
    assert scan(qr.png(SANDBOX)).ec_level in ("M", "Q", "H")


def test_there_are_four_white_modules_around_it() -> None:
    scale = 3
    width, height, grey = pixels(qr.png(SANDBOX, scale))
    rows = [grey[y * width : (y + 1) * width] for y in range(height)]
    quiet = 4 * scale

    assert width == height
    assert all(set(row) == {255} for row in rows[:quiet] + rows[-quiet:])
    assert all(set(row[:quiet] + row[-quiet:]) == {255} for row in rows)
    assert rows[quiet][quiet] == 0, "and not five"


def test_an_svg_is_one_well_formed_picture_that_scales() -> None:
    root = ElementTree.fromstring(qr.svg(SANDBOX))

    width, _, _ = pixels(qr.png(SANDBOX, 1))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == f"0 0 {width} {width}"
    assert root.get("width") is None
    assert not [e for e in root.iter() if e.get("style") or e.tag.endswith(("script", "style"))]


def test_the_same_text_gives_the_same_picture() -> None:
    assert qr.png(SANDBOX) == qr.png(SANDBOX)
    assert qr.svg(SANDBOX) == qr.svg(SANDBOX)
    assert qr.png(SANDBOX) != qr.png(SANDBOX, 4)


@pytest.mark.parametrize("text", ["", "x" * 2049, "咖" * 1500, "\ud800", None])
def test_what_cannot_be_drawn_is_refused(text: Any) -> None:
    for draw in (qr.png, qr.svg):
        with pytest.raises(QrError):
            draw(text)


@pytest.mark.parametrize("scale", [0, -1, 41, 2.5, True, "8"])
def test_a_scale_is_a_sensible_whole_number(scale: Any) -> None:
    with pytest.raises(QrError):
        qr.png(SANDBOX, scale)
