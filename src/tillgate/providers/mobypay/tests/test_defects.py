"""The defects of the published kiosk, one by one, each with a test that it is not ours.

The numbers are those of the defects as they were found by running the published kiosk.py with real bytes.
"""

import asyncio
import gc
import json
import resource
import time
import tracemalloc
from pathlib import Path

import pytest

from tillgate.providers.mobypay.config import KioskConfig, Limits, TerminalConfig, check_config
from tillgate.providers.mobypay.errors import BadAmount, NotAllowed, TerminalBusy, WeakSecret
from tillgate.providers.mobypay.money import parse_ringgit
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import Bench, OpenBench
from tillgate.providers.mobypay.tests.process import KioskProcess

OTHER = "another-secret-of-thirty-two-characters!"
TWO = (TerminalConfig(pos_id="POS001", secret=oracle.SECRET), TerminalConfig(pos_id="POS002", secret=OTHER))


@pytest.mark.parametrize("status", ["unsuccessful", "disapproved", "not_approved", "SUCCESS", "success!"])
async def test_01_a_word_that_contains_success_is_not_a_success(bench: Bench, status: str) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.result(payment.txn_id, status, amount=50.0)
    await bench.reaches(payment.txn_id, "unknown")
    assert bench.alerts() == ["unlisted_status"]


async def test_02_a_result_from_a_terminal_that_was_never_asked(bench_at: OpenBench) -> None:
    async with bench_at(terminals=TWO) as bench:
        asked = await bench.terminal("POS001", named=True)
        other = await bench.terminal("POS002", OTHER, named=True)
        payment = await bench.pay(terminal="POS001")
        await other.result(payment.txn_id, "success", amount=50.0, authorization_code="FORGED")
        await bench.until(lambda: bench.alerts() == ["not_the_owner"])
        assert bench.kiosk.find(payment.txn_id).state == "pending"
        assert bench.verdicts(payment.txn_id)[-1] == ("in", "not_the_owner")
        await asked.result(payment.txn_id, "failed", amount=50.0)
        assert (await bench.reaches(payment.txn_id, "failed")).authorization_code is None


@pytest.mark.parametrize("claim", ["POS001", "POS002", None])
async def test_02_the_same_where_all_terminals_share_one_secret(
    bench_at: OpenBench, claim: str | None
) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        asked = await bench.terminal("POS001", named=True)
        payment = await bench.pay()
        await asked.ack(payment.txn_id)
        await bench.reaches(payment.txn_id, "processing")
        other = await bench.terminal(claim)
        await other.result(payment.txn_id, "success", amount=50.0, authorization_code="FORGED")
        await bench.until(bench.alerts)
        assert bench.kiosk.find(payment.txn_id).state == "processing"
        await asked.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
        done = await bench.reaches(payment.txn_id, "succeeded")
        assert (done.terminal, done.authorization_code) == ("POS001", None)


async def test_03_a_request_goes_to_the_terminal_that_is_meant_and_to_no_stranger(
    bench_at: OpenBench,
) -> None:
    async with bench_at(terminals=TWO) as bench:
        stranger = await bench.terminal(None)
        first = await bench.terminal("POS001", named=True)
        second = await bench.terminal("POS002", OTHER, named=True)
        payment = await bench.pay(sen=100, terminal="POS002")
        assert (await second.request())["txn_id"] == payment.txn_id
        payment = await bench.pay(sen=200)
        assert (await first.request())["txn_id"] == payment.txn_id
        with pytest.raises(TerminalBusy):
            await bench.pay(sen=300)
        assert await stranger.hears_nothing()


async def test_04_coalesced_split_and_large_messages(bench: Bench) -> None:
    terminal = await bench.terminal()
    for sen in (100, 200):
        payment = await bench.pay(sen=sen)
        details = {"error_message": "カード é " * 700} if sen == 200 else {}
        data = oracle.line(oracle.ack(payment.txn_id)) + oracle.line(
            oracle.result(payment.txn_id, "failed", **details)
        )
        if sen == 100:
            await terminal.send(data)
        else:
            assert len(data) > 8192
            for start in range(0, len(data), 997):
                await terminal.send(data[start : start + 997])
                await asyncio.sleep(0)
        await bench.reaches(payment.txn_id, "failed")


