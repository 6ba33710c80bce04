"""Every message of the link, both directions and both dialects, as values.

The captured frames of real terminals and the written document differ in names and statuses; both are read,
and nothing a terminal tells us is thrown away: references, error texts and plans are kept as sent.
"""

from enum import StrEnum
from typing import Any

import msgspec

from tillgate.providers.mobypay import money, strictjson


class PaymentMode(StrEnum):
    """How the payer pays; the word on the wire."""

    CARD = "card"
    BNPL = "bnpl"
    DUITNOW_QR = "duitnow_qr"
    IPP = "ipp"


class _Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    txn_id: str


class TransactionRequest(_Message, frozen=True, kw_only=True, gc=False):
    """Kiosk to terminal: collect this amount. `amount_sen` is whole sen."""

    amount_sen: int
    payment_mode: PaymentMode


class PlanSelection(_Message, frozen=True, kw_only=True, gc=False):
    """Kiosk to terminal: the payer chose this instalment plan."""

    plan_id: str


class CancelTransaction(_Message, frozen=True, kw_only=True, gc=False):
    """Kiosk to terminal: please stop. A request, never an outcome."""


class Ack(_Message, frozen=True, kw_only=True, gc=False):
    """Terminal to kiosk: heard. Real terminals say `processing` and `plan_received`, the document
    `received` too.
    """

    status: str = ""


class TransactionResult(_Message, frozen=True, kw_only=True, gc=False):
    """Terminal to kiosk: an outcome, or the offer of plans.

    `amount` is the JSON number as written, None when absent or null; `amount_sen` its whole sen, None when
    it has none. `plans` is the JSON array as sent.
    """

    status: str
    amount: str | None = None
    amount_sen: int | None = None
    transaction_id: str | None = None
    authorization_code: str | None = None
    card_last4: str | None = None
    error_message: str | None = None
    plans: str | None = None
    plan_id: str | None = None


class TerminalError(_Message, frozen=True, kw_only=True, gc=False):
    """Terminal to kiosk: something went wrong. After a lost link it proves nothing about the money."""

    message: str = ""


class Other(msgspec.Struct, frozen=True, gc=False):
    """A signed message of a type this link does not define, a ping for instance. It identifies the
    terminal, no more.
    """

    type: str


KioskMessage = TransactionRequest | PlanSelection | CancelTransaction
TerminalMessage = Ack | TransactionResult | TerminalError
Message = KioskMessage | TerminalMessage | Other

KIOSK_TYPES: dict[str, type[KioskMessage]] = {
    "transaction_request": TransactionRequest,
    "ipp_plan_selection": PlanSelection,
    "cancel_transaction": CancelTransaction,
}
TERMINAL_TYPES: dict[str, type[TerminalMessage]] = {
    "ack": Ack,
    "transaction_result": TransactionResult,
    "error": TerminalError,
}
WIRE_NAMES: dict[type, str] = {
    kind: name for types in (KIOSK_TYPES, TERMINAL_TYPES) for name, kind in types.items()
}

SUCCESS_STATUSES = frozenset({"success", "approved"})
FAILURE_STATUSES = frozenset({"failed"})
PLANS_STATUS = "ipp_plans"
CANCEL_ACK_STATUSES = frozenset({"received", "processing", ""})
"""What an ack of a cancel may say: the document's words, or nothing. Any other is no promise to stop."""
LONGEST_TEXT = 512
LONGEST_ID = 128


def read(kind: str, payload: dict[str, Any]) -> Message:
    """The message in a verified payload. Raises ValueError when a member it cannot do without is missing or
    wrong.
    """
    match kind:
        case "ack":
            return Ack(txn_id=_id(payload, "txn_id"), status=_text(payload, "status") or "")
        case "transaction_result":
            return _result(payload)
        case "error":
            return TerminalError(txn_id=_id(payload, "txn_id"), message=_text(payload, "message") or "")
        case "transaction_request":
            return _request(payload)
        case "ipp_plan_selection":
            return PlanSelection(txn_id=_id(payload, "txn_id"), plan_id=_id(payload, "plan_id"))
        case "cancel_transaction":
            return CancelTransaction(txn_id=_id(payload, "txn_id"))
    return Other(kind[:LONGEST_ID])


