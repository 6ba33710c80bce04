"""Runs the merchant's `process_ipn` off the request path: once for each IPN, in order within an order.

A hook that raises is tried again with growing pauses, then its IPN becomes a dead letter. What ran is marked
in the journal; a crash between the two runs it again, so it is "once in normal life, at least once across a
crash". Plain functions run in threads, coroutines on a loop of their own, because a hook that blocks must
not hold up the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from tillgate.calling import Caller, Hook
from tillgate.domain.errors import Unavailable
from tillgate.providers.atompos_vn.journal import Journal, Waiting

Alert: TypeAlias = Callable[[str, dict[str, Any]], None]
"""Called with what happened (`conflict`, `rejected`, `hook_failed`, `dead_letter`) and its particulars."""

log = logging.getLogger("tillgate.ipn")
POLL_S: Final = 1.0
PRUNE_S: Final = 3600.0
_PAUSE_CAP_S: Final = 600.0


class Hooks:
    """`concurrency`: hooks at once. `tries`: after so many failures an IPN is a dead letter.

    `timeout_s` ends a coroutine; a thread cannot be ended, and is never started a second time beside itself.
    """

    def __init__(
        self,
        journal: Journal,
        hook: Hook | None,
        *,
        alert: Alert,
        concurrency: int = 16,
        tries: int = 15,
        pause_s: float = 1.0,
        timeout_s: float = 300.0,
    ) -> None:
        self._journal, self._hook, self._alert = journal, hook, alert
        self._concurrency, self._tries = concurrency, tries
        self._pause_s = pause_s
        self._running: dict[int, asyncio.Task[None]] = {}
        self._bell = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._caller = Caller(timeout_s)

    def start(self) -> None:
        if self._hook is None:
            log.error("no process_ipn: IPNs are kept and wait for a start with one")
            return
        self._pump = asyncio.create_task(self._run(), name="ipn-hooks")

    def wake(self) -> None:
        self._bell.set()

    async def stop(self, grace_s: float = 10.0) -> None:
        """Begin no more; what runs has `grace_s` to end, and else runs again after the next start."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace_s)
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._caller.close()

    async def _run(self) -> None:
        pruned = -PRUNE_S
        while True:
            self._bell.clear()
            wait_s = POLL_S
            try:
                if self._journal.lead():
                    if time.monotonic() - pruned > PRUNE_S:
                        pruned = time.monotonic()
                        await self._journal.prune()
                    wait_s = self._begin()
            except Unavailable:
                log.warning("the IPN journal cannot be read now")
            with contextlib.suppress(TimeoutError):
                # Also wakes by the clock: another process, or a person with `replay`, may have made work.
                async with asyncio.timeout(wait_s):  # not `wait_for`, which may swallow the end of this task
                    await self._bell.wait()

    def _begin(self) -> float:
        """Start as many hooks as may run; how long to wait for more."""
        free = self._concurrency - len(self._running)
        if free <= 0:
            return POLL_S
        for waiting in self._journal.runnable(list(self._running), free):
            task = asyncio.create_task(self._one(waiting))
            self._running[waiting.id] = task
            task.add_done_callback(lambda _, ipn_id=waiting.id: self._ended(ipn_id))  # type: ignore[misc]
        due = self._journal.next_due()
        return POLL_S if due is None else min(POLL_S, max(0.0, (due - self._journal.clock()) / 1000))

    def _ended(self, ipn_id: int) -> None:
        self._running.pop(ipn_id, None)
        self.wake()

    async def _one(self, waiting: Waiting) -> None:
        assert self._hook is not None
        try:
            await self._caller.call(self._hook, waiting.ipn)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (a hook may raise anything, SystemExit too)
            await self._failed(waiting, error)
        else:
            await self._marked(lambda: self._journal.done(waiting.id))

    async def _failed(self, waiting: Waiting, error: BaseException) -> None:
        tries, text = waiting.tries + 1, f"{type(error).__name__}: {error}"[:500]
        about = {"id": waiting.id, "requestId": waiting.request_id, "tries": tries, "error": text}
        if tries >= self._tries:
            await self._marked(lambda: self._journal.bury(waiting.id, tries, text))
            self._alert("dead_letter", about)
            return
        pause_s = min(self._pause_s * 2 ** (tries - 1), _PAUSE_CAP_S) * random.uniform(0.8, 1.2)  # noqa: S311
        log.warning("process_ipn failed for request %r", waiting.request_id, exc_info=error)
        self._alert("hook_failed", about)
        due_at = self._journal.clock() + int(pause_s * 1000)
        await self._marked(lambda: self._journal.again(waiting.id, tries, due_at, text))

    async def _marked(self, mark: Callable[[], Awaitable[None]]) -> None:
        """The hook has run: that is not forgotten because the disk is full just now."""
        while True:
            try:
                return await mark()
            except Unavailable:
                await asyncio.sleep(POLL_S)
