"""Backups: of a hub at work, whole and provable; restored where nothing is lost by it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commands import Done
from support.serving import Client, Credentials, hub, rows
from tillgate.client import Tillgate

Run = Callable[..., Done]
KEY, SECRET = "shop", "only-for-trying"


def said(done: Done) -> Any:
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def refused(done: Done, *words: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


async def test_a_copy_of_a_busy_hub_is_whole_and_comes_back(tillgate: Run, tmp_path: Path) -> None:
    here = tmp_path / "here"
    database = here / "a till #1.db"  # no character of a name is taken for something else
    url = f"sqlite:///{database}"
    till_settings = {"database_url": url, "sandbox": 1}
    payme = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}
    with hub(tmp_path, url, bootstrap_api_key=KEY, bootstrap_api_secret=SECRET) as process:
        async with Tillgate(process.url, KEY, SECRET) as till:
            await till.create_account("payme", "main", payme)
            opened, stop = [], asyncio.Event()

            async def trade(name: str) -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    made = await till.create_payment(
                        order_id=f"{name}-{number}", amount_minor=100, currency="IDR", channel="gopay"
                    )
                    opened.append(made.id)

            tills = [asyncio.create_task(trade(str(number))) for number in range(8)]
            while len(opened) < 200:
                await asyncio.sleep(0.01)
            before = set(opened)
            made = said(await asyncio.to_thread(tillgate, "backup", "copies", "--json", **till_settings))
            meanwhile = len(opened) - len(before)
            stop.set()
            await asyncio.gather(*tills)
        refused(
            await asyncio.to_thread(tillgate, "restore", made["path"], **till_settings), "--force replaces it"
        )
        refused(
            await asyncio.to_thread(tillgate, "restore", made["path"], "--force", **till_settings),
            "a hub is running on",
        )
        assert process.stop() == 0
    assert meanwhile > 0  # it went on trading
    copy = here / made["path"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(one.name for one in (here / "copies").iterdir()) == [copy.name, f"{copy.name}.json"]
    connection = sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)
    found = {one for (one,) in connection.execute("SELECT id FROM payments")}
    connection.close()
    assert before <= found
    assert len(found) == made["rows"]["payments"]
    assert payme["key"].encode() not in copy.read_bytes()

    done = tillgate("restore", made["path"], "--force", **till_settings)
    assert done.returncode == 0, done
    [kept] = here.glob("*.db.before-*")
    assert str(kept) in done.stdout
    assert len(await rows(f"sqlite:///{kept}", "SELECT id FROM payments")) == len(opened)
    assert tillgate("ledger", "verify", **till_settings).returncode == 0
    with hub(tmp_path, url) as process:
        async with Client(process.url, Credentials(KEY, SECRET, "", "")) as shop:
            await shop.login()
            accounts = (await shop.ask("GET", "/v1/accounts")).json["data"]
            assert "main" in {one["name"] for one in accounts}
            assert await shop.open("after the restore")
        assert process.stop() == 0

    elsewhere = {"database_url": f"sqlite:///{here}/new.db"}
    assert said(tillgate("restore", made["path"], "--json", **elsewhere))["kept"] is None
    assert len(await rows(elsewhere["database_url"], "SELECT id FROM payments")) == len(found)


def test_what_cannot_be_proven_is_not_restored(tillgate: Run, tmp_path: Path, sqlite_url: str) -> None:
    assert tillgate("migrate", database_url=sqlite_url).returncode == 0
    here = tmp_path / "here"
    made = said(tillgate("backup", "--json", database_url=sqlite_url))
    copy = here / made["path"]
    manifest = copy.with_name(f"{copy.name}.json")
    target = {"database_url": f"sqlite:///{here}/new.db"}

    whole, words = copy.read_bytes(), manifest.read_text()
    for change, expected in (
        (lambda: copy.write_bytes(whole[:-1]), "changed or cut"),
        (lambda: copy.write_bytes(whole[:100] + b"x" + whole[101:]), "changed or cut"),
        (lambda: manifest.write_text("{}"), "manifest"),
        (lambda: manifest.write_text(words.replace('"format": 1', '"format": 9')), "format 9"),
        (lambda: manifest.write_text(words.replace(made["revision"], "0123456789ab")), "does not know"),
        (manifest.unlink, "cannot be read"),
        (copy.unlink, "cannot be read"),
    ):
        copy.write_bytes(whole)
        manifest.write_text(words)
        change()
        refused(tillgate("restore", str(copy), **target), expected)
        assert not (here / "new.db").exists()
    assert list(here.glob(".*")) == []


def test_a_damaged_database_is_no_hindrance(tillgate: Run, tmp_path: Path, sqlite_url: str) -> None:
    """What one restores for: the file that is there is none any more. It is kept all the same."""
    assert tillgate("migrate", database_url=sqlite_url).returncode == 0
    made = said(tillgate("backup", "--json", database_url=sqlite_url))
    (tmp_path / "x.db").write_bytes(b"no database at all" * 1000)
    assert said(tillgate("restore", made["path"], "--force", "--json", database_url=sqlite_url))["kept"]
    assert tillgate("merchant", "list", database_url=sqlite_url, sandbox=1).returncode == 0
    refused(tillgate("backup", database_url=f"sqlite:///{tmp_path}/none.db"), "no database file")
    (tmp_path / "x.db").write_bytes(b"no database at all" * 1000)
    refused(tillgate("backup", database_url=sqlite_url), "the backup was not made")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_postgresql_has_its_own(tillgate: Run, command: str) -> None:
    url = "postgresql://till:pass-that-nobody-says@127.0.0.1:1/till"
    arguments = ("copy.db",) if command == "restore" else ()
    done = tillgate(command, *arguments, database_url=url)
    refused(done, "pg_dump", "pg_restore")
    assert "pass-that-nobody-says" not in done.stderr
