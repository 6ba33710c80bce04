"""The virtual terminal against the real kiosk, driven over its own HTTP API; neither knows the
other's code.
"""

import ast
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tillgate.providers.mobypay import simulator
from tillgate.providers.mobypay.config import TerminalConfig
from tillgate.providers.mobypay.simulator import ACTIONS, VirtualTerminal
from tillgate.providers.mobypay.terminal_http import serve_page
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import Bench, OpenBench

HTTP_OK, MALFORMED = 200, 422


@asynccontextmanager
async def playing(
    bench: Bench, **options: object
) -> AsyncIterator[tuple[VirtualTerminal, aiohttp.ClientSession]]:
    secret = str(options.pop("secret", oracle.SECRET))
    terminal = VirtualTerminal(
        "127.0.0.1", bench.server.port, secret, back_off_s=(0.05, 0.1), **{"dialect": "captured", **options}
    )
    running = asyncio.create_task(terminal.run())
    try:
        async with serve_page(terminal) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await bench.until(lambda: terminal.connected and any(t.connected for t in bench.server.terminals))
            yield terminal, http
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def press(http: aiohttp.ClientSession, action: str, status: int = HTTP_OK, **options: object) -> dict:
    async with http.post("/act", json={"action": action, **options}) as reply:
        assert reply.status == status, await reply.text()
        return await reply.json()


# What each key leads to in the kiosk, for a card payment of RM 50.00 that was acknowledged.
OUTCOMES = {
    "approve": "succeeded",
    "decline": "failed",
    "user_abort": "failed",
    "offer_plans": "unknown",  # plans for a card payment are no outcome
    "time_out": "unknown",
    "no_ack": "unknown",
    "pull_plug": "unknown",
    "pull_plug_error": "unknown",
    "pull_plug_paid": "succeeded",
    "answer_late": "succeeded",
    "answer_twice": "succeeded",
    "wrong_amount": "requires_review",
    "unlisted": "unknown",
    "conflict": "requires_review",
    "forged": "unknown",
}


def test_every_key_has_an_expected_outcome() -> None:
    assert set(OUTCOMES) == set(ACTIONS)


@pytest.mark.parametrize("dialect", ["captured", "documented"])
@pytest.mark.parametrize("action", ACTIONS)
async def test_every_key(bench: Bench, dialect: str, action: str) -> None:
    if action in ("time_out", "no_ack", "forged"):
        bench.waits(result_s=0.3)
    async with playing(bench, dialect=dialect) as (terminal, http):
        payment = await bench.pay()
        await bench.until(lambda: terminal.current() == payment.txn_id)
        await press(http, action, **({"after_s": 0.1} if "late" in action or "plug" in action else {}))
        await bench.reaches(payment.txn_id, OUTCOMES[action])
        await asyncio.sleep(0.1)  # whatever it says next changes nothing
        done = bench.kiosk.find(payment.txn_id)
        assert done.state == OUTCOMES[action]
        charged = [item for item in terminal.transactions.values() if item["charged"]]
        if done.state == "failed":
            assert charged == []
        if done.state == "succeeded":
            assert len(charged) == 1
            has_reference = done.transaction_id is not None
            assert has_reference is (dialect == "captured")
            assert (done.card_last4 == "1234") is (dialect == "documented")


@pytest.mark.parametrize("dialect", ["captured", "documented"])
@pytest.mark.parametrize("mode", ["card", "bnpl", "duitnow_qr", "ipp"])
async def test_all_modes_by_themselves(bench: Bench, dialect: str, mode: str) -> None:
    async with playing(bench, dialect=dialect, auto="approve") as (terminal, _):
        payment = await bench.pay(mode, 10_000)
        if mode == "ipp":
            await bench.reaches(payment.txn_id, "awaiting_plan")
            await bench.kiosk.choose_plan(payment.txn_id, "IPP_3M")
        done = await bench.reaches(payment.txn_id, "succeeded")
        assert done.plan_id == ("IPP_3M" if mode == "ipp" else None)
        assert terminal.transactions[payment.txn_id]["plan_id"] == done.plan_id


