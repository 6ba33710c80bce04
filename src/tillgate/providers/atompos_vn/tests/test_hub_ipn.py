"""The IPN document's paths on the hub, on both engines: pushed once, kept before the 200, handed on once."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from tillgate.conform import run
from tillgate.domain.errors import OrderConflict
from tillgate.domain.record import replace
from tillgate.http.app import create_app
from tillgate.hub import Intent
from tillgate.hub.kit import order_key
from tillgate.providers.atompos_vn import PROVIDER
from tillgate.providers.atompos_vn.conformance import CONFORMANCE
from tillgate.providers.atompos_vn.simulator import Terminal
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.store.work import Due

from .conftest import SECRET, ipn, serving

LOGIN = {"username": "atom", "password": "an-example-password"}
HOOK = """
import asyncio
import sys
import threading
import time

ran = []
failing = set()
cancelling = set()
leaving = set()
slow = {}
lock = threading.Lock()


async def cancelled():
    helper = asyncio.create_task(asyncio.sleep(10))
    helper.cancel()
    await helper


async def gone():
    sys.exit("the till is closed")


def process_ipn(ipn):
    time.sleep(slow.get(ipn.requestId, 0))
    with lock:
        ran.append((ipn.requestId, ipn.orderId, ipn.amount, ipn.fromAccNo))
    if ipn.requestId in failing:
        raise ValueError("the till is closed")
    if ipn.requestId in cancelling:
        return cancelled()
    if ipn.requestId in leaving:
        return gone()
"""


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "shop_hook.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shop_hook")
    del sys.modules["shop_hook"]


@dataclass
class Place:
    url: str
    pos: str
    terminal: Terminal
    runtime: Runtime
    http: aiohttp.ClientSession
    merchant_id: str
    account_id: str
    token: str = ""
    merchant_token: str = ""

    async def post(self, path: str, body: Any, token: str | None = None) -> tuple[int, str]:
        headers = {} if token == "" else {"authorization": f"Bearer {token or self.token}"}
        async with self.http.post(self.url + path, json=body, headers=headers, allow_redirects=False) as got:
            said = await got.json()
            assert set(said) == {"code", "message"} or "access_token" in said
            return got.status, said["code"]

    async def open(self, order_id: str, account: str = "till 1", **metadata: Any) -> Any:
        """As a merchant does by its own API: the requestId is not the order's."""
        merchant = await self.runtime.directory.merchant(self.merchant_id)
        intent = Intent(order_id, 10_000, "VND", "atompos", account, metadata=json.dumps(metadata))
        return await self.runtime.hub.open(merchant, intent)

    async def account(self, name: str, **changes: Any) -> str:
        config = {**PROVIDER.example, "pos_url": self.pos, "pos_timeout_s": 0.5, **changes}
        return await self.runtime.directory.create_account(
            self.merchant_id, "atompos_vn", name, config, self.runtime.kit.clock()
        )

    async def ipn(self, **changes: Any) -> tuple[int, str]:
        return await self.post("/ipn", ipn(**changes))

    async def until(self, true: Callable[[], bool], within_s: float = 15) -> None:
        end = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    async def events(self) -> list[tuple[str, Any]]:
        rows = await self.runtime.kit.reads.events(self.merchant_id, 0, 1000)
        return [(row[3], json.loads(bytes(row[6])).get("note")) for row in rows]

    async def payment(self, order_id: str) -> Any:
        return await self.runtime.kit.reads.payment_of(order_key(self.merchant_id, order_id))

    async def rows(self, statement: str) -> list[Any]:
        return list(await self.runtime.database.read(text(statement)))


