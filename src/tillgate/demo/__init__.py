"""The demonstration: a hub and its worker in one process, used over real HTTP by a shop and by simulators.

A provider's part of the show is one module with a `Part` (see `stage`), listed in `PARTS` below."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tillgate.demo import atom, click, mobypay, payme, printing, sandbox, wallets
from tillgate.demo.scene import Came, Scene
from tillgate.demo.stage import Part, Stage
from tillgate.runtime import Runtime
from tillgate.store import audit

PARTS: Final[Mapping[str, Part]] = {
    "sandbox": sandbox.scenes,
    "payme": payme.scenes,
    "click": click.scenes,
    "atom": atom.scenes,
    "mobypay": mobypay.scenes,
    "wallets": wallets.scenes,
}
"""In the order of the table."""


async def run(
    host: str, port: int, *, leave: bool, as_json: bool, parts: Sequence[str] = tuple(PARTS)
) -> bool:
    """The show. True if every payment and the books came out as they must. Raises `Misconfigured`."""
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console.width = 120
    with tempfile.TemporaryDirectory(prefix="tillgate-demo-") as folder:
        async with Stage(host, port, Path(folder)) as stage:
            console.print(f"[bold]Tillgate[/] runs at {stage.url} on SQLite, with pretended wallets.\n")
            played = [scene for name in parts for scene in await PARTS[name](stage)]
            console.print("Taking payments…\n")
            await asyncio.gather(
                *(_play(stage, scene, f"DEMO-{number:03}") for number, scene in enumerate(played, 1))
            )
            report, books = await audit.verify(stage.runtime.database, None), await _books(stage.runtime)
            right = (
                all(one.right for one in played) and report.clean and all(one["sum"] == 0 for one in books)
            )
            if as_json:
                printing.print_json(played, books, report, right)
            else:
                printing.show(console, stage, played, books, report)
            if not leave:
                console.print("\nThe hub goes on until you press Ctrl-C.")
                await _interrupted()
    return right


async def _play(stage: Stage, scene: Scene, order_id: str) -> None:
    try:
        came = await scene.play(order_id)
    except Exception as error:  # noqa: BLE001 - a broken scene is a row of the table, not the end
        scene.came = Came("broken", f"{type(error).__name__}: {error}"[:200])
        return
    if isinstance(came, str):
        payment = await (scene.shop or stage.shop).until(came, scene.due.detail)
        callbacks = await stage.sink.until(came, scene.due.callbacks)
        came = Came(payment["status"], payment["status_detail"], callbacks, payment)
    scene.came = came


async def _books(runtime: Runtime) -> list[dict[str, Any]]:
    found = []
    for merchant in await runtime.directory.merchants():
        names = {one.id: one.name for one in merchant.accounts}
        rows: list[dict[str, Any]] = []
        sums: dict[str, int] = {}
        for account, currency, amount_minor in await runtime.kit.reads.balances(merchant.id):
            kind, _, account_id = account.partition(":")
            shown = f"{kind}:{names.get(account_id, account_id)}" if account_id else kind
            rows.append({"account": shown, "currency": currency, "amount_minor": amount_minor})
            sums[currency] = sums.get(currency, 0) + amount_minor
        # Each currency's books must balance by themselves: one off by plus, one by minus is not zero.
        found.append(
            {"merchant": merchant.name, "rows": rows, "sum": next((s for s in sums.values() if s), 0)}
        )
    return found


async def _interrupted() -> None:
    ended = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    await ended.wait()
