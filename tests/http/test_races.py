"""Many at once: one payment for one order, never more refunded than paid, one answer to one key."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.serving import Answer, Client, Process, Served, client, hub, new_merchant, rows

GOOD = {"wallet_id": "gopay", "amount": 150000, "currency": "IDR"}


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


async def stored(database_url: str, payment_id: str) -> dict[str, int]:
    """How many rows of each kind there are about a payment; live attempts apart."""
    found = {}
    for name, statement in {
        "attempts": f"SELECT COUNT(*) FROM attempts WHERE payment_id = '{payment_id}'",
        "live": f"SELECT COUNT(*) FROM attempts WHERE live_of = '{payment_id}'",
        "refunds": f"SELECT COUNT(*) FROM refunds WHERE payment_id = '{payment_id}'",
        "opened": f"SELECT COUNT(*) FROM events WHERE subject = '{payment_id}' AND type = 'payment.pending'",
    }.items():
        found[name] = (await rows(database_url, statement))[0][0]
    return found


@pytest.fixture
async def tills(
    request: pytest.FixtureRequest, tmp_path: Path, pg_url: str
) -> AsyncIterator[tuple[str, list[Client]]]:
    """One merchant's tills at two API processes, with two workers beside them, on one PostgreSQL."""
    async with AsyncExitStack() as stack:
        till = {"public_url": "https://till.example"}
        first = stack.enter_context(hub(tmp_path, pg_url, "--no-worker", **till))
        second = stack.enter_context(hub(tmp_path, pg_url, "--no-worker", **till))
        given = {"database_url": pg_url, "sandbox": 1}
        workers = [stack.enter_context(Process(tmp_path, ["worker"], given).start()) for _ in range(2)]
        known = new_merchant(pg_url)
        yield (
            pg_url,
            [await stack.enter_async_context(client(one.url, known)) for one in (first, second)],
        )
        for one in workers:
            one.says("worker runs")
        for one in (first, second, *workers):
            assert one.stop() == 0
            assert "Traceback" not in one.log


async def create_at_once(tills: list[Client], count: int, body: dict[str, Any]) -> list[Answer]:
    return await asyncio.gather(*(tills[n % len(tills)].ask("POST", "/payments", body) for n in range(count)))


@pytest.mark.parametrize("amount", [150_000, 20_901, 20_903, 20_905], ids=["", "lost", "slow", "never came"])
@pytest.mark.parametrize("count", [2, 20])
async def test_one_order_at_once_is_one_payment(
    served: Served, shop: Client, amount: int, count: int
) -> None:
    body = GOOD | {"amount": amount, "order_id": f"at once {amount} {count}"}
    answers = await create_at_once([shop], count, body)
    one_payment(answers)
    payment_id = answers[0].json["payment_id"]
    found = await stored(served.database_url, payment_id)
    assert (found["attempts"], found["live"], found["opened"]) == (1, 1, 1)


def one_payment(answers: list[Answer]) -> None:
    assert statuses(answers) == {200: len(answers)}
    assert len({answer.json["payment_id"] for answer in answers}) == 1
    assert len({answer.json["expires_at"] for answer in answers}) == 1
    assert {answer.json["status"] for answer in answers} == {"pending"}
    first = [answer for answer in answers if "Idempotent-Replayed" not in answer.headers]
    assert len(first) == 1


