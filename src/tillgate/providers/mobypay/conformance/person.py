"""Somebody who stands at the kiosk or the terminal: is told what to do there, and says what is seen."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Final

from tillgate.conform import Skipped

CHECK_S: Final = 600.0
"""How long one check may take where a person does it all by hand."""
_YES, _NO = ("y", "yes"), ("n", "no")


class Person:
    """Reads from standard error, answers on standard input."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[str | None] | None = None
        self._gone = False

    def told(self, text: str) -> None:
        sys.stderr.write(f"→ {text}\n")
        sys.stderr.flush()

    async def says_yes(self, question: str, within_s: float) -> bool:
        """Raises `Skipped` where nobody answers, and then for every further question."""
        while not self._gone:
            sys.stderr.write(f"→ {question} (y/n) ")
            sys.stderr.flush()
            try:
                async with asyncio.timeout(within_s):
                    said = await self._lines().get()
            except TimeoutError:
                said = None
            if said is None:
                self._gone = True
                sys.stderr.write("\n")
            elif said.strip().lower() in (*_YES, *_NO):
                return said.strip().lower() in _YES
        raise Skipped("nobody said what the kiosk believes; -o outcome=COMMAND asks it by a program")

    def _lines(self) -> asyncio.Queue[str | None]:
        if self._answers is None:
            self._answers = asyncio.Queue()
            loop, answers = asyncio.get_running_loop(), self._answers

            def read() -> None:
                try:
                    while line := sys.stdin.readline(1024):
                        loop.call_soon_threadsafe(answers.put_nowait, line)
                    loop.call_soon_threadsafe(answers.put_nowait, None)
                except (RuntimeError, ValueError):  # the loop is gone, or the input is no text
                    return

            threading.Thread(target=read, daemon=True, name="person").start()
        return self._answers
