"""What connections report: believed messages, signed ones that cannot be acted on, and the end of the
link.
"""

from collections.abc import Callable
from contextlib import suppress

from tillgate.providers.mobypay import journal_rows as rows
from tillgate.providers.mobypay import lifecycle, messages
from tillgate.providers.mobypay.errors import Reason, UnknownPayment
from tillgate.providers.mobypay.journal_rows import Row
from tillgate.providers.mobypay.lifecycle import Alert, Fact, Payment
from tillgate.providers.mobypay.protocol import Received, SignedButRefused
from tillgate.providers.mobypay.replay import SKEW_WARNING_MS
from tillgate.providers.mobypay.steps import Happening, Notice, Steps, if_in_flight
from tillgate.providers.mobypay.terminals import NAMELESS, Connection, Impostor, Terminal


class Evidence:
    """Turns what terminals say into facts about payments. Nothing signed is lost; nothing foreign is
    believed.
    """

    def __init__(self, steps: Steps):
        self._steps = steps
        self._terminals = steps.terminals

    async def heard(self, connection: Connection, received: Received) -> None:
        """A believed message. It is in the journal before it changes anything."""
        message = received.message
        txn_id = None if isinstance(message, messages.Other) else message.txn_id
        try:
            terminal, older = self._terminals.heard(connection, received)
        except Impostor as impostor:
            alert = Alert(impostor.kind, str(impostor))
            await self._set_aside(alert, connection, received, txn_id, impostor.kind)
            return
        if older is not None:
            await self.superseded(older)
        await self._watch_clock(terminal, received)
        if txn_id is None:
            return  # it showed who it is; there is nothing in it to keep
        payment = self._steps.open.get(txn_id) or self._steps.journal.payment(txn_id)
        if payment is None:
            text = f"{terminal.pos_id} reports on {txn_id}, which this kiosk never asked for."
            await self._set_aside(
                Alert("unknown_payment", text), connection, received, txn_id, "no_such_payment"
            )
        elif not self._owns(connection, terminal, payment):
            text = f"{terminal.pos_id} reports on {txn_id}, which was given to {payment.terminal}."
            await self._set_aside(Alert("not_the_owner", text), connection, received, txn_id, "not_the_owner")
        else:
            kept = self._rows(connection, received, txn_id, "accepted")
            await self._steps.happens(txn_id, _reader(message), kept, terminal=terminal)

    async def refused(self, connection: Connection, refusal: SignedButRefused) -> None:
        """A frame that the terminal did sign, but that must not be acted on. A person has to know."""
        name = connection.terminal.pos_id if connection.terminal else refusal.key.name
        if refusal.reason is Reason.REPLAYED:
            self._steps.notify(Notice("frame", f"{name}: a frame was replayed and ignored", terminal=name))
            return
        txn_id = refusal.payload.get("txn_id")
        txn_id = txn_id[: messages.LONGEST_ID] if type(txn_id) is str else None
        now_ms, raw = self._steps.clock(), _blotted(refusal.raw, messages.sensitive_text(refusal.payload))
        kept = [rows.frame_row(now_ms, "in", name, connection.number, txn_id, refusal.reason.value, raw)]
        nonce = refusal.payload.get("nonce")
        if refusal.expires_ms is not None and type(nonce) is str:
            kept.append(rows.nonce_row(refusal.key.name, nonce, refusal.expires_ms))
        kind = "clock_skew" if refusal.reason is Reason.OUTSIDE_WINDOW else "refused_frame"
        text = (
            f"{name}: a signed {refusal.payload.get('type')!s:.40} was not acted on ({refusal.detail[:200]})."
        )
        await self._steps.alarm(Alert(kind, text), txn_id, name, kept)

    async def superseded(self, older: Connection) -> None:
        """The terminal is on another connection now, so it is cut off from this one."""
        older.close("the terminal has connected anew")
        await self.lost(older)

    async def lost(self, connection: Connection) -> None:
        """A connection ended. The payment that was on it is unknown now."""
        terminal = connection.terminal
        self._terminals.closed(connection)
        if terminal is None or terminal.in_flight is None:
            return
        payment = self._steps.open.get(terminal.in_flight)
        if payment is not None and payment.connection == connection.number:
            with suppress(UnknownPayment):  # it was given up before anything was sent
                await self._steps.happens(payment.txn_id, if_in_flight(Fact.LINK_CUT))

    def _owns(self, connection: Connection, terminal: Terminal, payment: Payment) -> bool:
        if payment.connection == connection.number:
            return True
        if payment.terminal.startswith(NAMELESS):
            # It was cut off before it said who it is. Back on a new connection, it is known by the shared
            # secret and by the payment's id, which nobody can guess and nobody else was told.
            return terminal.learned and not self._terminals.is_open(payment.connection)
        return payment.terminal == terminal.pos_id

    async def _set_aside(
        self, alert: Alert, connection: Connection, received: Received, txn_id: str | None, verdict: str
    ) -> None:
        name = connection.terminal.pos_id if connection.terminal else None
        await self._steps.alarm(alert, txn_id, name, self._rows(connection, received, txn_id, verdict))

    async def _watch_clock(self, terminal: Terminal, received: Received) -> None:
        was_off = terminal.skew_ms is not None and abs(terminal.skew_ms) >= SKEW_WARNING_MS
        terminal.skew_ms, terminal.heard_ms = received.skew_ms, self._steps.clock()
        if abs(received.skew_ms) >= SKEW_WARNING_MS and not was_off:
            text = (
                f"The clock of {terminal.pos_id} is off by {received.skew_ms / 1000:+.0f} s;"
                " at 60 s none of its messages will be believed."
            )
            await self._steps.alarm(Alert("clock_skew", text), None, terminal.pos_id)

    def _rows(
        self, connection: Connection, received: Received, txn_id: str | None, verdict: str
    ) -> list[Row]:
        name = connection.terminal.pos_id if connection.terminal else received.key.name
        raw = _blotted(received.raw, received.blot)
        return [
            rows.frame_row(self._steps.clock(), "in", name, connection.number, txn_id, verdict, raw),
            rows.nonce_row(received.key.name, received.nonce, received.nonce_expires_ms),
        ]


def _reader(message: messages.Message) -> Callable[[Payment], Happening]:
    def read(payment: Payment) -> Happening:
        match message:
            case messages.TransactionResult():
                return lifecycle.classify(payment, message), message, None
            case messages.TerminalError():
                return Fact.ERROR, None, message.message
        assert isinstance(message, messages.Ack), "a kiosk's link lets through what terminals say only"
        return lifecycle.answered(payment, message), None, None

    return read


def _blotted(raw: bytes, text: str | None) -> bytes:
    return raw if text is None else raw.replace(text.encode(), b"*" * len(text))
