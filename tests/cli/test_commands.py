"""The command line as processes: what it says, what it returns, and that a mistake is one clear line."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from support.commands import Done
from support.serving import Credentials, Process, client, hub, rows
from tillgate.cli import app

COMMANDS = [
    "demo", "up", "worker", "migrate", "merchant create", "merchant list", "merchant rotate",
    "merchant webhook-secret", "ledger verify", "ledger balances", "events", "qr decode", "qr lint",
    "qr encode",
]  # fmt: skip
Run = Callable[..., Done]
GOOD_KEY = "f3a9c41d2b7e8056" * 4


def one_line(done: Done, *expected: str, code: int = 1) -> str:
    """A mistake: this exit code, and one line on standard error that names what is wrong."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tillgate: ")
    for text in expected:
        assert text in lines[0]
    return lines[0]


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(group, click.Group) or hasattr(group, "commands"):
        for name, one in group.commands.items():  # type: ignore[attr-defined]
            yield from commands(one, (*path, name))
    yield path


def test_every_command_explains_itself() -> None:
    found = [" ".join(path) for path in commands(get_command(app))]
    assert set(COMMANDS) <= set(found)
    for path in found:
        for option in ("--help", "-h"):
            done = CliRunner().invoke(app, [*path.split(), option])
            assert done.exit_code == 0, (path, done.output)
            assert "Usage: " in done.output
            assert len(done.output.split("Usage: ")[1].split("\n\n")) > 1, path