@pytest.fixture
async def place(database_url: str, hook: ModuleType) -> AsyncIterator[Place]:
    terminal = Terminal(resend_s=0.01)
    settings = Settings(database_url=database_url, sandbox=True, process_ipn="shop_hook:process_ipn")
    app = create_app(settings)
    async with serving(terminal.app, app) as [pos, url], aiohttp.ClientSession() as http:
        runtime: Runtime = app.state.runtime
        runtime.kit.public_url = url
        made = await runtime.create_merchant("shop")
        config = {**PROVIDER.example, "pos_url": pos, "pos_timeout_s": 0.5}
        account_id = await runtime.directory.create_account(
            made.merchant_id, "atompos_vn", "till 1", config, runtime.kit.clock(), is_default=True
        )
        found = Place(url, pos, terminal, runtime, http, made.merchant_id, account_id)
        async with http.post(f"{url}/authorize/", json=LOGIN) as reply:
            assert reply.status == 200
            found.token = (await reply.json())["access_token"]
        keys = {"api_key": made.api_key, "api_secret": made.api_secret}
        async with http.post(f"{url}/token", json=keys) as reply:
            found.merchant_token = (await reply.json())["access_token"]
        terminal.authorize_url, terminal.user, terminal.password = (f"{url}/authorize", *LOGIN.values())
        yield found


async def test_a_request_is_shown_once_and_paid_by_its_ipn(place: Place, hook: ModuleType) -> None:
    asked = {"requestId": "R-1", "orderId": "1234:17", "requestType": "SALE", "amount": "10000", "tip": 500}
    answers = await asyncio.gather(*(place.post("/payment-terminal", asked) for _ in range(8)))
    assert {code for _, code in answers} == {"00"}
    assert {status for status, _ in answers} <= {200, 202}
    assert await place.post("/payment-terminal/", asked, place.merchant_token) == (200, "00")
    sale = place.terminal.sales["R-1"]
    assert (sale["pushed"], sale["orderId"], sale["tip"]) == (1, "1234:17", 500)

    place.terminal.approve("R-1", fromAccNo="4111111111111111", faults={"copies": 50})
    await place.terminal.quiet()
    assert [one["status"] for one in place.terminal.sent] == [200] * 50
    await place.until(lambda: len(hook.ran) > 0)
    payment = await place.payment("R-1")
    assert (payment.status, payment.paid_minor, payment.tip_minor) == ("paid", 10_000, 500)
    counted = Counter(kind for kind, _ in await place.events())
    assert counted == {"payment.pending": 1, "payment.updated": 1, "payment.paid": 1}

    # Another amount under the same name: kept and told once, not booked, not handed on.
    for _ in range(2):
        assert await place.ipn(requestId="R-1", orderId="1234:17", amount="90000") == (200, "00")
    [note] = [note for kind, note in await place.events() if kind == "inbound.conflict"]
    assert note["payment_id"] == payment.id
    assert (await place.payment("R-1")).paid_minor == 10_000
    assert hook.ran == [("R-1", "1234:17", "10000", "************1111")]

    [attempt] = await place.runtime.kit.reads.attempts(payment.id)
    details = json.loads(attempt.details or "{}")
    assert details["ipn"]["orderId"] == "1234:17"
    assert "differences" not in details
    kept = b"".join(bytes(row[0]) for row in await place.rows("SELECT body FROM inbound"))
    assert b"4111111111111111" not in kept
    assert b"an-example-password" not in kept


async def test_a_card_number_is_not_in_the_database(place: Place, hook: ModuleType) -> None:
    asked = {"requestId": "R-9", "orderId": "1234:9", "amount": "10000"}
    assert await place.post("/payment-terminal", asked) == (200, "00")
    said = {"orderId": "1234:9", "narrative": "4111-1111-1111-1111", "extraData": {"pan": "4111111111111111"}}
    assert await place.ipn(requestId="R-9", fromAccNo="4111 1111 1111 1111", tip="0", **said) == (200, "00")
    assert await place.ipn(requestId="R-9", fromAccNo="4111 1111 1111 1111", tip="0", **said) == (200, "00")
    assert await place.ipn(requestId="R-8", fromAccNo=4111111111111111) == (400, "04")
    await place.until(lambda: len(hook.ran) == 1)
    assert hook.ran == [("R-9", "1234:9", "10000", "**** **** **** 1111")]
    assert (await place.payment("R-9")).status == "paid"
    assert "inbound.conflict" not in [kind for kind, _ in await place.events()]
    for column in ("body FROM inbound", "details FROM attempts", "body FROM events"):
        for [kept] in await place.rows(f"SELECT {column}"):
            text_of = kept if isinstance(kept, str) else bytes(kept or b"").decode()
            assert "4111" not in text_of


