"""Messages for the host's own function: handed on once each, in order within their stream."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from tillgate.calling import Caller
from tillgate.domain.errors import NotFound, TillgateError, Unavailable
from tillgate.domain.record import record
from tillgate.hub.kit import Kit, log
from tillgate.spi import HandsOn, Once
from tillgate.store.book import Needs, Plan, Remembered, Target
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import digest
from tillgate.store.work import Due

KIND = "hand_on"
"""Due work: its subject is `STREAM + inbound id`, so that ids tell the order within a stream."""
BURIED = "buried"
"""What a message becomes whose function failed too often: due work that is never due."""
NEVER_MS = 2**53
AT_ONCE: Final = 16
TRIES: Final = 15
PAUSE_MS: Final = 1_000
_PAUSE_CAP_MS: Final = 600_000
LEASE_MS: Final = 60_000
_RENEW_S: Final = 20.0
_QUEUED: Final = 1_000
_LEFT_MS: Final = 15_000
"""A claim that has less time left may be taken over by a process whose clock is ahead."""
TIMEOUT_S: Final = 300.0
ERROR_CHARS: Final = 300
Verdict: TypeAlias = Literal["new", "repeat", "conflict"]


@record
class Hand:
    """One message that comes in, and whether somebody here waits for it."""

    account: Account
    once: Once
    wanted: bool

    def digests(self) -> tuple[bytes, bytes]:
        """Of the message's name, and of what it says under that name."""
        key = self.once.key
        return (
            digest("once", self.account.id, key),
            digest("once", self.account.id, key, self.once.content.hex()),
        )

    def take(self, plan: Plan, merchant: Merchant, inbound_id: str, payment_id: str | None) -> Verdict:
        """Have it handed on, unless it was. The same name with other words is a conflict: told once, and not
        handed on."""
        first, other = self.digests()
        known = plan.answer(first)
        if known is None:
            plan.answers.append(Remembered(first, self.once.content, inbound_id, 200, None, plan.now))
            if self.wanted:
                stream = digest("stream", self.account.id, self.once.stream).hex()
                plan.at(KIND, f"{stream}{inbound_id}", merchant.id, plan.now)
            return "new"
        if known.fingerprint == self.once.content:
            return "repeat"
        if plan.answer(other) is None:
            plan.answers.append(Remembered(other, self.once.content, inbound_id, 200, None, plan.now))
            note = {"first": known.subject, "payment_id": payment_id}
            announce(plan, merchant, "inbound.conflict", inbound_id, self.account, note)
        return "conflict"


def announce(
    plan: Plan, merchant: Merchant, kind: str, inbound_id: str, account: Account, note: dict[str, Any]
) -> None:
    """An event about a message that belongs to no payment, or not to the one it names."""
    targets = tuple(Target(one.id, one.url) for one in merchant.endpoints if one.wants(kind))
    about = {"inbound_id": inbound_id, "account": account.id}
    plan.note_event(kind, inbound_id, {**about, **{k: v for k, v in note.items() if v is not None}}, targets)


_STREAM_CHARS: Final = 32


@record
class Moves:
    """Due work about one message: begun anew later, done, or buried."""

    merchant_id: str
    subject: str
    at: int | None  # None: it is over
    tries: int = 0
    next_subject: str | None = None  # whose turn it is now
    buried: tuple[Account, Merchant, str] | None = None  # with why

    def needs(self) -> Needs:
        return Needs()

    def decide(self, plan: Plan) -> None:
        if self.at is None:
            plan.done(KIND, self.subject)
        else:
            plan.at(KIND, self.subject, self.merchant_id, self.at, self.tries)
        if self.next_subject is not None:
            plan.at(KIND, self.next_subject, self.merchant_id, plan.now)
        if self.buried is not None:
            account, merchant, why = self.buried
            plan.at(BURIED, self.subject, self.merchant_id, NEVER_MS, self.tries)
            note = {"error": why, "tries": self.tries}
            announce(plan, merchant, "inbound.dead", self.subject[_STREAM_CHARS:], account, note)


@record
class Replays:
    """A buried message is tried again, from the first try."""

    merchant_id: str
    subject: str

    def needs(self) -> Needs:
        return Needs()

    def decide(self, plan: Plan) -> None:
        plan.done(BURIED, self.subject)
        plan.at(KIND, self.subject, self.merchant_id, plan.now)


