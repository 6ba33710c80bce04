"""The kiosk's counter: take a payment, choose a plan, cancel, settle. It knows connections, but no
sockets.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec

from tillgate.providers.mobypay import journal_rows as rows
from tillgate.providers.mobypay import lifecycle, messages, money
from tillgate.providers.mobypay.config import KioskConfig
from tillgate.providers.mobypay.errors import (
    AlreadyPaid,
    BadRequest,
    InProgress,
    JournalUnavailable,
    KeyReused,
    LocalProtocolError,
    NotAllowed,
    NoTerminal,
    Unsettled,
)
from tillgate.providers.mobypay.evidence import Evidence
from tillgate.providers.mobypay.journal import Journal
from tillgate.providers.mobypay.journal_rows import Row
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, UNSETTLED, Fact, Payment, State
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.replay import MemoryNonces
from tillgate.providers.mobypay.steps import Notice, Steps, epoch_ms
from tillgate.providers.mobypay.terminals import Connection, Terminal, Terminals

HOUSEKEEPING_S: Final = 60.0
LONGEST_REFERENCE: Final = 128

_ID_SYMBOLS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_txn_id() -> str:
    """Unpredictable and unique: 85 random bits behind the prefix that the kiosk document uses."""
    return "TXN" + "".join(secrets.choice(_ID_SYMBOLS) for _ in range(17))


class HubOrder(msgspec.Struct, frozen=True):
    """An order of the hub's. `take` makes it ours, or raises a KioskRefusal."""

    attempt: str
    txn_id: str
    take: Callable[[], Awaitable[None]]


