"""Runs the merchant's `process_ipn` off the request path: once for each IPN, in order within an order.

A hook that raises is tried again with growing pauses, then its IPN becomes a dead letter. What ran is marked
in the journal; a crash between the two runs it again, so it is "once in normal life, at least once across a
crash". Plain functions run in threads, coroutines on a loop of their own, because a hook that blocks must
not hold up the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import queue
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from tillgate.domain.errors import Unavailable
from tillgate.providers.atompos_vn.contract import Ipn
from tillgate.providers.atompos_vn.journal import Journal, Waiting

Hook: TypeAlias = Callable[[Ipn], Any]
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
        self._pause_s, self._timeout_s = pause_s, timeout_s
        self._running: dict[int, asyncio.Task[None]] = {}
        self._bell = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._threads = _Threads()
        self._coroutines: asyncio.AbstractEventLoop | None = None

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
        self._threads.close()
        if self._coroutines is not None:
            self._coroutines.call_soon_threadsafe(self._coroutines.stop)
            self._coroutines = None

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
            await self._call(self._hook, waiting.ipn)
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

    # --- calling --------------------------------------------------------------------------------------------

    async def _call(self, hook: Hook, ipn: Ipn) -> None:
        call = getattr(hook, "__call__", hook)  # noqa: B004 (an object whose `__call__` is a coroutine)
        if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call):
            await self._on_their_loop(lambda: hook(ipn))
            return
        result = await self._threads.run(hook, ipn)
        if inspect.isawaitable(result):
            await self._on_their_loop(lambda: result)

    async def _on_their_loop(self, begin: Callable[[], Awaitable[Any]]) -> None:
        """All coroutines on one loop, so that they may share a pool of connections."""
        if self._coroutines is None:
            self._coroutines = asyncio.new_event_loop()
            loop = self._coroutines
            threading.Thread(target=_forever, args=(loop,), name="ipn-hooks", daemon=True).start()

        async def awaited() -> None:
            await begin()

        running = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awaited(), self._coroutines))
        async with asyncio.timeout(self._timeout_s):
            await running


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    async def drained() -> None:
        await asyncio.sleep(0)  # what was handed over just before the end becomes a task, to be cancelled
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.run_until_complete(drained())
    loop.close()


class _Threads:
    """Daemon threads for plain hooks, made as they are needed and kept.

    Daemons, because a hook that never ends must not keep the process from ending; kept, because the loop
    waits while a thread is born.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0

    async def run(self, hook: Hook, ipn: Ipn) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            self._idle += 1
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:  # a future carries neither StopIteration nor what ends a program
                known = isinstance(error, Exception) and not isinstance(error, StopIteration)
                future.set_exception(error if known else RuntimeError(repr(error)))

        def work() -> None:
            result, error = None, None
            try:
                result = hook(ipn)
            except BaseException as raised:  # noqa: BLE001
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._serve, name="process_ipn", daemon=True).start()
        self._work.put(work)
        return await future

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def close(self) -> None:
        """Send the idle ones away."""
        while self._idle:
            self._idle -= 1
            self._work.put(None)
