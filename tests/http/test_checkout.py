"""`/pay/{payment_id}` over a real socket: what is asked for, what is answered, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zxingcpp

from browser.checkout_hub import QR_TEXT, CheckoutHub, open_checkout
from tillgate.domain.payment import Closed, Paid, Payment, Refunded, Reversed
from tillgate.http import checkout_live
from tillgate.http.checkout_view import clock, safe_link

# As the programs send them.
CHROMIUM_PAGE = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
CHROMIUM_IMG = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
FIREFOX_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
SAFARI_IMG = (
    "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,"
    "image/*;q=0.8,*/*;q=0.5"
)
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
AXIOS = "application/json, text/plain, */*"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
async def checkout(tmp_path: Path) -> AsyncIterator[CheckoutHub]:
    async with open_checkout(tmp_path) as opened:
        yield opened


def decoded(png: bytes) -> str:
    """What a scanner reads from a one-bit grey PNG without interlace."""
    width, height, depth, colour = struct.unpack(">IIBB", png[16:26])
    assert (depth, colour) == (1, 0)
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    rows, stride, raw = [], (width + 7) // 8, zlib.decompress(data)
    before = bytes(stride)
    for y in range(height):
        kind, line = raw[y * (stride + 1)], raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)]
        assert kind in (0, 2)
        before = line if kind == 0 else bytes((a + b) % 256 for a, b in zip(line, before, strict=True))
        rows.append(bytes(255 if before[x // 8] >> (7 - x % 8) & 1 else 0 for x in range(width)))
    grey = memoryview(b"".join(rows)).cast("B", (height, width))
    # Only what a wallet looks for: in one picture of 300 a row of modules reads as a linear code, too.
    (found,) = zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormat.QRCode)
    return str(found.text)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"accept": CHROMIUM_PAGE}, "text/html; charset=utf-8"),
        ({"accept": FIREFOX_PAGE}, "text/html; charset=utf-8"),
        ({"accept": "text/html"}, "text/html; charset=utf-8"),
        ({"accept": "text/html;q=0.9, image/*;q=0.1"}, "text/html; charset=utf-8"),
        ({"accept": CHROMIUM_IMG}, "image/png"),
        ({"accept": SAFARI_IMG}, "image/png"),
        ({"accept": "image/*"}, "image/png"),
        ({"accept": "*/*"}, "image/png"),
        ({"accept": ""}, "image/png"),
        ({"accept": JAVA}, "image/png"),
        ({"accept": AXIOS}, "image/png"),
        ({"accept": "text/html;q=0"}, "image/png"),
        ({"accept": ';;;q=,,text;html,"/"'}, "image/png"),
        ({"accept": "application/json"}, "application/json"),
        ({"accept": "*/*", "sec-fetch-dest": "image"}, "image/png"),
        ({"accept": "*/*", "sec-fetch-dest": "document"}, "text/html; charset=utf-8"),
    ],
)
async def test_each_asker_gets_the_form_it_can_show(
    checkout: CheckoutHub, headers: dict[str, str], kind: str
) -> None:
    payment = await checkout.open("code")
    async with checkout.web.get(checkout.at(payment), headers=headers) as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert {"accept", "accept-language"} <= set(
            answer.headers.get("vary", "accept, accept-language").split(", ")
        )
        assert answer.headers["cache-control"] == "no-store"


async def test_the_picture_says_what_the_provider_said(checkout: CheckoutHub) -> None:
    payment = await checkout.open("code")
    for path in ("", ".png"):
        async with checkout.web.get(checkout.at(payment, path)) as answer:
            body = await answer.read()
            assert body.startswith(PNG)
            assert decoded(body) == QR_TEXT
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"  # shops embed it
    async with checkout.web.get(checkout.at(payment, ".svg")) as answer:
        assert answer.headers["content-type"] == "image/svg+xml"
        assert (await answer.text()).startswith("<svg")


async def test_where_the_provider_has_only_a_page_the_code_leads_a_phone_to_ours(
    checkout: CheckoutHub,
) -> None:
    payment = await checkout.open("page")
    async with checkout.web.get(checkout.at(payment)) as answer:
        assert decoded(await answer.read()) == checkout.at(payment)


async def test_payme_is_invited_to_by_its_own_link(checkout: CheckoutHub) -> None:
    """No attempt exists yet: Payme opens one by asking."""
    payment = await checkout.open("payme", 5_000_000, "UZS")
    async with checkout.web.get(checkout.at(payment)) as answer:
        assert decoded(await answer.read()).startswith("https://test.paycom.uz/")
    async with checkout.web.get(checkout.at(payment, "?lang=uz"), headers={"accept": "text/html"}) as answer:
        page = await answer.text()
        assert "50\xa0000\xa0soʻm" in page
        assert 'href="https://test.paycom.uz/' in page


@pytest.mark.parametrize(
    ("facts", "green"),
    [
        ([Paid(15_000_000, "IDR")], True),
        ([Paid(15_000_000, "IDR"), Refunded(5_000_000)], True),
        ([Paid(15_000_000, "IDR"), Refunded(15_000_000)], False),  # nobody hands out goods for this one
        ([Paid(14_000_000, "IDR")], False),
        ([Closed("expired")], False),
        ([Closed("failed")], False),
    ],
)
async def test_what_cannot_be_paid_any_more_has_a_sign_and_no_code(
    checkout: CheckoutHub, facts: list[Paid | Closed | Refunded], green: bool
) -> None:
    payment = await checkout.open("code")
    await checkout.tell(payment, *facts)
    async with checkout.web.get(checkout.at(payment)) as answer:
        body = await answer.read()
        assert (answer.status, body[:8], answer.headers["cache-control"]) == (200, PNG, "no-store")
        assert struct.unpack(">II", body[16:24]) == (512, 512)  # the drawn sign, not a code
    async with checkout.web.get(checkout.at(payment, ".svg")) as answer:
        assert ("#0a6b45" in await answer.text()) == green


async def test_a_code_whose_time_is_over_is_withheld_before_the_hub_has_closed_it(
    checkout: CheckoutHub,
) -> None:
    payment = await checkout.open("code", ttl_s=1)
    await asyncio.sleep(1.05)
    async with checkout.web.get(checkout.at(payment)) as answer:
        assert struct.unpack(">II", (await answer.read())[16:24]) == (512, 512)
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        page = await answer.text()
        assert "Time is up" in page
        assert "<img" not in page


async def test_a_text_too_long_for_a_code_takes_nothing_down(checkout: CheckoutHub) -> None:
    payment = await checkout.open("too-long")
    async with checkout.web.get(checkout.at(payment, ".png")) as answer:
        assert answer.status == 200
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "pay_000000000000000000000000000000ff",
        "x",
        "pay_%00",
        "pay_'--",
        "%F0%9F%92%B0",
        "p" * 3000,
        "%2e%2e%2fetc",
    ],
)
async def test_an_unknown_payment_is_not_found_in_the_askers_form(checkout: CheckoutHub, path: str) -> None:
    for rest in ("", ".png", ".svg", "/state", "/events"):
        async with checkout.web.get(f"{checkout.url}/pay/{path}{rest}", headers={"accept": "*/*"}) as answer:
            assert answer.status == 404
            said = await answer.json()
            if "%2f" not in path:  # that is another path, and the application's own answer
                assert said["errorType"] == "not_found"
                assert said["errorMessage"] == "Payment not found"
    async with checkout.web.get(f"{checkout.url}/pay/{path}", headers={"accept": CHROMIUM_PAGE}) as answer:
        assert answer.status == 404
        if "%2f" not in path:
            assert "Payment not found" in await answer.text()
            assert "no-store" in answer.headers["cache-control"]


async def test_only_get_and_head_are_taken(checkout: CheckoutHub) -> None:
    payment = await checkout.open("code")
    async with checkout.web.post(checkout.at(payment)) as answer:
        assert answer.status == 405
    async with checkout.web.head(checkout.at(payment)) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_the_page_is_closed_to_other_hosts(checkout: CheckoutHub) -> None:
    payment = await checkout.open("code")
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        page = await answer.text()
    assert policy == {
        "default-src": "'none'", "img-src": "'self' data:", "style-src": "'self'", "script-src": "'self'",
        "connect-src": "'self'", "form-action": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", page) == []
    assert re.findall(r"(?:src|href|action)=\"(?!/)[^\"]*", page) == []  # nothing leads to another host


async def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    async with open_checkout(tmp_path, merchant='<b>"Kopi" & {Susu}</b>') as checkout:
        payment = await checkout.open("code")
        async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
            page = await answer.text()
    assert "<b>" not in page.replace('<b id="left"', "")
    assert "&lt;b&gt;&#34;Kopi&#34; &amp; {Susu}&lt;/b&gt;" in page


async def test_behind_a_path_of_a_bigger_host_every_address_keeps_it(tmp_path: Path) -> None:
    """A proxy takes `/till` off before it asks us."""
    async with open_checkout(tmp_path, public_url="https://shop.example/till/") as checkout:
        payment = await checkout.open("page")
        async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
            inside = re.findall(r'(?:src|href|action|address)="(/[^"]*)', await answer.text())
        assert len(inside) > 10
        assert [one for one in inside if not one.startswith("/till/")] == []
        async with checkout.web.get(checkout.at(payment)) as answer:
            assert decoded(await answer.read()) == f"https://shop.example/till/pay/{payment.id}"


async def test_outside_the_sandbox_nobody_plays_the_payer(tmp_path: Path) -> None:
    async with open_checkout(tmp_path, sandbox=False) as checkout:
        payment = await checkout.open("code")
        async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
            page = await answer.text()
        assert "<form" not in page
        assert "andbox" not in page
        async with checkout.web.post(f"{checkout.url}/sandbox/pay/{payment.id}/pay") as answer:
            assert answer.status == 404


# --- the state ----------------------------------------------------------------------------------------------


async def test_the_state_is_small_and_says_when_nothing_moved(checkout: CheckoutHub) -> None:
    payment = await checkout.open("code", 15_000_050)
    async with checkout.web.get(checkout.at(payment, "/state")) as answer:
        body, tag = await answer.json(), answer.headers["etag"]
        assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", body.pop("expires_at"))
    assert body.pop("version") >= 1
    assert body == {
        "payment_id": payment.id, "status": "pending", "status_detail": "pending", "amount": 150000.5,
        "currency": "IDR", "paid_at": None, "final": False,
    }  # fmt: skip
    async with checkout.web.get(checkout.at(payment, "/state"), headers={"if-none-match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")

    await checkout.tell(payment, Paid(15_000_050, "IDR"))

    async with checkout.web.get(checkout.at(payment, "/state"), headers={"if-none-match": tag}) as answer:
        body = await answer.json()
        assert (body["status"], body["status_detail"], body["final"]) == ("success", "paid", True)


@pytest.mark.parametrize(
    ("facts", "heading"),
    [
        ([Paid(15_000_000, "IDR")], "Payment received"),
        ([Closed("expired"), Paid(15_000_000, "IDR")], "Payment received"),
        ([Paid(15_000_000, "IDR"), Refunded(15_000_000)], "Refunded"),
        ([Paid(15_000_000, "IDR"), Refunded(5_000_000)], "Partly refunded"),
        ([Paid(15_000_000, "IDR"), Reversed(15_000_000)], "Payment reversed"),
        ([Paid(14_999_900, "IDR")], "Your payment is being checked"),
        ([Closed("failed")], "Payment failed"),
        ([Closed("expired")], "Payment expired"),
        ([Closed("cancelled")], "Payment cancelled"),
    ],
)
async def test_every_state_has_its_words_and_no_way_to_pay_again(
    checkout: CheckoutHub, facts: list[Paid | Closed | Refunded | Reversed], heading: str
) -> None:
    payment = await checkout.open("code-and-app")
    for fact in facts:
        await checkout.tell(payment, fact)
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        page = await answer.text()
    assert re.findall(r"<h1[^>]*>([^<]*)", page) == [heading]
    assert "Rp\xa0150,000" in page
    assert "<img" not in page
    assert "examplewallet" not in page
    assert "<form" not in page


async def test_a_lost_answer_is_said_to_be_checked(checkout: CheckoutHub) -> None:
    payment = await checkout.open("lost")
    assert payment.status == "unsure"
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        page = await answer.text()
    assert "Checking with Lost Pay" in page
    assert "do not pay again" in page
    assert '<noscript><meta http-equiv="refresh"' in page


async def test_without_its_store_the_page_says_so_and_heals(checkout: CheckoutHub, tmp_path: Path) -> None:
    payment = await checkout.open("code")
    await checkout.runtime.database.close()
    for file in tmp_path.glob("hub.db*"):
        file.rename(tmp_path / f"away-{file.name}")
    (tmp_path / "hub.db").mkdir()
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert '<meta http-equiv="refresh"' in await answer.text()
    async with checkout.web.get(checkout.at(payment, "/state")) as answer:
        assert (answer.status, (await answer.json())["errorType"]) == (503, "service_unavailable")
    async with checkout.web.get(checkout.at(payment)) as answer:
        assert answer.status == 503

    (tmp_path / "hub.db").rmdir()
    for file in tmp_path.glob("away-*"):
        file.rename(tmp_path / file.name.removeprefix("away-"))

    async with checkout.web.get(checkout.at(payment)) as answer:
        assert (answer.status, (await answer.read())[:8]) == (200, PNG)


# --- the stream ---------------------------------------------------------------------------------------------


async def lines(checkout: CheckoutHub, payment: Payment, **headers: str) -> list[str]:
    """A stream to its end."""
    async with checkout.web.get(checkout.at(payment, "/events"), headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        return (await answer.text()).split("\n")


async def test_the_stream_tells_each_state_once_and_ends_with_the_last(checkout: CheckoutHub) -> None:
    payment = await checkout.open("code")
    reading = asyncio.create_task(lines(checkout, payment))
    await asyncio.sleep(1.5)
    await checkout.tell(payment, Paid(15_000_000, "IDR"))

    said = [json.loads(line.removeprefix("data: ")) for line in await reading if line.startswith("data: ")]

    assert [(one["status"], one["final"]) for one in said] == [("pending", False), ("success", True)]
    # A browser whose connection broke at the end is told not to come again.
    async with checkout.web.get(
        checkout.at(payment, "/events"), headers={"last-event-id": str(said[-1]["version"])}
    ) as answer:
        assert answer.status == 204


async def test_a_silent_stream_has_a_heartbeat(
    checkout: CheckoutHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout_live, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(checkout_live, "READ_EVERY_S", 0.1)
    monkeypatch.setattr(checkout_live, "LIFE_S", 0.75)
    assert 3 <= (await lines(checkout, await checkout.open("code"))).count(":") <= 7


async def test_streams_are_bounded_and_a_lost_browser_gives_its_place_back(checkout: CheckoutHub) -> None:
    payment, other = await checkout.open("code"), await checkout.open("code")
    held = [
        await checkout.web.get(checkout.at(payment, "/events")) for _ in range(checkout_live.MAX_PER_PAYMENT)
    ]
    async with checkout.web.get(checkout.at(payment, "/events")) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    async with checkout.web.get(checkout.at(other, "/events")) as answer:
        assert answer.status == 200
    for one in held:
        one.close()
    await asyncio.sleep(0.2)
    async with checkout.web.get(checkout.at(payment, "/events")) as answer:
        assert answer.status == 200


async def test_all_streams_together_are_bounded(
    checkout: CheckoutHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout_live, "MAX_STREAMS", 1)
    one, other = await checkout.open("code"), await checkout.open("code")
    async with checkout.web.get(checkout.at(one, "/events")) as first:
        assert first.status == 200
        async with checkout.web.get(checkout.at(other, "/events")) as answer:
            assert answer.status == 503


async def test_a_hub_that_closes_ends_its_streams(checkout: CheckoutHub) -> None:
    reading = asyncio.create_task(lines(checkout, await checkout.open("code")))
    await asyncio.sleep(0.3)
    checkout.runtime.closing = True
    assert "event: state" in await asyncio.wait_for(reading, 2)


# --- files --------------------------------------------------------------------------------------------------


async def test_files_are_kept_for_ever_under_names_that_change_with_them(checkout: CheckoutHub) -> None:
    payment = await checkout.open("code")
    async with checkout.web.get(checkout.at(payment), headers={"accept": "text/html"}) as answer:
        names = re.findall(r"/static/[\w.-]+", await answer.text())
    assert {name.split(".")[0] for name in names} == {"/static/icon", "/static/checkout"}
    for name in names:
        async with checkout.web.get(checkout.url + name) as answer:
            assert answer.status == 200
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers.get("content-encoding") == "gzip"
            pressed = await answer.read()
        async with checkout.web.get(checkout.url + name, headers={"accept-encoding": "identity"}) as answer:
            assert "content-encoding" not in answer.headers
            assert await answer.read() == pressed  # the client has unpacked it


@pytest.mark.parametrize(
    "name",
    ["checkout.css", "checkout.0000000000.css", "..%2fcheckout.py", "%2e%2e/app.py", "checkout.py", ""],
)
async def test_no_other_file_can_be_asked_for(checkout: CheckoutHub, name: str) -> None:
    async with checkout.web.get(f"{checkout.url}/static/{name}") as answer:
        assert answer.status == 404


# --- small rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://wallet.example/pay?a=1&b=2", True),
        ("gojek://gopay/merchanttransfer?x=1", True),
        ("upi://pay?pa=checkout@bank&am=10.00", True),
        ("intent://pay#Intent;scheme=x;end", True),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        (" javascript:alert(1)", False),
        ("java\nscript:alert(1)", False),
        ("data:text/html,x", False),
        ("vbscript:x", False),
        ("file:///etc/passwd", False),
        ("//wallet.example", False),
        ("/pay", False),
        ("https://wallet.example/a b", False),
        ("", False),
        (None, False),
        ("x:" + "a" * 5000, False),
    ],
)
def test_only_links_that_run_nothing_are_offered(url: str | None, safe: bool) -> None:
    assert safe_link(url) == (url if safe else None)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (900_000, "15:00"), (899_999, "15:00"), (61_000, "1:01"), (60_001, "1:01"), (1, "0:01"), (0, "0:00"),
        (-5000, "0:00"), (3_600_000, "1:00:00"), (172_799_000, "47:59:59"),
    ],
)  # fmt: skip
def test_a_countdown_reads_like_a_clock(ms: int, text: str) -> None:
    assert clock(ms) == text
