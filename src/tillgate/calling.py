"""Calls a function of the host's own, off the loop that answers requests.

Plain functions run in threads, coroutines on a loop of their own, because a function that blocks must not
hold up the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from tillgate.domain.errors import Misconfigured

Hook: TypeAlias = Callable[[Any], Any]


def named(setting: str, text: str) -> Hook:
    """The function that `module:function` names. Raises `Misconfigured`."""
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Misconfigured(f"{setting}={text}: {error}") from error
    if not callable(found):
        raise Misconfigured(f"{setting}={text} is no function")
    return found  # type: ignore[no-any-return]


class Caller:
    """`timeout_s` ends a coroutine; a thread cannot be ended."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._threads = _Threads()
        self._coroutines: asyncio.AbstractEventLoop | None = None

    async def call(self, hook: Hook, given: Any) -> None:
        """Raises what the function raises; `TimeoutError` for a coroutine that hangs. What a task cannot
        carry, or would take for its own end, comes as a `RuntimeError`."""
        inner = getattr(hook, "__call__", hook)  # noqa: B004 (an object whose `__call__` is a coroutine)
        if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(inner):
            await self._on_their_loop(lambda: hook(given))
            return
        result = await self._threads.run(hook, given)
        if inspect.isawaitable(result):
            await self._on_their_loop(lambda: result)

    def close(self) -> None:
        """Send idle threads away and end the loop, with what still runs on it."""
        self._threads.close()
        if self._coroutines is not None:
            self._coroutines.call_soon_threadsafe(self._coroutines.stop)
            self._coroutines = None

    async def _on_their_loop(self, begin: Callable[[], Awaitable[Any]]) -> None:
        """All coroutines on one loop, so that they may share a pool of connections."""
        if self._coroutines is None:
            self._coroutines = asyncio.new_event_loop()
            loop = self._coroutines
            threading.Thread(target=_forever, args=(loop,), name="host-functions", daemon=True).start()

        async def awaited() -> None:
            try:
                await begin()
            except (Exception, asyncio.CancelledError):
                raise
            except BaseException as error:  # SystemExit would end their loop, and every function's with it
                raise RuntimeError(repr(error)) from error

        running = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awaited(), self._coroutines))
        try:
            async with asyncio.timeout(self._timeout_s):
                await running
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The function's own, of something it waited for: a failure like any other.
            raise RuntimeError("the function was cancelled") from None


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

    async def run(self, hook: Hook, given: Any) -> Any:
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
                result = hook(given)
            except BaseException as raised:  # noqa: BLE001
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._serve, name="host-function", daemon=True).start()
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
