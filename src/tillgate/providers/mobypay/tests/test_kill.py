"""kill -9 of the real kiosk, at every point of a payment: nothing is lost, nothing is charged twice, and
what is not known is said to be unknown.
"""

import asyncio
from pathlib import Path

import aiohttp

from tillgate.providers.mobypay.journal import Journal
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import RawTerminal, plans
from tillgate.providers.mobypay.tests.process import KioskProcess


class Lives:
    """A kiosk that is killed, again and again, and started on the same journal."""

    def __init__(self, journal: Path):
        self._journal = journal
        self._all: list[KioskProcess] = []

    async def next(self) -> KioskProcess:
        """The next life; `events` of the one before are all that it ever said."""
        await self.end()
        self._all.append(await KioskProcess.start(self._journal))
        return self._all[-1]

    async def end(self) -> None:
        if self._all:
            await self._all[-1].kill()

    async def __aenter__(self) -> "Lives":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()
        for kiosk in self._all:
            kiosk.hang_up()


async def alone(kiosk: KioskProcess) -> RawTerminal:
    """A terminal, once the kiosk has it and no other."""
    terminal = await kiosk.terminal()
    host, port = terminal.writer.get_extra_info("sockname")
    async with asyncio.timeout(30):
        while True:
            listed = (await kiosk.call("GET", "/terminals"))["terminals"]
            if [one["address"] for one in listed if one["connected"]] == [f"{host}:{port}"]:
                return terminal
            await asyncio.sleep(0.01)


async def bring_to(point: str, kiosk: KioskProcess, terminal: RawTerminal, reference: str = "ORDER-1") -> str:
    """A payment, taken exactly as far as `point`."""
    mode = "ipp" if "plan" in point else "card"
    txn_id = (await kiosk.pay(mode=mode, reference=reference))["txn_id"]
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


async def test_in_flight_is_unknown_afterwards_and_the_late_result_counts(tmp_path: Path) -> None:
    async with Lives(tmp_path / "kiosk.db") as lives:
        kiosk = await lives.next()
        for point in ("pending", "processing", "awaiting plan", "plan chosen", "cancelling"):
            txn_id = await bring_to(point, kiosk, await alone(kiosk), point)
            kiosk = await lives.next()
            said = await kiosk.until(lambda event: event.get("fact") == "restart")  # the cashier is told
            assert (said["payment"]["txn_id"], said["payment"]["state"]) == (txn_id, "unknown"), point
            assert await kiosk.state(txn_id) == "unknown"
            alerts = (await kiosk.call("GET", "/alerts"))["alerts"]
            assert [(alert["kind"], alert["txn_id"]) for alert in alerts] == [("outcome_unknown", txn_id)]
            terminal = await alone(kiosk)
            assert (await kiosk.pay(reference=point))["code"] == "unsettled_payment"
            assert await terminal.hears_nothing()
            await terminal.result(txn_id, "success", amount=50.0, transaction_id="000410")
            await kiosk.state(txn_id, "succeeded")
            assert (await kiosk.pay(reference=point))["code"] == "already_paid"
            terminal.pull_the_plug()


async def test_a_result_is_either_kept_or_the_outcome_is_unknown(tmp_path: Path) -> None:
    async with Lives(tmp_path / "kiosk.db") as lives:
        kiosk = await lives.next()
        for delay_ms in (0, 1, 2, 4, 8, 16):
            terminal = await alone(kiosk)
            txn_id = await bring_to("processing", kiosk, terminal, f"ORDER-{delay_ms}")
            await terminal.result(txn_id, "success", amount=50.0, transaction_id="000410")
            await asyncio.sleep(delay_ms / 1000)
            before, kiosk = kiosk, await lives.next()
            state = await kiosk.state(txn_id)
            assert state in ("succeeded", "unknown")
            shown = [event["payment"]["txn_id"] for event in before.events if event.get("fact") == "success"]
            if txn_id in shown:
                assert state == "succeeded"  # what was shown had been written before
            terminal = await alone(kiosk)
            await terminal.result(txn_id, "success", amount=50.0, transaction_id="000410")  # answered again
            await kiosk.state(txn_id, "succeeded")
            assert (await kiosk.call("GET", "/alerts"))["alerts"] == []
            terminal.pull_the_plug()


async def test_whatever_a_terminal_was_asked_is_in_the_journal_and_is_asked_once(tmp_path: Path) -> None:
    over: set[str] = set()
    async with Lives(tmp_path / "kiosk.db") as lives:
        kiosk = await lives.next()
        for delay_ms in (0, 1, 2, 3, 5, 8, 13, 21):
            reference, key = f"ORDER-{delay_ms}", f"key-{delay_ms}"
            body = {"mode": "card", "amount": "50.00", "reference": reference}
            terminal = await alone(kiosk)
            asking = asyncio.create_task(kiosk.call("POST", "/payments", body, **{"Idempotency-Key": key}))
            await asyncio.sleep(delay_ms / 1000)
            kiosk = await lives.next()
            [answered] = await asyncio.gather(asking, return_exceptions=True)
            lines = (await _rest(terminal)).splitlines(keepends=True)
            received = {oracle.payload_of(line)["txn_id"] for line in lines}
            listed = (await kiosk.call("GET", "/payments"))["payments"]
            known = {item["txn_id"]: item["state"] for item in listed if item["txn_id"] not in over}
            assert received <= set(known)
            assert len(known) <= 1
            assert set(known.values()) <= {"unknown"}
            if isinstance(answered, dict):
                assert answered["txn_id"] in known
            else:
                assert isinstance(answered, aiohttp.ClientError)
            terminal = await alone(kiosk)
            again = (await kiosk.pay(reference=reference, key=key))["txn_id"]
            if known:
                assert again in known  # the client's retry is answered, not charged
                assert await terminal.hears_nothing()
            else:
                assert (await terminal.request())["txn_id"] == again
            await terminal.result(again, "failed", amount=50.0)
            await kiosk.state(again, "failed")
            over.add(again)
            terminal.pull_the_plug()


async def test_a_replay_and_a_settlement_after_a_kill(tmp_path: Path) -> None:
    journal = tmp_path / "kiosk.db"
    async with Lives(journal) as lives:
        kiosk = await lives.next()
        terminal = await alone(kiosk)
        txn_id = await bring_to("processing", kiosk, terminal)
        recorded = oracle.line(oracle.result(txn_id, "failed", amount=50.0))
        await terminal.send(recorded)
        await kiosk.state(txn_id, "failed")

        kiosk = await lives.next()
        terminal = await alone(kiosk)
        await terminal.send(recorded)
        async with asyncio.timeout(30):
            while (await kiosk.call("GET", "/status"))["refused_frames"] != {"replayed": 1}:
                await asyncio.sleep(0.02)
        assert await kiosk.state(txn_id) == "failed"

        txn_id = await bring_to("processing", kiosk, terminal)
        terminal.pull_the_plug()
        await kiosk.state(txn_id, "unknown")
        body = {"outcome": "unpaid", "reason": "no sale on the terminal"}
        assert (await kiosk.call("POST", f"/payments/{txn_id}/settle", body))["state"] == "failed"
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
        async with asyncio.timeout(30):
            return await terminal.reader.read()
    except ConnectionError:
        return b""