class Handing:
    """Runs the host's functions off the request path; due work of kind `hand_on`.

    A piece of due work only starts its function and returns, so that slow functions hold none of the worker's
    slots. While a function runs, its claim is renewed; a process that dies leaves it to another. So it runs
    once in normal life and at least once across a crash."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._running: dict[str, asyncio.Task[None]] = {}
        self._caller: Caller | None = None
        self._full: deque[Due] = deque()
        self._beginning: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self, due: Due) -> None:
        subject = due.subject
        if subject in self._running:
            return
        if len(self._running) >= AT_ONCE:
            if len(self._full) < _QUEUED:  # else its lease brings it up again
                self._full.append(due)
            return
        row = await self._kit.reads.inbound(subject[_STREAM_CHARS:])
        if row is None:
            return
        _, merchant_id, account_id, body = row
        merchant, account = await self._kit.directory.account(account_id)
        hook, connector = self._kit.hooks.get(account.provider), self._kit.connector(account)
        now = self._kit.clock()
        if hook is None or not isinstance(connector, HandsOn):
            await self._move(Moves(merchant_id, subject, now + LEASE_MS))  # another process may have it
            return
        if await self._kit.reads.first_due(KIND, subject, _STREAM_CHARS) != (subject, due.until):
            # One before it has its turn; or it was run, or claimed anew, while this claim waited for a place.
            return
        if subject in self._running:
            return
        if len(self._running) >= AT_ONCE:
            self._full.append(due)
            return
        work = self._one(merchant, account, due, hook, connector, body)
        task = self._running[subject] = asyncio.create_task(work, name="hand-on")
        task.add_done_callback(lambda _: self._ended(subject))

    def _ended(self, subject: str) -> None:
        self._running.pop(subject, None)
        if self._full and not self._stopping:
            task = asyncio.create_task(self._begin_waiting())
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin_waiting(self) -> None:
        """Give the places that are free to those that found none, unless their claims may have run out."""
        while self._full and len(self._running) < AT_ONCE and not self._stopping:
            waiting = self._full.popleft()
            if self._kit.clock() + _LEFT_MS < waiting.until:
                with contextlib.suppress(TillgateError):  # its lease brings it up again
                    await self.run(waiting)

    async def stop(self, grace_s: float = 10.0) -> None:
        """What runs has `grace_s` to end, and else runs again."""
        self._stopping = True
        tasks = list(self._running.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._caller is not None:
            self._caller.close()
            self._caller = None

    @staticmethod
    def message(subject: str) -> str:
        """The inbound id that a piece of this work is about."""
        return subject[_STREAM_CHARS:]

    async def replay(self, merchant_id: str, inbound_id: str) -> None:
        """Raises `NotFound` unless it is a buried one."""
        for row in await self._kit.reads.due_of(BURIED, merchant_id):
            if row[0][_STREAM_CHARS:] == inbound_id:
                await self._kit.journal.submit(Replays(merchant_id, row[0]))
                return
        raise NotFound("There is no such buried message")

    async def _one(
        self,
        merchant: Merchant,
        account: Account,
        due: Due,
        hook: Callable[[Any], Any],
        connector: Any,
        body: bytes,
    ) -> None:
        subject, tries = due.subject, due.tries
        renewing = asyncio.create_task(self._renew(merchant.id, due))
        error: BaseException | None = None
        try:
            if self._caller is None:
                self._caller = Caller(TIMEOUT_S)
            await self._caller.call(hook, connector.handed(body))
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - a host's function may raise anything
            error = raised
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        following = await self._next(subject)
        if error is None:
            await self._move(Moves(merchant.id, subject, None, next_subject=following))
            return
        why = f"{type(error).__name__}: {error}"[:ERROR_CHARS]
        log.warning("a host function failed", inbound=subject[_STREAM_CHARS:], tries=tries, why=why)
        if tries >= TRIES:
            dead = (account, merchant, why)
            await self._move(Moves(merchant.id, subject, None, tries, following, dead))
            return
        pause = min(PAUSE_MS * 2 ** (tries - 1), _PAUSE_CAP_MS) * random.uniform(0.8, 1.2)  # noqa: S311
        await self._move(Moves(merchant.id, subject, self._kit.clock() + int(pause), tries))

    async def _next(self, subject: str) -> str | None:
        while True:
            try:
                return await self._kit.reads.later_due(KIND, subject, _STREAM_CHARS)
            except Unavailable:
                await asyncio.sleep(1)

    async def _renew(self, merchant_id: str, due: Due) -> None:
        """A claim that waited for a place is renewed sooner: it began before its function did."""
        left_s = (due.until - self._kit.clock()) / 1000
        pause_s = _RENEW_S - (LEASE_MS / 1000 - left_s)
        while True:
            await asyncio.sleep(max(0.0, pause_s))
            await self._move(Moves(merchant_id, due.subject, self._kit.clock() + LEASE_MS, due.tries))
            pause_s = _RENEW_S

    async def _move(self, moves: Moves) -> None:
        """What has run is not forgotten because the database is away just now."""
        while True:
            try:
                await self._kit.journal.submit(moves)
            except Unavailable:
                await asyncio.sleep(1)
            else:
                return