def test_help_is_at_once(tmp_path: Path) -> None:
    """Whoever asks for help waits for nothing that only a running hub needs."""
    heavy = ["fastapi", "sqlalchemy", "aiohttp", "uvicorn", "alembic", "cryptography", "pydantic"]
    code = f"import sys, tillgate.cli; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_command_and_no_such_command(tillgate: Run) -> None:
    assert "Usage: " in tillgate().stdout
    for arguments in (["nope"], ["merchant", "nope"], ["up", "--nope"], ["up", "--port", "x"]):
        done = tillgate(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    done = tillgate("--version")
    assert (done.returncode, done.stdout[:9]) == (0, "tillgate ")


def test_migrate(tillgate: Run, empty_database_url: str) -> None:
    url = {"database_url": empty_database_url}
    done = tillgate("migrate", "--check", "--json", **url)
    assert done.returncode == 1
    assert json.loads(done.stdout)["before"] is None
    done = tillgate("merchant", "list", sandbox=1, **url)
    one_line(done, "tillgate migrate")
    done = tillgate("migrate", **url)
    assert (done.returncode, done.stdout[:12]) == (0, "Migrated to ")
    done = tillgate("migrate", **url)
    assert (done.returncode, done.stdout) == (0, "The database is up to date.\n")
    done = tillgate("migrate", "--check", "--json", **url)
    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert said["before"] == said["after"] == said["wanted"]


def test_the_database_is_named_by_option_too(tillgate: Run, tmp_path: Path) -> None:
    assert tillgate("migrate", "--database", "sqlite:///named.db").returncode == 0
    assert (tmp_path / "here" / "named.db").exists()
    assert not (tmp_path / "here" / "tillgate.db").exists()


def test_merchants(tillgate: Run, database_url: str) -> None:
    given: dict[str, object] = {"database_url": database_url, "secret_key": GOOD_KEY}
    assert tillgate("migrate", **given).returncode == 0
    done = tillgate("merchant", "list", **given)
    assert (done.returncode, done.stdout) == (
        0,
        "There are no merchants yet. Make one: tillgate merchant create NAME\n",
    )
    done = tillgate("merchant", "create", "Warung Kopi 88", "--json", **given)
    made = json.loads(done.stdout)
    assert list(made) == ["merchant_id", "api_key", "api_secret", "webhook_secret"]
    assert made["merchant_id"].startswith("mer_")
    assert len(made["api_secret"]) >= 40
    assert made["webhook_secret"].startswith("whsec_")
    done = tillgate("merchant", "create", "Toko Dua", **given)
    assert re.search(r"^api_secret +\S{40,} +\(shown once: keep it now\)$", done.stdout, re.MULTILINE)

    one_line(tillgate("merchant", "create", "Toko Dua", **given), "Toko Dua", "already")
    for name in ("", "  ", "x" * 101, "a\nb"):
        one_line(tillgate("merchant", "create", name, **given), "1 to 100 printable characters")

    listed = json.loads(tillgate("merchant", "list", "--json", **given).stdout)
    found = {one["name"]: (one["id"], one["state"]) for one in listed}
    assert found["Warung Kopi 88"] == (made["merchant_id"], "active")
    table = tillgate("merchant", "list", **given).stdout
    assert "Warung Kopi 88" in table
    assert made["api_secret"] not in table
    shown = tillgate("merchant", "webhook-secret", "Warung Kopi 88", **given).stdout
    assert shown == made["webhook_secret"] + "\n"

    rotated = json.loads(tillgate("merchant", "rotate", made["merchant_id"], "--json", **given).stdout)
    assert rotated["merchant_id"] == made["merchant_id"]
    assert rotated["api_key"] != made["api_key"]
    for name in ("nobody", "mer_0", "mer_"):
        one_line(tillgate("merchant", "rotate", name, **given), "no", "merchant")
    # A key that sealed nothing here opens nothing here.
    done = tillgate("merchant", "list", **{**given, "secret_key": GOOD_KEY[::-1]})
    one_line(done, "TILLGATE_SECRET_KEY")


async def test_a_rotated_key(tillgate: Run, tmp_path: Path, sqlite_url: str) -> None:
    """The old key goes on for as long as was said, and tokens made with it end with it."""
    with hub(tmp_path, sqlite_url) as process:
        given: dict[str, object] = {"database_url": sqlite_url, "sandbox": 1}

        def credentials(*arguments: str) -> Credentials:
            made = json.loads(tillgate(*arguments, "--json", **given).stdout)
            return Credentials(made["api_key"], made["api_secret"], made["merchant_id"], "")

        first = await asyncio.to_thread(credentials, "merchant", "create", "shop")
        async with client(process.url, first) as shop:
            second = await asyncio.to_thread(credentials, "merchant", "rotate", "shop")
            assert (await shop.ask("GET", "/wallets")).status == 200
            async with client(process.url, first) as again:
                assert again.token
            async with client(process.url, second) as new:
                await asyncio.to_thread(credentials, "merchant", "rotate", "shop", "--overlap-h", "0")
                await asyncio.sleep(2.2)  # what another process changed is seen after two seconds
                assert (await new.ask("GET", "/wallets")).status == 401
                body = {"api_key": second.api_key, "api_secret": second.api_secret}
                assert (await new.ask("POST", "/token", body)).status == 401


async def test_events_and_books(tillgate: Run, tmp_path: Path, database_url: str) -> None:
    given: dict[str, object] = {"database_url": database_url, "sandbox": 1}

    def run(*arguments: str) -> Any:
        done = tillgate(*arguments, "--json", **given)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    settings = {"bootstrap_api_key": "till", "bootstrap_api_secret": "s"}
    with hub(tmp_path, database_url, **settings) as process:
        async with client(process.url, Credentials("till", "s", "", "")) as shop:
            paid = await shop.paid(1000)
            await shop.refund(paid, 400)
            await shop.until(paid, refunded_amount=400)
            await shop.act(await shop.open(), "fail")
        # While the hub runs, beside it.
        events = await asyncio.to_thread(run, "events")
        assert [one["type"] for one in events] == [
            "payment.pending", "payment.paid", "refund.created", "refund.pending", "refund.succeeded",
            "payment.pending", "payment.failed",
        ]  # fmt: skip
        assert [one["seq"] for one in events] == [1, 2, 3, 4, 5, 6, 7]
        assert len(await asyncio.to_thread(run, "events", "--after", "5")) == 2
        assert [one["seq"] for one in await asyncio.to_thread(run, "events", "--limit", "1")] == [1]
        balances = await asyncio.to_thread(run, "ledger", "balances")
        assert sum(one["amount_minor"] for one in balances) == 0
        assert {one["account"]: one["amount_minor"] for one in balances if one["amount_minor"]} == {
            "merchant": 60_000,
            "provider:sandbox": -60_000,
        }
        report = await asyncio.to_thread(run, "ledger", "verify")
        assert report
        assert process.stop() == 0
    for arguments in (["events"], ["ledger", "balances"], ["ledger", "verify"]):
        done = tillgate(*arguments, **given)
        assert done.returncode == 0
        assert done.stdout.strip()
        one_line(tillgate(*arguments, "--merchant", "nobody", **given), "nobody")
    await rows(database_url, "UPDATE payments SET paid_minor = paid_minor + 1 WHERE paid_minor > 0")
    done = tillgate("ledger", "verify", **given)
    assert done.returncode == 1
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_events_and_books_of_nobody(tillgate: Run) -> None:
    given: dict[str, object] = {"sandbox": 1}
    assert tillgate("migrate", **given).returncode == 0
    assert tillgate("events", **given).stdout == "Nothing has happened yet.\n"
    assert tillgate("ledger", "balances", **given).stdout.startswith("The books are empty")
    assert tillgate("events", "--json", **given).stdout == "[]\n"
    assert tillgate("ledger", "verify", **given).returncode == 0


WRONG: dict[str, tuple[Mapping[str, object], str]] = {
    "no key": ({}, "TILLGATE_SECRET_KEY is not set"),
    "published key": (
        {"secret_key": "sandbox-only-this-key-is-published-never-use-it-for-money"},
        "TILLGATE_SECRET_KEY is weak",
    ),
    "a word": ({"secret_key": "secret"}, "TILLGATE_SECRET_KEY is weak"),
    "short": ({"secret_key": GOOD_KEY[:31]}, "TILLGATE_SECRET_KEY is weak"),
    "one letter": ({"secret_key": "a" * 64}, "TILLGATE_SECRET_KEY is weak"),
    "blank": ({"secret_key": " " * 64}, "TILLGATE_SECRET_KEY"),
    "weak older key": (
        {"secret_key": GOOD_KEY, "secret_key_previous": "secret"},
        "TILLGATE_SECRET_KEY_PREVIOUS",
    ),
    "weak API secret": (
        {"secret_key": GOOD_KEY, "bootstrap_api_key": "k", "bootstrap_api_secret": "s"},
        "TILLGATE_BOOTSTRAP_API_SECRET is weak",
    ),
    "half a pair": ({"secret_key": GOOD_KEY, "bootstrap_api_key_2": "k"}, "TILLGATE_BOOTSTRAP_API_KEY_2"),
    "no such file": ({"secret_key_file": "/nonexistent/key"}, "/nonexistent/key"),
    "port": ({"secret_key": GOOD_KEY, "port": "http"}, "TILLGATE_PORT"),
    "port too large": ({"secret_key": GOOD_KEY, "port": 70000}, "TILLGATE_PORT"),
    "rate": ({"secret_key": GOOD_KEY, "rate_limit": -1}, "TILLGATE_RATE_LIMIT"),
    "log level": ({"secret_key": GOOD_KEY, "log_level": "loud"}, "TILLGATE_LOG_LEVEL"),
    "allow": ({"secret_key": GOOD_KEY, "callback_allow": "everything"}, "TILLGATE_CALLBACK_ALLOW"),
    "database": ({"secret_key": GOOD_KEY, "database_url": "mysql://localhost/x"}, "database URL"),
    "database folder": ({"secret_key": GOOD_KEY, "database_url": "sqlite:////nonexistent/x.db"}, "database"),
    "database away": (
        {"secret_key": GOOD_KEY, "database_url": "postgresql://u:pass-word@127.0.0.1:1/x"},
        "database",
    ),
    "host": ({"secret_key": GOOD_KEY, "host": "no.such.host.invalid"}, "no.such.host.invalid"),
    "host not here": ({"secret_key": GOOD_KEY, "host": "192.0.2.1"}, "192.0.2.1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_up_refuses_in_one_line(tillgate: Run, name: str) -> None:
    settings, expected = WRONG[name]
    line = one_line(tillgate("up", **{"port": 0, **settings}), expected)
    for value in settings.values():
        if "secret" in name or "key" in name or value == GOOD_KEY:
            assert str(value) not in line or len(str(value)) < 8
    assert "pass-word" not in line


@pytest.mark.parametrize("name", ["no key", "published key", "weak API secret", "database away"])
def test_a_worker_refuses_alike(tillgate: Run, name: str) -> None:
    settings, expected = WRONG[name]
    one_line(tillgate("worker", **settings), expected)


def test_several_mistakes_are_all_told(tillgate: Run) -> None:
    done = tillgate("up", port="x", rate_limit="y", secret_key=GOOD_KEY)
    assert done.returncode == 1
    assert "TILLGATE_PORT" in done.stderr
    assert "TILLGATE_RATE_LIMIT" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo(tillgate: Run, tmp_path: Path) -> None:
    other = Process(tmp_path, ["demo", "--exit", "--port", "0", "--json"]).start()
    done = tillgate("demo", "--exit", "--port", "0")
    assert done.returncode == 0, done
    assert "✗" not in done.stdout
    assert "balanced" in done.stdout
    assert "curl" in done.stdout
    assert done.stderr == ""
    assert other.wait() == 0
    said = json.loads("{" + other.log.partition("\n{")[2])
    assert said["right"] is True
    assert len(said["payments"]) >= 8
    assert [one["title"] for one in said["payments"] if not one["right"]] == []
    assert {books["sum"] for books in said["books"]} == {0}
    assert list((tmp_path / "here").iterdir()) == []  # it leaves nothing behind
