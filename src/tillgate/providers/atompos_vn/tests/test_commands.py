"""`tillgate simulate atompos` and `tillgate ipn` as a person runs them; the hub's function fails."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tillgate.http.app import create_app
from tillgate.runtime import Runtime
from tillgate.settings import Settings

from .conftest import serving


async def tillgate(*arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tillgate", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_sale_is_paid_and_a_dead_letter_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_hook.py").write_text(
        "ran = []\ndef process_ipn(ipn):\n    ran.append(ipn)\n    1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tillgate.hub.handing.TRIES", 1)
    url = f"sqlite:///{tmp_path}/hub.db"
    app = create_app(Settings(database_url=url, sandbox=True, process_ipn="failing_hook:process_ipn"))
    async with serving(app) as [hub]:
        runtime: Runtime = app.state.runtime
        made = await runtime.create_merchant("shop")
        account = await runtime.directory.create_account(
            made.merchant_id, "atompos_vn", "till", {"auth": "path"}, runtime.kit.clock()
        )
        sale = ("simulate", "atompos", "--ipn-url", f"{hub}/in/{account}", "--sale", "HD-1:5000", "--json")
        code, said = await tillgate(*sale, "--fault", "copies=3")
        assert (code, [one["status"] for one in json.loads(said)]) == (0, [200, 200, 200])
        for _ in range(600):
            if runtime.hub.handing and await runtime.kit.reads.due_of("buried", made.merchant_id):
                break
            await asyncio.sleep(0.05)
        place = ("--database", url, "--sandbox")
        code, said = await tillgate("ipn", "dead", *place, "--json")
        [dead] = json.loads(said)
        assert (code, dead["merchant"], dead["tries"]) == (0, "shop", 1)
        code, said = await tillgate("ipn", "replay", dead["message"], *place)
        assert (code, "tried again" in said) == (0, True)
        others = await asyncio.gather(
            tillgate("ipn", "replay", "in_nothing", *place),
            tillgate("simulate", "atompay", "--fault", "list"),
            tillgate("simulate", "atompos", "--fault", "nonsense"),
        )
        assert [code for code, _ in others] == [1, 0, 2]
