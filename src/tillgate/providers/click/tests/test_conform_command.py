"""`tillgate conform click` as a process: the command of the page, what it says, its exit code."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[5] / "docs" / "click.md").read_text(encoding="utf-8")


async def shell(text: str) -> tuple[int, str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "CLICK_SECRET_KEY": "TEST-click-secret"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_shell(text, stdout=pipe, stderr=pipe, env=env)
    out, error = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), error.decode()


@pytest.fixture
async def served(till: Any) -> AsyncIterator[Any]:
    for n in range(101, 131):
        till.order(str(n), 1_500_000)
    async with till.serve() as url:
        till.url = url
        yield till


def command(url: str) -> str:
    (found,) = re.findall(r"^    (tillgate conform click .*\n        .*)$", PAGE, re.MULTILINE)
    return found.replace("https://shop.example/payments/click", url)


async def test_the_page_s_command_judges_an_endpoint(served: Any) -> None:
    code, out, error = await shell(command(served.url))
    assert (code, error) == (0, "")
    assert out.endswith(f"\nClick SHOP API at {served.url}: 68 passed\n")
    assert out.count("matrix.01") == 1  # said as it ends, and not once more
    assert "\nthe official matrix\n" in f"\n{out}"


async def test_with_too_few_orders_the_exit_code_is_no_success(served: Any) -> None:
    code, out, error = await shell(command(served.url).replace("seq 101 130", "seq 101 110"))
    assert (code, error) == (1, "")
    assert re.search(r": \d+ passed, \d+ not judged\n", out)
    assert "need more fresh orders than were named" in out
    assert "  -o order=…  an unpaid order as REFERENCE:SOM; 30 one-time orders" in out


async def test_a_broken_rule_is_told_once_with_its_source_and_what_was_said(served: Any) -> None:
    del served.payments["101"]
    code, out, error = await shell(command(served.url) + " --only matrix.03")
    assert (code, error) == (1, "")
    assert out.count("rule: Click, testing: the Postman matrix, scenario 3") == 1
    assert "found: answered -5, not 0\n" in out
    assert out.endswith("1 failed\nFailed: matrix.03\n")
    assert "TEST-click-secret" not in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("callback --url http://127.0.0.1:9/ --key x", "--key: callback has no such option"),
        ("click --url http://127.0.0.1:9/ --secret x", "--secret: click has no such option"),
        ("click --url http://127.0.0.1:9/ --key env:NOWHERE", "key: the service's SECRET_KEY is needed"),
    ],
)
async def test_a_key_that_is_none_is_a_mistake_of_usage(arguments: str, why: str) -> None:
    code, out, error = await shell(f"tillgate conform {arguments}")
    assert (code, out) == (2, "")
    assert error.startswith(f"tillgate: {why}\n")
