"""A payment link in a real Chromium: from the poster's code over the form to the receipt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.checkout_hub import CheckoutHub
from browser.conftest import DESKTOP, PHONE, SMALL_PHONE, Opens
from browser.scanner import scan
from browser.test_checkout_page import CONTRASTS, CUT_OFF, LANGUAGES, heading
from tillgate.hub.links import LinkIntent
from tillgate.store.links import PaymentLink

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

SHOTS = os.environ.get("TILLGATE_TEST_SHOTS")  # a directory to look at them in


async def link(checkout: CheckoutHub, **wanted: Any) -> PaymentLink:
    given = {"title": "Donasi masjid", "currency": "IDR", "channels": ("gopay", "ovo", "dana"), **wanted}
    made = await checkout.runtime.hub.links.create(
        checkout.merchant, LinkIntent(**given), None, lambda _: b""
    )
    return made.link


async def shot(page: Page, name: str) -> bytes:
    return await page.screenshot(path=str(Path(SHOTS) / f"{name}.png") if SHOTS else None, full_page=True)


@pytest.mark.parametrize(
    ("viewport", "language", "amount", "choose", "pay", "thanks"),
    [
        (PHONE, "id", "Jumlah (IDR)", "Lanjutkan", "Bayar", "Pembayaran diterima"),
        (DESKTOP, "ru", "Сумма (IDR)", "Продолжить", "Оплатить", "Оплата получена"),
    ],
    ids=["phone-id", "desktop-ru"],
)
async def test_a_payer_scans_a_poster_says_how_much_and_pays(
    checkout: CheckoutHub, opens: Opens, browser: Browser, viewport: dict[str, int], language: str,
    amount: str, choose: str, pay: str, thanks: str,
) -> None:  # fmt: skip
    one = await link(checkout, min_minor=1_000_000)
    async with checkout.web.get(f"{checkout.url}/l/{one.code}.png") as poster:
        assert await scan(browser, await poster.read()) == [f"{checkout.url}/l/{one.code}"]

    name = f"{language}-{viewport['width']}"
    page = await opens(f"{checkout.url}/l/{one.code}?lang={language}", viewport)
    await heading(page, "Donasi masjid")
    await shot(page, f"link-{name}")
    box = page.get_by_label(amount)
    await box.fill("500")
    await page.get_by_role("radio", name="OVO").check()
    await page.get_by_role("button", name=choose).click()
    assert "10.000" in await page.get_by_role("alert").inner_text() or language == "ru"
    assert await box.get_attribute("aria-invalid") == "true"
    assert await page.get_by_role("radio", name="OVO").is_checked()  # nothing that was right is lost
    page.expected = ("422",)
    await shot(page, f"wrong-{name}")

    # By keyboard alone: the wrong field has the focus.
    assert await page.evaluate("document.activeElement.id") == "amount"
    await page.keyboard.press("Control+A")
    await page.keyboard.type("50.000")
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowUp")
    assert await page.get_by_role("radio", name="GoPay").is_checked()
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/pay/pay_*?lang={language}")
    await shot(page, f"pay-{name}")
    [code] = await scan(browser, await page.screenshot(full_page=True))
    assert code.startswith("000201")
    assert await page.locator("a.other").is_visible()

    await page.get_by_role("button", name=pay, exact=True).click()
    await heading(page, thanks)
    assert page.url.endswith(f"?lang={language}")
    await shot(page, f"paid-{name}")
    [payment] = await checkout.runtime.kit.reads.links.payments(one.id, 5)
    assert (payment.status, payment.paid_minor, payment.channel) == ("paid", 5_000_000, "gopay")


async def test_a_payer_changes_the_wallet_of_an_invoice(checkout: CheckoutHub, opens: Opens) -> None:
    one = await link(checkout, title="Invoice 7", amount_minor=15_000_000, once=True)
    page = await opens(f"{checkout.url}/l/{one.code}", PHONE)
    await page.get_by_text("GoPay").click()
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("link", name="Choose another way to pay").click()
    await heading(page, "Invoice 7")
    assert await page.get_by_role("radio", name="GoPay").is_checked()
    await page.get_by_text("Dana", exact=True).click()
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_text("Open Dana on your phone and scan this code.").wait_for()
    await page.get_by_role("button", name="Decline").click()
    await heading(page, "Payment failed")
    await page.get_by_role("link", name="Try again").click()
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("button", name="Pay", exact=True).click()
    await heading(page, "Payment received")
    assert await page.locator("a.other").count() == 0
    assert len(await checkout.runtime.kit.reads.links.payments(one.id, 5)) == 1


async def test_nothing_is_cut_off_and_all_of_it_can_be_read(checkout: CheckoutHub, opens: Opens) -> None:
    one = await link(checkout, title="W" * 120)
    page = await opens(f"{checkout.url}/l/{one.code}", SMALL_PHONE)
    for language in LANGUAGES:
        await page.goto(f"{checkout.url}/l/{one.code}?lang={language}")
        assert await page.locator("html").get_attribute("lang") == language
        assert await page.evaluate("document.documentElement.scrollWidth") <= SMALL_PHONE["width"]
        assert await page.evaluate(CUT_OFF) == []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        texts: list[dict[str, Any]] = await page.evaluate(CONTRASTS)
        assert len(texts) >= 8
        assert [text for text in texts if text["contrast"] < (3 if text["large"] else 4.5)] == []
    await checkout.runtime.hub.links.disable(checkout.merchant, one.id, None, lambda _: b"")
    page.expected = ("410",)
    await page.goto(f"{checkout.url}/l/{one.code}?lang=hi")
    assert await page.evaluate(CUT_OFF) == []
