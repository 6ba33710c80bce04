"""The browser that page tests drive renders what a local server sends, and can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from playwright.async_api import Page

PAGE = """<!doctype html><title>Till</title>
<button onclick="this.textContent = 'paid'">pay</button>"""


async def test_a_page_renders_and_can_be_clicked(browser_page: Page) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]

        await browser_page.goto(f"http://{host}:{port}/")
        assert await browser_page.title() == "Till"
        await browser_page.get_by_role("button", name="pay").click()
        assert await browser_page.get_by_role("button").text_content() == "paid"
    finally:
        await runner.cleanup()
