"""The kiosk's menu: the seven documented entries, with results arriving above the prompt, from a
keyboard or a pipe.
"""

import asyncio
import sys
import threading
from typing import Any, Final, Protocol

from tillgate.providers.mobypay import control_schemas as shapes
from tillgate.providers.mobypay import money
from tillgate.providers.mobypay.errors import BadAmount, BadRequest, KioskRefusal
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, Payment, State
from tillgate.providers.mobypay.menu_text import (
    MENU,
    Screen,
    plan_lines,
    status_lines,
    usable_plans,
)
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.steps import Notice

MODES: Final = {
    "1": PaymentMode.CARD,
    "2": PaymentMode.BNPL,
    "3": PaymentMode.DUITNOW_QR,
    "4": PaymentMode.IPP,
}
LONGEST_LINE: Final = 1024


class Interrupted(Exception):
    """The question is no longer the right one: something happened meanwhile."""


class Lines(Protocol):
    """Where answers come from. `scripted` ones are all there already, so the menu must do the waiting."""

    scripted: bool

    async def ask(self, question: str) -> str | None:
        """The next line, None when there are no more. Raises Interrupted after `interrupt`."""

    def interrupt(self) -> None:
        """Take back the question that is being asked, if any."""


class KeyboardLines:
    """A person at a terminal window. Must be used inside prompt_toolkit's patch_stdout."""

    scripted = False

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession

        self._session: PromptSession[Any] = PromptSession()
        self._typed = ""

    async def ask(self, question: str) -> str | None:
        """The next line; Ctrl-D and Ctrl-C mean that there are no more."""
        try:
            answer = await self._session.prompt_async(question, default=self._typed)
        except (EOFError, KeyboardInterrupt):
            return None
        self._typed = ""
        if answer is self:
            raise Interrupted
        return str(answer)

    def interrupt(self) -> None:
        """Take back the question; what was typed is lost, it answered another one."""
        if self._session.app.is_running:
            self._session.app.exit(result=self)


class PipedLines:
    """Lines from a pipe or a file, read by a thread because a file cannot be awaited."""

    scripted = True

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._pump, daemon=True, name="menu-input").start()

    async def ask(self, question: str) -> str | None:
        """The next line."""
        return await self._queue.get()

    def interrupt(self) -> None:
        """Nothing is asked of a pipe."""

    def _pump(self) -> None:
        try:
            while line := sys.stdin.readline(LONGEST_LINE):
                self._loop.call_soon_threadsafe(self._queue.put_nowait, line.rstrip("\r\n"))
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)
        except (RuntimeError, UnicodeDecodeError, ValueError):  # the loop is gone, or the input is no text
            return


