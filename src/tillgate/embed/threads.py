"""A few helper threads for one engine: half the cost of a general pool, which is what a short ruling feels.

Work is done in the order it came. The threads end when their engine is forgotten, or with the process.

Who waits is told when the interpreter is free, not when the work is done: a loop that is woken while a thread
goes on with the next work only wakes to wait for it, and on a busy machine that costs more than the work. So
a thread tells before it waits for a disk (`tell`), when it has nothing more to do, and nobody waits longer
than `HOLD_S` for an answer that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

HOLD_S: Final = 0.01


class Threads:
    """At most `limit` threads, started as they are needed."""

    def __init__(self, owner: object, limit: int) -> None:
        self._limit = limit
        self._started = 0
        self._unfinished = 0
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._finished: deque[_Task] = deque()
        self._watched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        weakref.finalize(owner, _stop, self._queue, limit).atexit = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` in a thread, in the caller's context.

        What was begun is finished: a caller that is cancelled waits for the end of it.
        """
        task = _Task(asyncio.get_running_loop(), work, arguments)
        with self._lock:
            self._unfinished += 1
            crowded = self._unfinished > 1 or bool(self._finished)
            if self._started < min(self._unfinished, self._limit):
                self._started += 1
                threading.Thread(target=self._serve, name="tillgate-embed", daemon=True).start()
        self._queue.put(task)
        if crowded:
            self._watch(task.loop)
        result: T = await task.done()
        return result

    def tell(self) -> None:
        """Hand over what is finished. For a thread of ours that is about to wait for something else."""
        told: dict[asyncio.AbstractEventLoop, list[_Task]] = {}
        with contextlib.suppress(IndexError):  # nothing is left, or another thread was quicker
            while self._finished:
                task = self._finished.popleft()
                told.setdefault(task.loop, []).append(task)
        for loop, tasks in told.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(_settle, tasks)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look after what is finished, now and again, while there is more than one thing to do."""
        if loop not in self._watched:
            self._watched.add(loop)
            loop.call_later(HOLD_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tell()
        self._watched.discard(loop)
        if self._unfinished or self._finished:
            self._watch(loop)

    def _serve(self) -> None:
        get = self._queue.get
        while (task := get()) is not None:
            task.run()
            self._finished.append(task)
            with self._lock:
                self._unfinished -= 1
            if self._queue.empty():
                self.tell()
            del task


class _Task:
    """One piece of work and whoever waits for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self.loop = loop
        self.work = work
        self.arguments = arguments
        self.context = contextvars.copy_context()
        self.waiter: asyncio.Future[None] = loop.create_future()
        self.settled = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.context.run(self.work, *self.arguments)
        except BaseException as caught:  # noqa: BLE001 — handed to whoever waits
            self.error = caught

    async def done(self) -> Any:
        cancelled: asyncio.CancelledError | None = None
        while not self.settled:
            try:
                await self.waiter
            except asyncio.CancelledError as stop:
                cancelled = stop
                self.waiter = self.loop.create_future()
        error = self.error if cancelled is None else cancelled
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error, cancelled  # a traceback that holds itself is freed late


def _settle(tasks: list[_Task]) -> None:
    for task in tasks:
        task.settled = True
        if not task.waiter.done():
            task.waiter.set_result(None)


def _stop(queue: SimpleQueue[_Task | None], limit: int) -> None:
    for _ in range(limit):
        queue.put(None)
