"""The quickstart of `/v1`, run from its own text: both walks on one hub, the operator's verbs beside it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.postgres import free_port
from support.serving import Process

PAGE = Path(__file__).parents[2] / "docs" / "quickstart-v1.md"
CURL = Path(__file__).parents[1] / "support" / "curl.py"
KINDS = ("payment.paid", "refund.created", "refund.succeeded")


def blocks(text: str) -> dict[str, str]:
    """Code by its file's name; the hub's own block has none."""
    found = re.findall(r'^```(?:sh|python)(?: title="([^"]+)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


class Walk:
    """A directory with the page's files, as its reader would have it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hub_port, self.hook_port = free_port(), free_port()
        text = PAGE.read_text(encoding="utf-8")
        for documented, port in (("8080", self.hub_port), ("9000", self.hook_port)):
            assert documented in text
            text = text.replace(documented, str(port))
        self.blocks = blocks(text)
        bin_ = directory / "bin"
        bin_.mkdir()
        for name, program in (("tillgate", "-m tillgate"), ("python3", ""), ("curl", str(CURL))):
            if name != "curl" or shutil.which("curl") is None:
                (bin_ / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {program} "$@"\n')
                (bin_ / name).chmod(0o755)
        self.environment = {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "TILLGATE_DATABASE_URL": f"sqlite:///{directory}/till.db",
            "PYTHONUNBUFFERED": "1",
        }

    def hub(self) -> Process:
        *exports, command = self.blocks[""].splitlines()
        settings = dict(re.findall(r"TILLGATE_(\w+)=(\S+)", "\n".join(exports)))
        settings |= {"database_url": self.environment["TILLGATE_DATABASE_URL"], "port": str(self.hub_port)}
        program, *arguments = command.split()
        assert program == "tillgate"
        return Process(self.directory, arguments, settings)

    @contextmanager
    def receiver(self) -> Iterator[Path]:
        said = self.directory / "receiver.out"
        with said.open("wb") as out:
            process = subprocess.Popen(
                self._program("receiver.py"), cwd=self.directory, env=self.environment, stdout=out, stderr=out
            )
        try:
            yield said
        finally:
            process.terminate()
            process.wait(10)

    def run(self, name: str) -> str:
        done = subprocess.run(
            self._program(name),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _program(self, name: str) -> list[str]:
        (self.directory / name).write_text(self.blocks[name], encoding="utf-8")
        return [sys.executable, name] if name.endswith(".py") else ["bash", "-eu", "-o", "pipefail", name]

    def exported(self, name: str) -> list[dict[str, str]]:
        with (self.directory / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    with walk.hub().start().listening() as process, walk.receiver() as heard:
        said = walk.run("walk.py")
        assert "ORDER-1 is paid\n" in said
        assert "refused: refund_not_allowed\n" in said
        assert "ORDER-1 15000000 IDR 20" in said
        wanted = re.findall(r"^verified .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(wanted) == 4
        says(heard, wanted)
        assert [row["order_id"] for row in walk.exported("payments.csv")] == ["ORDER-1"]

        said = walk.run("walk.sh")
        assert '"order_id":"ORDER-2"' in said
        says(heard, ["verified payment.paid of ORDER-2", "verified refund.succeeded of ORDER-2"])
        again = [f"verified {kind} of ORDER-2 (again)" for kind in KINDS]
        says(heard, again, judge=any)
        found = walk.exported("payments.csv")
        both = [("ORDER-1", "150000.00"), ("ORDER-2", "150000.00")]
        assert [(row["order_id"], row["amount"]) for row in found] == both
        assert all(row["created_at"].endswith("+07:00") for row in found)
        assert all(row["at"].endswith("+07:00") for row in walk.exported("postings.csv"))
        assert "refused" not in heard.read_text()

        said = walk.run("operator.sh")
        assert "delivered" in said
        found = walk.exported("operator.csv")
        assert [row["refunded_minor"] for row in found] == ["5000000", "5000000"]
        assert process.stop() == 0
        for secret in (
            "only-for-trying",
            "as-payme-gives-it-to-a-cash-desk",
            "as-click-gives-it-to-a-service",
        ):
            assert secret not in process.log
            assert secret not in said


def says(heard: Path, lines: list[str], judge: Callable[[Iterable[bool]], bool] = all) -> None:
    deadline = time.monotonic() + 15
    while not judge(line in heard.read_text().splitlines() for line in lines):
        assert time.monotonic() < deadline, heard.read_text()
        time.sleep(0.05)


def test_the_client_page_names_every_method() -> None:
    from tillgate.client import Tillgate

    page = (PAGE.parent / "client.md").read_text(encoding="utf-8")
    section = page.partition("## What it can do")[2].partition("Lists are")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert named == {name for name in dir(Tillgate) if not name.startswith("_")}