async def test_what_is_said_otherwise_is_told(place: Place) -> None:
    asked = {"requestId": "R-2", "orderId": "1234:18", "amount": 10_000, "tip": "0"}
    assert await place.post("/payment-terminal", asked) == (200, "00")
    assert await place.ipn(requestId="R-2", orderId="9999:1", tip="0") == (200, "00")
    [note] = [note for kind, note in await place.events() if kind == "payment.discrepancy"]
    assert note == {"orderId": {"asked": "1234:18", "told": "9999:1"}}
    assert (await place.payment("R-2")).status == "paid"
    # Money for nothing that we asked for is legal: kept, and told once.
    for _ in range(2):
        assert await place.ipn(requestId="T-1", orderId="nobody") == (200, "00")
    assert [kind for kind, _ in await place.events()].count("inbound.unmatched") == 1


async def test_a_terminal_that_cannot_be_told(place: Place) -> None:
    asked = {"requestId": "R-3", "orderId": "1234:19", "amount": "10000"}
    place.terminal.behaviour = "silent"
    assert await place.post("/payment-terminal", asked) == (504, "07")
    place.terminal.behaviour = "normal"
    assert await place.post("/payment-terminal", asked) == (504, "07")  # not pushed again blindly
    assert place.terminal.sales["R-3"]["pushed"] == 1
    assert await place.ipn(requestId="R-3", orderId="1234:19") == (200, "00")  # a late IPN wins
    assert (await place.payment("R-3")).status == "paid"

    place.terminal.behaviour = "busy"
    asked = {"requestId": "R-4", "orderId": "1234:20", "amount": "10000"}
    assert await place.post("/payment-terminal", asked) == (502, "07")
    place.terminal.behaviour = "normal"
    assert await place.post("/payment-terminal", asked) == (200, "00")

    assert await place.post("/payment-terminal", {**asked, "amount": "20000"}) == (409, "04")
    assert await place.post("/payment-terminal", {**asked, "terminalId": "another"}) == (403, "06")
    assert await place.post("/payment-terminal", {"requestId": "R-5"}) == (400, "03")
    assert await place.post("/payment-terminal", asked, "") == (401, "05")
    assert await place.post("/payment-terminal", asked, "junk") == (401, "01")


@pytest.mark.parametrize("known_only", [False, True], ids=["any request", "known requests only"])
async def test_a_request_whose_answer_was_lost_is_paid_by_its_ipn(place: Place, known_only: bool) -> None:
    """Neither the requestId nor the orderId is an order of ours, and the terminal never confirmed either."""
    account_id = await place.account("till 2", require_known_request=known_only)

    async def told(**changes: Any) -> tuple[int, str]:
        return await place.post(f"/in/{account_id}", ipn(tip="0", **changes))

    place.terminal.behaviour = "silent"
    opened = await place.open("O-1", account="till 2", requestId="P-1", orderId="BILL-1")
    assert (opened.attempt.phase, opened.attempt.external_id) == ("unsure", None)
    assert await told(requestId="P-0", orderId="BILL-1") == (200, "00")
    assert (await place.payment("O-1")).status == "unsure"
    for _ in range(2):
        assert await told(requestId="P-1", orderId="BILL-1") == (200, "00")
    payment = await place.payment("O-1")
    assert (payment.status, payment.paid_minor, payment.late) == ("paid", 10_000, False)
    counted = Counter(kind for kind, _ in await place.events())
    assert (counted["payment.paid"], counted["inbound.unmatched"]) == (1, 1)

    # Also where a person had given it up, and with another amount it is held.
    opened = await place.open("O-2", account="till 2", requestId="P-2", orderId="BILL-2")
    merchant = await place.runtime.directory.merchant(place.merchant_id)
    await place.runtime.hub.resolve(merchant, opened.payment.id, "failed", "nobody paid")
    assert await told(requestId="P-2", orderId="BILL-2", amount="9000") == (200, "00")
    payment = await place.payment("O-2")
    assert (payment.status, payment.hold, payment.paid_minor) == ("review", "amount_mismatch", 9_000)


