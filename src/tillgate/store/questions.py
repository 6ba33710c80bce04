"""Questions: commands that most often change nothing, answered from what is committed.

No lock, no disk, no place in a batch: they are asked more often than anything is paid. All that came in one
turn of the loop are answered from one view. What cannot be answered from it (a refusal is kept, what outlived
its time is closed) is passed on to the journal and ruled on there, as if nobody had looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from tillgate.store.book import Book, Command, Plan
from tillgate.store.database import Database
from tillgate.store.facts import load_facts

T = TypeVar("T")
Asked: TypeAlias = tuple[Command[Any], asyncio.Future[Any]]
_AT_ONCE: Final = 256
_LOOK_S: Final = 2.0
"""A connection that never answers must not keep all questions: the writers have others."""


class Questions:
    def __init__(
        self, database: Database, clock: Callable[[], int], pass_on: Callable[[Sequence[Asked]], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._pass_on = pass_on
        self._asked: list[Asked] = []
        self._looking = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many are neither answered nor passed on."""
        return len(self._asked) + self._looking

    def ask(self, question: Command[T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.append((question, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer(), name="journal-questions")
        return future

    async def answered(self) -> None:
        """Wait until none is left."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _answer(self) -> None:
        while self._asked:
            await asyncio.sleep(0)  # whoever asks in the same turn
            some, self._asked = self._asked[:_AT_ONCE], self._asked[_AT_ONCE:]
            self._looking = len(some)
            some = [one for one in some if not one[1].done()]  # the asker has left
            book = Book(self._clock(), view=True)
            try:
                async with asyncio.timeout(_LOOK_S), self._database.view() as tx:
                    await load_facts(tx, book, [question for question, _ in some])
            except Exception:  # noqa: BLE001 - found again, and said, by whoever it is passed on to
                left = some
            else:
                left = [one for one in some if not _answered(book, *one)]
            self._looking = 0
            if left:
                self._pass_on(left)


def _answered(book: Book, question: Command[Any], future: asyncio.Future[Any]) -> bool:
    plan = Plan(book)
    try:
        answer = question.decide(plan)
    except Exception:  # noqa: BLE001 - raised again, and kept or logged, where it is ruled on
        return False
    if not plan.blank:
        return False
    if not future.done():  # the asker has left meanwhile
        future.set_result(answer)
    return True