@pytest.mark.parametrize(
    ("on_cancel", "state", "alerts"),
    [
        ("fail", "cancelled", []),
        ("ack", "cancelled", []),
        ("result_first", "succeeded", ["charged_despite_cancel"]),
        ("ignore", "unknown", ["outcome_unknown"]),
    ],
)
async def test_every_way_to_take_a_cancel(
    bench: Bench, on_cancel: str, state: str, alerts: list[str]
) -> None:
    async with playing(bench) as (terminal, http):
        async with http.post("/settings", json={"on_cancel": on_cancel}) as reply:
            assert (await reply.json())["on_cancel"] == on_cancel
        payment = await bench.pay()
        await bench.until(lambda: terminal.current() == payment.txn_id)
        await bench.reaches(payment.txn_id, "processing")
        bench.waits(**{"ack": {"grace_s": 0.1}, "ignore": {"cancel_s": 0.1}}.get(on_cancel, {}))
        await bench.kiosk.cancel(payment.txn_id)
        await bench.reaches(payment.txn_id, state)
        assert bench.alerts() == alerts


async def test_three_terminals_at_once(bench_at: OpenBench) -> None:
    secrets = {f"POS00{number}": f"{number}-{oracle.SECRET}" for number in (1, 2, 3)}
    terminals = tuple(
        TerminalConfig(pos_id=pos_id, secret=secret, port=0) for pos_id, secret in secrets.items()
    )
    async with bench_at(terminals=terminals) as bench:
        running, devices = [], {}
        for pos_id, secret in secrets.items():
            port = bench.server.terminals.get(pos_id).port
            devices[pos_id] = VirtualTerminal("127.0.0.1", port, secret, pos_id=pos_id, auto="approve")
            running.append(asyncio.create_task(devices[pos_id].run()))
        await bench.until(lambda: all(bench.server.terminals.get(pos_id).connected for pos_id in secrets))
        payments = await asyncio.gather(*(bench.pay(sen=100 * number) for number in (1, 2, 3)))
        for payment in payments:
            await bench.reaches(payment.txn_id, "succeeded")
        assert sorted(payment.terminal for payment in payments) == sorted(secrets)
        for payment in payments:
            assert list(devices[payment.terminal].transactions) == [payment.txn_id]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_script_decides_one_request_each(bench: Bench) -> None:
    async with playing(bench) as (terminal, http):
        steps = [{"action": "decline", "message": "NO_MONEY"}, {"action": "approve", "after_s": 0.05}]
        async with http.post("/script", json={"steps": steps}) as reply:
            assert reply.status == HTTP_OK
        first = await bench.pay(sen=100)
        assert (await bench.reaches(first.txn_id, "failed")).error_message == "NO_MONEY"
        second = await bench.pay(sen=200)
        await bench.reaches(second.txn_id, "succeeded")
        assert list(terminal.script) == []


async def test_it_refuses_what_a_careful_terminal_refuses(bench: Bench) -> None:
    async with playing(bench, secret="another-secret-of-thirty-two-characters") as (terminal, _):
        await bench.pay()
        await bench.until(lambda: any(entry["text"] == "bad signature" for entry in terminal.log))
        assert terminal.transactions == {}


