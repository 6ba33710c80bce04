"""The kiosk as the process that users start, so that it can be talked to, typed at and killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import RawTerminal

TOKEN = "control-token-of-at-least-thirty-two-characters"
COMMAND = (sys.executable, "-m", "tillgate.commands.kiosk")


def environment(**more: str) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")}
    return {**keep, "TILLGATE_KIOSK_SECRET": oracle.SECRET, "TILLGATE_KIOSK_TOKEN": TOKEN, **more}


class KioskProcess:
    """`tillgate kiosk --json` on a journal, with its control API."""

    def __init__(self, process: asyncio.subprocess.Process, events: list[dict], port: int, control_port: int):
        self.process, self.events, self.port = process, events, port
        self.http = aiohttp.ClientSession(
            f"http://127.0.0.1:{control_port}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        self.terminals: list[RawTerminal] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, journal: Path, *options: str, menu: bool = False) -> "KioskProcess":
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "kiosk", "--json", *(() if menu else ("--no-menu",)),
            "--host", "127.0.0.1", "--port", "0",
            "--control", "127.0.0.1:0", "--journal", str(journal), *options,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(),
        )  # fmt: skip
        assert process.stdout is not None
        events: list[dict] = []
        async with asyncio.timeout(30):
            while not events or events[-1]["type"] != "listening":
                line = await process.stdout.readline()
                assert line, f"the kiosk did not start: {events}"
                events.append(json.loads(line))
        return cls(process, events, events[-1]["port"], events[-1]["control_port"])

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.events.append(json.loads(line))

    async def terminal(self, pos_id: str | None = "POS001") -> RawTerminal:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.terminals.append(RawTerminal(reader, writer, pos_id, oracle.SECRET))
        return self.terminals[-1]

    async def type(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        await self.process.stdin.drain()

    async def until(self, true: Callable[[dict], object], within_s: float = 30) -> dict:
        """The first event, old or new, that is wanted."""
        async with asyncio.timeout(within_s):
            while True:
                for event in self.events:
                    if true(event):
                        return event
                await asyncio.sleep(0.01)

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> dict:
        async with self.http.request(method, path, json=body, headers=headers) as reply:
            return await reply.json(content_type=None)

    async def pay(self, amount: str = "50.00", **more: str) -> dict:
        key = {"Idempotency-Key": more.pop("key")} if "key" in more else {}
        async with asyncio.timeout(30):
            while True:
                answer = await self.call(
                    "POST", "/payments", {"mode": "card", "amount": amount, **more}, **key
                )
                if answer.get("code") != "no_terminal":
                    return answer
                await asyncio.sleep(0.02)

    async def state(self, txn_id: str, state: str = "", within_s: float = 30) -> str:
        async with asyncio.timeout(within_s):
            while True:
                found = (await self.call("GET", f"/payments/{txn_id}")).get("state", "")
                if state in ("", found):
                    return str(found)
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody says good-bye."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        await self._gone()
        return self.process.returncode or 0

    async def _gone(self) -> None:
        async with asyncio.timeout(30):
            await self.process.wait()
            await self._reading
        await self.http.close()

    def hang_up(self) -> None:
        for terminal in self.terminals:
            terminal.pull_the_plug()
