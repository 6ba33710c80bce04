"""`/docs` in a real Chromium that reaches no other host: what is described is shown, and can be tried out."""

from __future__ import annotations

import json

from browser.checkout_hub import CheckoutHub
from browser.conftest import Opens


async def test_the_description_is_read_and_tried_without_a_network(
    checkout: CheckoutHub, opens: Opens
) -> None:
    page = await opens(f"{checkout.url}/docs")
    blocks = page.locator(".opblock")
    await blocks.first.wait_for(timeout=30_000)
    described = await page.evaluate("fetch('/openapi.json').then(answer => answer.json())")
    assert await blocks.count() == sum(len(item) for item in described["paths"].values()) + len(
        described["webhooks"]
    )
    about = page.locator(".info")
    await about.get_by_role("cell", name="idempotency_mismatch").wait_for()

    asked = page.locator("#operations-Operations-healthz")
    await asked.locator(".opblock-summary").click()
    await asked.get_by_role("button", name="Try it out").click()
    await asked.get_by_role("button", name="Execute").click()
    answer = asked.locator(".live-responses-table .microlight").first
    await answer.wait_for()
    assert json.loads(await answer.inner_text())["status"] == "ok"