class Kiosk:
    """One kiosk: its payments, its terminals and its journal."""

    def __init__(
        self, config: KioskConfig, journal: Journal, terminals: Terminals, clock: Callable[[], int] = epoch_ms
    ):
        self.config = config
        self.journal = journal
        self.terminals = terminals
        self.clock = clock
        self.nonces = MemoryNonces()
        self.steps = Steps(journal, terminals, config.timers, clock)
        self.evidence = Evidence(self.steps)
        self.steps.watchers.add(self._on_notice)
        self._starting: set[str] = set()

    async def start(self) -> None:
        """Take up where the journal ends. Raises JournalUnavailable."""
        for scope, nonce, expires_ms in self.journal.nonces(self.clock()):
            self.nonces.remember(scope, nonce, expires_ms)
        await self.steps.resume()
        self.steps.spawn(self._keep_house())

    async def stop(self) -> None:
        """Stop timers and tasks; close connections first, so that their end is written down."""
        await self.steps.stop()

    async def pay(
        self,
        mode: PaymentMode,
        amount_sen: int,
        *,
        terminal: str | None = None,
        reference: str | None = None,
        idempotency_key: str | None = None,
        request_digest: bytes = b"",
        order: HubOrder | None = None,
    ) -> Payment:
        """Ask one terminal to collect an amount (whole sen); returns once the request is written down and
        sent.

        `terminal` names one, otherwise an idle one is taken. `reference` is the merchant's order: it is
        never charged twice. `order` is the hub's, and is taken there once a terminal is free for it.
        Raises a KioskRefusal; then nothing was sent.
        """
        money.check_amount(amount_sen, self.config.limits.max_amount_sen)
        if reference is not None and not 0 < len(reference) <= LONGEST_REFERENCE:
            raise BadRequest(f"a reference has 1 to {LONGEST_REFERENCE} characters")
        if idempotency_key is not None:
            answered = self.journal.answered(idempotency_key)
            if answered is not None:
                if answered[0] != request_digest:
                    raise KeyReused
                return self.find(answered[1].txn_id)
            if idempotency_key in self._starting:
                raise InProgress("the first request with this Idempotency-Key is still being answered")
        self._check_order(reference, amount_sen)
        doubtful = {payment.terminal for payment in self.steps.open.values() if payment.state in UNSETTLED}
        chosen, connection = self.terminals.choose(terminal, doubtful)
        now_ms = self.clock()
        payment = Payment(
            txn_id=order.txn_id if order else new_txn_id(),
            mode=mode,
            amount_sen=amount_sen,
            terminal=chosen.pos_id,
            connection=connection.number,
            created_ms=now_ms,
            updated_ms=now_ms,
            reference=reference,
            hub_attempt=order.attempt if order else None,
        )
        # Taken before anything is awaited, so that nobody else can take the same terminal or order.
        chosen.in_flight, chosen.used_ms = payment.txn_id, now_ms
        self.steps.open[payment.txn_id] = payment
        if idempotency_key is not None:
            self._starting.add(idempotency_key)
        take = order.take if order else None
        start = self._start(payment, chosen, connection, idempotency_key, request_digest, take)
        started: Payment = await asyncio.shield(self.steps.spawn(start))
        return started

    async def decline(
        self, mode: PaymentMode, amount_sen: int, order: HubOrder, reference: str, because: str
    ) -> None:
        """Write down that an order of the hub's was taken and no terminal was asked for it."""
        now_ms = self.clock()
        payment = Payment(
            txn_id=order.txn_id,
            mode=mode,
            amount_sen=amount_sen,
            terminal="none",
            connection=0,
            state=State.FAILED,
            created_ms=now_ms,
            updated_ms=now_ms,
            reference=reference[:LONGEST_REFERENCE],
            hub_attempt=order.attempt,
            reason=because,
        )
        await self.journal.write(rows.new_payment(payment, None, None))
        self.steps.notify(Notice("payment", "declined", payment))

    async def choose_plan(self, txn_id: str, plan_id: str) -> Payment:
        """Tell the terminal which plan the payer chose. Raises UnknownPayment, NotAllowed or BadRequest."""
        payment = self.find(txn_id)
        lifecycle.advance(payment, Fact.PLAN_CHOSEN, 0)
        if plan_id not in offered_plan_ids(payment):
            raise BadRequest("the terminal did not offer a plan of that id")
        selection = messages.PlanSelection(txn_id=txn_id, plan_id=plan_id)
        return await self._command(txn_id, Fact.PLAN_CHOSEN, selection, plan_id)

    async def cancel(self, txn_id: str) -> Payment:
        """Ask the terminal to stop. Only its answer, or its silence, decides. Raises UnknownPayment or
        NotAllowed.
        """
        return await self._command(txn_id, Fact.CANCEL_ASKED, messages.CancelTransaction(txn_id=txn_id), None)

    async def settle(self, txn_id: str, *, paid: bool, because: str) -> Payment:
        """A person says what became of an unknown or disputed payment.

        Raises UnknownPayment, NotAllowed, or BadRequest without a reason.
        """
        because = because.strip()
        if not 0 < len(because) <= messages.LONGEST_TEXT:
            raise BadRequest(f"a reason of 1 to {messages.LONGEST_TEXT} characters is needed")
        fact = Fact.SETTLED_PAID if paid else Fact.SETTLED_UNPAID
        settling = self.steps.happens(txn_id, lambda _: (fact, None, because), patient=False)
        settled: Payment = await asyncio.shield(self.steps.spawn(settling))
        return settled

    def show(self, kind: str, text: str, terminal: str | None = None) -> None:
        """Tell watchers something that is not about a payment."""
        self.steps.notify(Notice(kind, text, terminal=terminal))

    def find(self, txn_id: str) -> Payment:
        """A payment by its id. Raises UnknownPayment."""
        return self.steps.find(txn_id)

    async def close_alert(self, number: int) -> None:
        """A person has dealt with an alert. Raises JournalUnavailable."""
        await self.journal.write([rows.closed_alert(number, self.clock())])

    async def _start(
        self,
        payment: Payment,
        terminal: Terminal,
        connection: Connection,
        key: str | None,
        digest: bytes,
        take: Callable[[], Awaitable[None]] | None,
    ) -> Payment:
        async with self.steps.lock(payment.txn_id):
            try:
                if take is not None:
                    await take()
                request = messages.TransactionRequest(
                    txn_id=payment.txn_id, amount_sen=payment.amount_sen, payment_mode=payment.mode
                )
                frame = connection.link.send(request, self.clock())
                begin = rows.new_payment(payment, key, digest)
                await self.journal.write([*begin, self._frame_out(payment, frame)])
            except BaseException as error:
                self.steps.open.pop(payment.txn_id, None)
                for holder in (terminal, self.terminals.that_has(payment.txn_id, terminal.pos_id)):
                    if holder is not None and holder.in_flight == payment.txn_id:
                        holder.in_flight = None
                if isinstance(error, LocalProtocolError):
                    raise NoTerminal(f"nothing can be said to {terminal.pos_id}: {error}") from error
                raise
            finally:
                self._starting.discard(key or "")
            self.steps.notify(Notice("payment", "requested", payment, payment.terminal))
            if not connection.alive:
                return await self.steps.step(payment, (Fact.NOT_SENT, None, None), (), patient=True)
            with suppress(ConnectionError):  # the loss is reported apart, and makes the payment unknown
                await connection.send(frame)
            self.steps.arm(payment)
            return payment

    async def _command(
        self, txn_id: str, fact: Fact, message: messages.KioskMessage, note: str | None
    ) -> Payment:
        done: Payment = await asyncio.shield(self.steps.spawn(self._say(txn_id, fact, message, note)))
        return done

    async def _say(
        self, txn_id: str, fact: Fact, message: messages.KioskMessage, note: str | None
    ) -> Payment:
        async with self.steps.lock(txn_id):
            payment = self.find(txn_id)
            lifecycle.advance(payment, fact, 0, note=note)  # refused before anything is signed
            terminal = self.terminals.that_has(txn_id, payment.terminal)
            connection = terminal.connection if terminal is not None and terminal.connected else None
            if connection is None:
                raise NotAllowed(f"{payment.terminal} is not connected, so nothing can be said to it")
            try:
                frame = connection.link.send(message, self.clock())
            except LocalProtocolError as error:
                raise NotAllowed(str(error)) from error
            kept = [self._frame_out(payment, frame)]
            after = await self.steps.step(payment, (fact, None, note), kept, patient=False)
            with suppress(ConnectionError):
                await connection.send(frame)
            return after

    def _check_order(self, reference: str | None, amount_sen: int) -> None:
        if reference is None:
            for payment in self.steps.open.values():
                same = payment.reference is None and payment.amount_sen == amount_sen
                if same and payment.state is State.UNKNOWN:
                    raise Unsettled(
                        f"the outcome of {payment.txn_id} over the same amount is unknown: settle it first,"
                        " or give this payment a reference of its own"
                    )
            return
        known = {payment.txn_id: payment for payment in self.journal.payments_of(reference)}
        known |= {
            txn_id: payment for txn_id, payment in self.steps.open.items() if payment.reference == reference
        }
        for payment in known.values():
            if payment.state in IN_FLIGHT:
                raise InProgress(f"{payment.txn_id} for this reference is running")
            if payment.state in UNSETTLED:
                raise Unsettled(f"{payment.txn_id} for this reference is {payment.state}: settle it first")
            if payment.state is State.SUCCEEDED:
                raise AlreadyPaid(f"this reference was paid with {payment.txn_id}")

    def _frame_out(self, payment: Payment, frame: bytes) -> Row:
        return rows.frame_row(
            self.clock(), "out", payment.terminal, payment.connection, payment.txn_id, "sent", frame
        )

    def _on_notice(self, notice: Notice) -> None:
        """Nobody chose a plan in time: ask the terminal to leave the choice. That settles nothing."""
        if notice.kind == "payment" and notice.text == Fact.PLAN_DUE and notice.payment is not None:
            self.steps.spawn(self._leave_choice(notice.payment.txn_id))

    async def _leave_choice(self, txn_id: str) -> None:
        with suppress(NotAllowed, JournalUnavailable):
            await self.cancel(txn_id)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            now_ms = self.clock()
            self.nonces.forget_expired(now_ms)
            await self.steps.keep([rows.forget_nonces(now_ms)])
            self.steps.forget_locks()


def offered_plan_ids(payment: Payment) -> list[str]:
    """The ids of the plans that the terminal offered, in its order."""
    plans = msgspec.json.decode(payment.plans) if payment.plans else []
    ids = (plan.get("planId") for plan in plans if isinstance(plan, dict))
    return [plan_id for plan_id in ids if isinstance(plan_id, str) and plan_id]