class Menu:
    """Reads choices, does them, and tells what becomes of them."""

    def __init__(self, server: KioskServer, lines: Lines, screen: Screen):
        self._server = server
        self._kiosk = server.kiosk
        self._lines = lines
        self._screen = screen
        self._moved = asyncio.Event()
        self._mine: set[str] = set()
        """Payments begun here that are not over. Those begun by the control API are its own affair."""
        self._undecided: list[str] = []
        """Those of them whose plans wait for a choice."""

    async def run(self) -> None:
        """Until Exit, or the end of the input. Leaves nothing in flight without having said so."""
        self._kiosk.steps.watchers.add(self._watch)
        try:
            while True:
                if self._undecided:
                    await self._choose(self._undecided[0])
                    continue
                choice = await self._next_choice()
                if choice in (None, "7"):
                    if await self._may_leave():
                        return
                elif choice:
                    await self._guarded(choice)
        finally:
            self._kiosk.steps.watchers.discard(self._watch)

    async def _next_choice(self) -> str | None:
        for text in ("", *MENU):
            self._screen.line(text)
        try:
            answer = await self._lines.ask("Select option (1-7): ")
        except Interrupted:
            return ""
        return answer.strip() if answer is not None else None

    async def _guarded(self, choice: str) -> None:
        try:
            if choice in MODES:
                await self._pay(MODES[choice])
            elif choice == "5":
                await self._cancel()
            elif choice == "6":
                self._status()
            elif choice.split()[0] == "settle":
                await self._settle(choice)
            else:
                raise BadRequest("choose a number from 1 to 7")
        except KioskRefusal as refusal:
            self._refused(refusal)

    async def _pay(self, mode: PaymentMode) -> None:
        amount = await self._ask_again("Enter amount (RM): ")
        if not amount:
            raise BadAmount("no amount was entered")
        text, _, terminal = amount.strip().partition(" ")
        amount_sen = money.check_amount(
            money.parse_ringgit(text.removeprefix("RM")), self._server.config.limits.max_amount_sen
        )
        if self._lines.scripted:
            await self._until(lambda: not self._mine or self._has_idle(terminal.strip() or None))
        payment = await self._kiosk.pay(mode, amount_sen, terminal=terminal.strip() or None)
        current = self._kiosk.find(payment.txn_id)
        if current.state in IN_FLIGHT:
            self._mine.add(payment.txn_id)
            self._follow(current)
        if self._lines.scripted and mode is PaymentMode.IPP:
            # The next line answers the question which plan, so it must not be read before the question.
            await self._until(lambda: payment.txn_id not in self._mine or payment.txn_id in self._undecided)

    async def _choose(self, txn_id: str) -> None:
        payment = self._kiosk.find(txn_id)
        plans = usable_plans(payment)
        for text in plan_lines(payment):
            self._screen.line(text)
        self._screen.event("plans", txn_id=txn_id, plans=shapes.payment_out(payment).plans)
        try:
            answer = await self._lines.ask(f"Select plan (1-{len(plans)}) or 'q' to quit: ")
        except Interrupted:
            return
        if txn_id not in self._undecided:
            return  # it was decided elsewhere, or timed out, while the question stood
        try:
            if answer is None or answer.strip().lower() == "q":
                self._undecided.remove(txn_id)
                await self._kiosk.cancel(txn_id)
            elif answer.strip().isdecimal() and 1 <= int(answer) <= len(plans):
                self._undecided.remove(txn_id)
                await self._kiosk.choose_plan(txn_id, plans[int(answer) - 1]["planId"])
            else:
                raise BadRequest(f"choose a number from 1 to {len(plans)}, or q")
        except KioskRefusal as refusal:
            self._refused(refusal)

    async def _cancel(self) -> None:
        running = [payment for payment in self._kiosk.steps.open.values() if payment.state in IN_FLIGHT]
        if not running:
            raise BadRequest("there is no active transaction to cancel")
        chosen = running[0]
        if len(running) > 1:
            for number, payment in enumerate(running, 1):
                amount = money.ringgit(payment.amount_sen)
                self._screen.line(
                    f"{number}. {payment.txn_id} {payment.mode} RM{amount} on {payment.terminal}"
                )
            answer = (await self._ask_again(f"Cancel which (1-{len(running)}): ") or "").strip()
            if not answer.isdecimal() or not 1 <= int(answer) <= len(running):
                raise BadRequest("nothing was cancelled")
            chosen = running[int(answer) - 1]
        await self._kiosk.cancel(chosen.txn_id)

    async def _settle(self, command: str) -> None:
        words = command.split(maxsplit=3)
        if len(words) != 4 or words[2] not in ("paid", "unpaid"):
            raise BadRequest("type: settle <transaction> paid|unpaid <reason>")
        await self._kiosk.settle(words[1], paid=words[2] == "paid", because=words[3])

    def _status(self) -> None:
        for text in status_lines(self._server):
            self._screen.line(text)
        open_payments = self._kiosk.steps.open.values()
        self._screen.event(
            "status",
            kiosk_id=self._server.config.kiosk_id,
            port=self._server.port,
            terminals=[shapes.terminal_out(terminal) for terminal in self._server.terminals],
            transactions=[shapes.payment_out(payment) for payment in open_payments],
            alerts=[shapes.alert_out(alert) for alert in self._server.journal.open_alerts(20)],
        )

    async def _may_leave(self) -> bool:
        if self._lines.scripted:
            await self._until(lambda: not self._mine)
            return True
        if not any(payment.state in IN_FLIGHT for payment in self._kiosk.steps.open.values()):
            return True
        self._screen.line(
            "A transaction is in flight. If you leave now, its outcome will be unknown.", "bold yellow"
        )
        answer = await self._ask_again("Leave all the same? (y/n): ")
        return answer is None or answer.strip().lower() == "y"

    async def _ask_again(self, question: str) -> str | None:
        """Ask until it is answered, even if plans arrive meanwhile: those wait their turn."""
        while True:
            try:
                return await self._lines.ask(question)
            except Interrupted:
                continue

    def _has_idle(self, name: str | None) -> bool:
        return any(
            terminal.connected and terminal.in_flight is None and name in (None, terminal.pos_id)
            for terminal in self._server.terminals
        )

    async def _until(self, true: Any) -> None:
        while not true():
            self._moved.clear()
            await self._moved.wait()

    def _refused(self, refusal: KioskRefusal) -> None:
        self._screen.line(str(refusal), "red")
        self._screen.event("error", code=refusal.code, detail=str(refusal))

    def _watch(self, notice: Notice) -> None:
        payment = notice.payment
        if payment is None or notice.kind != "payment":
            return
        self._moved.set()
        if payment.txn_id in self._mine:
            self._follow(payment)

    def _follow(self, payment: Payment) -> None:
        if payment.state not in IN_FLIGHT:
            self._mine.discard(payment.txn_id)
        if payment.state is State.AWAITING_PLAN and payment.txn_id not in self._undecided:
            self._undecided.append(payment.txn_id)
            self._lines.interrupt()
        elif payment.state is not State.AWAITING_PLAN and payment.txn_id in self._undecided:
            self._undecided.remove(payment.txn_id)
            self._lines.interrupt()
