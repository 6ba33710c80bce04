"""Payment links by the API: made once, listed, switched off; bad ones refused."""

from __future__ import annotations

from typing import Any

import pytest

from support.serving import Client

OPEN = {"title": "Donation", "currency": "IDR", "min_minor": 1_000_000, "max_minor": 50_000_000}
FIXED = {"title": "Invoice 7", "currency": "IDR", "amount_minor": 15_000_000, "once": True}


async def test_a_link_is_made_shown_listed_and_switched_off(shop: Client, rival: Client) -> None:
    made = await shop.ask("POST", "/v1/payment-links", OPEN)
    assert made.status == 201, made.body
    link = made.json
    assert link["url"].rpartition("/l/")[0] == link["qr_url"].rpartition("/l/")[0]
    assert link["qr_url"] == link["url"] + ".png"
    assert len(link["url"].rpartition("/l/")[2]) == 12
    assert {name: link[name] for name in (*OPEN, "status", "amount_minor", "once", "channels")} == {
        **OPEN, "status": "open", "amount_minor": None, "once": False, "channels": [],
    }  # fmt: skip
    assert link["reference"] == link["url"].rpartition("/l/")[2]
    other = (await shop.ask("POST", "/v1/payment-links", FIXED)).json
    assert (await shop.ask("GET", f"/v1/payment-links/{link['id']}")).json == link
    assert [one["id"] for one in (await shop.ask("GET", "/v1/payment-links")).json["data"]] == [
        other["id"], link["id"],
    ]  # fmt: skip
    page = (await shop.ask("GET", "/v1/payment-links?limit=1")).json
    rest = (await shop.ask("GET", f"/v1/payment-links?limit=1&cursor={page['next_cursor']}")).json
    assert [page["data"][0]["id"], rest["data"][0]["id"]] == [other["id"], link["id"]]

    # Nobody else's.
    assert (await rival.ask("GET", f"/v1/payment-links/{link['id']}")).status == 404
    assert (await rival.ask("POST", f"/v1/payment-links/{link['id']}/disable")).status == 404
    assert (await rival.ask("GET", "/v1/payment-links")).json["data"] == []

    off = await shop.ask("POST", f"/v1/payment-links/{link['id']}/disable")
    assert (off.status, off.json["status"]) == (200, "disabled")
    again = await shop.ask("POST", f"/v1/payment-links/{link['id']}/disable")
    assert again.json == off.json


async def test_a_reference_and_a_key_make_one_link(shop: Client) -> None:
    wanted = {**FIXED, "reference": "INV-7"}
    first = await shop.ask("POST", "/v1/payment-links", wanted)
    second = await shop.ask("POST", "/v1/payment-links", wanted)
    assert (first.status, second.status) == (201, 200)
    assert first.json == second.json
    other = await shop.ask("POST", "/v1/payment-links", {**wanted, "amount_minor": 1_000_000})
    assert (other.status, other.json["type"].rpartition("/")[2]) == (409, "order_conflict")

    key = {"idempotency-key": "once"}
    kept = [await shop.ask("POST", "/v1/payment-links", OPEN, headers=key) for _ in range(2)]
    assert [one.status for one in kept] == [201, 201]
    assert kept[0].body == kept[1].body
    mismatch = await shop.ask("POST", "/v1/payment-links", FIXED, headers=key)
    assert mismatch.status == 422


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"title": "  "}, "title"),
        ({"title": "a\nb"}, "title"),
        ({"currency": "USD"}, "currency"),
        ({"channels": ["nobody"]}, "channels"),
        ({"channels": ["payme"]}, "channels"),
        ({"amount_minor": 100, "min_minor": 1}, "min_minor"),
        ({"min_minor": 200_000_000, "max_minor": 100_000_000}, "max_minor"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"amount_minor": 0}, "amount_minor"),
        ({"callback_url": "http://127.0.0.1/x"}, "callback_url"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_makes_no_link_is_refused(shop: Client, changed: dict[str, Any], param: str) -> None:
    refused = await shop.ask("POST", "/v1/payment-links", {"title": "T", "currency": "IDR", **changed})
    assert (refused.status, refused.json["param"]) == (400, param), refused.body


async def test_of_a_links_payments_one_order_is_found(shop: Client) -> None:
    """Who looks for one order must not be shown another's payment, which may be paid."""
    link = (await shop.ask("POST", "/v1/payment-links", OPEN)).json
    page = f"/l/{link['url'].rpartition('/l/')[2]}"
    form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    for use in ("first", "second"):
        body = f"use=form-number-{use}&channel=gopay&amount=20000"
        sent = await shop.ask("POST", page, raw=body.encode(), headers=form, token="")
        assert sent.status in (200, 303), sent.body
    of_link = f"/v1/payments?payment_link={link['id']}"
    both = (await shop.ask("GET", of_link)).json["data"]
    assert len(both) == 2
    for one in both:
        found = (await shop.ask("GET", f"{of_link}&order_id={one['order_id']}")).json["data"]
        assert [each["id"] for each in found] == [one["id"]]
    assert (await shop.ask("GET", f"{of_link}&order_id=another")).json["data"] == []