async def test_one_order_at_two_processes_is_one_payment(tills: tuple[str, list[Client]]) -> None:
    database_url, both = tills
    for n in range(10):
        answers = await create_at_once(both, 10, GOOD | {"order_id": f"at both {n}"})
        one_payment(answers)
        assert len({answer.body for answer in answers}) == 1
        found = await stored(database_url, answers[0].json["payment_id"])
        assert found == {"attempts": 1, "live": 1, "refunds": 0, "opened": 1}
    for n in range(5):
        body, key = GOOD | {"order_id": f"keyed {n}"}, keyed(f"both {n}")
        answers = await asyncio.gather(
            *(both[m % 2].ask("POST", "/payments", body, headers=key) for m in range(10))
        )
        one_payment(answers)
        assert len({answer.body for answer in answers}) == 1
    # The other process knows it, plays its payer, and refunds it; the two workers finish that.
    payment_id = answers[0].json["payment_id"]
    assert (await both[0].act(payment_id, "pay")).status == 200
    assert (await both[1].status(payment_id))["status"] == "success"
    refunds = await asyncio.gather(*(both[n % 2].refund(payment_id, 10_000) for n in range(50)))
    assert statuses(refunds) == {200: 15, 409: 35}
    await both[1].until(payment_id, status_detail="refunded", refunded_amount=150_000)
    counts = "SELECT COUNT(*), SUM(amount_minor) FROM refunds WHERE phase = 'succeeded'"
    assert [tuple(map(int, row)) for row in await rows(database_url, counts)] == [(15, 15_000_000)]
    # Orders that come to both at once with other content: one wins, and every loser is told.
    for n in range(5):
        bodies = [GOOD | {"order_id": f"torn {n}", "amount": 1000 + m % 2} for m in range(10)]
        answers = await asyncio.gather(
            *(both[m // 2 % 2].ask("POST", "/payments", body) for m, body in enumerate(bodies))
        )
        assert statuses(answers) == {200: 5, 409: 5}
        assert len({answer.json["payment_id"] for answer in answers if answer.status == 200}) == 1


async def test_one_order_with_many_wallets_at_once(served: Served, shop: Client) -> None:
    wallets = ["gopay", "ovo", "dana", "shopeepay"] * 5
    order_id = "which wallet"

    async def open_all() -> list[Answer]:
        bodies = [GOOD | {"order_id": order_id, "wallet_id": one} for one in wallets]
        return await asyncio.gather(*(shop.ask("POST", "/payment", body) for body in bodies))

    answers = await open_all()
    assert statuses(answers) == {200: 5, 409: 15}
    [payment_id] = {answer.json["payment_id"] for answer in answers if answer.status == 200}
    await shop.act(payment_id, "fail")
    answers = await open_all()  # twenty cashiers try again
    assert statuses(answers) == {200: 5, 409: 15}
    found = await stored(served.database_url, payment_id)
    assert (found["attempts"], found["live"]) == (2, 1)


async def test_payers_who_act_at_once_pay_once(served: Served, shop: Client) -> None:
    for n in range(5):
        payment_id = await shop.open(f"payers {n}")
        answers = await asyncio.gather(*(shop.act(payment_id, "pay", "twice") for _ in range(5)))
        assert statuses(answers) == {200: 5}
        paid = f"SELECT COUNT(*) FROM events WHERE subject = '{payment_id}' AND type = 'payment.paid'"
        assert await rows(served.database_url, paid) == [(1,)]
        moved = f"SELECT paid_minor FROM payments WHERE id = '{payment_id}'"
        assert await rows(served.database_url, moved) == [(15_000_000,)]


async def test_fifty_refunds_at_once(served: Served, shop: Client) -> None:
    payment_id = await shop.paid(1000)
    answers = await asyncio.gather(*(shop.refund(payment_id, 100) for _ in range(50)))
    assert statuses(answers) == {200: 10, 409: 40}
    assert {answer.json["errorType"] for answer in answers if answer.status == 409} == {"refund_not_allowed"}
    assert len({answer.json["refund_id"] for answer in answers if answer.status == 200}) == 10
    body = await shop.until(payment_id, refunded_amount=1000)
    assert body["status_detail"] == "refunded"
    assert (await stored(served.database_url, payment_id))["refunds"] == 10


async def test_fifty_refunds_of_many_sizes(served: Served, shop: Client) -> None:
    dice = random.Random(7)
    payment_id = await shop.paid(10_000)
    # None ends in 13, 14 or 15, which the sandbox's bank treats otherwise.
    amounts = [dice.randrange(1, 40) * 100 for _ in range(50)]
    answers = await asyncio.gather(*(shop.refund(payment_id, amount) for amount in amounts))
    promised = sum(answer.json["amount"] for answer in answers if answer.status == 200)
    left = 10_000 - promised
    assert left >= 0
    refused = [amount for amount, answer in zip(amounts, answers, strict=True) if answer.status == 409]
    assert all(amount > left for amount in refused)  # what would have fitted was not refused
    await shop.until(payment_id, refunded_amount=promised)


async def test_a_failed_refund_gives_its_amount_back(shop: Client) -> None:
    payment_id = await shop.paid(1000)
    assert (await shop.refund(payment_id, 913)).status == 200
    assert (await shop.refund(payment_id, 100)).status == 409
    for _ in range(100):
        answer = await shop.refund(payment_id, 1000)
        if answer.status == 200:
            break
        await asyncio.sleep(0.05)
    assert answer.status == 200
    await shop.until(payment_id, status_detail="refunded")


# --- Idempotency-Key ----------------------------------------------------------------------------------------


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_one_key_at_once(shop: Client) -> None:
    body = GOOD | {"order_id": "one key"}
    answers = await asyncio.gather(
        *(shop.ask("POST", "/payments", body, headers=keyed("one")) for _ in range(20))
    )
    assert statuses(answers) == {200: 20}
    assert len({answer.body for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


async def test_one_key_in_flight(shop: Client) -> None:
    """While the bank takes its two seconds there is nothing to replay yet."""
    body = GOOD | {"order_id": "in flight", "amount": 30_903}
    first = asyncio.create_task(shop.ask("POST", "/payments", body, headers=keyed("in flight")))
    await asyncio.sleep(0.5)
    answer = await shop.ask("POST", "/payments", body, headers=keyed("in flight"))
    assert (answer.status, answer.json["errorType"], answer.headers["Retry-After"]) == (409, "in_flight", "1")
    answer = await shop.ask("POST", "/payments", body | {"order_id": "x"}, headers=keyed("in flight"))
    assert (answer.status, answer.json["errorType"]) == (422, "idempotency_mismatch")
    done = await first
    assert done.status == 200
    answer = await shop.ask("POST", "/payments", body, headers=keyed("in flight"))
    assert (answer.status, answer.body) == (200, done.body)
    assert answer.headers["Idempotent-Replayed"] == "true"


async def test_one_key_with_other_content(shop: Client, rival: Client) -> None:
    body = GOOD | {"order_id": "mismatch"}
    first = await shop.ask("POST", "/payments", body, headers=keyed("mismatch"))
    mismatch = (422, "422", "idempotency_mismatch")
    for other in ({"amount": 150_001}, {"order_id": "mismatch 2"}, {"wallet_id": "ovo"}):
        answer = await shop.ask("POST", "/payments", body | other, headers=keyed("mismatch"))
        assert (answer.status, answer.json["errorCode"], answer.json["errorType"]) == mismatch
    await shop.act(first.json["payment_id"], "pay")
    answer = await shop.refund(first.json["payment_id"], 1000, **keyed("mismatch"))
    assert (answer.status, answer.json["errorCode"], answer.json["errorType"]) == mismatch
    # The same request in another spelling, and on the other path, is the same request.
    spelled = json.dumps(dict(reversed(body.items())), indent=3).encode()
    answer = await shop.ask("POST", "/payment/", raw=spelled, headers=keyed("mismatch"))
    assert (answer.status, answer.body) == (200, first.body)
    # Another merchant's keys are its own.
    assert (await rival.ask("POST", "/payments", body, headers=keyed("mismatch"))).status == 200


async def test_a_key_replays_its_answer_whatever_came_after(shop: Client) -> None:
    body = GOOD | {"order_id": "kept"}
    first = await shop.ask("POST", "/payments", body, headers=keyed("kept"))
    payment_id = first.json["payment_id"]
    await shop.act(payment_id, "pay")
    answer = await shop.ask("POST", "/payments", body, headers=keyed("kept"))
    assert (answer.status, answer.body) == (200, first.body)
    refund = await shop.refund(payment_id, 150_000, **keyed("kept refund"))
    assert (await shop.refund(payment_id, 1)).status == 409
    answer = await shop.refund(payment_id, 150_000, **keyed("kept refund"))
    assert (answer.status, answer.body) == (200, refund.body)
    # A refusal is not kept: when it could be done, it is done.
    later = await shop.open("kept 2")
    assert (await shop.refund(later, 1000, **keyed("kept 2"))).status == 409
    await shop.act(later, "pay")
    assert (await shop.refund(later, 1000, **keyed("kept 2"))).status == 200


async def test_one_key_for_fifty_refunds_at_once_is_one_refund(served: Served, shop: Client) -> None:
    payment_id = await shop.paid(1000)
    answers = await asyncio.gather(*(shop.refund(payment_id, 20, **keyed("fifty")) for _ in range(50)))
    assert statuses(answers) == {200: 50}
    assert len({answer.body for answer in answers}) == 1
    assert (await stored(served.database_url, payment_id))["refunds"] == 1


async def test_keys_outlive_the_process(tmp_path: Path, database_url: str) -> None:
    body = GOOD | {"order_id": "restart"}
    slow = GOOD | {"order_id": "cut off", "amount": 30_903}
    with hub(tmp_path, database_url) as process:
        known = new_merchant(database_url)
        async with client(process.url, known) as shop:
            first = await shop.ask("POST", "/payments", body, headers=keyed("restart"))
            await shop.act(first.json["payment_id"], "pay")
            refund = await shop.refund(first.json["payment_id"], 500, **keyed("refund"))
            cut = asyncio.create_task(shop.ask("POST", "/payments", slow, headers=keyed("cut off")))
            await asyncio.sleep(0.5)
            process.send(signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await cut
        process.wait()
    with hub(tmp_path, database_url) as process:
        async with client(process.url, known) as shop:
            answer = await shop.ask("POST", "/payments", body, headers=keyed("restart"))
            assert (answer.status, answer.body) == (200, first.body)
            answer = await shop.refund(first.json["payment_id"], 500, **keyed("refund"))
            assert (answer.status, answer.body) == (200, refund.body)
            # Nobody works any more on the one that was cut off; after a minute that is certain.
            answer = await shop.ask("POST", "/payments", slow, headers=keyed("cut off"))
            assert (answer.status, answer.json["errorType"]) == (409, "in_flight")
            await rows(database_url, "UPDATE attempts SET created_at = created_at - 120000")
            answer = await shop.ask("POST", "/payments", slow, headers=keyed("cut off"))
            assert (answer.status, answer.json["status"]) == (200, "pending")
            again = await shop.ask("POST", "/payments", slow, headers=keyed("cut off"))
            assert (again.status, again.body) == (200, answer.body)
        assert process.stop() == 0
        assert "Traceback" not in process.log
    assert (await rows(database_url, "SELECT COUNT(*) FROM payments")) == [(2,)]


# --- limits -------------------------------------------------------------------------------------------------


async def test_too_many_requests(tmp_path: Path, sqlite_url: str) -> None:
    with hub(tmp_path, sqlite_url, rate_limit=30) as process:
        first, second = new_merchant(sqlite_url), new_merchant(sqlite_url)
        async with client(process.url, first) as shop, client(process.url, second) as other:
            answers = [await shop.ask("GET", "/wallets") for _ in range(31)]
            assert statuses(answers) == {200: 30, 429: 1}
            limited = answers[-1]
            assert limited.json | {"request_id": ""} == {
                "status": "failed",
                "errorCode": "429",
                "errorType": "rate_limited",
                "errorMessage": "Too many requests. Try again later.",
                "request_id": "",
            }
            wait_s = int(limited.headers["Retry-After"])
            assert wait_s == 2  # thirty a minute
            assert (await shop.ask("POST", "/payments", GOOD | {"order_id": "limited"})).status == 429
            # Whoever is at its limit takes nothing from others.
            assert (await other.ask("GET", "/wallets")).status == 200
            await asyncio.sleep(wait_s)
            assert (await shop.ask("GET", "/wallets")).status == 200
            # Before login the address is what counts.
            body = {"api_key": secrets.token_hex(), "api_secret": "x"}
            answers = [await shop.ask("POST", "/token", body) for _ in range(31)]
            assert answers[0].status == 401
            assert answers[-1].status == 429
            assert int(answers[-1].headers["Retry-After"]) >= 1
        assert (await rows(sqlite_url, "SELECT COUNT(*) FROM payments")) == [(0,)]
        assert process.stop() == 0
