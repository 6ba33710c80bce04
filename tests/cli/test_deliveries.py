"""Deliveries, listening and exports by command, beside a hub that runs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.commands import Done
from support.postgres import free_port
from support.serving import Process, hub
from support.sink import Sink, sink
from tillgate.client import Tillgate, verify_event

KEY, SECRET = "shop", "only-for-trying"


@dataclass
class Scene:
    process: Process
    till: Tillgate
    ear: Sink
    run: Callable[..., Done]

    async def command(self, *arguments: str) -> Done:
        return await asyncio.to_thread(self.run, *arguments)

    async def said(self, *arguments: str) -> Any:
        done = await self.command(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout)

    async def paid(self, order_id: str) -> str:
        made = await self.till.create_payment(
            order_id=order_id, amount_minor=1_000_000, currency="IDR", channel="gopay"
        )
        return (await self.till.play(made.id, "pay")).id


@pytest.fixture
async def scene(tillgate: Callable[..., Done], sqlite_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    port = free_port()
    async with sink(port) as ear:
        with hub(
            tmp_path, sqlite_url, bootstrap_api_key=KEY, bootstrap_api_secret=SECRET,
            callback_allow=f"127.0.0.1:{port}",
        ) as process:  # fmt: skip
            async with Tillgate(process.url, KEY, SECRET) as till:

                def run(*arguments: str) -> Done:
                    return tillgate(*arguments, database_url=sqlite_url, sandbox=1)

                yield Scene(process, till, ear, run)
            assert process.stop() == 0


async def test_what_was_sent_is_listed_and_sent_again(scene: Scene) -> None:
    assert "Nothing was sent yet" in (await scene.command("deliveries", "list")).stdout
    endpoint = await scene.till.create_endpoint(scene.ear.url, ["payment.paid"])
    for order in ("A", "B", "C"):
        await scene.paid(order)
    await scene.ear.until(3)
    await until(lambda: delivered(scene, 3))
    listed = await scene.said("deliveries", "list")
    assert [one["status"] for one in listed] == ["delivered"] * 3
    assert {one["url"] for one in listed} == {scene.ear.url}
    assert listed == sorted(listed, key=lambda one: -one["event"])
    assert await scene.said("deliveries", "list", "--status", "failed") == []
    assert len(await scene.said("deliveries", "list", "--limit", "2", "--merchant", "default")) == 2
    text = (await scene.command("deliveries", "list")).stdout
    assert all(one["id"] in text for one in listed)

    again = await scene.said("deliveries", "resend", listed[-1]["id"])
    assert again["event"] == listed[-1]["event"]
    await scene.ear.until(4)
    assert scene.ear.got[3].id == scene.ear.got[0].id
    assert scene.ear.got[3].body == scene.ear.got[0].body
    done = await scene.command("deliveries", "resend", "--endpoint", endpoint.id)
    assert done.stdout == "0 deliveries are on their way\n"
    everything = await scene.said("deliveries", "resend", "--endpoint", endpoint.id, "--everything")
    assert everything == {"replayed": 3}
    await scene.ear.until(7)
    late = ("--everything", "--since", "2099-01-01T00:00:00Z")
    assert await scene.said("deliveries", "resend", "--endpoint", endpoint.id, *late) == {"replayed": 0}

    await scene.till.disable_endpoint(endpoint.id)
    for arguments, words in (
        (("resend",), "give the id of a delivery, or --endpoint"),
        (("resend", listed[0]["id"], "--endpoint", endpoint.id), "give the id of a delivery, or --endpoint"),
        (("resend", listed[0]["id"], "--everything"), "go with --endpoint"),
        (("resend", "dlv_0"), "no such delivery"),
        (("resend", "--endpoint", "we_0"), "no such webhook endpoint"),
        (("resend", "--endpoint", endpoint.id, "--since", "today"), "since is a time"),
        (("resend", "--endpoint", endpoint.id), "disabled"),
        (("resend", listed[0]["id"]), "disabled"),
        (("list", "--status", "lost"), "--status is one of pending, delivered, failed"),
        (("list", "--merchant", "nobody"), "no merchant named nobody"),
    ):
        refused(await scene.command("deliveries", *arguments), words)

    payments = (await scene.command("export", "payments", "--tz", "Asia/Tashkent")).stdout
    lines = list(csv.DictReader(io.StringIO(payments, newline="")))
    assert [one["order_id"] for one in lines] == ["A", "B", "C"]
    assert all(one["paid_at"].endswith("+05:00") for one in lines)
    assert await scene.said("export", "payments", "--tz", "Asia/Tashkent") == lines
    made = await scene.said("export", "postings", "--output", "books.csv")
    assert made["rows"] == len([one async for one in scene.till.postings()])
    assert made["path"] == "books.csv"
    assert await scene.said("export", "payments", "--from", "2099-01-01") == []
    assert len(await scene.said("export", "payments", "--to", "2099-01-01", "--status", "paid")) == 3
    for arguments, words in (
        (("payments", "--tz", "Mars"), "--tz is a time zone"),
        (("payments", "--from", "yesterday"), "--from is a date"),
        (("payments", "--status", "happy"), "--status is one of"),
        (("postings", "--merchant", "nobody"), "no merchant named nobody"),
        (("postings", "--output", "no/where.csv"), "no/where.csv cannot be written"),
    ):
        refused(await scene.command("export", *arguments), words)


def refused(done: Done, *words: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


async def delivered(scene: Scene, count: int) -> bool:
    return len([one async for one in scene.till.deliveries(status="delivered")]) == count


async def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_events_are_brought_to_a_developers_machine(scene: Scene, tmp_path: Path) -> None:
    before = await scene.paid("A")
    settings = {"api_key": KEY, "api_secret": SECRET, "url": scene.process.url}
    scene.ear.answer = lambda callback: 500 if callback.number == 1 and len(scene.ear.got) == 1 else 204
    listening = ["listen", "--forward-to", scene.ear.url, "--type", "payment.*"]
    with Process(tmp_path, listening, settings).start() as process:
        secret = (await asyncio.to_thread(process.says, r"verifies them with (whsec_\S+)"))[1]
        paid = await scene.paid("B")
        await scene.ear.until(2)  # created and paid
        events = [verify_event([secret], one.headers, one.body) for one in scene.ear.got]
        assert {one.data.payment.id for one in events if one.data.payment} == {paid}
        assert before not in process.log
        assert events[-1].type == "payment.paid"
        process.says(r"payment\.paid +→ 204")
        process.says(r"→ 500 .* ms  answer 1")
        assert SECRET not in process.log
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0

    since = [
        "listen",
        "--forward-to",
        scene.ear.url,
        "--since",
        "0",
        "--once",
        "--type",
        "payment.paid",
        "--json",
    ]
    with Process(tmp_path, since, settings | {"webhook_secret": secret}).start() as process:
        assert await asyncio.to_thread(process.wait) == 0
        shown = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    assert [one["type"] for one in shown] == ["payment.paid"] * 2
    assert [one["status"] for one in shown] == [204, 204]
    assert secret not in process.log
    assert [verify_event([secret], one.headers, one.body).number for one in scene.ear.got[-2:]] == [
        one["number"] for one in shown
    ]


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("--forward-to", "localhost:3000"), {}, "--forward-to is an http"),
        (("--forward-to", "http://127.0.0.1:9"), {"api_key": ""}, "give --api-key and --api-secret"),
        (("--forward-to", "http://127.0.0.1:9", "--type", "cash.*"), {}, "no events of type"),
        (("--forward-to", "http://127.0.0.1:9", "--secret", "short"), {}, "webhook secret"),
        (("--forward-to", "http://127.0.0.1:9", "--url", "till"), {}, "--url is the hub's address"),
    ],
)
def test_listening_to_nothing(
    tillgate: Callable[..., Done], arguments: tuple[str, ...], settings: dict[str, str], words: str
) -> None:
    done = tillgate("listen", *arguments, **{"api_key": KEY, "api_secret": SECRET, **settings})
    assert done.returncode == 1
    assert re.search(f"^tillgate: .*{re.escape(words)}", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


def test_listening_to_a_hub_that_is_away(tillgate: Callable[..., Done], tmp_path: Path) -> None:
    del tmp_path
    nowhere = ("--url", "http://127.0.0.1:1", "--forward-to", "http://127.0.0.1:9", "--once")
    done = tillgate("listen", *nowhere, api_key=KEY, api_secret=SECRET)
    assert done.returncode == 1
    assert "did not answer" in done.stderr
