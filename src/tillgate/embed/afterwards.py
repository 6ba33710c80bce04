"""What hooks want done when their ruling is committed: messages to the payer, mostly.

It is done on the host's event loop, for that is where a bot or an HTTP client of the host's lives, and once:
an attempt that was rolled back leaves nothing here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

log = logging.getLogger("tillgate.embed")

_running: Final[set[asyncio.Future[None]]] = set()  # a loop alone would let a task be collected


class Afterwards:
    """The wishes of one ruling at a time."""

    def __init__(self) -> None:
        self._wishes: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def add(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._wishes.append((function, arguments))

    def forget(self) -> None:
        """Nothing was committed."""
        self._wishes.clear()

    def run(self) -> None:
        """On the event loop. What is awaited does not keep the answer waiting."""
        wishes, self._wishes = self._wishes, []
        for function, arguments in wishes:
            try:
                result = function(*arguments)
            except Exception:
                log.exception("after_commit: %r failed", function)
                continue
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(_finished(function, result))
                _running.add(task)
                task.add_done_callback(_running.discard)


async def _finished(function: Callable[..., Any], result: Awaitable[Any]) -> None:
    try:
        await result
    except Exception:
        log.exception("after_commit: %r failed", function)