async def test_a_recorded_request_is_no_second_charge() -> None:
    lines: list[bytes] = []
    told: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        payload = oracle.fresh(type="transaction_request", txn_id="TXN1", amount=1.0, payment_mode="card")
        again = oracle.fresh(type="transaction_request", txn_id="TXN1", amount=1.0, payment_mode="card")
        an_hour_ago = str(int(time.time() * 1000) - 3_600_000)
        stale = {**again, "txn_id": "TXN2", "nonce": "n", "timestamp": an_hour_ago}
        lines.append(oracle.line(payload))
        writer.write(lines[0] + lines[0] + oracle.line(again) + oracle.line(stale))
        while line := await reader.readline():
            told.append(line)
        writer.transport.abort()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    terminal = VirtualTerminal("127.0.0.1", server.sockets[0].getsockname()[1], oracle.SECRET)
    running = asyncio.create_task(terminal.run())
    async with asyncio.timeout(30):
        while sum(entry["kind"] == "refused" for entry in terminal.log) < 3 or not told:
            await asyncio.sleep(0.01)
    assert list(terminal.transactions) == ["TXN1"]
    assert [oracle.payload_of(line)["type"] for line in told] == ["ack"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    server.close()
    async with asyncio.timeout(30):
        await over.wait()


async def test_it_comes_back_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def counted(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr(simulator.asyncio, "sleep", counted)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    running = asyncio.create_task(VirtualTerminal("127.0.0.1", port, oracle.SECRET).run())
    while len(pauses) < 8:
        await real(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert pauses[:8] == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(
    "body",
    [{}, {"action": "explode"}, {"action": "approve", "amount": "1"},
     {"action": "approve", "x": 1}, {"action": "answer_late", "after_s": 601},
     {"action": "approve", "after_s": True}, {"action": "approve"}],
)  # fmt: skip
async def test_bad_key_presses_get_a_clear_answer(bench: Bench, body: dict) -> None:
    async with playing(bench) as (_, http):
        async with http.post("/act", json=body) as reply:
            assert reply.status == MALFORMED
            assert (await reply.json())["detail"]
        async with http.post("/act", data=b'{"action":"approve"}') as reply:
            assert reply.status == MALFORMED  # what a page of another site could send
        async with http.get("/state", headers={"Host": "evil.example"}) as reply:
            assert reply.status != HTTP_OK


async def test_the_page_is_self_contained(bench: Bench) -> None:
    async with playing(bench) as (_, http):
        for path, kind in (
            ("/", "text/html"),
            ("/terminal.js", "text/javascript"),
            ("/terminal.css", "text/css"),
        ):
            async with http.get(path) as reply:
                text = await reply.text()
                assert (reply.status, reply.content_type) == (HTTP_OK, kind)
                assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
                assert "http://" not in text
                assert "https://" not in text


def test_the_simulator_shares_no_code_with_the_kiosk() -> None:
    tree = ast.parse(Path(simulator.__file__).read_text())
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert {str(name).partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)


async def test_the_keypad_page_in_a_browser(bench: Bench, browser_page) -> None:
    problems: list[str] = []
    browser_page.on("pageerror", lambda error: problems.append(str(error)))
    async with playing(bench) as (_, http):
        await browser_page.goto(str(http._base_url))
        payment = await bench.pay("ipp", 10_000)
        await browser_page.get_by_text("RM 100.00").wait_for()
        await browser_page.get_by_role("button", name="Offer plans").click()
        await bench.reaches(payment.txn_id, "awaiting_plan")
        await bench.kiosk.choose_plan(payment.txn_id, "pay-in-full")
        await browser_page.get_by_text("waiting (pay-in-full)").wait_for()
        await browser_page.get_by_role("button", name="OK", exact=True).click()
        await bench.reaches(payment.txn_id, "succeeded")
        payment = await bench.pay("card", 2550)
        await browser_page.get_by_text("RM 25.50").wait_for()
        for digit in "1234":
            await browser_page.locator(f'button[data-key="{digit}"]').click()
        await browser_page.get_by_role("button", name="Wrong amount").click()
        review = await bench.reaches(payment.txn_id, "requires_review")
        assert review.told_amount == "12.34"
        await browser_page.get_by_role("button", name="Decline", exact=True).click()
        await browser_page.get_by_text("no payment on the screen").wait_for()
    assert problems == []
