"""The document's rules against our own kiosk and our own terminal, and against ends that break them."""

import asyncio
import io
import itertools
import json
import re
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from support.postgres import free_port
from tillgate import conform
from tillgate.cli import app
from tillgate.providers.mobypay.conformance import CONFORMANCE, KIOSK, TERMINAL, kiosk_target, terminal_target
from tillgate.providers.mobypay.conformance.person import Person
from tillgate.providers.mobypay.simulator import VirtualTerminal
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.process import KioskProcess

BY_HAND = ("request.fields", "cancel.frame", "plan.frame", "result.success", "status.unsuccessful")


def settled(settings: object, **changes: object) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)


async def test_our_kiosk_keeps_every_rule(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db", "--per-address", "64")

    async def pay(mode: str, amount: str) -> str:
        return str(await kiosk.pay(amount, mode=mode))

    async def outcome(txn_id: str) -> str:
        return json.dumps(await kiosk.call("GET", f"/payments/{txn_id}"))

    async def cancel(txn_id: str) -> str:
        return str(await kiosk.call("POST", f"/payments/{txn_id}/cancel"))

    async def plan(txn_id: str, plan_id: str) -> str:
        return str(await kiosk.call("POST", f"/payments/{txn_id}/plan", {"plan_id": plan_id}))

    class Clerk(Person):
        """Stands at the kiosk, does what it is told and says what it sees."""

        txn_id = ""
        tasks: ClassVar[list[asyncio.Task[None]]] = []

        def told(self, text: str) -> None:
            self.tasks.append(asyncio.create_task(self._does(text, self.tasks[-1:])))

        async def _does(self, text: str, before: list[asyncio.Task[None]]) -> None:
            # One thing after the other: a terminal may hear of a payment before its clerk knows its name.
            await asyncio.gather(*before)
            if begin := re.fullmatch(r"At the kiosk, start a (\w+) payment of RM ([\d.]+)", text):
                self.txn_id = (await kiosk.pay(begin[2], mode=begin[1]))["txn_id"]
            elif re.fullmatch(r"At the kiosk, cancel the payment of RM [\d.]+", text):
                await cancel(self.txn_id)
            else:
                assert text == "At the kiosk, choose the plan IPP_3M"
                await plan(self.txn_id, "IPP_3M")

        async def says_yes(self, question: str, within_s: float) -> bool:
            assert re.fullmatch(r"Does the kiosk call the payment of RM [\d.]+ paid\?", question)
            await asyncio.gather(*self.tasks)
            return await kiosk.state(self.txn_id) == "succeeded"

    url, options = f"tcp://127.0.0.1:{kiosk.port}", {"secret": oracle.SECRET, "patience-s": "30"}
    try:
        target = kiosk_target(url, options)
        settled(target.settings, pay=pay, outcome=outcome, cancel=cancel, plan=plan)
        report = await conform.run(KIOSK.checks, target, title=KIOSK.title, timeout_s=60)
        by_hand = kiosk_target(url, options)
        settled(by_hand.settings, person=Clerk(), settle_s=1.0, sen=itertools.count(501))
        some = [one for one in KIOSK.checks if one.id in BY_HAND]
        seen = await conform.run(some, by_hand, timeout_s=60)
        await asyncio.gather(*Clerk.tasks)
    finally:
        await kiosk.stop()
    assert report.count("pass") == len(KIOSK.checks), conform.as_text(report)
    assert seen.count("pass") == len(BY_HAND), conform.as_text(seen)
    assert oracle.SECRET not in conform.as_text(report)


async def test_a_person_answers_and_nobody_is_not_waited_for_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("perhaps\nY\nno\n"))
    person = Person()
    person.told("Press 1")
    assert await person.says_yes("Paid?", 30)
    assert not await person.says_yes("Paid?", 30)
    for _ in range(2):
        with pytest.raises(conform.Skipped, match="outcome"):
            await person.says_yes("Paid?", 30)
    assert capsys.readouterr().err.splitlines()[0] == "→ Press 1"

    # A program starts the payments, so nobody is there to ask: nothing is begun in vain.
    target = kiosk_target("127.0.0.1:1", {"secret": oracle.SECRET, "pay": "true"})
    checks = [one for one in KIOSK.checks if one.id in BY_HAND and one.id != "request.fields"]
    report = await conform.run(checks, target, timeout_s=60)
    assert report.count("skip") == len(checks)


