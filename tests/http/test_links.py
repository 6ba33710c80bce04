"""Payment links as payers use them: over real HTTP, by what their forms send."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from browser.checkout_hub import CheckoutHub, open_checkout
from tillgate.domain.payment import Closed, Paid, Payment
from tillgate.http.checkout_links import amount_minor
from tillgate.hub.links import LinkIntent
from tillgate.store.links import PaymentLink

HTML = {"accept": "text/html,application/xhtml+xml"}
USE = re.compile(r'name="use" value="([\w-]+)"')


@pytest.fixture
async def checkout(tmp_path: Path) -> AsyncIterator[CheckoutHub]:
    async with open_checkout(tmp_path) as opened:
        yield opened


async def link(checkout: CheckoutHub, **wanted: Any) -> PaymentLink:
    intent = LinkIntent(**{"title": "Coffee", "currency": "IDR", "channels": ("code", "page"), **wanted})
    return (await checkout.runtime.hub.links.create(checkout.merchant, intent, None, lambda _: b"")).link


def at(checkout: CheckoutHub, one: PaymentLink, rest: str = "") -> str:
    return f"{checkout.url}/l/{one.code}{rest}"


async def page(checkout: CheckoutHub, one: PaymentLink, rest: str = "") -> tuple[int, str, str]:
    """Status, text, and where it leads."""
    url = at(checkout, one, rest)
    async with checkout.web.get(url, headers=HTML, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.headers.get("location", "")


async def send(
    checkout: CheckoutHub, one: PaymentLink, rest: str = "", **fields: str
) -> tuple[int, str, str]:
    url, form = at(checkout, one, rest), aiohttp.FormData(fields)
    async with checkout.web.post(url, data=form, headers=HTML, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.headers.get("location", "")


async def paid_at(checkout: CheckoutHub, location: str) -> Payment:
    payment_id = location.partition("?")[0].rpartition("/")[2]
    found = await checkout.runtime.kit.reads.payment(payment_id)
    assert found is not None
    return found


async def test_an_open_link_is_paid_many_times_and_each_is_a_payment_of_its_own(
    checkout: CheckoutHub,
) -> None:
    one = await link(checkout, min_minor=1_000_000, max_minor=50_000_000, metadata='{"table": 7}')
    status, text, _ = await page(checkout, one, "?lang=id")
    assert status == 200
    assert 'lang="id"' in text
    assert "Dari Rp\xa010.000 sampai Rp\xa0500.000" in text
    uses = USE.findall(text)

    # The same form twice is one payment; another form is another one.
    first = await send(checkout, one, "?lang=id", use=uses[0], amount="50.000", channel="code")
    again = await send(checkout, one, "?lang=id", use=uses[0], amount="50.000", channel="code")
    other = await send(checkout, one, use="another-form", amount="50000", channel="page")
    assert [one[0] for one in (first, again, other)] == [303, 303, 303]
    assert first[2] == again[2] != other[2]
    assert first[2].endswith("?lang=id")
    payments = [await paid_at(checkout, at) for at in (first[2], other[2])]
    assert [(one.amount_minor, one.channel) for one in payments] == [(5_000_000, "code"), (5_000_000, "page")]
    assert all(payment.standing_id == one.id and payment.metadata == '{"table": 7}' for payment in payments)
    assert all(payment.order_id.startswith(f"{one.reference}-") for payment in payments)

    # A form sent again with another amount is another payment, and no error.
    changed = await send(checkout, one, use=uses[0], amount="60.000", channel="code")
    assert (await paid_at(checkout, changed[2])).amount_minor == 6_000_000
    # A payment's page leads back to the link.
    async with checkout.web.get(f"{checkout.url}{first[2]}", headers=HTML) as answer:
        assert f'href="/l/{one.code}?again=1&amp;lang=id"' in await answer.text()


async def test_what_cannot_be_paid_is_said_on_the_page(checkout: CheckoutHub) -> None:
    one = await link(checkout, min_minor=1_000_000, max_minor=50_000_000)
    cases: list[tuple[dict[str, str], str]] = [
        ({"amount": "9999", "channel": "code"}, "Enter an amount from Rp\xa010,000 to Rp\xa0500,000."),
        ({"amount": "500001", "channel": "code"}, "Enter an amount"),
        ({"amount": "", "channel": "code"}, "Enter an amount"),
        ({"amount": "-50000", "channel": "code"}, "Enter an amount"),
        ({"amount": "5e4", "channel": "code"}, "Enter an amount"),
        ({"amount": "٥٠٠٠٠", "channel": "code"}, "Enter an amount"),
        ({"amount": "50000"}, "Choose how you would like to pay."),
        ({"amount": "50000", "channel": "payme"}, "Choose how you would like to pay."),
        ({"amount": "<script>", "channel": "<script>"}, "Choose how you would like to pay."),
    ]
    for fields, said in cases:
        status, text, _ = await send(checkout, one, use="a-form-of-mine", **fields)
        assert (status, said in text, "<script>" in text) == (422, True, False), fields
    assert await checkout.runtime.kit.reads.links.payments(one.id, 10) == []


async def test_a_once_link_is_paid_once_and_lets_its_payer_change_their_mind(checkout: CheckoutHub) -> None:
    one = await link(checkout, amount_minor=15_000_000, once=True)
    status, text, _ = await page(checkout, one)
    assert (status, "Rp\xa0150,000" in text, 'name="amount"' in text) == (200, True, False)

    _, _, first = await send(checkout, one, use="form-number-1", channel="code")
    assert (await page(checkout, one))[2] == first  # back to the same payment
    assert (await page(checkout, one, "?again=1"))[0] == 200
    _, _, second = await send(checkout, one, use="form-number-2", channel="page")
    assert second == first  # the same payment, another attempt
    payment = await paid_at(checkout, second)
    assert (payment.channel, payment.status, payment.order_id) == ("page", "pending", one.reference)

    await checkout.tell(payment, Closed("failed"))
    assert (await page(checkout, one))[0] == 200  # another try
    _, _, third = await send(checkout, one, use="form-number-3", channel="code")
    await checkout.tell(await paid_at(checkout, third), Paid(15_000_000, "IDR"))
    assert (await page(checkout, one, "?again=1"))[2] == third
    assert (await send(checkout, one, use="form-number-4", channel="page"))[2] == third
    assert len(await checkout.runtime.kit.reads.links.payments(one.id, 10)) == 1


async def test_a_payer_who_mistyped_pays_the_other_amount_and_the_first_is_taken_back(
    checkout: CheckoutHub,
) -> None:
    one = await link(checkout, once=True)
    _, _, first = await send(checkout, one, use="form-number-1", channel="code", amount="500.000")
    _, _, second = await send(checkout, one, use="form-number-2", channel="code", amount="50.000")
    payments = [await paid_at(checkout, where) for where in (first, second)]
    assert [(one.status, one.amount_minor, one.order_id) for one in payments] == [
        ("cancelled", 50_000_000, one.reference), ("pending", 5_000_000, f"{one.reference}-2"),
    ]  # fmt: skip
    await checkout.tell(payments[1], Paid(5_000_000, "IDR"))
    assert (await page(checkout, one))[2] == second


async def test_a_provider_that_asks_is_reached_by_a_link_too(checkout: CheckoutHub) -> None:
    one = await link(checkout, currency="UZS", channels=("payme",), reference="ZAKAT 1")
    status, text, _ = await page(checkout, one, "?lang=uz")
    assert (status, 'type="radio"' in text, 'value="payme"' in text) == (200, False, True)
    _, _, where = await send(checkout, one, "?lang=uz", use="form-number-1", channel="payme", amount="50 000")
    async with checkout.web.get(f"{checkout.url}{where}", headers=HTML) as answer:
        assert 'href="https://test.paycom.uz/' in await answer.text()


async def test_a_crowd_at_a_once_link_opens_one_payment(checkout: CheckoutHub) -> None:
    one = await link(checkout, once=True)
    crowd = [
        send(checkout, one, use=f"form-of-{n:04}", amount=f"{50 + n}000", channel="code") for n in range(6)
    ]
    where = {answer[2] for answer in await asyncio.gather(*crowd)}
    assert len(where) == 1
    payments = await checkout.runtime.kit.reads.links.payments(one.id, 10)
    assert sum(payment.status == "pending" for payment in payments) == 1


async def test_closed_links_say_so(checkout: CheckoutHub) -> None:
    off = await link(checkout)
    await checkout.runtime.hub.links.disable(checkout.merchant, off.id, None, lambda _: b"")
    now = checkout.runtime.kit.clock()
    over = await link(checkout, expires_at=now + 30)
    await asyncio.sleep(0.05)
    for one in (off, over):
        status, text, _ = await page(checkout, one)
        assert (status, "This link is closed" in text, "Kopi Senja" in text) == (410, True, True)
        assert (await send(checkout, one, use="form-number-1", amount="50000", channel="code"))[0] == 410
        async with checkout.web.get(at(checkout, one, ".png")) as answer:
            assert int.from_bytes((await answer.read())[16:20], "big") == 512  # the drawn sign
    missing = replace(off, code="zzzzzzzzzzzz")
    assert (await page(checkout, missing))[0] == 404
    async with checkout.web.get(at(checkout, missing, ".svg")) as answer:
        assert answer.status == 404


async def test_a_form_that_is_none_is_refused(checkout: CheckoutHub) -> None:
    one = await link(checkout)
    async with checkout.web.post(at(checkout, one), data=b"a=" + b"x" * 5000) as answer:
        assert answer.status == 400
    many = urlencode([("a", "1")] * 30)
    async with checkout.web.post(at(checkout, one), data=many) as answer:
        assert answer.status == 400


async def test_a_wallet_that_does_not_answer_is_not_asked_twice(checkout: CheckoutHub) -> None:
    one = await link(checkout, channels=("lost", "code"), amount_minor=15_000_000, once=True)
    status, _, where = await send(checkout, one, use="form-number-1", channel="lost")
    assert (status, (await paid_at(checkout, where)).status) == (303, "unsure")
    assert (await page(checkout, one, "?again=1"))[2] == where


async def test_an_address_that_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    async with open_checkout(tmp_path, page_rate_limit=20) as checkout:
        one = await link(checkout)
        payment = await checkout.open("code")
        opened = [
            await send(checkout, one, use=f"form-{n:06}", amount="50000", channel="code") for n in range(4)
        ]
        assert [answer[0] for answer in opened] == [303, 303, 429, 429]
        assert "One moment, please" in opened[3][1]
        statuses = []
        for _ in range(20):
            async with checkout.web.get(checkout.at(payment, "/state")) as answer:
                statuses.append(answer.status)
                wait = answer.headers.get("retry-after")
        assert (statuses[0], statuses[-1], wait is not None) == (200, 429, True)


async def test_the_sandbox_buttons_keep_the_language_and_the_prefix(tmp_path: Path) -> None:
    async with open_checkout(tmp_path, public_url="https://pay.example/till") as checkout:
        payment = await checkout.open("gopay")
        url = f"{checkout.url}/sandbox/pay/{payment.id}/pay?lang=id"
        async with checkout.web.post(url, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["location"]) == (303, f"/till/pay/{payment.id}?lang=id")
        url = f"{checkout.url}/sandbox/pay/{payment.id}/pay?lang=//evil.example"
        async with checkout.web.post(url, allow_redirects=False) as answer:
            assert answer.headers["location"] == f"/till/pay/{payment.id}"


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("50000", "IDR", 5_000_000),
        ("50.000", "IDR", 5_000_000),
        ("50,000", "IDR", 5_000_000),
        ("50 000", "UZS", 5_000_000),
        ("50\u00a0000,50", "UZS", 5_000_050),
        ("1.234.567", "VND", 1_234_567),
        ("1,00,000", "INR", 10_000_000),
        ("1,00,000.50", "INR", 10_000_050),
        ("12.5", "MYR", 1_250),
        ("12,50", "MYR", 1_250),
        ("1.250", "MYR", 125_000),
        ("1'250.00", "USD", 125_000),
        (" 7 ", "MYR", 700),
        ("12.50", "VND", None),
        ("1.2.3", "IDR", None),
        ("1,2345", "IDR", None),
        ("50.000,000", "IDR", None),
        ("1 0000", "IDR", None),
        ("", "IDR", None),
        (".5", "MYR", None),
        ("5.", "MYR", None),
        ("+5", "MYR", None),
        ("1e3", "MYR", None),
        ("Rp 5", "IDR", None),
        ("५००", "INR", None),
        ("9" * 21, "IDR", None),
    ],
)
def test_amounts_are_read_as_people_type_them(text: str, currency: str, minor: int | None) -> None:
    assert amount_minor(text, currency) == minor
