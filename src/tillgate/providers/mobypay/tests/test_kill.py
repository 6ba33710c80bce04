"""kill -9 of the real kiosk, at every point of a payment: nothing is lost, nothing is charged twice, and
what is not known is said to be unknown.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tillgate.providers.mobypay.journal import Journal
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import RawTerminal, plans
from tillgate.providers.mobypay.tests.process import KioskProcess


@asynccontextmanager
async def running(journal: Path, *options: str) -> AsyncIterator[KioskProcess]:
    kiosk = await KioskProcess.start(journal, *options)
    try:
        yield kiosk
    finally:
        await kiosk.kill()
        kiosk.hang_up()


async def bring_to(point: str, kiosk: KioskProcess, terminal: RawTerminal) -> str:
    """A payment, taken exactly as far as `point`."""
    mode = "ipp" if "plan" in point else "card"
    txn_id = (await kiosk.pay(mode=mode, reference="ORDER-1"))["txn_id"]
    await terminal.request()
    if point == "pending":
        return txn_id
    await terminal.ack(txn_id)
    await kiosk.state(txn_id, "processing")
    if "plan" in point:
        await terminal.result(txn_id, "ipp_plans", amount=50.0, plans=plans("A"))
        await kiosk.state(txn_id, "awaiting_plan")
    if point == "plan chosen":
        await kiosk.call("POST", f"/payments/{txn_id}/plan", {"plan_id": "A"})
        await terminal.request("ipp_plan_selection")
    if point == "cancelling":
        await kiosk.call("POST", f"/payments/{txn_id}/cancel")
        await terminal.request("cancel_transaction")
    return txn_id


@pytest.mark.parametrize("point", ["pending", "processing", "awaiting plan", "plan chosen", "cancelling"])
async def test_in_flight_is_unknown_afterwards_and_the_late_result_counts(tmp_path: Path, point: str) -> None:
    journal = tmp_path / "kiosk.db"
    async with running(journal) as kiosk:
        txn_id = await bring_to(point, kiosk, await kiosk.terminal())
        await kiosk.kill()
    async with running(journal) as kiosk:
        assert await kiosk.state(txn_id) == "unknown"
        alerts = (await kiosk.call("GET", "/alerts"))["alerts"]
        assert [(alert["kind"], alert["txn_id"]) for alert in alerts] == [("outcome_unknown", txn_id)]
        terminal = await kiosk.terminal()
        refused = await kiosk.pay(reference="ORDER-1")
        assert refused["code"] == "unsettled_payment"
        assert await terminal.hears_nothing()
        await terminal.result(txn_id, "success", amount=50.0, transaction_id="000410")
        await kiosk.state(txn_id, "succeeded")
        assert (await kiosk.pay(reference="ORDER-1"))["code"] == "already_paid"


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 4, 8, 16])
async def test_a_result_is_either_kept_or_the_outcome_is_unknown(tmp_path: Path, delay_ms: int) -> None:
    journal = tmp_path / "kiosk.db"
    async with running(journal) as kiosk:
        terminal = await kiosk.terminal()
        txn_id = await bring_to("processing", kiosk, terminal)
        shown = asyncio.create_task(kiosk.until(lambda event: event.get("fact") == "success", 1))
        await terminal.result(txn_id, "success", amount=50.0, transaction_id="000410")
        await asyncio.sleep(delay_ms / 1000)
        await kiosk.kill()
        await asyncio.wait([shown], timeout=0.1)
        was_shown = shown.done() and shown.exception() is None
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
    async with running(journal) as kiosk:
        state = await kiosk.state(txn_id)
        assert state in ("succeeded", "unknown")
        if was_shown:
            assert state == "succeeded"  # what was shown had been written before
        terminal = await kiosk.terminal()
        await terminal.result(txn_id, "success", amount=50.0, transaction_id="000410")  # answered again
        await kiosk.state(txn_id, "succeeded")
        kinds = {alert["kind"] for alert in (await kiosk.call("GET", "/alerts"))["alerts"]}
        assert kinds == set()


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_whatever_a_terminal_was_asked_is_in_the_journal_and_is_asked_once(
    tmp_path: Path, delay_ms: int
) -> None:
    journal = tmp_path / "kiosk.db"
    body = {"mode": "card", "amount": "50.00", "reference": "ORDER-1"}
    async with running(journal) as kiosk:
        terminal = await kiosk.terminal()
        await kiosk.call("GET", "/status")
        asking = asyncio.create_task(kiosk.call("POST", "/payments", body, **{"Idempotency-Key": "k"}))
        await asyncio.sleep(delay_ms / 1000)
        await kiosk.kill()
        answered = await asyncio.gather(asking, return_exceptions=True)
        received = [
            oracle.payload_of(line)["txn_id"] for line in (await _rest(terminal)).splitlines(keepends=True)
        ]
    async with running(journal) as kiosk:
        known = {item["txn_id"]: item["state"] for item in (await kiosk.call("GET", "/payments"))["payments"]}
        assert set(received) <= set(known)
        assert all(state == "unknown" for state in known.values())
        if isinstance(answered[0], dict):
            assert answered[0]["txn_id"] in known
        else:
            assert isinstance(answered[0], aiohttp.ClientError)
        terminal = await kiosk.terminal()
        again = await kiosk.pay(reference="ORDER-1", key="k")
        if known:
            assert again["txn_id"] in known  # the client's retry is answered, not charged
            assert await terminal.hears_nothing()
        else:
            assert (await terminal.request())["txn_id"] == again["txn_id"]


async def test_a_replay_after_a_kill_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "kiosk.db"
    async with running(journal) as kiosk:
        terminal = await kiosk.terminal()
        txn_id = await bring_to("processing", kiosk, terminal)
        recorded = oracle.line(oracle.result(txn_id, "failed", amount=50.0))
        await terminal.send(recorded)
        await kiosk.state(txn_id, "failed")
        await kiosk.kill()
    async with running(journal) as kiosk:
        terminal = await kiosk.terminal()
        await terminal.send(recorded)
        async with asyncio.timeout(5):
            while (await kiosk.call("GET", "/status"))["refused_frames"] != {"replayed": 1}:
                await asyncio.sleep(0.02)
        assert await kiosk.state(txn_id) == "failed"


async def test_settled_is_settled_after_a_kill(tmp_path: Path) -> None:
    journal = tmp_path / "kiosk.db"
    async with running(journal) as kiosk:
        terminal = await kiosk.terminal()
        txn_id = await bring_to("processing", kiosk, terminal)
        terminal.pull_the_plug()
        await kiosk.state(txn_id, "unknown")
        body = {"outcome": "unpaid", "reason": "no sale on the terminal"}
        assert (await kiosk.call("POST", f"/payments/{txn_id}/settle", body))["state"] == "failed"
        await kiosk.kill()
    opened = Journal(journal)
    try:
        found = opened.payment(txn_id)
        assert found is not None
        assert (found.state, found.settled_because) == ("failed", "no sale on the terminal")
        assert opened.open_alerts() == []
        facts = [fact for _, fact, _ in opened.history(txn_id)]
        assert facts == ["requested", "ack", "link_cut", "settled_unpaid"]
    finally:
        await opened.close()


async def _rest(terminal: RawTerminal) -> bytes:
    try:
        async with asyncio.timeout(5):
            return await terminal.reader.read()
    except ConnectionError:
        return b""