async def test_04_frames_cut_at_every_byte(bench_at: OpenBench) -> None:
    """A pair of frames in two segments, the first of which is a byte longer each time; none is lost."""
    async with bench_at(limits=Limits(messages_per_s=1e6)) as bench:
        terminal = await bench.terminal()
        remembered, cut, pairs = bench.kiosk.nonces, 1, 0
        while cut:
            ping = oracle.line(oracle.fresh(type="ping", note="café"))
            data = ping + oracle.line(oracle.fresh(type="ping", note="卡"))
            first = data[:cut].count(b"\n")
            await terminal.send(data[:cut])
            for _ in range(5):  # both ends turn in one loop, so that this segment is read alone
                await asyncio.sleep(0)
            assert remembered.count - 2 * pairs in (first, first + data[:cut].endswith(b"}"))
            await terminal.send(data[cut:])
            pairs += 1
            await bench.until(lambda: remembered.count == 2 * pairs)  # noqa: B023
            cut = (cut + 1) % len(data)
        assert pairs > 300
        assert not bench.server.refused_frames


async def test_05_ids_do_not_collide_when_payments_start_fast(bench_at: OpenBench) -> None:
    terminals = tuple(
        TerminalConfig(pos_id=f"T{i:02d}", secret=f"{i:02d}" + oracle.SECRET) for i in range(20)
    )
    async with bench_at(terminals=terminals) as bench:
        for config in terminals:
            await bench.terminal(config.pos_id, config.secret, named=True)
        payments = await asyncio.gather(*(bench.pay(sen=100 + i) for i in range(20)))
        assert len({payment.txn_id for payment in payments}) == 20
        assert len({payment.terminal for payment in payments}) == 20


async def test_06_a_second_request_does_not_overwrite_the_first(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay(sen=100)
    with pytest.raises(TerminalBusy):
        await bench.pay(sen=200)
    await terminal.result(payment.txn_id, "success", amount=1.0)
    await bench.reaches(payment.txn_id, "succeeded")


async def test_07_a_success_after_the_cancel_leaves_a_trace(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "processing")
    bench.waits(grace_s=0.1)
    await bench.kiosk.cancel(payment.txn_id)
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "cancelled")
    await terminal.result(payment.txn_id, "success", amount=50.0, transaction_id="000410")
    review = await bench.reaches(payment.txn_id, "requires_review")
    assert (review.transaction_id, bench.alerts()) == ("000410", ["late_success"])


@pytest.mark.parametrize("status", ["success", "failed"])
async def test_08_a_cancel_after_the_outcome_is_refused_and_not_sent(bench: Bench, status: str) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.request()
    await terminal.result(payment.txn_id, status)
    await bench.until(lambda: not bench.kiosk.steps.open)
    with pytest.raises(NotAllowed):
        await bench.kiosk.cancel(payment.txn_id)
    assert await terminal.hears_nothing()


