"""The AtomPay document's paths on the hub, on both engines: who may pay what, races, looks on schedule."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import jwt
import pytest
from sqlalchemy import text

from tillgate import conform
from tillgate.domain.errors import Unauthenticated
from tillgate.http.app import create_app
from tillgate.hub import Intent
from tillgate.providers.atompay_in import PROVIDER, front
from tillgate.providers.atompay_in.conformance import CONFORMANCE, ORDERS_NEEDED
from tillgate.providers.atompay_in.simulator import Simulator
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.spi import Inbound
from tillgate.store.work import Due

from .conftest import config, serving
from .test_hub import Place

SECRET = "the secret of the shop's own site, of 32 bytes"
ORDER = {
    "user": "ANW007",
    "email": "payer@example.com",
    "mobile": "8888888800",
    "name": "A Payer",
    "event_id": "EV7",
    "event_type": "solo",
}


def site_token(user: str = "ANW007", *, ends_in_s: int = 60, key: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"id": user, "exp": int(time.time()) + ends_in_s, **claims}, key, algorithm="HS256")


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    simulator = Simulator()
    app = create_app(Settings(database_url=database_url, sandbox=True))
    async with serving(simulator.app, app) as [base_url, hub_url], aiohttp.ClientSession() as http:
        runtime: Runtime = app.state.runtime
        runtime.kit.public_url = hub_url
        made = await runtime.create_merchant("shop")
        config = {**PROVIDER.example, "base_url": base_url, "jwt_secret": SECRET}
        account_id = await runtime.directory.create_account(
            made.merchant_id, "atompay_in", "atompay", config, runtime.kit.clock(), is_default=True
        )
        simulator.callback_url = f"{hub_url}/response"
        found = Place(runtime, simulator, base_url, made.merchant_id, account_id, http)
        found.hub_url = hub_url  # type: ignore[attr-defined]
        async with http.post(
            f"{hub_url}/token", json={"api_key": made.api_key, "api_secret": made.api_secret}
        ) as reply:
            found.token = (await reply.json())["access_token"]  # type: ignore[attr-defined]
        yield found


async def stored(place: Place, order_id: str) -> str:
    merchant = await place.runtime.directory.merchant(place.merchant_id)
    intent = Intent(order_id, 31_900, "INR", "atompay", metadata=json.dumps(ORDER))
    return (await place.runtime.hub.open(merchant, intent)).payment.id


async def asked(place: Place, body: dict[str, Any], path: str = "/atompay", **more: Any) -> tuple[int, Any]:
    async with place.http.post(f"{place.hub_url}{path}", json=body, **more) as reply:  # type: ignore[attr-defined]
        return reply.status, await reply.json()


def bearer(token: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {token}"}}


async def test_the_page_is_given_what_is_stored_and_nothing_that_it_says(place: Place) -> None:
    payment_id = await stored(place, "ORD-1")
    lies = {"order_id": "ORD-1", "amount": "1.00", "anwesha_id": "ANW999", "email": "thief@example.com"}
    status, given = await asked(place, lies, **bearer(site_token()))
    assert status == 200
    assert set(given) == {
        "atomTokenId", "merchId", "custEmail", "custMobile", "returnUrl", "amount", "merchTxnId",
    }  # fmt: skip
    assert (given["amount"], given["custEmail"]) == ("319.00", "payer@example.com")
    by_cookie = await asked(place, lies, "/atompay/", headers={"cookie": f"jwt={site_token()}"})
    assert by_cookie == (200, given)
    assert await asked(place, lies, **bearer(place.token)) == (200, given)  # type: ignore[attr-defined]

    refused = [
        ({}, 401),
        (bearer("junk"), 401),
        (bearer(site_token(ends_in_s=-1)), 401),
        (bearer(site_token(key="another site's secret, also of 32 bytes")), 401),
        (bearer(jwt.encode({"id": "ANW007"}, SECRET, algorithm="HS256")), 401),
        (bearer(site_token("ANW008")), 404),
    ]
    for more, wanted in refused:
        assert (await asked(place, lies, **more))[0] == wanted
    assert (await asked(place, {"order_id": "ORD-2"}, **bearer(site_token())))[0] == 404
    assert (await asked(place, {"amount": "1.00"}, **bearer(site_token())))[0] == 400

    # A failed try gets a token of its own; a paid order gets none.
    await place.pay(given, "failed")
    status, again = await asked(place, lies, **bearer(site_token()))
    assert status == 200
    assert again["merchTxnId"] != given["merchTxnId"]
    done = await place.pay(again)
    assert (await place.payment(payment_id)).status == "paid"
    assert (await asked(place, lies, **bearer(site_token())))[0] == 409

    attempts = f"{place.hub_url}/v1/payments/{payment_id}/attempts"  # type: ignore[attr-defined]
    async with place.http.get(attempts, **bearer(place.token)) as reply:  # type: ignore[attr-defined]
        record = (await reply.json())["data"][-1]["details"]
    sent = done["transaction"]
    wanted = {
        "anwesha_id": "ANW007",
        "email_id": "payer@example.com",
        "name": "A Payer",
        "event_id": "EV7",
        "event_type": "solo",
        "atompay_transaction_id": sent["atomTxnId"],
        "bank_transaction_id": sent["bankTxnId"],
        "payment_status": "success",
    }
    assert {name: record[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    "cookies",
    [
        "jwt=T",
        '_x={"a":1}; jwt=T',
        "a[b]=1; jwt=T",
        'x="a,b"; jwt=T;y',
        "g=a b;jwt=T",
        'n=J\u00f6; jwt="T"',
        "=; jwt=T; ",
    ],
)
def test_the_payers_cookie_is_found_beside_odd_ones(cookies: str) -> None:
    headers = {"cookie": cookies.replace("T", site_token())}
    call = Inbound("POST", "/atompay", "", headers, b"", "127.0.0.1", int(time.time() * 1000))
    assert front.user(call, config(jwt_secret=SECRET)) == "ANW007"


@pytest.mark.parametrize("cookies", ["", "jwt", "jwt=", "jwtx=T", "xjwt=T", "jwt T", "JWT=T", "a=jwt=T"])
def test_what_is_not_the_cookie_is_nobodys(cookies: str) -> None:
    headers = {"cookie": cookies.replace("T", site_token())}
    call = Inbound("POST", "/atompay", "", headers, b"", "127.0.0.1", int(time.time() * 1000))
    with pytest.raises(Unauthenticated):
        front.user(call, config(jwt_secret=SECRET))


async def test_numbers_without_measure_and_long_queries_are_a_strangers_fault(place: Place) -> None:
    query = "&".join(f"a{n}=1" for n in range(25))
    for path, body, more in (
        ("/response", b'{"encData": 1e9999999999999999999}', {}),
        (f"/response?{query}", b"encData=00", {}),
        ("/atompay", b'{"order_id": 1e9999999999999999999}', bearer(site_token())),
    ):
        async with place.http.post(f"{place.hub_url}{path}", data=body, **more) as reply:  # type: ignore[attr-defined]
            assert reply.status == 400, path


async def test_callback_and_return_race(place: Place) -> None:
    payment_id = await stored(place, "ORD-1")
    _, given = await asked(place, {"order_id": "ORD-1"}, **bearer(site_token()))
    place.simulator.callback_url = ""
    fields = (await place.pay(given))["return"]

    async def told(url: str) -> int:
        async with place.http.post(url, data=fields, allow_redirects=False) as reply:
            return reply.status

    callback = f"{place.hub_url}/response/"  # type: ignore[attr-defined]
    urls = [callback, given["returnUrl"]] * 10
    assert sorted(await asyncio.gather(*map(told, urls))) == [200] * 10 + [303] * 10
    assert (await place.payment(payment_id)).paid_minor == 31_900
    kinds = [row[3] for row in await place.runtime.kit.reads.events(place.merchant_id, 0, 100)]
    assert kinds.count("payment.paid") == 1


async def due(place: Place) -> list[int]:
    rows = await place.runtime.database.read(text("SELECT run_at FROM due WHERE kind = 'look'"))
    return [row[0] for row in rows]


async def test_pending_paid_and_closed_payments_are_looked_at_on_schedule(place: Place) -> None:
    payment_id = await stored(place, "ORD-1")
    [attempt] = await place.runtime.kit.reads.attempts(payment_id)
    [first] = await due(place)
    assert 180_000 <= first - attempt.created_at < 200_000
    _, given = await asked(place, {"order_id": "ORD-1"}, **bearer(site_token()))
    await place.pay(given, "pending")
    assert await due(place) == [attempt.created_at + 180_000]
    place.simulator.gateway.settle(given["merchTxnId"], "success")  # and its callback gets lost
    await place.runtime.hub.due_work["look"](Due("look", attempt.id, 0, attempt.created_at + 180_000))
    assert (await place.payment(payment_id)).status == "paid"
    [at] = await due(place)  # T+1, at noon in India
    assert datetime.fromtimestamp(at / 1000, UTC).strftime("%H:%M:%S") == "06:30:00"
    assert 0 < at - attempt.created_at <= 36 * 3_600_000
    place.simulator.gateway.settle(given["merchTxnId"], "reversed")
    await place.runtime.hub.due_work["look"](Due("look", attempt.id, 0, at))
    assert (await place.payment(payment_id)).reversed_minor == 31_900
    assert await due(place) == []


async def test_a_flood_of_forgeries_derives_no_key(place: Place) -> None:
    """What is no hex of whole blocks costs no derivation; the genuine message then still counts."""
    payment_id = await stored(place, "ORD-1")
    _, given = await asked(place, {"order_id": "ORD-1"}, **bearer(site_token()))
    begun = time.process_time()
    for junk in ("zz" * 32, "ab" * 15, "AB" * 17, "", "ab" * 100) * 40:
        async with place.http.post(
            f"{place.hub_url}/response",  # type: ignore[attr-defined]
            data={"encData": junk, "merchId": given["merchId"]},
        ) as reply:
            assert reply.status == 400
    assert time.process_time() - begun < 200 * 0.033  # what deriving one key each would cost
    await place.pay(given)
    assert (await place.payment(payment_id)).status == "paid"


async def test_the_hub_conforms(place: Place) -> None:
    orders = []
    for number in range(ORDERS_NEEDED):
        payment_id = await stored(place, f"CONFORM-{number}")
        [attempt] = await place.runtime.kit.reads.attempts(payment_id)
        orders.append(f"{attempt.id}:319.00:{payment_id}")
    options = {
        "order": orders,
        "state-url": f"{place.hub_url}/v1/payments/{{reference}}",  # type: ignore[attr-defined]
        "state-header": f"Authorization: Bearer {place.token}",  # type: ignore[attr-defined]
        "paid": '"status":"paid"',
    }
    target = CONFORMANCE.target(f"{place.hub_url}/response", options)  # type: ignore[attr-defined]
    report = await conform.run(CONFORMANCE.checks, target, title="hub")
    broken = [one for one in report.outcomes if one.verdict != "pass"]
    assert [(one.check.id, one.why[:300]) for one in broken] == []
    assert len(report.outcomes) == len(CONFORMANCE.checks)
