"""The payer's page in a real Chromium: what is seen, what happens by itself, and who can use it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.checkout_hub import QR_TEXT, CheckoutHub, open_checkout
from browser.conftest import DESKTOP, PHONE, SMALL_PHONE, Opens
from browser.scanner import scan
from tillgate.domain.payment import Closed, Paid

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PAID = Paid(15_000_000, "IDR", paid_with="GoPay")
LANGUAGES = ("en", "id", "uz", "ru", "vi", "ms", "hi")


async def heading(page: Page, name: str, timeout_s: float = 30) -> None:
    """Wait for the page's heading to say so."""
    found = page.get_by_role("heading", level=1, name=name, exact=True)
    await found.wait_for(timeout=timeout_s * 1000)


async def codes(page: Page) -> list[str]:
    """What a scanner held before the screen reads."""
    browser = page.context.browser
    assert browser is not None
    return await scan(browser, await page.screenshot())


# --- what is seen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_payer_sees_what_to_pay_to_whom_and_a_code_that_scans(
    checkout: CheckoutHub, opens: Opens, viewport: dict[str, int], scheme: str
) -> None:
    payment = await checkout.open("code")
    page = await opens(checkout.at(payment), viewport, color_scheme=scheme)

    await heading(page, "Scan to pay")
    for text in ("Kopi Senja", "Rp\xa0150,000", "Open Code Pay on your phone and scan this code."):
        assert await page.get_by_text(text).is_visible()
    assert re.fullmatch(r"1[45]:\d\d", await page.get_by_role("timer").inner_text())
    code = page.get_by_role("img", name="QR code for paying Rp\xa0150,000 to Kopi Senja with Code Pay")
    box = await code.bounding_box()
    assert box is not None
    assert box["width"] >= 280
    assert 0 <= box["y"] < box["y"] + box["height"] <= viewport["height"]  # seen without scrolling
    assert await codes(page) == [QR_TEXT]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("viewport", [SMALL_PHONE, DESKTOP], ids=["small-phone", "desktop"])
async def test_nothing_is_cut_off_in_any_language(
    checkout: CheckoutHub, opens: Opens, viewport: dict[str, int], language: str
) -> None:
    payment = await checkout.open("code", 99_999_999_999)
    page = await opens(checkout.at(payment, f"?lang={language}"), viewport)
    assert await page.locator("html").get_attribute("lang") == language
    assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert await page.evaluate(CUT_OFF) == []
    await checkout.tell(payment, Closed("expired"))
    await page.reload()
    assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert await page.evaluate(CUT_OFF) == []


