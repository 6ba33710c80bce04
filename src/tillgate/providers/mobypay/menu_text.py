"""What the menu prints: for people in a terminal window, or one JSON document a line for programs."""

import json
import sys
from collections.abc import Iterable
from typing import Any, Final, Protocol

import msgspec

from tillgate.providers.mobypay import control_schemas as shapes
from tillgate.providers.mobypay import money
from tillgate.providers.mobypay.journal import OpenAlert
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, Payment, State
from tillgate.providers.mobypay.messages import PaymentMode, number_text
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.steps import Notice

LABELS: Final = {
    PaymentMode.CARD: "Card Payment",
    PaymentMode.BNPL: "Buy Now Pay Later (BNPL)",
    PaymentMode.DUITNOW_QR: "DuitNow QR",
    PaymentMode.IPP: "Installment Payment (IPP)",
}
MENU: Final = (
    "1. Card Payment",
    "2. Buy Now Pay Later (BNPL)",
    "3. DuitNow QR",
    "4. Installment Payment (IPP)",
    "5. Cancel Transaction",
    "6. Show Status",
    "7. Exit",
)
_STYLES: Final = {
    State.SUCCEEDED: "bold green", State.FAILED: "red", State.CANCELLED: "yellow",
    State.UNKNOWN: "bold magenta", State.REQUIRES_REVIEW: "bold magenta",
}  # fmt: skip


class Screen(Protocol):
    """Where the menu writes."""

    def line(self, text: str, style: str = "") -> None:
        """A line for people."""

    def event(self, kind: str, **members: Any) -> None:
        """Something a program wants to know."""

    def notice(self, notice: Notice) -> None:
        """Something that happened."""


class PlainScreen:
    """For people. Lines appear above the prompt."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """A line for people."""
        self._console.print(text, style=style or None, markup=False)

    def event(self, kind: str, **members: Any) -> None:
        """Nothing: people read lines."""

    def notice(self, notice: Notice) -> None:
        """A live line."""
        if notice.payment is not None and notice.kind == "payment":
            for text in payment_lines(notice.payment, notice.text):
                self.line(text, _STYLES.get(notice.payment.state, ""))
        elif notice.payment is None or notice.payment.reason != notice.text:  # else it was just said
            self.line(
                f"{'! ' if notice.kind == 'alert' else ''}{plain(notice.text)}", _notice_style(notice.kind)
            )


class JsonScreen:
    """For programs: one JSON document a line on standard output."""

    def line(self, text: str, style: str = "") -> None:
        """Nothing: programs read events."""

    def event(self, kind: str, **members: Any) -> None:
        """One document."""
        sys.stdout.write(msgspec.json.encode({"type": kind, **members}).decode() + "\n")
        sys.stdout.flush()

    def notice(self, notice: Notice) -> None:
        """One document for what happened."""
        if notice.payment is not None and notice.kind == "payment":
            self.event("payment", fact=notice.text, payment=shapes.payment_out(notice.payment))
        else:
            payment = notice.payment.txn_id if notice.payment else None
            self.event(notice.kind, text=notice.text, terminal=notice.terminal, txn_id=payment)


def payment_lines(payment: Payment, fact: str) -> Iterable[str]:
    """What people are told when something happens to a payment."""
    head = f"{payment.txn_id} {LABELS[payment.mode]} RM{money.ringgit(payment.amount_sen)}"
    if fact == "requested":
        yield f"{head}: sent to {plain(payment.terminal)}"
    elif fact == "ack":
        yield f"{payment.txn_id}: acknowledged by {plain(payment.terminal)}"
    elif fact == "repeat":
        yield f"{payment.txn_id}: told again, nothing changed"
    elif payment.state in IN_FLIGHT:
        yield f"{payment.txn_id}: {payment.state.replace('_', ' ')}"
    else:
        yield f"{head}: {payment.state.replace('_', ' ').upper()}"
        yield from result_lines(payment)


def result_lines(payment: Payment) -> Iterable[str]:
    """The terminal's own words about an outcome."""
    if payment.authorization_code:
        yield f"  Auth code: {plain(payment.authorization_code)}"
    if payment.transaction_id:
        yield f"  Reference: {plain(payment.transaction_id)}"
    if payment.card_last4:
        yield f"  Card: **** **** **** {plain(payment.card_last4)}"
    if payment.error_message:
        yield f"  Terminal says: {plain(payment.error_message)}"
    if payment.reason:
        yield f"  {plain(payment.reason)}"


