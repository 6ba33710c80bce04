"""A few helper threads for one engine: half the cost of a general pool, which is what a short ruling feels.

Work is done in the order it came. The threads end when their engine is forgotten, or with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `limit` threads, started as they are needed."""

    def __init__(self, owner: object, limit: int) -> None:
        self._limit = limit
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Any] = SimpleQueue()
        weakref.finalize(owner, _stop, self._queue, limit).atexit = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` in a thread, in the caller's context.

        What was begun is finished: a caller that is cancelled waits for the end of it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if not self._idle and self._started < self._limit:
                self._started += 1
                thread = threading.Thread(target=self._serve, name="tillgate-embed", daemon=True)
                thread.start()
            elif self._idle:
                self._idle -= 1
        self._queue.put((contextvars.copy_context(), work, arguments, loop, done))
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as stop:
                cancelled = stop
            except BaseException:  # noqa: BLE001, S110 — told below, from the future itself
                pass
        if cancelled is not None:
            raise cancelled
        return done.result()

    def _serve(self) -> None:
        get = self._queue.get
        while (task := get()) is not None:
            context, work, arguments, loop, done = task
            result: Any = None
            error: BaseException | None = None
            try:
                result = context.run(work, *arguments)
            except BaseException as caught:  # noqa: BLE001 — handed to whoever waits
                error = caught
            with self._lock:
                self._idle += 1
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(_tell, done, result, error)
            del task, context, work, arguments, loop, done, result, error


def _tell(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if not done.done():
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)


def _stop(queue: SimpleQueue[Any], limit: int) -> None:
    for _ in range(limit):
        queue.put(None)
