"""The journal as a file: groups, failures, restarts, and what a payment looks like when the disk or
the link gives out.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tillgate.providers.mobypay import journal_rows as rows
from tillgate.providers.mobypay import steps
from tillgate.providers.mobypay.errors import JournalUnavailable
from tillgate.providers.mobypay.journal import MOST_PER_COMMIT, Journal
from tillgate.providers.mobypay.lifecycle import Alert, Payment
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import Bench, OpenBench, plans


def payment(txn_id: str = "T1", **members: object) -> Payment:
    return Payment(
        **{
            "txn_id": txn_id,
            "mode": PaymentMode.CARD,
            "amount_sen": 100,
            "terminal": "P",
            "connection": 1,
            **members,
        }
    )


async def test_waiting_groups_share_one_commit_and_all_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "k.db")
    commits: list[int] = []
    real = journal._commit
    journal._commit = lambda batch: (commits.append(len(batch)), real(batch))[1]
    await asyncio.gather(*(journal.write(rows.new_payment(payment(f"T{n}"), None, None)) for n in range(300)))
    assert sum(commits) == 300
    assert len(commits) <= 4
    assert max(commits) <= MOST_PER_COMMIT
    assert len(journal.page(200)) == 200
    await journal.close()


async def test_a_group_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "k.db")
    same = rows.new_payment(payment("SAME"), None, None)
    work = [
        same,
        rows.new_payment(payment("A"), None, None),
        same,
        rows.new_payment(payment("B"), None, None),
    ]
    outcomes = await asyncio.gather(*map(journal.write, work), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "NoneType",
        "NoneType",
        "JournalUnavailable",
        "NoneType",
    ]
    assert sorted(item.txn_id for _, item in journal.page(10)) == ["A", "B", "SAME"]
    await journal.close()


async def test_the_file_is_durable_private_and_closed_to_a_second_kiosk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "k.db"
    journal = Journal(path)
    assert journal._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(JournalUnavailable, match="another kiosk"):
        Journal(path)
    await journal.close()
    await Journal(path).close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"\x00" * 5000])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.db"
    path.write_bytes(content)
    with pytest.raises(JournalUnavailable):
        Journal(path)
    assert path.read_bytes() == content


async def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.db"
    await Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(JournalUnavailable, match="version 3"):
        Journal(path)


async def test_nonces_come_back_and_expire(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "k.db")
    await journal.write([rows.nonce_row("P", "early", 10), rows.nonce_row("P", "late", 30)])
    assert journal.nonces(20) == [("P", "late", 30)]
    await journal.write([rows.forget_nonces(31)])
    assert journal.nonces(0) == []
    await journal.close()


async def test_alerts_are_open_until_they_are_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "k.db")
    await journal.write([rows.alert_row(Alert("k", f"text {n}"), n, None, None) for n in range(3)])
    newest = journal.open_alerts()[0]
    assert newest.text == "text 2"
    await journal.write([rows.closed_alert(newest.number, 9)])
    assert [alert.text for alert in journal.open_alerts()] == ["text 1", "text 0"]
    await journal.close()


# --- a failing disk --------------------------------------------------------------------------------------


@asynccontextmanager
async def full_disk(bench: Bench) -> AsyncIterator[None]:
    """The kiosk's real database refuses to grow, as on a full disk, and what room it had is used up."""
    writer = bench.journal._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    for size in (3000, 300, 1):
        with suppress(JournalUnavailable):
            while True:
                await bench.journal.write([rows.frame_row(0, "in", "P", 0, None, "filler", b"x" * size)])
    yield
    writer.execute("PRAGMA max_page_count = 1073741823")


async def test_with_a_full_disk_no_payment_begins(bench: Bench) -> None:
    terminal = await bench.terminal()
    async with full_disk(bench):
        with pytest.raises(JournalUnavailable):
            await bench.pay(reference="A")
        assert await terminal.hears_nothing()
    after = await bench.pay(reference="A")  # neither the terminal nor the order is held by the failure
    assert (await terminal.request())["txn_id"] == after.txn_id


async def test_evidence_waits_for_a_full_disk_and_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "JOURNAL_RETRY_S", 0.05)
    terminal = await bench.terminal()
    running = await bench.pay()
    async with full_disk(bench):
        await terminal.result(running.txn_id, "success", amount=50.0, transaction_id="1")
        await asyncio.sleep(0.2)
        assert bench.kiosk.find(running.txn_id).state == "pending"  # nothing is said before it is written
        assert any("waiting" in notice.text for notice in bench.notices)
    await bench.reaches(running.txn_id, "succeeded")
    assert bench.stored(running.txn_id).transaction_id == "1"


# --- the plug, at every point ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point", ["before ack", "after ack", "half an ack", "plans", "plan chosen", "cancelling", "half a result"]
)
async def test_the_plug_at_every_point(bench: Bench, point: str) -> None:
    terminal = await bench.terminal()
    running = await bench.pay("ipp" if "plan" in point else "card")
    txn_id = running.txn_id
    await terminal.request()
    if point not in ("before ack", "half an ack"):
        await terminal.ack(txn_id)
        await bench.reaches(txn_id, "processing")
    if "plan" in point:
        await terminal.result(txn_id, "ipp_plans", amount=50.0, plans=plans("A"))
        await bench.reaches(txn_id, "awaiting_plan")
    if point == "plan chosen":
        await bench.kiosk.choose_plan(txn_id, "A")
    if point == "cancelling":
        await bench.kiosk.cancel(txn_id)
    if "half" in point:
        half = oracle.ack(txn_id) if "ack" in point else oracle.result(txn_id, "success", amount=50.0)
        await terminal.send(oracle.line(half)[:150])
        await asyncio.sleep(0.02)
    terminal.pull_the_plug()
    cut = await bench.reaches(txn_id, "unknown")
    assert cut.reason == "The outcome is unknown: the link to the terminal was lost."
    assert bench.server.terminals.get("POS001").in_flight is None
    again = await bench.terminal()
    assert await again.hears_nothing()  # nothing is tried again by itself
    await again.result(txn_id, "success", amount=50.0, transaction_id="1")
    await bench.reaches(txn_id, "succeeded")
    assert bench.alerts() == []


async def test_the_plug_while_the_request_is_being_written_down(bench: Bench) -> None:
    terminal = await bench.terminal()
    real = bench.journal.write

    async def slow(group: list) -> None:
        bench.journal.write = real
        await real(group)
        terminal.pull_the_plug()
        await bench.until(lambda: not bench.server.terminals.get("POS001").connected)

    bench.journal.write = slow
    running = await bench.pay()
    assert running.state == "failed"  # no byte left, so nothing can have been charged
    assert bench.stored(running.txn_id).state == "failed"
    assert bench.server.terminals.get("POS001").in_flight is None


async def test_a_client_that_hangs_up_does_not_stop_a_payment_half_way(bench: Bench) -> None:
    terminal = await bench.terminal()
    asking = asyncio.create_task(bench.pay())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    request = await terminal.request()
    await terminal.result(request["txn_id"], "success", amount=50.0)
    await bench.reaches(request["txn_id"], "succeeded")


async def test_restarts_do_not_touch_what_is_over(bench_at: OpenBench) -> None:
    async with bench_at() as bench:
        terminal = await bench.terminal()
        running = await bench.pay()
        await terminal.result(running.txn_id, "success", amount=50.0)
        before = await bench.reaches(running.txn_id, "succeeded")
        changes = bench.journal.changes(0, 100)
    async with bench_at() as bench:
        assert bench.kiosk.find(running.txn_id) == before
        assert bench.journal.changes(0, 100) == changes
