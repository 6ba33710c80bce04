"""A hub to open pages of, and pages that fail the test when their console complains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from browser.checkout_hub import CheckoutHub, open_checkout

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
SMALL_PHONE = {"width": 320, "height": 568}

Opens = Callable[..., Awaitable["Page"]]


@pytest.fixture
async def checkout(tmp_path: Path) -> AsyncIterator[CheckoutHub]:
    async with open_checkout(tmp_path) as opened:
        yield opened


@pytest.fixture
async def opens(browser: Browser) -> AsyncIterator[Opens]:
    """Opens a page with a viewport and what else a browser's context takes.

    The test fails if a console complains (a broken content security policy does), a script throws, or a page
    asks another host for anything. `page.expected` names failures that a test brings about.
    """
    complaints: list[tuple[Any, str]] = []

    async def opened(url: str, viewport: dict[str, int] = DESKTOP, **context: Any) -> Page:
        made = await browser.new_context(viewport=viewport, locale=context.pop("locale", "en-GB"), **context)
        page = await made.new_page()
        page.expected = ()
        host = urlsplit(url).netloc

        def complain(text: str) -> None:
            complaints.append((page, text))

        page.on("console", lambda said: said.type in ("error", "warning") and complain(said.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("request", lambda one: urlsplit(one.url).netloc == host or complain(f"asks {one.url}"))
        await page.goto(url)
        return page

    yield opened
    assert [text for page, text in complaints if not any(one in text for one in page.expected)] == []