async def test_09_an_error_about_another_payment_ends_nothing(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await terminal.say(oracle.fresh(type="error", txn_id="TXN1757492341554", message="reset"))
    await bench.until(lambda: bench.alerts() == ["unknown_payment"])
    assert bench.kiosk.find(payment.txn_id).state == "processing"


async def test_10_a_replay_after_a_thousand_messages_and_after_a_restart(bench_at: OpenBench) -> None:
    async with bench_at(limits=Limits(messages_per_s=1e6)) as bench:
        terminal = await bench.terminal()
        payment = await bench.pay()
        recorded = oracle.line(oracle.result(payment.txn_id, "failed"))
        await terminal.send(recorded)
        await bench.reaches(payment.txn_id, "failed")
        fillers = [oracle.line(oracle.fresh(type="ping", pos_id="POS001")) for _ in range(1100)]
        await terminal.send(b"".join(fillers))
        await terminal.send(recorded)
        await bench.until(lambda: bench.server.refused_frames["replayed"] == 1)
    async with bench_at() as bench:
        terminal = await bench.terminal()
        await terminal.send(recorded)
        await bench.until(lambda: bench.server.refused_frames["replayed"] == 1)
        assert len(bench.verdicts(payment.txn_id)) == 2  # the request and the one result


async def test_11_success_then_failure_is_a_conflict_and_a_repeat_is_nothing(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    for _ in range(3):
        await terminal.result(payment.txn_id, "success", amount=50.0, transaction_id="000410")
    await bench.until(lambda: len(bench.verdicts(payment.txn_id)) == 4)
    assert bench.kiosk.find(payment.txn_id).state == "succeeded"
    assert bench.alerts() == []
    await terminal.result(payment.txn_id, "failed")
    await bench.reaches(payment.txn_id, "requires_review")
    assert bench.alerts() == ["conflicting_result"]


@pytest.mark.parametrize("amount", [1.0, 50.01, 5000, 49.999, "50.00", [50], -50.0])
async def test_12_a_success_of_another_amount_is_not_the_payment(bench: Bench, amount: object) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.result(payment.txn_id, "success", amount=amount, transaction_id="000410")
    await bench.reaches(payment.txn_id, "requires_review")
    assert bench.alerts() == ["amount_mismatch"]


async def test_13_amounts_are_exact(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay(sen=parse_ringgit("0.10") + parse_ringgit("0.20"))
    line = await terminal.reader.readline()
    assert b'"amount":0.3,' in line
    await terminal.result(payment.txn_id, "success", amount=0.3)
    await bench.reaches(payment.txn_id, "succeeded")
    for text in ("-1", "0", "NaN", "Infinity", "1e999"):
        with pytest.raises(BadAmount):
            await bench.pay(sen=parse_ringgit(text))


def test_14_the_published_secret_is_for_the_sandbox_only(tmp_path) -> None:
    published = "POS-KIOSK-SECRET-KEY-2024"

    def config(**members: object) -> KioskConfig:
        return KioskConfig(journal=tmp_path / "k.db", **members)

    for secret in (published, "short", "", "a" * 40):
        with pytest.raises(WeakSecret):
            check_config(config(shared_secret=secret))
        with pytest.raises(WeakSecret):
            check_config(config(terminals=(TerminalConfig(pos_id="P", secret=secret),)))
    check_config(config(shared_secret=published, sandbox=True))
    with pytest.raises(WeakSecret):
        KioskServer(config(shared_secret=published))
    assert not (tmp_path / "k.db").exists()


async def test_14_secrets_and_signatures_are_not_shown(bench: Bench, tmp_path) -> None:
    terminal = await bench.terminal()
    payload = oracle.fresh(type="ack", txn_id="T1", status="x")
    expected = oracle.hmac_hex(oracle.SECRET, oracle.norm(payload))
    await terminal.send(oracle.line(payload).replace(expected[:8].encode(), b"00000000"))
    await bench.until(lambda: bench.server.refused_frames["bad_signature"] == 1)
    shown = " ".join(str(notice) for notice in bench.notices) + repr(bench.server.config)
    assert expected not in shown
    assert oracle.SECRET not in shown
    assert oracle.SECRET.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def test_15_and_16_a_frame_of_ours_sent_back_is_not_believed(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    line = await terminal.reader.readline()
    await terminal.send(line)
    await bench.until(lambda: bench.server.refused_frames["wrong_role"] == 1)
    assert bench.kiosk.find(payment.txn_id).state == "pending"


async def test_17_a_restart_says_unknown_and_takes_the_late_result(bench_at: OpenBench) -> None:
    async with bench_at() as bench:
        terminal = await bench.terminal()
        payment = await bench.pay(reference="A")
        await terminal.ack(payment.txn_id)
        await bench.reaches(payment.txn_id, "processing")
    async with bench_at() as bench:
        found = bench.kiosk.find(payment.txn_id)
        assert (found.state, found.reference) == ("unknown", "A")
        assert bench.alerts() == ["outcome_unknown"]
        terminal = await bench.terminal()
        await terminal.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
        await bench.reaches(payment.txn_id, "succeeded")


async def test_18_ten_megabytes_without_a_line_end_close_the_connection(bench: Bench) -> None:
    terminal = await bench.terminal()

    async def flood() -> None:
        for _ in range(160):
            await terminal.send(b"x" * 65536)

    flooding = asyncio.create_task(flood())
    assert await terminal.closed_by_kiosk()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    assert bench.server.refused_frames == {"too_long": 1}


async def test_18_a_peer_that_dribbles_is_closed(bench: Bench) -> None:
    terminal = await bench.terminal()

    async def dribble() -> None:
        while True:
            await terminal.send(b'{"a')
            await asyncio.sleep(0.05)

    dribbling = asyncio.create_task(dribble())
    assert await terminal.closed_by_kiosk()
    dribbling.cancel()
    await asyncio.gather(dribbling, return_exceptions=True)


@pytest.mark.parametrize(
    "limits", [Limits(connections_per_address=100), Limits(connections=100, connections_per_address=999)]
)
async def test_18_connections_have_a_limit_per_address_and_in_all(
    bench_at: OpenBench, limits: Limits
) -> None:
    async with bench_at(limits=limits) as bench:
        links = [await asyncio.open_connection("127.0.0.1", bench.server.port) for _ in range(180)]
        await bench.until(lambda: bench.server.connection_count() == 100)
        ends = [asyncio.create_task(reader.read(1)) for reader, _ in links]
        await bench.until(lambda: sum(end.done() for end in ends) == 80)
        for _, writer in links:
            writer.transport.abort()
        await asyncio.gather(*ends, return_exceptions=True)
        await bench.until(lambda: bench.server.connection_count() == 0)
        terminal = await bench.terminal()  # and then there is room again
        payment = await bench.pay()
        await terminal.result(payment.txn_id, "success")
        await bench.reaches(payment.txn_id, "succeeded")


async def test_18_a_thousand_connections_leave_room_for_a_payment(tmp_path: Path) -> None:
    """On a system that gives a process few files at first, as most do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        kiosk = await KioskProcess.start(tmp_path / "kiosk.db", "--per-address", "9999")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
        terminal = await kiosk.terminal()
        await terminal.say(oracle.fresh(type="ping", pos_id="POS001"))
        links = []
        for _ in range(10):
            some = (asyncio.open_connection("127.0.0.1", kiosk.port) for _ in range(100))
            links += await asyncio.gather(*some)
        async with asyncio.timeout(30):
            while (await kiosk.call("GET", "/status"))["connections"] != 1001:
                await asyncio.sleep(0.02)
        crowd = [await asyncio.open_connection("127.0.0.1", kiosk.port) for _ in range(30)]
        ends = [asyncio.create_task(reader.read(1)) for reader, _ in crowd]
        async with asyncio.timeout(30):
            while sum(end.done() for end in ends) != 7:  # 1024 and no more
                await asyncio.sleep(0.01)

        paid = await kiosk.pay("50.00", terminal="POS001")
        assert (await terminal.request())["txn_id"] == paid["txn_id"]
        await terminal.result(paid["txn_id"], "success", amount=50.0)
        await kiosk.state(paid["txn_id"], "succeeded")
        for _, writer in (*links, *crowd):
            writer.transport.abort()
        kiosk.hang_up()
        await asyncio.gather(*ends, return_exceptions=True)
        assert await kiosk.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_18_rubbish_is_counted_and_ends_the_connection(bench: Bench) -> None:
    terminal = await bench.terminal()
    await terminal.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\xff\n" * 9)
    assert await terminal.closed_by_kiosk()
    assert bench.server.refused_frames == {"not_json": 2, "not_utf8": 8}


async def test_20_messages_to_a_terminal_are_whole_whoever_talks(bench: Bench) -> None:
    terminal = await bench.terminal()
    seen = []
    for sen in range(100, 130):
        payment = await bench.pay(sen=sen)
        seen.append((await terminal.request())["txn_id"])
        await terminal.result(payment.txn_id, "failed")
        await bench.reaches(payment.txn_id, "failed")
    assert len(set(seen)) == 30


async def test_21_every_member_of_a_result_is_kept_and_so_is_the_frame(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    payload = oracle.result(payment.txn_id, "failed", amount=50.0, error_message="USER_ABORT", extra={"a": 1})
    await terminal.say(payload)
    done = await bench.reaches(payment.txn_id, "failed")
    assert (done.error_message, done.terminal, done.told_amount) == ("USER_ABORT", "POS001", "50.0")
    direction, verdict, raw = bench.journal.frames(payment.txn_id)[-1]
    assert (direction, verdict, json.loads(raw)["payload"]) == ("in", "accepted", payload)


async def test_a_card_number_does_not_reach_the_disk(bench: Bench, tmp_path) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.result(payment.txn_id, "success", card_last4="4111111111111234")
    assert (await bench.reaches(payment.txn_id, "succeeded")).card_last4 == "1234"
    for file in tmp_path.iterdir():
        assert b"4111111111111234" not in file.read_bytes()


# --- clocks ----------------------------------------------------------------------------------------------


async def test_a_clock_that_is_off_is_reported_before_and_when_it_matters(bench: Bench) -> None:
    bench.waits(result_s=0.3)
    terminal = await bench.terminal()
    payment = await bench.pay()
    now = int(time.time() * 1000)
    await terminal.say({**oracle.ack(payment.txn_id), "timestamp": str(now - 30_000)})
    await bench.until(lambda: bench.alerts() == ["clock_skew"])
    stale = {**oracle.result(payment.txn_id, "success", amount=50.0), "timestamp": str(now - 90_000)}
    await terminal.say(stale)
    await bench.until(lambda: bench.alerts() == ["clock_skew", "clock_skew"])
    assert bench.verdicts(payment.txn_id)[-1] == ("in", "outside_window")
    await bench.reaches(payment.txn_id, "unknown")
    assert bench.server.terminals.get("POS001").skew_ms < -29_000


async def test_idle_connections_are_cheap(bench_at: OpenBench) -> None:
    async with bench_at(limits=Limits(connections_per_address=200)) as bench:
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        links = [await asyncio.open_connection("127.0.0.1", bench.server.port) for _ in range(150)]
        await bench.until(lambda: bench.server.connection_count() == 150)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for _, writer in links:
            writer.transport.abort()
        # both ends live in this process, so this is an upper bound for two
        assert (after - before) / 150 < 2 * 10 * 1024
