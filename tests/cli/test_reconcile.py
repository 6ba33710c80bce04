"""`tillgate reconcile`: a file beside the books, findings listed and put away with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from support.commands import Done


def test_a_file_is_compared_and_what_it_finds_is_put_away(
    tillgate: Callable[..., Done], sqlite_url: str, tmp_path: Path
) -> None:
    shop = partial(tillgate, database_url=sqlite_url, sandbox=1)
    assert shop("migrate").returncode == 0
    assert shop("merchant", "create", "shop").returncode == 0
    file = tmp_path / "day.csv"
    file.write_text("\ufeffTxn;Gross;What\nS-1;70000.00;SALE\nS-2;1.00;FEE\n", encoding="utf-8")
    about = ["--account", "sandbox", "--day", "2000-01-01", "--merchant", "shop"]
    run = ["reconcile", "run", *about, "--file", str(file), "--currency", "IDR", "--pass-over", "FEE"]
    run += ["--column", "external_id=Txn", "--column", "amount=Gross", "--column", "kind=What"]
    run += ["--kind", "SALE=payment"]

    first = shop(*run, "--json")
    assert (first.returncode, json.loads(first.stdout)["findings"]) == (1, {"missing_here": 1})
    again = shop(*run)
    assert (again.returncode, "0 new findings" in again.stdout) == (0, True)  # known already
    [found] = json.loads(shop("reconcile", "findings", "--merchant", "shop", "--json").stdout)
    assert (found["external_id"], found["theirs"], found["ours"]) == ("S-1", 7_000_000, None)
    reason = ["--reason", "of another till", "--merchant", "shop"]
    assert shop("reconcile", "resolve", found["id"], *reason).returncode == 0
    assert "nothing to look at" in shop("reconcile", "findings", "--merchant", "shop").stdout
    [kept] = json.loads(shop("reconcile", "findings", "--merchant", "shop", "--json", "--all").stdout)
    assert kept["reason"] == "of another till"

    for wrong, said in (
        (["reconcile", "run", *about[:2], "--day", "today", *about[4:]], "--day"),
        (["reconcile", "run", *about], "give a file"),
        ([*run, "--file", str(tmp_path / "none.csv")], "none.csv"),
        ([*run, "--kind", "SALE"], "--kind"),
        (["reconcile", "resolve", "fnd_none", *reason], "no such finding"),
        (["reconcile", "run", "--account", "nobody", *about[2:]], "no account nobody"),
    ):
        done = shop(*wrong)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False), done
