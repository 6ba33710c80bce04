"""The hub's only commit. Whatever commands are waiting are decided and committed together.

No timer: a batch is what gathered while the one before it was being committed, up to a cap. The facts of all
its commands are loaded in one statement per table, they are decided one after another, their plans are
written in one statement per table, and nobody is answered before the commit is durable.

A merchant's row in `heads` is locked first, in one order everywhere: so all that happens to one merchant is
in one line, across any number of processes, and its events are numbered without a gap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

import structlog
from sqlalchemy import bindparam, delete, update

from tillgate.domain.errors import Fault, InDoubt, NotAllowed, NotFound, TillgateError, Unavailable
from tillgate.metrics import JournalFigures
from tillgate.store import tables
from tillgate.store.book import TABLE_OF, Book, Command, Plan
from tillgate.store.database import Conflict, Database, Taken, Tx
from tillgate.store.facts import load
from tillgate.store.ids import now_ms
from tillgate.store.questions import Questions
from tillgate.store.statements import Row, changing, key
from tillgate.store.work import due_id

T = TypeVar("T")
_BATCH: Final = 256
_WAITING: Final = 20_000
_STILL_TURNS: Final = 4
_MOST_TURNS: Final = 40
_REPLAYS: Final = 8
_DOUBTS: Final = 12

log = structlog.get_logger("tillgate.journal")


class Sql(Protocol[T]):  # type: ignore[misc]
    """Work that is SQL by nature (claims, configuration): it runs in the batch, after the decisions."""

    async def run(self, tx: Tx, now: int) -> T:
        """An attribute `taken` says what a conflict means to its caller; without one it is tried again."""


class Journal:
    def __init__(self, database: Database, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[tuple[Command[Any] | Sql[Any], asyncio.Future[Any]]] = deque()
        self._bell = asyncio.Event()
        self._came = 0  # commands and questions so far
        self._healthy = True  # the last commit that had something to write could be made
        self._questions = Questions(database, clock, self._take)
        self._writers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.figures = JournalFigures()
        self.kick: Callable[[], None] = lambda: None
        """Called when there is something to do at once; the worker of this process, where there is one."""

    @property
    def waiting(self) -> int:
        """How many commands wait for a batch."""
        return len(self._waiting)

    async def start(self) -> None:
        self._writers = [
            asyncio.create_task(self._write(), name=f"journal-{n}") for n in range(self._database.writers)
        ]

    async def stop(self) -> None:
        """Commit what is waiting, then end."""
        self._stopping = True
        await self._questions.answered()
        self._bell.set()
        await asyncio.gather(*self._writers, return_exceptions=True)

    def submit(self, command: Command[T]) -> asyncio.Future[T]:
        """Await the result for the answer that is safe to give: it is on disk. Raises what `decide` raises;
        `Unavailable` when nothing was changed, its kind `InDoubt` where even that could not be found out;
        `Fault` for what the database cannot keep. Who stops waiting changes nothing."""
        return self._enqueue(command)

    def ask(self, question: Command[T]) -> asyncio.Future[T]:
        """As `submit`, for what most often changes nothing: it is answered from what is committed, and waits
        for no disk, unless it turns out to change something, or to be refused. After a commit that failed it
        waits for one that does not: an answer may promise what could not be kept."""
        if not self._healthy or self._stopping or self._questions.waiting >= _WAITING:
            return self._enqueue(question)
        self._came += 1
        return self._questions.ask(question)

    def run(self, work: Sql[T]) -> asyncio.Future[T]:
        return self._enqueue(work)

    def _enqueue(self, item: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._stopping or len(self._waiting) >= _WAITING:
            future.set_exception(Unavailable())
            return future
        self._take([(item, future)])
        return future

    def _take(self, items: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
        self._waiting.extend(items)
        self._came += len(items)
        self._bell.set()

    async def _write(self) -> None:
        while True:
            if not self._waiting:
                if self._stopping and not self._questions.waiting:
                    return
                self._bell.clear()
                await self._bell.wait()
                continue
            await self._gathered()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            batch = [(item, future) for item, future in batch if not future.done()]  # the asker has left
            try:
                if batch:
                    await self._commit(batch)
            except Exception:
                log.error("a batch failed", exc_info=True)
                _fail(batch, Fault())

    async def _gathered(self) -> None:
        """Until nobody came for a few turns of the loop.

        Who was just answered asks again in them (an answer goes out, a request comes in, it is read), and
        goes with the others instead of alone after them: fewer, fuller commits."""
        came, still = self._came, 0
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            still = still + 1 if came == self._came else 0
            came = self._came
            if still == _STILL_TURNS or len(self._waiting) >= _BATCH:
                return

    async def _commit(self, batch: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
        """All in one commit; where that cannot be, each alone, so that its failure is its own."""
        try:
            outcomes = await self._transact([item for item, _ in batch])
        except Unavailable as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - found again, and logged, by whoever it belongs to
            if len(batch) > 1:
                log.info("a batch is done one by one", size=len(batch), why=type(error).__name__)
            for number, (item, future) in enumerate(batch):
                try:
                    await self._alone(item, future)
                except Unavailable as away:
                    _fail([(item, future)], away)
                    _fail(batch[number + 1 :], Unavailable())  # not even tried
                    return
        else:
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                _resolve(future, *outcome)

    async def _alone(self, item: Any, future: asyncio.Future[Any]) -> None:
        """Raises `Unavailable`."""
        conflict: Conflict | None = None
        for round_ in range(_REPLAYS):
            try:
                [outcome] = await self._transact([item])
            except Conflict as again:
                conflict = again
                if isinstance(again, Taken) and hasattr(item, "taken"):
                    _resolve(future, None, NotAllowed(item.taken))
                    return
                await asyncio.sleep(0.002 * 2**round_)
            except TillgateError:
                raise
            except Exception:
                log.error("a change cannot be kept", what=type(item).__name__, exc_info=True)
                _resolve(future, None, Fault())
                return
            else:
                _resolve(future, *outcome)
                return
        log.error("gave up after conflicts", what=type(item).__name__, conflict=str(conflict))
        _resolve(future, None, Fault() if isinstance(conflict, Taken) else Unavailable())

    async def _transact(self, items: Sequence[Any]) -> list[tuple[Any, Exception | None]]:
        book = Book(self._clock())
        begun = perf_counter()
        try:
            async with self._database.begin() as tx:
                outcomes = await self._decide(tx, book, items)
                await _store(tx, book)
                work = book.makes_work  # asked in here: what cannot be compared must not be kept
        except InDoubt:
            self._healthy = False
            if not await self._happened(book):
                raise Unavailable from None
            log.warning("a commit whose answer was lost had happened", size=len(items))
        except Unavailable:
            self._healthy = False
            raise
        if book.changed:
            self._healthy = True
        self.figures.committed(len(items), perf_counter() - begun, book.new_events, book.records)
        if work:
            self.kick()
        return outcomes

    async def _decide(self, tx: Tx, book: Book, items: Sequence[Any]) -> list[tuple[Any, Exception | None]]:
        await load(tx, book, [item for item in items if hasattr(item, "decide")])
        outcomes: list[tuple[Any, Exception | None]] = []
        for item in items:
            if not hasattr(item, "decide"):
                outcomes.append((await item.run(tx, book.now), None))
                continue
            plan = Plan(book)
            try:
                if item.merchant_id not in book.heads:
                    raise NotFound("there is no such merchant")
                result = item.decide(plan)
            except TillgateError as error:
                outcomes.append((None, error))
            except Exception as error:
                log.error("a decision failed", command=type(item).__name__, exc_info=True)
                outcomes.append((None, error))
            else:
                book.merge(item.merchant_id, plan)
                outcomes.append((result, None))
        return outcomes

    async def _happened(self, book: Book) -> bool:
        """Whether a commit whose answer was lost is there: one event stands for all of it.

        Raises `InDoubt` where nothing tells, or where the database stays away."""
        if not book.new_events:
            raise InDoubt
        merchant_id, seq, *_, chain = book.new_events[0]
        for round_ in range(_DOUBTS):
            try:
                async with self._database.begin() as tx:
                    # The transaction in doubt holds this lock until it has ended one way or the other.
                    await tx.select(tables.heads, ("merchant_id",), [(merchant_id,)], lock=True)
                    rows = await tx.select(tables.events, ("merchant_id", "seq"), [(merchant_id, seq)])
                return any(bytes(row[-1]) == chain for row in rows)
            except (Conflict, Unavailable):
                await asyncio.sleep(min(1.0, 0.02 * 2**round_))
        raise InDoubt


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():  # the asker has left; what was decided stands
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _fail(batch: Iterable[tuple[Any, asyncio.Future[Any]]], error: Fault) -> None:
    """An exception of its own for each, because whoever raises it hangs a traceback on it."""
    for _, future in batch:
        _resolve(future, None, type(error)(str(error)))


_CLAIMED: Final = (
    tables.due.c.id == bindparam("claimed"),
    tables.due.c.tries == bindparam("number"),
    tables.due.c.run_at == bindparam("until"),  # a later claim of a later wish may have the same number
)
_END_CLAIM: Final = delete(tables.due).where(*_CLAIMED)
_RENEW_CLAIM: Final = update(tables.due).where(*_CLAIMED).values(run_at=bindparam("again_at"))

# --- plan out -----------------------------------------------------------------------------------------------


async def _store(tx: Tx, book: Book) -> None:
    await _store_records(tx, book)
    for table, rows in (
        (tables.events, book.new_events),
        (tables.postings, book.new_postings),
        (tables.deliveries, book.new_deliveries),
        (tables.inbound, book.new_inbound),
    ):
        if rows:
            await tx.insert(table, rows)
    if book.moved:
        await tx.upsert(
            tables.balances, [(*at, book.moved[at]) for at in sorted(book.moved)], added="amount_minor"
        )
    await _store_due(tx, book)
    await _store_answers(tx, book)
    for change in book.changes:
        found = await tx.execute(change.statement, change.params)
        if change.guarded and not found:
            raise Taken("a guarded change found no row")
    if book.new_events:
        merchants = {row[0] for row in book.new_events}
        await tx.update(tables.heads, [(*book.heads[one], one) for one in sorted(merchants)])


_CHANGED: Final = {kind: attrgetter(*changing(table), *key(table)) for kind, table in TABLE_OF.items()}


async def _store_records(tx: Tx, book: Book) -> None:
    new: dict[type, list[Row]] = {}
    old: dict[type, list[Row]] = {}
    for record_id, version in book.before.items():
        record = book.records[record_id]
        kind = type(record)
        if version is None:
            new.setdefault(kind, []).append(book.row(record))
        else:
            old.setdefault(kind, []).append((*_CHANGED[kind](record), version))
    for kind, table in TABLE_OF.items():
        if kind in old:  # first, so that an attempt that ends makes room for the next one's unique `live_of`
            await tx.update(table, old[kind], guard="version")
        if kind in new:
            await tx.insert(table, new[kind])


async def _store_due(tx: Tx, book: Book) -> None:
    wanted = [row for row in book.due.values() if row is not None]
    done = [(due_id,) for due_id, row in book.due.items() if row is None]
    if wanted:
        await tx.upsert(tables.due, wanted)
    if done:
        await tx.delete(tables.due, done)
    for claim, again_at in book.claims:
        named = due_id(claim.kind, claim.subject)
        params = {"claimed": named, "number": claim.tries, "until": claim.until}
        if again_at is None:
            await tx.execute(_END_CLAIM, params)
        else:
            await tx.execute(_RENEW_CLAIM, {**params, "again_at": again_at})


async def _store_answers(tx: Tx, book: Book) -> None:
    new = [astuple(book.remembered[digest]) for digest in book.answered if digest not in book.known_answers]
    old = [book.remembered[digest] for digest in book.answered if digest in book.known_answers]
    if new:
        await tx.insert(tables.idempotency, new)
    if old:
        await tx.update(tables.idempotency, [(one.subject, one.status, one.body, one.digest) for one in old])
