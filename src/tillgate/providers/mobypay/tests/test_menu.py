"""The menu as the program that people start: from a pipe, as JSON, and in a real terminal window."""

import asyncio
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tillgate.commands.kiosk import app
from tillgate.providers.mobypay import menu_text
from tillgate.providers.mobypay.lifecycle import Payment
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.simulator import VirtualTerminal
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.process import COMMAND, KioskProcess, environment


async def play(port: int, **options: object) -> tuple[VirtualTerminal, asyncio.Task]:
    terminal = VirtualTerminal("127.0.0.1", port, oracle.SECRET, **{"auto": "approve", **options})
    return terminal, asyncio.create_task(terminal.run())


async def play_at(kiosk: KioskProcess, **options: object) -> tuple[VirtualTerminal, asyncio.Task]:
    """A terminal, once the kiosk has taken its connection."""
    playing = await play(kiosk.port, **options)
    await kiosk.until(lambda event: event["type"] == "terminal" and event["text"].endswith(": connected"))
    return playing


async def done(kiosk: KioskProcess, task: asyncio.Task, within_s: float = 30) -> list[dict]:
    async with asyncio.timeout(within_s):
        await kiosk.process.wait()
    await kiosk.stop()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return kiosk.events


def outcomes(events: list[dict]) -> list[tuple[str, str, str]]:
    """Mode, amount and final state of each payment, in the order in which they began."""
    last: dict[str, tuple[str, str, str]] = {}
    for event in events:
        if event["type"] == "payment":
            payment = event["payment"]
            last[payment["txn_id"]] = (payment["mode"], payment["amount"], payment["state"])
    return list(last.values())


