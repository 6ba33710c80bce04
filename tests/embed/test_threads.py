"""The helper threads: in order, in the caller's context, to the end, and gone with their engine."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import Callable

import pytest

from tillgate.embed import threads as module
from tillgate.embed.threads import Threads


class Owner:
    """Something that can be forgotten."""


def named() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "tillgate-embed"}


async def test_one_thread_does_one_thing_at_a_time_in_order() -> None:
    owner, done = Owner(), []
    threads = Threads(owner, 1)

    def work(number: int) -> int:
        time.sleep(0.001)
        done.append(number)
        return number

    assert await asyncio.gather(*(threads.run(work, number) for number in range(20))) == list(range(20))
    assert done == list(range(20))


async def test_several_threads_work_side_by_side_and_no_more_than_allowed() -> None:
    owner, before = Owner(), named()
    threads = Threads(owner, 3)
    together = threading.Barrier(3, timeout=5)
    await asyncio.gather(*(threads.run(together.wait) for _ in range(3)))
    await asyncio.gather(*(threads.run(time.sleep, 0.001) for _ in range(50)))
    assert len(named() - before) == 3


async def test_one_at_a_time_needs_one_thread() -> None:
    owner, before = Owner(), named()
    threads = Threads(owner, 8)
    for _ in range(20):
        await threads.run(time.sleep, 0)
    assert len(named() - before) == 1


async def test_errors_come_back_and_the_thread_goes_on() -> None:
    owner = Owner()
    threads = Threads(owner, 1)

    def fail() -> None:
        raise KeyError("no")

    for _ in range(3):
        with pytest.raises(KeyError, match="no"):
            await threads.run(fail)
    assert await threads.run(lambda: 5) == 5


async def test_the_callers_context_is_seen() -> None:
    owner, tenant = Owner(), contextvars.ContextVar("tenant", default="nobody")
    threads = Threads(owner, 1)
    tenant.set("anna")
    assert await threads.run(tenant.get) == "anna"


async def test_a_cancelled_caller_waits_for_what_it_began() -> None:
    owner, finished = Owner(), threading.Event()
    threads = Threads(owner, 1)

    def work() -> None:
        time.sleep(0.1)
        finished.set()

    running = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert finished.is_set()


async def test_a_caller_who_is_cancelled_again_and_again_waits_too() -> None:
    owner, release, finished = Owner(), threading.Event(), threading.Event()
    threads = Threads(owner, 1)

    def work() -> None:
        release.wait(30)
        finished.set()

    running = asyncio.create_task(threads.run(work))
    for _ in range(3):
        await asyncio.sleep(0.01)
        running.cancel()
    assert not running.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert finished.is_set()


async def behind(
    threads: Threads, second: Callable[[], object]
) -> tuple[asyncio.Task[str], asyncio.Task[object]]:
    """Something short with something else waiting behind it, so that its answer may be held back."""
    waiting = threading.Event()

    def first() -> str:
        waiting.wait(30)
        return "first"

    tasks = asyncio.create_task(threads.run(first)), asyncio.create_task(threads.run(second))
    await asyncio.sleep(0)  # both are in the queue
    waiting.set()
    return tasks


async def test_an_answer_is_handed_over_before_the_thread_waits_for_a_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 3600)
    owner, disk = Owner(), threading.Event()
    threads = Threads(owner, 1)

    def commits() -> None:
        threads.tell()
        assert disk.wait(30)

    first, second = await behind(threads, commits)
    assert await asyncio.wait_for(first, 30) == "first"
    assert not second.done()
    disk.set()
    await second


async def test_no_answer_waits_for_what_another_does() -> None:
    owner, hook = Owner(), threading.Event()
    threads = Threads(owner, 1)
    first, second = await behind(threads, lambda: hook.wait(30))
    assert await asyncio.wait_for(first, 30) == "first"
    assert not second.done()
    hook.set()
    await second


async def test_answers_for_several_loops_reach_their_own() -> None:
    owner = Owner()
    threads = Threads(owner, 1)

    async def many(name: str) -> list[str]:
        return await asyncio.gather(*(threads.run(lambda n=n: f"{name}{n}") for n in range(50)))

    one, two = await asyncio.gather(
        asyncio.to_thread(asyncio.run, many("a")), asyncio.to_thread(asyncio.run, many("b"))
    )
    assert one == [f"a{n}" for n in range(50)]
    assert two == [f"b{n}" for n in range(50)]


async def test_threads_end_when_their_owner_is_forgotten() -> None:
    owner, before = Owner(), named()
    threads = Threads(owner, 2)
    await asyncio.gather(threads.run(time.sleep, 0.01), threads.run(time.sleep, 0.01))
    del owner, threads
    gc.collect()
    for _ in range(200):
        if named() <= before:
            break
        await asyncio.sleep(0.01)
    assert named() <= before
