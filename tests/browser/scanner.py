"""Reads codes from screenshots, as a scanner held before the screen would."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import zxingcpp

if TYPE_CHECKING:
    from playwright.async_api import Browser

# A browser unpacks its own screenshots in milliseconds, so that tests need no imaging library.
_GREY = """async (png) => {
  const image = new Image(); image.src = 'data:image/png;base64,' + png; await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0);
  const data = pen.getImageData(0, 0, image.width, image.height).data;
  let grey = '';
  for (let i = 0; i < data.length; i += 4)
    grey += String.fromCharCode((data[i] * 3 + data[i + 1] * 6 + data[i + 2]) / 10);
  return [image.width, image.height, btoa(grey)];
}"""


async def scan(browser: Browser, png: bytes) -> list[str]:
    """The texts of all QR codes in a PNG: now and then a row of modules reads as a linear code, too."""
    page = await browser.new_page()
    try:
        width, height, grey = await page.evaluate(_GREY, base64.b64encode(png).decode())
    finally:
        await page.close()
    pixels = memoryview(base64.b64decode(grey)).cast("B", (height, width))
    return [found.text for found in zxingcpp.read_barcodes(pixels, formats=zxingcpp.BarcodeFormat.QRCode)]