CUT_OFF = """() => [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.unseen, svg, details:not([open]) ul') && e.scrollWidth > e.clientWidth + 1
                 && e.clientWidth && getComputedStyle(e).display !== 'inline')
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("fact", [None, PAID, Closed("failed"), Paid(100, "IDR")], ids=str)
async def test_every_text_can_be_read_against_its_ground(
    checkout: CheckoutHub, opens: Opens, scheme: str, fact: Paid | Closed | None
) -> None:
    """WCAG 2.2, 1.4.3 (AA): a contrast of 4.5, for large text 3."""
    payment = await checkout.open("code")
    if fact is not None:
        await checkout.tell(payment, fact)
    page = await opens(checkout.at(payment), PHONE, color_scheme=scheme, reduced_motion="reduce")
    await page.locator("summary").click()
    texts: list[dict[str, Any]] = await page.evaluate(CONTRASTS)
    assert len(texts) >= 8
    assert [one for one in texts if one["contrast"] < (3 if one["large"] else 4.5)] == []


CONTRASTS = """() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
      if ((parts(c)[3] ?? 1) > 0) return c; } return 'rgb(255, 255, 255)'; };
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, style = getComputedStyle(e);
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest('.unseen, noscript')) continue;
    const [a, b] = [light(style.color), light(ground(e))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    found.push({ text: walk.currentNode.data.trim().slice(0, 40), contrast: (a + 0.05) / (b + 0.05),
                 large: size >= 24 || (size >= 18.66 && style.fontWeight >= 700) });
  }
  return found;
}"""


async def test_a_long_name_leaves_the_code_on_the_screen(tmp_path: Path, opens: Opens) -> None:
    name = "Warung Makan Sederhana Bapak Haji Muhammad Abdurrahman Wahid dan Keluarga Besar"
    async with open_checkout(tmp_path, merchant=name) as checkout:
        page = await opens(checkout.at(await checkout.open("code"), "?lang=id"), PHONE)
        assert await codes(page) == [QR_TEXT]  # without scrolling
        assert await page.get_by_title(name).inner_text() == name


async def test_who_asked_for_less_motion_gets_none(checkout: CheckoutHub, opens: Opens) -> None:
    url = checkout.at(await checkout.open("code"))
    moving = await opens(url)
    still = await opens(url, reduced_motion="reduce")
    assert await moving.evaluate("document.getAnimations().length") > 0
    assert await still.evaluate("document.getAnimations().length") == 0


async def test_the_whole_page_weighs_less_than_30_kilobytes(checkout: CheckoutHub, opens: Opens) -> None:
    page = await opens(checkout.at(await checkout.open("code")))
    weights: list[int] = await page.evaluate(
        "performance.getEntries().map(e => e.transferSize).filter(size => size > 0)"
    )
    assert len(weights) >= 4  # page, style, script, code
    assert sum(weights) < 30_000


# --- every way to pay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "title"),
    [
        ("code", "Scan to pay"), ("code-and-app", "Scan to pay"), ("page", "Continue with Page Pay"),
        ("app", "Continue with App Pay"), ("account", "Transfer to this account"),
        ("terminal", "Pay at the terminal"), ("push", "Confirm in Push Pay"), ("script", "One moment"),
        ("too-long", "One moment"), ("lost", "Checking with Lost Pay"),
    ],
)  # fmt: skip
async def test_each_way_to_pay_has_its_page(
    checkout: CheckoutHub, opens: Opens, channel: str, title: str
) -> None:
    payment = await checkout.open(channel)
    page = await opens(checkout.at(payment), PHONE)
    await heading(page, title)
    links = [await one.get_attribute("href") for one in await page.locator("main a.button.main").all()]
    assert links == {
        "code-and-app": ["examplewallet://pay?id=1"],
        "page": ["https://wallet.example/pay/1"],
        "app": ["examplewallet://pay?id=1&a=<b>"],
    }.get(channel, [])
    scanned = {"code": [QR_TEXT], "code-and-app": [QR_TEXT]}
    scanned |= {one: [checkout.at(payment)] for one in ("page", "app")}  # for another phone
    assert await codes(page) == scanned.get(channel, [])


async def test_account_details_can_be_copied(checkout: CheckoutHub, opens: Opens) -> None:
    payment = await checkout.open("account")
    page = await opens(
        checkout.at(payment), PHONE, permissions=["clipboard-read", "clipboard-write"], locale="en-GB"
    )
    await page.get_by_role("button", name="Copy Virtual account").click()
    await page.get_by_role("button", name="Copied Virtual account").wait_for()
    assert await page.evaluate("navigator.clipboard.readText()") == "88 0812 3456 7890"


async def test_the_code_can_be_saved_for_the_wallet_on_the_same_phone(
    checkout: CheckoutHub, opens: Opens
) -> None:
    payment = await checkout.open("code")
    page = await opens(checkout.at(payment), PHONE)
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Save QR code").click()
    saved = await started.value
    assert saved.suggested_filename == f"{payment.id}.png"
    assert await scan(page.context.browser, (await saved.path()).read_bytes()) == [QR_TEXT]


async def test_an_image_tag_in_a_shop_shows_the_code(checkout: CheckoutHub, browser: Browser) -> None:
    """`qr_url` as a point of sale uses it, from a page of another origin."""
    payment = await checkout.open("code")
    page = await browser.new_page(viewport={"width": 600, "height": 600})
    await page.set_content(f'<img src="{checkout.at(payment)}" width="500">')
    await page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 100")
    assert await codes(page) == [QR_TEXT]


# --- what happens by itself ---------------------------------------------------------------------------------


async def mark(page: Page) -> None:
    """Something that a reload would wipe out."""
    await page.evaluate("window.stayed = true")


async def test_a_payment_shows_as_paid_without_a_reload(checkout: CheckoutHub, opens: Opens) -> None:
    payment = await checkout.open("code")
    page = await opens("about:blank")
    page.expected = ("Failed to load resource", "asks http")
    await page.route("**/state", lambda route: route.abort())  # by the stream, that is, and not by asking
    await page.goto(checkout.at(payment))
    await mark(page)
    await page.get_by_role("link", name="Save QR code").focus()

    await checkout.tell(payment, PAID)

    await heading(page, "Payment received")
    assert await page.evaluate("window.stayed")
    assert await page.title() == "Payment received · Kopi Senja"
    assert await page.locator("main img").count() == 0
    assert await page.get_by_text("GoPay", exact=True).is_visible()
    # A screen reader hears of it once, and the keyboard is not lost in what went away.
    news = page.locator("#news")
    await news.filter(has_text="Payment received. Thank you. You can close this page.").wait_for(
        state="attached"
    )
    assert await news.get_attribute("aria-live") == "polite"
    assert await page.evaluate("document.activeElement.tagName") == "H1"


async def test_where_streams_are_blocked_the_page_polls(checkout: CheckoutHub, opens: Opens) -> None:
    payment = await checkout.open("code")
    page = await opens("about:blank")
    page.expected = ("Failed to load resource", "asks http")
    await page.route("**/events", lambda route: route.abort())
    await page.goto(checkout.at(payment))
    await mark(page)
    await checkout.tell(payment, PAID)
    await heading(page, "Payment received")
    assert await page.evaluate("window.stayed")


async def test_a_new_attempt_wakes_a_page_that_had_given_up(checkout: CheckoutHub, opens: Opens) -> None:
    """A cashier tries again with another wallet: the same payment, the same address."""
    payment = await checkout.open("code")
    await checkout.tell(payment, Closed("failed"))
    page = await opens(checkout.at(payment))
    await heading(page, "Payment failed")
    await checkout.again(payment, "app")
    # The page asks seldom by now; a payer who comes back to it asks at once.
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await heading(page, "Continue with App Pay")
    await checkout.tell(payment, PAID)
    await heading(page, "Payment received")


async def test_the_countdown_ends_in_an_expired_payment_without_a_reload(
    tmp_path: Path, opens: Opens
) -> None:
    async with open_checkout(tmp_path, worker=True) as checkout:
        payment = await checkout.open("code", ttl_s=4)
        page = await opens(checkout.at(payment))
        await mark(page)
        assert re.fullmatch(r"0:0[1-4]", await page.get_by_role("timer").inner_text())
        assert await page.locator(".hurry").count() == 1
        await page.locator("main img").wait_for(state="detached")
        await heading(page, "Payment expired")
        assert await page.evaluate("window.stayed")


async def test_a_code_goes_when_time_is_up_though_the_hub_has_not_closed_it(
    checkout: CheckoutHub, opens: Opens
) -> None:
    payment = await checkout.open("code", ttl_s=3)
    page = await opens(checkout.at(payment))
    await heading(page, "Time is up")
    assert await codes(page) == []
    await checkout.tell(payment, PAID)  # the money was on its way
    await heading(page, "Payment received")


async def test_a_lost_connection_is_said_and_mended(checkout: CheckoutHub, opens: Opens) -> None:
    payment = await checkout.open("code")
    page = await opens(checkout.at(payment))
    page.expected = ("ERR_INTERNET_DISCONNECTED", "Failed to load resource")
    trouble = page.get_by_text("No connection. We keep trying.")
    assert not await trouble.is_visible()
    await page.context.set_offline(True)
    await trouble.wait_for()
    assert await codes(page) == [QR_TEXT]  # what was on the screen stays there
    await checkout.tell(payment, PAID)
    await page.context.set_offline(False)
    await heading(page, "Payment received")
    assert not await trouble.is_visible()


async def test_without_scripts_the_page_reloads_itself(checkout: CheckoutHub, opens: Opens) -> None:
    payment = await checkout.open("code")
    page = await opens(checkout.at(payment), PHONE, java_script_enabled=False)
    await heading(page, "Scan to pay")
    assert await page.get_by_text(re.compile(r"Pay before \d\d:\d\d \(GMT\+7\)")).is_visible()
    assert await codes(page) == [QR_TEXT]
    await checkout.tell(payment, PAID)
    await heading(page, "Payment received")
    assert await page.locator("meta[http-equiv=refresh]").count() == 0  # and then rests


# --- who uses it how ----------------------------------------------------------------------------------------


async def test_the_keyboard_reaches_everything_in_the_order_it_is_read(
    checkout: CheckoutHub, opens: Opens
) -> None:
    page = await opens(checkout.at(await checkout.open("code-and-app")))
    reached = []
    for _ in range(6):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        reached.append(" ".join((await focused.inner_text()).split()))
        outline = await focused.evaluate("e => getComputedStyle(e).outlineWidth")
        assert outline == "3px"
    assert reached == [
        "Language: English",
        "Open Code-And-App Pay",
        "Save QR code",
        "Pay",
        "Decline",
        "Let it expire",
    ]


async def test_the_language_is_the_browsers_and_can_be_changed_by_keyboard(
    checkout: CheckoutHub, opens: Opens
) -> None:
    payment = await checkout.open("code")
    page = await opens(checkout.at(payment), locale="id-ID")
    await heading(page, "Pindai untuk membayar")
    assert await page.get_by_text("Rp\xa0150.000").is_visible()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    offered = await page.locator(".languages a").all_inner_texts()
    assert len(offered) == 7
    assert await page.locator(".languages [aria-current]").inner_text() == "Bahasa Indonesia"
    await page.keyboard.press("Escape")
    assert not await page.locator(".languages ul").is_visible()
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Русский").focus()
    await page.keyboard.press("Enter")
    await heading(page, "Отсканируйте для оплаты")
    await checkout.tell(payment, PAID)
    await heading(page, "Оплата получена")  # live pages keep their language


@pytest.mark.parametrize(
    ("button", "title"),
    [("Pay", "Payment received"), ("Decline", "Payment failed"), ("Let it expire", "Payment expired")],
)
async def test_in_the_sandbox_the_page_plays_the_payer(
    checkout: CheckoutHub, opens: Opens, button: str, title: str
) -> None:
    payment = await checkout.open("gopay")
    page = await opens(checkout.at(payment), PHONE)
    assert await page.get_by_text("Sandbox: no real money moves.").is_visible()
    await page.get_by_role("button", name=button, exact=True).click()
    await heading(page, title)
    assert await page.get_by_role("button").count() == 0


async def test_an_unknown_payment_has_a_page_too(checkout: CheckoutHub, opens: Opens) -> None:
    page = await opens("about:blank", locale="vi-VN")
    page.expected = ("Failed to load resource", "asks http")
    await page.goto(f"{checkout.url}/pay/pay_unknown")
    await heading(page, "Không tìm thấy thanh toán")
    await page.goto(f"{checkout.url}/pay/pay_unknown?lang=en")
    await heading(page, "Payment not found")
