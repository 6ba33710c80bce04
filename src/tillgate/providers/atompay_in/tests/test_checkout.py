"""The payer's way: our page, the gateway's page, and back; in a real browser where a script decides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tillgate.domain.dialogue import Hint, Tell
from tillgate.domain.payment import Accepted, Closed, Paid
from tillgate.providers.atompay_in import checkout

from .conftest import World

if TYPE_CHECKING:
    from playwright.async_api import Page


async def page_url(world: World) -> str:
    begun = await world.connector.start(world.order(), world.send)
    assert begun.show.url is not None
    return begun.show.url


@pytest.mark.parametrize(("button", "fact"), [("success", Paid), ("failed", Closed), ("pending", Accepted)])
async def test_a_payer_pays_in_a_browser(world: World, browser_page: Page, button: str, fact: type) -> None:
    await browser_page.goto(await page_url(world))
    await browser_page.wait_for_url(f"{world.base_url}/checkout?*")
    await browser_page.select_option("select[name=mode]", "UP")
    await browser_page.click(f"button[value={button}]")
    await browser_page.wait_for_url(f"{world.shop.url}/pay/x")
    await world.simulator.quiet()
    assert "being checked" in await browser_page.inner_text("body")
    by_browser, by_server = world.shop.messages
    assert by_browser == by_server
    assert isinstance(by_browser, Tell)
    assert [type(said) for said in by_browser.facts] == [fact]
    assert sorted(world.shop.answers[1:]) == [200, 303]


async def test_a_payer_who_gives_up_is_back_in_the_shop_and_only_hinted(
    world: World, browser_page: Page
) -> None:
    for word in ("cancelTransaction", "sessionTimeout"):
        await browser_page.goto(await page_url(world))
        await browser_page.wait_for_url(f"{world.base_url}/checkout?*")
        await browser_page.click(f"button[value={word}]")
        await browser_page.wait_for_url(f"{world.shop.url}/pay/x")
    assert world.shop.messages == [Hint(operation_id=world.order().operation_id)] * 2


async def test_a_closed_browser_leaves_the_callback(world: World, browser_page: Page) -> None:
    await browser_page.goto(await page_url(world))
    await browser_page.wait_for_url(f"{world.base_url}/checkout?*")
    await browser_page.click("button[value=close]")
    await browser_page.wait_for_selector("text=closed the browser")
    await world.simulator.quiet()
    [message] = world.shop.messages
    assert isinstance(message, Tell)
    assert isinstance(message.facts[0], Paid)


async def test_the_page_without_the_gateways_script_says_so(world: World, browser_page: Page) -> None:
    await browser_page.route("**/atomcheckout.js", lambda route: route.abort())
    await browser_page.goto(await page_url(world))
    await browser_page.click("#open")
    assert "could not be loaded" in await browser_page.inner_text("#note")


async def test_the_page_is_closed_to_strangers_and_after_its_time(world: World) -> None:
    url = await page_url(world)
    async with world.http.get(url) as reply:
        body = await reply.text()
        policy = reply.headers["content-security-policy"]
        assert reply.status == 200
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["cache-control"] == "no-store"
        assert "₹ 319.00" in body
    broken = url[:-3] + ("abc" if url[-3:] != "abc" else "xyz")
    for wrong in (broken, url.split("?")[0], url.split("?")[0] + "?pay=", url + "x" * 9_000):
        async with world.http.get(wrong) as reply:
            assert reply.status == 404
    over = await world.connector.start(world.order(expires_at=1), world.send)
    async with world.http.get(str(over.show.url)) as reply:
        assert reply.status == 410


async def test_what_a_payer_typed_cannot_leave_its_place_in_the_page(world: World) -> None:
    reply = checkout.page(
        {"custEmail": "</script><script>alert(1)</script>", "returnUrl": "x"},
        amount="1.00",
        script_url='https://psa.atomtech.in/a.js"><script>',
        production=True,
    )
    body = reply.body.decode()
    assert "alert(1)</script>" not in body
    assert len(re.findall(r"<script", body)) == 3
    assert "Test environment" not in body


async def test_nobody_is_redirected_to_an_address_that_is_not_ours(world: World) -> None:
    begun = await world.connector.start(world.order(), world.send)
    account = dict(begun.show.account or {})
    back = account["returnUrl"]
    assert urlsplit(back).query.startswith("back=")
    async with world.http.post(back, data={"encData": "junk"}, allow_redirects=False) as reply:
        assert (reply.status, reply.headers["location"]) == (303, f"{world.shop.url}/pay/x")
    forged = back[:-3] + ("abc" if back[-3:] != "abc" else "xyz")
    for url in (forged, f"{world.shop.url}/in/acc?back=https://evil.example", str(begun.show.url)):
        async with world.http.post(url, data={"encData": "junk"}, allow_redirects=False) as reply:
            assert reply.status == 400
            assert "location" not in reply.headers
