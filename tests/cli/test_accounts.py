"""Accounts by command: judged by their provider, sealed, never shown; and the list of providers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commands import Done
from support.serving import Client, Credentials, hub, rows

Run = Callable[..., Done]
KEY = "a-key-as-payme-gives-them-to-a-desk"
NEWER = "@nother-key-as-payme-gives-them"
PAYME = ("merchant_id=587f72c72cac0d162c722ae2",)


def said(done: Done) -> Any:
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def refused(done: Done, *words: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    for secret in (KEY, NEWER):
        assert secret not in done.stderr


@pytest.fixture
def till(tillgate: Run, database_url: str) -> Callable[..., Done]:
    """`tillgate …` on a database with two merchants."""

    def run(*arguments: str) -> Done:
        return tillgate(*arguments, database_url=database_url, sandbox=1)

    assert run("migrate").returncode == 0
    for name in ("shop", "kiosk"):
        assert run("merchant", "create", name).returncode == 0
    return run


async def test_an_account_from_its_making_to_its_end(
    till: Callable[..., Done], tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "here" / "payme.key").write_text(f"{KEY}\n")
    made = till(
        "account", "create", "payme", "main", *PAYME, "key=@payme.key", "--merchant", "shop", "--default"
    )
    assert made.returncode == 0, made
    assert "secrets     key\n" in made.stdout
    assert "default     True\n" in made.stdout
    [shown] = [one for one in said(till("account", "list", "--json")) if one["provider"] == "payme"]
    assert {name: shown[name] for name in ("merchant", "name", "state", "default", "secrets")} == {
        "merchant": "shop", "name": "main", "state": "enabled", "default": True, "secrets": ["key"],
    }  # fmt: skip
    assert shown["config"]["merchant_id"] == "587f72c72cac0d162c722ae2"
    assert shown["inbound_url"].endswith(f"/in/{shown['id']}")
    assert {one["name"] for one in said(till("account", "list", "--merchant", "kiosk", "--json"))} == {
        "sandbox"
    }

    rotated = said(till("account", "rotate", "main", f"key=@{NEWER}", "--json"))
    assert rotated["secrets"] == ["key", "previous_key"]
    assert said(till("account", "disable", shown["id"], "--json"))["state"] == "disabled"
    assert "disabled" in till("account", "list").stdout
    assert said(till("account", "enable", "main", "--json"))["state"] == "enabled"

    refused(
        till("account", "create", "payme", "main", *PAYME, f"key={KEY}", "--merchant", "shop"), "main already"
    )
    second = (*PAYME, f"key={KEY}", "--merchant", "kiosk")
    served = "serves the documented paths of payme already"
    refused(till("account", "create", "payme", "two", *second, "--default"), served)
    said(till("account", "create", "payme", "main", *PAYME, f"key={KEY}", "--merchant", "kiosk", "--json"))
    refused(till("account", "disable", "main"), "several merchants", "give its id")
    for done in (made, till("account", "list"), till("account", "list", "--json")):
        assert KEY not in done.stdout
        assert NEWER not in done.stdout
    for (kept,) in await rows(database_url, "SELECT config FROM accounts"):
        assert KEY not in str(kept)
        assert NEWER not in str(kept)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "paypal", "x"), "no such provider"),
        (("create", "payme", "a b", *PAYME, f"key={KEY}"), "name is"),
        (("create", "payme", "x", *PAYME), "key"),
        (("create", "payme", "x", *PAYME, f"key={KEY}", "colour=red"), "no setting 'colour'"),
        (("create", "payme", "x", KEY), "setting 1 is not NAME=VALUE"),
        (("create", "payme", "x", *PAYME, f"key={KEY}", f"key={NEWER}"), "key is given twice"),
        (("create", "payme", "x", *PAYME, "key=@nowhere"), "nowhere cannot be read"),
        (("create", "payme", "x", *PAYME, "key=@/dev/zero"), "too large"),
        (("create", "payme", "x", *PAYME, "key=-"), "key"),
        (("create", "payme", "x", *PAYME, f"key={KEY}", "--merchant", "nobody"), "no merchant named nobody"),
        (("rotate", "x", "key=y"), "no account named x"),
        (("rotate", "sandbox"), "give what is new"),
        (("disable", "x"), "no account named x"),
        (("enable", "acc_0"), "no account named acc_0"),
    ],
)
def test_what_cannot_be_is_one_line(
    tillgate: Run, sqlite_url: str, arguments: tuple[str, ...], words: str
) -> None:
    assert tillgate("migrate", database_url=sqlite_url).returncode == 0
    assert tillgate("merchant", "create", "default", database_url=sqlite_url, sandbox=1).returncode == 0
    refused(tillgate("account", *arguments, database_url=sqlite_url, sandbox=1), words)


def test_a_database_that_is_not_ready_is_named(tillgate: Run, sqlite_url: str) -> None:
    refused(tillgate("account", "list", database_url=sqlite_url, sandbox=1), "run: tillgate migrate")


async def test_a_running_hub_takes_a_switched_account_for_switched(
    tillgate: Run, sqlite_url: str, tmp_path: Path
) -> None:
    with hub(
        tmp_path, sqlite_url, bootstrap_api_key="shop", bootstrap_api_secret="only-for-trying"
    ) as process:

        def run(*arguments: str) -> Done:
            return tillgate(*arguments, database_url=sqlite_url, sandbox=1)

        async with Client(process.url, Credentials("shop", "only-for-trying", "", "")) as shop:
            await shop.login()
            await shop.open("A")
            assert run("account", "disable", "sandbox").returncode == 0
            await until_answered(shop, 503)
            assert run("account", "enable", "sandbox").returncode == 0
            await until_answered(shop, 201)
        assert process.stop() == 0


async def until_answered(shop: Client, status: int) -> None:
    """A process remembers its merchants for a moment."""
    deadline = time.monotonic() + 10
    while True:
        order = {
            "order_id": str(time.monotonic_ns()),
            "amount_minor": 100,
            "currency": "IDR",
            "channel": "gopay",
        }
        answer = await shop.ask("POST", "/v1/payments", order)
        if answer.status == status:
            return
        assert answer.status in (201, 503), answer
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_providers(tillgate: Run) -> None:
    listed = said(tillgate("providers", "--json"))
    assert {"payme", "click", "sandbox"} <= {one["name"] for one in listed}
    text = tillgate("providers").stdout
    assert "payme" in text
    assert "(UZS)" in text
    payme = said(tillgate("providers", "payme", "--json"))
    key = next(one for one in payme["config"] if one["name"] == "key")
    assert key["secret"] is True
    assert "/payments/payme/webhook" in tillgate("providers", "payme").stdout
    refused(tillgate("providers", "paypal"), "no provider paypal", "payme")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tillgate: Run, shell: str) -> None:
    done = tillgate("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_TILLGATE_COMPLETE" in done.stdout
    assert tillgate("completion", "cmd").returncode == 2