async def test_all_entries_from_a_pipe(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db", menu=True)
    _, task = await play_at(kiosk)
    await kiosk.type("1", "10.00", "2", "RM 0.01", "2", "0.01", "3", "99.99", "4", "100", "2", "6", "9", "7")
    events = await done(kiosk, task)
    assert kiosk.process.returncode == 0
    assert outcomes(events) == [
        ("card", "10.00", "succeeded"),
        ("bnpl", "0.01", "succeeded"),
        ("duitnow_qr", "99.99", "succeeded"),
        ("ipp", "100.00", "succeeded"),
    ]
    (offer,) = [event for event in events if event["type"] == "plans"]
    assert [plan["planId"] for plan in offer["plans"]] == ["pay-in-full", "IPP_3M", "IPP_6M"]
    chosen = [event for event in events if event.get("fact") == "plan_chosen"]
    assert [event["payment"]["plan_id"] for event in chosen] == ["IPP_3M"]
    (status,) = [event for event in events if event["type"] == "status"]
    assert status["terminals"][0]["pos_id"] == "POS001"
    assert [event["code"] for event in events if event["type"] == "error"] == ["bad_amount", "bad_request"]
    assert events[-1]["type"] == "stopped"


async def test_quitting_the_plans_cancels_at_the_terminal(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db", menu=True)
    terminal, task = await play_at(kiosk)
    await kiosk.type("4", "100", "4", "x", "q", "7")
    events = await done(kiosk, task)
    assert outcomes(events) == [("ipp", "100.00", "cancelled")]
    assert [item["status"] for item in terminal.transactions.values()] == ["failed"]
    assert not any(item["charged"] for item in terminal.transactions.values())


async def test_cancel_from_a_pipe_and_the_end_of_the_pipe_waits_for_the_outcome(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db", menu=True)
    _, task = await play_at(kiosk, auto=None)
    await kiosk.type("5", "1", "10.00", "5", "1", "11.00")
    await kiosk.until(lambda event: event["type"] == "payment" and event["payment"]["amount"] == "11.00")
    assert kiosk.process.stdin is not None
    kiosk.process.stdin.close()
    await asyncio.sleep(0.3)
    assert kiosk.process.returncode is None  # it does not leave a payment behind
    await kiosk.until(lambda event: event.get("fact") == "ack" and event["payment"]["amount"] == "11.00")
    task.cancel()  # the plug
    events = await done(kiosk, task)
    assert outcomes(events) == [("card", "10.00", "cancelled"), ("card", "11.00", "unknown")]
    assert [event["code"] for event in events if event["type"] == "error"] == ["bad_request"]


async def test_settling_from_the_menu(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db", menu=True)
    _, task = await play_at(kiosk, auto="unlisted")
    await kiosk.type("1", "10.00")
    event = await kiosk.until(lambda event: event.get("fact") == "unlisted")
    txn_id = event["payment"]["txn_id"]
    await kiosk.type("settle", f"settle {txn_id} paid", f"settle {txn_id} paid the slip was printed", "7")
    events = await done(kiosk, task)
    assert outcomes(events) == [("card", "10.00", "succeeded")]
    assert [event["code"] for event in events if event["type"] == "error"] == ["bad_request"] * 2


# --- a window --------------------------------------------------------------------------------------------


class Window:
    """A pseudo-terminal with a person at it."""

    def __init__(self, *arguments: str):
        self.text = ""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.environ.clear()
            os.environ.update(environment(TERM="xterm", COLUMNS="100", LINES="40"))
            os.execv(sys.executable, [*COMMAND, *arguments])
        self.pid = pid
        os.set_blocking(self._fd, False)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._fd)
            return
        if b"\x1b[6n" in data:  # it asks where the cursor is, as prompts do
            os.write(self._fd, b"\x1b[1;1R")
        self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode("utf-8", "replace"))

    async def sees(self, text: str, within_s: float = 30) -> None:
        try:
            async with asyncio.timeout(within_s):
                while text not in self.text:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in:\n{self.text}") from None
        self.text = self.text.partition(text)[2]

    async def types(self, text: str) -> None:
        os.write(self._fd, text.encode())
        await asyncio.sleep(0.1)

    async def ends(self) -> int:
        async with asyncio.timeout(30):
            while True:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    asyncio.get_running_loop().remove_reader(self._fd)
                    os.close(self._fd)
                    return os.waitstatus_to_exitcode(status)
                await asyncio.sleep(0.02)


async def test_a_person_at_a_window(tmp_path: Path, unused_tcp_port: int) -> None:
    window = Window(
        "kiosk", "--host", "127.0.0.1", "--port", str(unused_tcp_port), "--journal", str(tmp_path / "k.db")
    )
    await window.sees("7. Exit")
    await window.sees("Select option (1-7):")
    terminal, task = await play(unused_tcp_port, auto=None)
    await window.sees("connected")
    await window.types("1\r")
    await window.sees("Enter amount (RM):")
    await window.types("25.50\r")
    await window.sees("RM25.50: sent to")
    await window.types("5")  # half a choice is being typed while the result arrives
    terminal.act("approve")
    await window.sees("SUCCEEDED")
    await window.types("\x7f4\r")
    await window.sees("Enter amount (RM):")
    await window.types("100\r")
    await window.sees("acknowledged by POS001")
    terminal.act("offer_plans")
    await window.sees("2. IPP_3M · Monthly · 3 installments")
    await window.sees("the installments add up to RM99.99")
    await window.sees("Select plan (1-3) or 'q' to quit:")
    await window.types("2\r")
    await window.sees("processing")
    await window.types("7\r")
    await window.sees("outcome will be unknown")
    await window.types("n\r")
    terminal.act("approve")
    await window.sees("SUCCEEDED")
    await window.types("6\r")
    await window.sees("POS001: connected, idle")
    await window.types("7\r")
    await window.sees("Stopped.")
    assert await window.ends() == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_terminals_keypad_in_a_shell(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db")
    window = Window("terminal", "--port", str(kiosk.port))
    await window.sees("connected to")
    txn_id = (await kiosk.pay("7.00"))["txn_id"]
    await window.sees(f"transaction_request {txn_id} RM7.00")
    await window.types("z\r")
    await window.sees("no such action")
    await window.types("a\r")
    await kiosk.state(txn_id, "succeeded")
    await window.types("q\r")
    assert await window.ends() == 0
    assert await kiosk.stop() == 0


# --- the command line ------------------------------------------------------------------------------------


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    """The command in this process, which is many times faster than in one of its own."""
    done = CliRunner().invoke(
        app, arguments, env={name: None for name in os.environ if "TILLGATE" in name} | environment(**env)
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        ((), {"TILLGATE_KIOSK_SECRET": ""}, "no terminal could connect"),
        ((), {"TILLGATE_KIOSK_SECRET": "POS-KIOSK-SECRET-KEY-2024"}, "printed in the kiosk document"),
        ((), {"TILLGATE_KIOSK_SECRET": "short"}, "at least 32 characters"),
        (("--control", "0.0.0.0:1"), {}, "loopback"),
        (("--control", "127.0.0.1:0"), {"TILLGATE_KIOSK_TOKEN": "short"}, "at least 32 characters"),
        (("--max-amount", "lots"), {}, "ringgit"),
        (("--kiosk-id", "sp ace"), {}, "kiosk_id"),
        (("--tls-cert", "x.pem"), {}, "--tls-key"),
        (("--tls-cert", "x.pem", "--tls-key", "y.pem"), {}, "TLS"),
        (("--config", "nowhere.toml"), {}, "nowhere.toml"),
        (("--hub", "http://127.0.0.1:1", "--enrol", ""), {}, "--hub and --enrol go together"),
        (("--host", "192.0.2.1"), {}, "cannot be used"),
    ],
)
def test_a_kiosk_that_cannot_start_says_why(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], words: str
) -> None:
    journal = tmp_path / "k.db"
    code, out, err = run("kiosk", "--port", "0", "--journal", str(journal), *arguments, **env)
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err
    assert oracle.SECRET not in err


async def test_two_kiosks_do_not_share_a_journal(tmp_path: Path) -> None:
    kiosk = await KioskProcess.start(tmp_path / "k.db")
    code, out, _ = await asyncio.to_thread(
        run, "kiosk", "--json", "--port", "0", "--journal", str(tmp_path / "k.db")
    )
    assert code == 1
    assert json.loads(out)["detail"] == "another kiosk is running on this journal"
    assert await kiosk.stop() == 0


async def test_terminals_from_a_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "pos2.secret").write_text("b" + oracle.SECRET + "\n")
    config = tmp_path / "kiosk.toml"
    config.write_text(
        f'[[terminals]]\npos_id = "POS001"\nsecret = "{oracle.SECRET}-1"\nport = 0\n'
        '[[terminals]]\npos_id = "POS002"\nsecret_file = "pos2.secret"\nport = 0\namount_form = "integer"\n'
    )
    kiosk = await KioskProcess.start(tmp_path / "k.db", "--config", str(config))
    listed = {item["pos_id"]: item for item in (await kiosk.call("GET", "/terminals"))["terminals"]}
    assert set(listed) == {"POS001", "POS002"}
    assert all(item["port"] for item in listed.values())
    assert await kiosk.stop() == 0
    config.write_text("[[terminals]]\npos_id = 1\nsecret = 'top-secret-value'\n")
    code, _, err = await asyncio.to_thread(
        run, "kiosk", "--journal", str(tmp_path / "k2.db"), "--config", str(config)
    )
    assert code == 1
    assert "top-secret-value" not in err