async def test_an_ipn_that_overtakes_the_terminals_answer(place: Place) -> None:
    place.terminal.behaviour = "silent"
    opening = asyncio.create_task(place.open("O-1", requestId="P-1", orderId="BILL-1"))
    await place.until(lambda: "P-1" in place.terminal.sales)
    assert await place.ipn(requestId="P-1", orderId="BILL-1", tip="0") == (200, "00")
    assert (await place.payment("O-1")).status == "paid"
    assert (await opening).payment.status == "paid"


async def test_a_request_id_is_one_attempts(place: Place) -> None:
    """What is paid under it must be money for one order, and of the account that pushed it."""
    place.terminal.behaviour = "busy"
    assert (await place.open("O-0", requestId="P-1")).attempt.phase == "closed"  # it was certainly not shown
    place.terminal.behaviour = "silent"
    assert (await place.open("O-1", requestId="P-1")).attempt.phase == "unsure"
    for order_id in ("O-0", "O-2"):
        with pytest.raises(OrderConflict):
            await place.open(order_id, requestId="P-1")
    assert await place.payment("O-2") is None
    asked = {"requestId": "P-1", "orderId": "1234:1", "amount": "10000"}
    assert await place.post("/payment-terminal", asked) == (409, "04")
    assert place.terminal.sales["P-1"]["pushed"] == 1

    other = await place.account("till 2")
    assert await place.post(f"/in/{other}", ipn(requestId="P-1", orderId="x", tip="0")) == (200, "00")
    assert (await place.payment("O-1")).status == "unsure"
    assert await place.ipn(requestId="P-1", orderId="O-0", tip="0") == (200, "00")
    assert ((await place.payment("O-1")).status, (await place.payment("O-0")).paid_minor) == ("paid", 0)
    with pytest.raises(OrderConflict):
        await place.open("O-2", requestId="P-1")
    await place.open("O-3", requestId=17)  # nothing that a terminal takes
    assert (await place.payment("O-3")).status == "failed"


async def test_slow_and_failing_functions(place: Place, hook: ModuleType) -> None:
    """60 functions of seconds delay no answer; those of one order run in turn; a dead letter comes back."""
    hook.slow.update({f"S-{n}": 1.5 for n in range(60)})
    took = []
    for n in range(60):
        begun = time.monotonic()
        assert await place.ipn(requestId=f"S-{n}", orderId=f"order-{n}") == (200, "00")
        took.append(time.monotonic() - begun)
    assert sorted(took)[54] < 0.5
    hook.failing.add("F-0")
    for n in range(5):
        assert await place.ipn(requestId=f"F-{n}", orderId="one order") == (200, "00")
    await place.until(lambda: any(row[0] == "F-0" for row in hook.ran), 20)
    assert not any(row[0] == "F-1" for row in hook.ran)  # it may not overtake
    hook.failing.clear()
    await place.until(lambda: [row[0] for row in hook.ran].count("F-4") == 1, 20)
    mine = [row[0] for row in hook.ran if row[1] == "one order"]
    assert list(dict.fromkeys(mine)) == [f"F-{n}" for n in range(5)]
    assert all(mine.count(f"F-{n}") == 1 for n in range(1, 5))
    counted = Counter(row[0] for row in hook.ran)
    await place.until(lambda: len({row[0] for row in hook.ran if row[0][0] == "S"}) == 60, 20)
    assert all(counted[f"S-{n}"] <= 1 for n in range(60))


async def test_guessing_passwords_is_slowed_down(place: Place) -> None:
    guess = {"username": "atom", "password": "guess"}
    answers = [await place.post("/authorize", guess, "") for _ in range(11)]
    assert answers == [(401, "01")] * 10 + [(429, "01")]
    assert await place.post("/authorize", LOGIN, "") == (429, "01")