def plan_lines(payment: Payment) -> Iterable[str]:
    """The plans as the terminal sent them. Nothing is recomputed; what does not add up is said."""
    yield f"Amount: RM{money.ringgit(payment.amount_sen)}"
    yield "Available installment plans:"
    for number, plan in enumerate(usable_plans(payment), 1):
        frequency = f" · {plain(_text(plan.get('frequency')))}" if plan.get("frequency") else ""
        count = plan.get("totalInstallments")
        parts = f" · {count} installments" if isinstance(count, int) and count > 0 else ""
        yield f"{number}. {plain(plan['planId'])}{frequency}{parts}"
        details = plan.get("installmentDetails")
        details = [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []
        for detail in details:
            fee = _ringgit(detail.get("installmentFee"))
            percentage = number_text(detail.get("installmentFeePercentage"))
            extra = f", fee RM{fee} ({percentage or '?'}%)" if fee not in ("?", "0.00") else ""
            when = plain(_text(detail.get("date")) or "?")
            which = plain(_text(detail.get("installmentNumber"))) or "?"
            yield f"     #{which}: RM{_ringgit(detail.get('amount'))} on {when}{extra}"
        yield from _sum_warning(payment, details)


def usable_plans(payment: Payment) -> list[dict[str, Any]]:
    """Those plans that can be chosen, numbers still as they were written."""
    plans = json.loads(payment.plans, parse_float=_Lexeme) if payment.plans else []
    return [
        plan
        for plan in plans
        if isinstance(plan, dict) and isinstance(plan.get("planId"), str) and plan["planId"]
    ]


def status_lines(server: KioskServer) -> Iterable[str]:
    """Terminals, transactions and everything that waits for a person."""
    config, payments = server.config, list(server.kiosk.steps.open.values())
    yield f"Kiosk {config.kiosk_id} on {config.host}:{server.port}, {server.connection_count()} connections"
    terminals = [shapes.terminal_out(terminal) for terminal in server.terminals]
    connected = sum(terminal.connected for terminal in terminals)
    yield f"Terminals: {len(terminals)}, connected: {connected}"
    for terminal in terminals:
        state = "connected" if terminal.connected else "not connected"
        known = "" if terminal.identified or not terminal.connected else ", has not said who it is"
        busy = (
            f", busy with {terminal.busy_with}"
            if terminal.busy_with
            else ", idle"
            if terminal.connected
            else ""
        )
        skew = f", clock {terminal.skew_ms / 1000:+.1f} s" if terminal.skew_ms is not None else ""
        yield f"  {plain(terminal.pos_id)}: {state}{known}{busy}{skew}"
    running = [payment for payment in payments if payment.state in IN_FLIGHT]
    yield f"Transactions in flight: {len(running) or 'none'}"
    for payment in running:
        yield f"  {_short(payment)}"
    unsettled = [payment for payment in payments if payment.state not in IN_FLIGHT]
    if unsettled:
        yield "Outcome to be settled (type: settle <transaction> paid|unpaid <reason>):"
        for payment in unsettled:
            because = f" · {plain(payment.reason)}" if payment.reason else ""
            yield f"  {_short(payment)}{because}"
    yield "Last transactions:"
    for _, payment in server.journal.page(5):
        yield f"  {_short(payment)}"
    yield from alert_lines(server.journal.open_alerts(5))


def alert_lines(alerts: list[OpenAlert]) -> Iterable[str]:
    """The newest things that nobody has dealt with."""
    if alerts:
        yield "Alerts:"
    for alert in alerts:
        yield f"  {shapes.rfc3339(alert.at_ms)} {alert.txn_id or ''} {plain(alert.text)}"


def plain(text: str) -> str:
    """Text from a terminal, unable to steer the window it is shown in."""
    return "".join(character if character.isprintable() else "?" for character in text)


class _Lexeme(str):
    """A number as it was written."""

    __slots__ = ()


def _sum_warning(payment: Payment, details: list[dict[str, Any]]) -> Iterable[str]:
    parts = [_sen(detail.get("amount")) for detail in details]
    fees = [_sen(detail.get("installmentFee")) or 0 for detail in details]
    known = [part for part in parts if part is not None]
    if not parts or (len(known) == len(parts) and payment.amount_sen in (sum(known), sum(known) + sum(fees))):
        return
    total = money.ringgit(sum(known)) if len(known) == len(parts) else "an unknown sum"
    yield f"     (the installments add up to RM{total}; ask which of them is charged)"


def _short(payment: Payment) -> str:
    return f"{payment.txn_id} {payment.mode} RM{money.ringgit(payment.amount_sen)} {payment.state}"


def _sen(value: Any) -> int | None:
    text = number_text(value)
    return money.sen_of(text) if text is not None else None


def _ringgit(value: Any) -> str:
    sen = _sen(value)
    return money.ringgit(sen) if sen is not None else plain(_text(value)) or "?"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _notice_style(kind: str) -> str:
    return {"alert": "bold yellow", "terminal": "cyan", "frame": "dim"}.get(kind, "")