def write(message: Message, amount_form: money.AmountForm = "decimal") -> dict[str, Any]:
    """The payload of a message, without timestamp and nonce. None members are left out."""
    if isinstance(message, Other):
        return {"type": message.type}
    payload: dict[str, Any] = {"type": WIRE_NAMES[type(message)], "txn_id": message.txn_id}
    match message:
        case TransactionRequest():
            payload["amount"] = msgspec.Raw(money.wire_amount(message.amount_sen, amount_form))
            payload["payment_mode"] = message.payment_mode.value
        case CancelTransaction():
            pass
        case PlanSelection():
            payload["plan_id"] = message.plan_id
        case Ack():
            payload["status"] = message.status
        case TerminalError():
            payload["message"] = message.message
        case TransactionResult():
            payload["status"] = message.status
            if message.amount is not None:
                payload["amount"] = msgspec.Raw(message.amount.encode())
            if message.plans is not None:
                plans = strictjson.parse(message.plans.encode())
                text = strictjson.render(plans, ascii_only=True, numbers="lexeme")
                payload["plans"] = msgspec.Raw(text.encode())
            for name in ("transaction_id", "authorization_code", "card_last4", "error_message", "plan_id"):
                value = getattr(message, name)
                if value is not None:
                    payload[name] = value
    return payload


def number_text(value: Any) -> str | None:
    """A number's characters, whichever decoder read it; None for anything that is not a number."""
    if value is None or isinstance(value, bool) or (type(value) is str) or isinstance(value, dict | list):
        return None
    return str(value)


def _request(payload: dict[str, Any]) -> TransactionRequest:
    amount = number_text(payload.get("amount"))
    amount_sen = money.sen_of(amount) if amount is not None else None
    if amount_sen is None or amount_sen <= 0:
        raise ValueError("amount is not a positive number of sen")
    mode = payload.get("payment_mode")
    if type(mode) is not str or mode not in set(PaymentMode):
        raise ValueError("payment_mode is not one of card, bnpl, duitnow_qr, ipp")
    return TransactionRequest(
        txn_id=_id(payload, "txn_id"), amount_sen=amount_sen, payment_mode=PaymentMode(mode)
    )


def _result(payload: dict[str, Any]) -> TransactionResult:
    amount, amount_sen = _amount(payload.get("amount"))
    plans = payload.get("plans")
    status = payload.get("status")
    return TransactionResult(
        txn_id=_id(payload, "txn_id"),
        # A status that is not a text is still an outcome somebody must look at, so it becomes an unlisted
        # one.
        status=status[:LONGEST_ID] if type(status) is str else f"({strictjson.as_sent(status)[:LONGEST_ID]})",
        amount=amount,
        amount_sen=amount_sen,
        transaction_id=_text(payload, "transaction_id"),
        authorization_code=_text(payload, "authorization_code"),
        card_last4=_last4(payload.get("card_last4")),
        error_message=_text(payload, "error_message") or _text(payload, "message"),
        plans=strictjson.as_sent(plans) if isinstance(plans, list) else None,
        plan_id=_text(payload, "plan_id"),
    )


def _amount(value: Any) -> tuple[str | None, int | None]:
    if value is None:
        return None, None
    number = number_text(value)
    if number is None:
        return strictjson.as_sent(value)[:LONGEST_ID], None
    return number, money.sen_of(number)


def _id(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    if type(value) is not str or not value or len(value) > LONGEST_ID:
        raise ValueError(f"{name} is not a text of 1 to {LONGEST_ID} characters")
    return value


def _text(payload: dict[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if value is None:
        return None
    return (value if type(value) is str else strictjson.as_sent(value))[:LONGEST_TEXT]


def _last4(value: Any) -> str | None:
    """At most four digits, whatever was sent: a card number must never come to rest here."""
    if value is None:
        return None
    digits = "".join(filter(str.isdigit, value if isinstance(value, str) else strictjson.as_sent(value)))
    return digits[-4:] or None


def sensitive_text(payload: dict[str, Any]) -> str | None:
    """A `card_last4` that holds more than four digits and so must be blotted out of the kept frame."""
    value = payload.get("card_last4")
    text = None if value is None else value if isinstance(value, str) else strictjson.as_sent(value)
    return text if text is not None and sum(map(str.isdigit, text)) > 4 else None
