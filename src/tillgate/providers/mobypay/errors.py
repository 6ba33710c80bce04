"""What can go wrong, and whose fault it is.

`LocalProtocolError` and `RemoteProtocolError` belong to the wire; `KioskRefusal` and its leaves answer a
person or a client who asked the kiosk for something. Each refusal carries a stable `code` and the HTTP
status of its answer.
"""

from enum import StrEnum


class LocalProtocolError(Exception):
    """We tried to say something our role or the protocol does not allow. Nothing was sent."""


class Reason(StrEnum):
    """Why a received frame was not believed."""

    TOO_LONG = "too_long"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    BAD_STRUCTURE = "bad_structure"
    BAD_SIGNATURE = "bad_signature"
    BAD_NONCE = "bad_nonce"
    REPLAYED = "replayed"
    BAD_TIMESTAMP = "bad_timestamp"
    OUTSIDE_WINDOW = "outside_window"
    WRONG_ROLE = "wrong_role"
    BAD_FIELDS = "bad_fields"


class RemoteProtocolError(Exception):
    """The peer sent something we do not accept.

    `fatal` means that the byte stream can no longer be cut into frames and the connection must go. `signed`
    means that the signature was good, so the frame came from the terminal and deserves an operator's eye,
    not only a count.
    """

    def __init__(
        self, reason: Reason, detail: str, *, raw: bytes = b"", fatal: bool = False, signed: bool = False
    ):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.raw = raw
        self.fatal = fatal
        self.signed = signed


class KioskRefusal(Exception):
    """The kiosk will not do this."""

    code = "refused"
    status = 409

    def __init__(self, detail: str | None = None):
        super().__init__(detail or self.__doc__)


class BadAmount(KioskRefusal):
    """The amount cannot be asked of a terminal."""

    code, status = "bad_amount", 422


class BadRequest(KioskRefusal):
    """The request is malformed."""

    code, status = "bad_request", 422


class UnknownPayment(KioskRefusal):
    """There is no payment of that id."""

    code, status = "unknown_payment", 404


class UnknownTerminal(KioskRefusal):
    """There is no terminal of that name."""

    code, status = "unknown_terminal", 404


class NoTerminal(KioskRefusal):
    """No terminal is connected that could take the payment."""

    code, status = "no_terminal", 409


class TerminalBusy(KioskRefusal):
    """The terminal is busy with another payment."""

    code, status = "terminal_busy", 409


class Unsettled(KioskRefusal):
    """The outcome of an earlier payment for this order or amount is not known yet: settle that one first."""

    code, status = "unsettled_payment", 409


class AlreadyPaid(KioskRefusal):
    """This order has been paid."""

    code, status = "already_paid", 409


class InProgress(KioskRefusal):
    """A payment for this order is running."""

    code, status = "in_progress", 409


class NotAllowed(KioskRefusal):
    """The payment's state does not allow this."""

    code, status = "not_allowed", 409


class OrderGone(KioskRefusal):
    """The hub has this order no longer, or gave it to somebody else."""

    code, status = "order_gone", 409


class OrderOver(KioskRefusal):
    """The hub gave us this order, but no terminal may be asked for it any more."""

    code, status = "order_over", 409


class HubAway(KioskRefusal):
    """The hub cannot be reached now."""

    code, status = "hub_away", 503


class NotEnrolled(KioskRefusal):
    """The hub does not know this kiosk."""

    code, status = "not_enrolled", 401


class TerminalExists(KioskRefusal):
    """A terminal of that name is enrolled with another secret."""

    code, status = "terminal_exists", 409


class KeyReused(KioskRefusal):
    """The Idempotency-Key was used before with another request."""

    code, status = "idempotency_key_reused", 422


class WeakSecret(KioskRefusal):
    """The secret is published, shared or too short for anything but the sandbox."""

    code, status = "weak_secret", 422


class JournalUnavailable(KioskRefusal):
    """The kiosk cannot write its journal, so it takes no payments."""

    code, status = "journal_unavailable", 503