# --- text ------------------------------------------------------------------------------------------------


def test_what_a_terminal_says_cannot_steer_the_window() -> None:
    assert menu_text.plain("a\x1b[2Jb\x07\u202e") == "a?[2Jb??"


@pytest.mark.parametrize(
    ("details", "warned"),
    [
        ([(35.0, 1.5)] * 3, True),  # the document's own example: 105.00 and fees for 100.00
        ([(50.0, 0), (50.0, 0)], False),
        ([(49.0, 1.0), (49.0, 1.0)], False),  # with the fees it is the amount
        ([(33.33, 0)] * 3, True),
        ([], False),
        ([(None, None)], True),
    ],
)
def test_plans_are_shown_as_sent_and_what_does_not_add_up_is_said(details: list, warned: bool) -> None:
    plan = {
        "planId": "P", "frequency": None, "totalInstallments": None,
        "installmentDetails": [{"amount": amount, "installmentFee": fee} for amount, fee in details],
    }  # fmt: skip
    payment = Payment(
        txn_id="T",
        mode=PaymentMode.IPP,
        amount_sen=10_000,
        terminal="P",
        connection=1,
        plans=json.dumps([plan, 7, {}]),
    )
    lines = list(menu_text.plan_lines(payment))
    assert "1. P" in lines
    assert any("add up" in line for line in lines) is warned
    assert len(menu_text.usable_plans(payment)) == 1
