"""The virtual terminal's keypad for a shell: one key and Enter, or lines from a pipe."""

import asyncio
import sys
import threading
from typing import Any, Final

from tillgate.providers.mobypay.simulator import ACTIONS, VirtualTerminal

KEYS: Final = {
    "a": "approve", "d": "decline", "u": "user_abort", "p": "offer_plans", "t": "time_out",
    "x": "pull_plug", "e": "pull_plug_error", "c": "pull_plug_paid", "l": "answer_late", "2": "answer_twice",
    "w": "wrong_amount", "o": "unlisted", "b": "conflict", "f": "forged",
}  # fmt: skip


async def run_shell(terminal: VirtualTerminal, screen: Any) -> None:
    """Until `q`. At the end of a pipe the terminal goes on by itself."""
    for key, action in KEYS.items():
        screen.line(f"  {key}  {ACTIONS[action]}")
    screen.line("  auto <action>|off   on every request        q  quit")
    ask = _keyboard() if sys.stdin.isatty() else _pipe()
    while (line := await ask("key> ")) is not None:
        words = line.split()
        if words[:1] == ["q"]:
            return
        try:
            _do(terminal, words)
        except ValueError as error:
            screen.line(str(error), "red")
            screen.event("error", detail=str(error))
    await asyncio.Event().wait()


def show_entry(screen: Any, entry: dict[str, Any]) -> None:
    """One line of the terminal's log."""
    sign = {"said": "->", "heard": "<-", "refused": "!!"}.get(entry["kind"], "--")
    payload = entry["payload"] or {}
    amount = f" RM{payload['amount']:.2f}" if isinstance(payload.get("amount"), float | int) else ""
    screen.line(f"{sign} {entry['text']} {payload.get('txn_id', '')}{amount}".rstrip())
    screen.event(entry["kind"], text=entry["text"], payload=payload or None)


def _do(terminal: VirtualTerminal, words: list[str]) -> None:
    if not words:
        return
    if words[0] == "auto":
        wanted = words[1] if len(words) > 1 else "off"
        if wanted != "off" and wanted not in ACTIONS:
            raise ValueError("auto takes one of " + ", ".join(ACTIONS) + ", or off")
        terminal.auto = None if wanted == "off" else wanted
        return
    terminal.act(KEYS.get(words[0], words[0]))


def _keyboard() -> Any:
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession()

    async def ask(question: str) -> str | None:
        try:
            return await session.prompt_async(question)
        except (EOFError, KeyboardInterrupt):
            return "q"

    return ask


def _pipe() -> Any:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def pump() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(queue.put_nowait, line)
        loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=pump, daemon=True, name="keypad-input").start()

    async def ask(_: str) -> str | None:
        return await queue.get()

    return ask