async def claimed(place: Place) -> Due:
    [row] = await place.rows("SELECT kind, subject, tries, run_at FROM due WHERE kind = 'hand_on'")
    return Due(*row)


async def test_a_claim_that_was_overtaken_runs_nothing(place: Place, hook: ModuleType) -> None:
    hook.slow["C-1"] = 1.0
    assert await place.ipn(requestId="C-1", orderId="one order") == (200, "00")
    await asyncio.sleep(0.5)
    done = await claimed(place)
    await place.until(lambda: len(hook.ran) == 1)
    while await place.rows("SELECT id FROM due WHERE kind = 'hand_on'"):
        await asyncio.sleep(0.02)
    await place.runtime.hub.handing.run(done)

    hook.failing.add("C-2")
    assert await place.ipn(requestId="C-2", orderId="one order") == (200, "00")
    await place.until(lambda: len(hook.ran) == 2)
    await asyncio.sleep(0.3)  # it is tried again in a second
    older = replace(await claimed(place), until=place.runtime.kit.clock() + 60_000)
    await place.runtime.hub.handing.run(older)
    await asyncio.sleep(0.2)
    assert [row[0] for row in hook.ran] == ["C-1", "C-2"]


async def test_a_claim_that_waited_long_is_renewed_before_it_runs_out(place: Place, hook: ModuleType) -> None:
    hook.failing.add("L-1")
    assert await place.ipn(requestId="L-1", orderId="one order") == (200, "00")
    await place.until(lambda: len(hook.ran) == 1)
    await asyncio.sleep(0.3)
    hook.failing.clear()
    hook.slow["L-1"] = 2
    until = place.runtime.kit.clock() + 16_000
    async with place.runtime.database.begin() as tx:
        await tx.execute(text(f"UPDATE due SET run_at = {until} WHERE kind = 'hand_on'"), {})
    await place.runtime.hub.handing.run(await claimed(place))
    await asyncio.sleep(0.5)
    assert (await claimed(place)).until > until + 30_000


async def test_a_function_that_ends_in_a_cancellation_or_leaves_has_failed(
    place: Place, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again and then buried like any other, and its order goes on."""
    monkeypatch.setattr("tillgate.hub.handing.TRIES", 2)
    monkeypatch.setattr("tillgate.hub.handing.PAUSE_MS", 50)
    hook.cancelling.add("X-1")
    hook.leaving.add("X-2")
    for name in ("X-1", "X-2", "X-3"):
        assert await place.ipn(requestId=name, orderId="one order") == (200, "00")
    await place.until(lambda: hook.ran[-1:] and hook.ran[-1][0] == "X-3")
    assert [row[0] for row in hook.ran] == ["X-1", "X-1", "X-2", "X-2", "X-3"]
    notes = [note for kind, note in await place.events() if kind == "inbound.dead"]
    assert [(one["error"], one["tries"]) for one in notes] == [
        ("RuntimeError: the function was cancelled", 2),
        ("RuntimeError: SystemExit('the till is closed')", 2),
    ]


async def test_a_dead_letter_is_replayed(
    place: Place, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tillgate.hub.handing.TRIES", 1)
    hook.failing.add("D-1")
    await place.ipn(requestId="D-1", orderId="dead")
    await place.until(lambda: len(hook.ran) == 1)
    end = time.monotonic() + 10
    while "inbound.dead" not in [kind for kind, _ in await place.events()]:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    [note] = [note for kind, note in await place.events() if kind == "inbound.dead"]
    assert note["error"] == "ValueError: the till is closed"
    hook.failing.clear()
    await place.runtime.hub.handing.replay(place.merchant_id, note["inbound_id"])
    await place.until(lambda: len(hook.ran) == 2)


async def test_the_hub_conforms(place: Place) -> None:
    options = {"jwt-secret": SECRET, "user": LOGIN["username"], "password": LOGIN["password"]}
    report = await run(CONFORMANCE.checks, CONFORMANCE.target(f"{place.url}/ipn", options), title="hub")
    broken = [one for one in report.outcomes if one.verdict != "pass"]
    assert [(one.check.id, one.why[:300]) for one in broken] == []
