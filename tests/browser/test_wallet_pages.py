"""A payer's page through Xendit and Midtrans: what a camera reads off it pays in the simulated wallet."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.checkout_hub import CheckoutHub, open_checkout
from browser.conftest import DESKTOP, PHONE, Opens
from browser.scanner import scan
from browser.test_checkout_page import heading
from support.wallets import MIDTRANS_KEY, XENDIT_KEY, XENDIT_TOKEN, midtrans, xendit

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

SHOTS = os.environ.get("TILLGATE_TEST_SHOTS")  # a directory to look at them in


@dataclass
class Wallets:
    checkout: CheckoutHub
    simulators: dict[str, Any]


@pytest.fixture
async def wallets(tmp_path: Path) -> AsyncIterator[Wallets]:
    """GoPay by Midtrans' own rail, DANA by QRIS at Midtrans, the others by QRIS at Xendit."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        checkout = await enter(open_checkout(tmp_path, worker=True))
        simulators: dict[str, Any] = {"xendit": await enter(xendit()), "midtrans": await enter(midtrans())}
        configs: dict[str, dict[str, Any]] = {
            "xendit": {"secret_key": XENDIT_KEY, "callback_token": XENDIT_TOKEN},
            "midtrans": {"server_key": MIDTRANS_KEY, "rails": {"gopay": "wallet"}},
        }
        for name, config in configs.items():
            made = await checkout.runtime.hub.accounts.create(
                checkout.merchant, name, name, {**config, "base_url": simulators[name].base_url}
            )
            simulators[name].webhook_url = f"{checkout.url}/in/{made.account.id}"
        checkout.merchant = await checkout.runtime.directory.merchant(checkout.merchant.id)
        yield Wallets(checkout, simulators)


async def shot(page: Page, name: str) -> bytes:
    """What the payer sees without scrolling."""
    return await page.screenshot(path=str(Path(SHOTS) / f"{name}.png") if SHOTS else None)


@pytest.mark.parametrize(
    ("viewport", "language", "provider", "channel", "scan_me", "thanks"),
    [
        (PHONE, "id", "xendit", "shopeepay", "Pindai untuk membayar", "Pembayaran diterima"),
        (DESKTOP, "en", "midtrans", "dana", "Scan to pay", "Payment received"),
    ],
    ids=["phone-id-xendit", "desktop-en-midtrans"],
)
async def test_the_code_on_the_screen_pays_in_the_wallet(
    wallets: Wallets, opens: Opens, browser: Browser, viewport: dict[str, int], language: str,
    provider: str, channel: str, scan_me: str, thanks: str,
) -> None:  # fmt: skip
    checkout = wallets.checkout
    payment = await checkout.open(channel, 15_000_000, account=provider)
    page = await opens(checkout.at(payment, f"?lang={language}"), viewport)
    await heading(page, scan_me)
    await page.evaluate("window.stayed = true")
    [code] = await scan(browser, await shot(page, f"{provider}-{language}-scan"))

    wallet = await browser.new_page(viewport=PHONE)
    await wallet.goto(wallets.simulators[provider].base_url)
    await wallet.get_by_label("Scan a code").fill(code)
    await wallet.get_by_role("button", name="Open").click()
    await wallet.get_by_text("Rp150,000").wait_for()
    await wallet.get_by_label("Pay with").select_option(label={"xendit": "OVO", "midtrans": "ovo"}[provider])
    await shot(wallet, f"{provider}-wallet")
    await wallet.get_by_role("button", name="Pay", exact=True).click()
    await wallet.close()

    await heading(page, thanks)
    assert await page.evaluate("window.stayed")  # it changed by itself
    assert await page.get_by_text("OVO", exact=True).is_visible()  # who really paid
    await shot(page, f"{provider}-{language}-paid")
    found = await checkout.runtime.kit.reads.payment(payment.id)
    assert found is not None
    assert (found.status, found.paid_minor, found.channel) == ("paid", 15_000_000, channel)


async def test_a_button_on_the_phone_leads_into_the_wallet(wallets: Wallets, opens: Opens) -> None:
    checkout = wallets.checkout
    payment = await checkout.open("gopay", 4_800_000, account="midtrans")
    page = await opens(checkout.at(payment, "?lang=id"), PHONE)
    page.expected = ("asks http", "Failed to load resource")  # the wallet is another host, without an icon
    await heading(page, "Lanjutkan dengan GoPay")
    await shot(page, "midtrans-id-button")
    await page.get_by_role("link", name="Buka GoPay").click()
    await page.get_by_text("Rp48,000").wait_for()
    await page.get_by_role("button", name="Pay", exact=True).click()
    await page.get_by_text("gopay, settlement").wait_for()
    await page.goto(checkout.at(payment, "?lang=id"))  # the app sends the payer back
    await heading(page, "Pembayaran diterima")