@pytest.mark.parametrize("dialect", ["captured", "documented"])
async def test_our_terminal_keeps_every_rule(dialect: str) -> None:
    port = free_port()
    terminal = VirtualTerminal(
        "127.0.0.1", port, oracle.SECRET, dialect=dialect, auto="approve", back_off_s=(0.02,)
    )
    running = asyncio.create_task(terminal.run())
    try:
        options = {"secret": oracle.SECRET, "patience-s": "30", "quiet": "yes"}
        target = terminal_target(f"tcp://127.0.0.1:{port}", options)
        settled(target.settings, silence_s=0.2)
        report = await conform.run(TERMINAL.checks, target, title=TERMINAL.title, timeout_s=60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert report.count("pass") == len(TERMINAL.checks), conform.as_text(report)


async def test_careless_terminals_are_found_out() -> None:
    """As the published samples are: they check neither nonce nor time nor signature."""
    port = free_port()

    async def careless() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                while line := await reader.readline():
                    said = json.loads(line)["payload"]
                    more = {"amount": said["amount"], "transaction_id": "1"}
                    writer.write(oracle.line(oracle.ack(said["txn_id"])))
                    writer.write(oracle.line(oracle.result(said["txn_id"], "success", **more)))
            except OSError:
                pass
            finally:
                writer.transport.abort()

    running = asyncio.create_task(careless())
    checks = [
        one for one in TERMINAL.checks if one.id in ("flow.card", "time.stale", "nonce.replay", "sign.forged")
    ]
    try:
        options = {"secret": oracle.SECRET, "patience-s": "30", "quiet": "yes"}
        report = await conform.run(checks, terminal_target(f"127.0.0.1:{port}", options), timeout_s=60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    verdicts = {one.check.id: one.verdict for one in report.outcomes}
    assert verdicts == {
        "flow.card": "pass", "sign.forged": "fail", "time.stale": "fail", "nonce.replay": "fail"
    }, conform.as_text(report)  # fmt: skip


async def test_a_kiosk_as_published_is_found_out() -> None:
    """It takes one read for one message, and "unsuccessful" for a success, from anybody."""
    state: dict[str, str] = {}
    connections: list[asyncio.StreamWriter] = []
    asked: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while data := await reader.read(4096):
            try:
                said = json.loads(data)["payload"]
            except ValueError:
                continue  # it loses what came together
            if said["type"] == "transaction_result" and said["txn_id"] == asked[-1]:
                state[said["txn_id"]] = "paid" if "success" in said["status"] else said["status"]
        connections.remove(writer)
        writer.transport.abort()

    async def pay(mode: str, amount: str) -> str:
        asked.append(f"TXN{1_757_000_000_000 + len(asked)}")
        payload = oracle.fresh(
            type="transaction_request", kiosk_id="KIOSK001", txn_id=asked[-1], amount=float(amount),
            payment_mode=mode,
        )  # fmt: skip
        connections[-1].write(oracle.line(payload))
        return ""

    async def outcome(txn_id: str) -> str:
        return state.get(txn_id, "none")

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wanted = ("result.success", "frame.together", "status.unsuccessful", "owner.stranger", "request.unique")
    checks = [one for one in KIOSK.checks if one.id in wanted]
    try:
        target = kiosk_target(f"127.0.0.1:{port}", {"secret": oracle.SECRET, "patience-s": "30"})
        settled(target.settings, pay=pay, outcome=outcome, settle_s=0.3)
        report = await conform.run(checks, target, timeout_s=60)
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()
    verdicts = {one.check.id: one.verdict for one in report.outcomes}
    assert verdicts == {
        "request.unique": "fail", "result.success": "pass", "frame.together": "fail",
        "status.unsuccessful": "fail", "owner.stranger": "fail",
    }, conform.as_text(report)  # fmt: skip


def test_the_command_lists_both_and_says_what_is_missing() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["conform"]).output
    assert {one.name for one in CONFORMANCE} == {"mobypay-kiosk", "mobypay-terminal"}
    for one in CONFORMANCE:
        assert one.name in listed
    port = free_port()
    missing = runner.invoke(app, ["conform", "mobypay-kiosk", "--host", "127.0.0.1", "--port", str(port)])
    assert missing.exit_code == 2
    assert "secret" in missing.output
    nobody = runner.invoke(
        app, ["conform", "mobypay-kiosk", "--port", str(port), "--secret", oracle.SECRET, "-o", "pay=true"]
    )
    assert nobody.exit_code == 1
    assert "no connection" in nobody.output
    assert oracle.SECRET not in nobody.output
