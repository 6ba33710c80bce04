"""One payment's steps: decide, write to the journal, and only then show, say or time anything.

Steps of one payment run one after another; different payments do not wait for each other, except to share a
commit.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from tillgate.providers.mobypay import journal_rows as rows
from tillgate.providers.mobypay import lifecycle, messages
from tillgate.providers.mobypay.errors import JournalUnavailable, KioskRefusal, UnknownPayment
from tillgate.providers.mobypay.journal import Journal
from tillgate.providers.mobypay.journal_rows import Row
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, UNSETTLED, Alert, Fact, Payment, Timers
from tillgate.providers.mobypay.terminals import Terminal, Terminals

JOURNAL_RETRY_S: Final = 1.0

Happening = tuple[Fact, messages.TransactionResult | None, str | None]
"""A fact, the result that carries it, and a note (a plan id, an error text, a reason)."""


class Notice(msgspec.Struct, frozen=True):
    """Something a watcher may want to show: `kind` is payment, alert, terminal or frame."""

    kind: str
    text: str
    payment: Payment | None = None
    terminal: str | None = None


def epoch_ms() -> int:
    """The wall clock, which is what the link's timestamps are."""
    return time.time_ns() // 1_000_000


class Steps:
    """The open payments of a kiosk and everything that moves them."""

    def __init__(
        self, journal: Journal, terminals: Terminals, timers: Timers, clock: Callable[[], int] = epoch_ms
    ):
        self.journal = journal
        self.terminals = terminals
        self.clock = clock
        self.watchers: set[Callable[[Notice], None]] = set()
        self.open: dict[str, Payment] = {}
        """Everything in flight or unsettled, oldest first."""
        self._durations = timers
        self._locks: dict[str, asyncio.Lock] = {}
        self._timers: dict[str, tuple[Fact, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def resume(self) -> None:
        """Take up where the journal ends: whatever was in flight is unknown now. Raises
        JournalUnavailable.
        """
        for payment in self.journal.open_payments():
            self.open[payment.txn_id] = payment
        cut_off = [payment.txn_id for payment in self.open.values() if payment.state in IN_FLIGHT]
        await asyncio.gather(*(self.happens(txn_id, if_in_flight(Fact.RESTART)) for txn_id in cut_off))

    async def stop(self) -> None:
        """Stop timers and tasks. What is still in flight stays so in the journal and is unknown at the next
        start.
        """
        for _, handle in self._timers.values():
            handle.cancel()
        running = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def find(self, txn_id: str) -> Payment:
        """A payment by its id. Raises UnknownPayment."""
        payment = self.open.get(txn_id) or self.journal.payment(txn_id)
        if payment is None:
            raise UnknownPayment(f"there is no payment {txn_id[: messages.LONGEST_ID]}")
        return payment

    def lock(self, txn_id: str) -> asyncio.Lock:
        """Holds back every other step of this payment."""
        return self._locks.setdefault(txn_id, asyncio.Lock())

    async def happens(
        self,
        txn_id: str,
        decide: Callable[[Payment], Happening | None],
        kept: Sequence[Row] = (),
        *,
        terminal: Terminal | None = None,
        patient: bool = True,
    ) -> Payment:
        """Something happens to a payment: `decide` says what, once it is that payment's turn, or None for
        nothing.

        `kept` rows are written with it. `patient` waits for a failing disk, because evidence must not be
        lost.
        """
        async with self.lock(txn_id):
            payment = self.find(txn_id)
            happening = decide(payment)
            if happening is None:
                return payment
            if terminal is not None and payment.terminal != terminal.pos_id:
                payment = msgspec.structs.replace(
                    payment, terminal=terminal.pos_id
                )  # it has named itself by now
            return await self.step(payment, happening, kept, patient=patient)

    async def step(
        self, payment: Payment, happening: Happening, kept: Sequence[Row], *, patient: bool
    ) -> Payment:
        """One step, under the payment's lock. Raises NotAllowed, and JournalUnavailable unless `patient`."""
        fact, told, note = happening
        step = lifecycle.advance(payment, fact, self.clock(), told, note)
        written = [*kept, *rows.changed_payment(step.payment, fact, step.alerts)]
        if patient:
            await self.keep(written)
        else:
            await self.journal.write(written)
        self._adopt(step.payment, fact)
        for alert in step.alerts:
            self.notify(Notice("alert", alert.text, step.payment, step.payment.terminal))
        return step.payment

    async def keep(self, written: Sequence[Row]) -> None:
        """Write, however long the disk takes to come back."""
        while True:
            try:
                return await self.journal.write(written)
            except JournalUnavailable as error:
                self.notify(Notice("alert", f"{error}; waiting for it"))
                await asyncio.sleep(JOURNAL_RETRY_S)

    async def alarm(
        self, alert: Alert, txn_id: str | None, terminal: str | None, kept: Sequence[Row] = ()
    ) -> None:
        """Keep something for a person to see, and show it."""
        await self.keep([*kept, rows.alert_row(alert, self.clock(), txn_id, terminal)])
        self.notify(Notice("alert", alert.text, terminal=terminal))

    def arm(self, payment: Payment) -> None:
        """Start, keep or stop the timer that the payment's situation asks for."""
        due = lifecycle.timer(payment, self._durations)
        running = self._timers.get(payment.txn_id)
        if running is not None and due is not None and running[0] is due[0]:
            return
        if running is not None:
            running[1].cancel()
            del self._timers[payment.txn_id]
        if due is not None:
            handle = asyncio.get_running_loop().call_later(due[1], self._rings, payment.txn_id, due[0])
            self._timers[payment.txn_id] = (due[0], handle)

    def notify(self, notice: Notice) -> None:
        """Tell everybody who watches."""
        for watcher in list(self.watchers):
            watcher(notice)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside the caller, to the end even if the caller goes away."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def forget_locks(self) -> None:
        """Drop locks of payments that are over."""
        for txn_id in [txn_id for txn_id, lock in self._locks.items() if not lock.locked()]:
            if txn_id not in self.open:
                del self._locks[txn_id]

    def _adopt(self, payment: Payment, fact: Fact) -> None:
        if payment.state in IN_FLIGHT or payment.state in UNSETTLED:
            self.open[payment.txn_id] = payment
        else:
            self.open.pop(payment.txn_id, None)
        terminal = self.terminals.that_has(payment.txn_id, payment.terminal)
        if terminal is not None and terminal.in_flight == payment.txn_id and payment.state not in IN_FLIGHT:
            terminal.in_flight = None
        self.arm(payment)
        self.notify(Notice("payment", fact.value, payment, payment.terminal))

    def _rings(self, txn_id: str, fact: Fact) -> None:
        self._timers.pop(txn_id, None)

        def still_due(payment: Payment) -> Happening | None:
            due = lifecycle.timer(payment, self._durations)
            return (fact, None, None) if due is not None and due[0] is fact else None

        self.spawn(self.happens(txn_id, still_due))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()  # taken, so that a caller who left makes no noise
            if error is not None and not isinstance(error, KioskRefusal):
                self.notify(Notice("alert", f"An internal error: {type(error).__name__}"))


def if_in_flight(fact: Fact) -> Callable[[Payment], Happening | None]:
    """A fact that means something only to a payment whose outcome is open."""
    return lambda payment: (fact, None, None) if payment.state in IN_FLIGHT else None
