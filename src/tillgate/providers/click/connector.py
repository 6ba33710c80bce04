"""Click's SHOP API: Click calls us with signed forms, Prepare then Complete, and waits for our answer.

Prepare asks to reserve an order; Complete with `error=0` says that the payer was debited, with a negative
`error` that the transaction is given up. The last is no question: it is told, not asked, and can therefore
never give back what was settled (the official matrix, scenario 8).
"""

from __future__ import annotations

import msgspec

from tillgate.domain.dialogue import Ask, Hint, Look, Noise, Record, Reserve, Settle, Tell
from tillgate.domain.errors import InvalidRequest, Refusal, UnknownTransaction, Unreadable
from tillgate.domain.payment import Attempt, Closed
from tillgate.providers.click import json_shop
from tillgate.providers.click import request as shop
from tillgate.providers.click.codes import (
    ALREADY_PAID,
    CANCELLED,
    NOT_UPDATED,
    NOTES,
    REFUSALS,
    SUCCESS,
    UNKNOWN_ORDER,
    UNKNOWN_TRANSACTION,
    WRONG_AMOUNT,
    code_of,
)
from tillgate.providers.click.config import Config, checked
from tillgate.providers.click.links import BadLink, pay_link
from tillgate.providers.click.request import PREPARE, Request
from tillgate.spi import Heard, Inbound, Order, Reply, Show


class Click:
    """The callbacks of one Click service: SHOP API, or one of its JSON variants. Needs no network."""

    refusals = REFUSALS

    def __init__(self, config: Config) -> None:
        """Raises `Misconfigured`."""
        self._config = checked(config)

    def hear(self, call: Inbound) -> Heard:
        """Raises a `Refusal`: -8, -1, -3 or -2 in Click's own order, before anything is looked up."""
        if self._config.protocol != "shop":
            return json_shop.hear(self._config, call)
        if call.method != "POST":
            raise Unreadable("Click sends POST only")
        request = shop.read(self._config, call.body)
        return Heard(self._message(request, call), request)

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        """Always HTTP 200: Click reads the code in the body."""
        if self._config.protocol != "shop":
            again = isinstance(outcome, Record) and _settled_before(call, outcome.attempt)
            return json_shop.answer(self._config, call, heard, outcome, again)
        if heard is None:
            code = code_of(outcome) if isinstance(outcome, Refusal) else NOT_UPDATED
            return _json({"error": code, "error_note": NOTES[code]})
        request: Request = heard.echo
        code = _code(call, heard.message, request, outcome)
        body: dict[str, object] = {
            "click_trans_id": request.click_trans_id,
            "merchant_trans_id": request.merchant_trans_id,
        }
        if request.action == PREPARE:
            if code == SUCCESS:
                body["merchant_prepare_id"] = request.prepare_id
        else:
            body["merchant_confirm_id"] = request.prepare_id if code in (SUCCESS, ALREADY_PAID) else None
        return _json(body | {"error": code, "error_note": NOTES[code]})

    def invite(self, order: Order) -> Show | None:
        """The pay link, which is also what the QR says; None for foreign money. Raises `InvalidRequest`."""
        if order.amount.currency != "UZS":
            return None
        amount = order.amount if order.amount.minor else None  # a standing order fixes none
        try:
            link = pay_link(self._config, order.order_id, amount, return_url=order.return_url)
        except BadLink as bad:
            raise InvalidRequest(f"Click cannot be given this order: {bad}", param="order_id") from None
        return Show("redirect", qr_string=link, url=link, account={"transaction_param": order.order_id})

    def _message(self, request: Request, call: Inbound) -> Ask | Tell:
        external_id = str(request.click_trans_id)
        if request.action == PREPARE:
            return Reserve(
                external_id,
                request.merchant_trans_id,
                request.amount,
                provider_at=request.signed_at,
                # by our clock: an order must not stay held because Click's clock is wrong
                expires_at=call.received_at + self._config.reserve_minutes * 60_000,
                details=details(request.click_paydoc_id),
                payment_number=str(request.click_paydoc_id),
            )
        if request.error == 0:
            return Settle(
                external_id,
                request.amount,
                reference=request.merchant_trans_id,
                debited=True,
                linked=request.linked,
                payment_number=str(request.click_paydoc_id),
            )
        if not request.linked:
            return Look(external_id)  # changes nothing; `answer` says what is wrong with it
        closed = Closed("cancelled", f"click {request.error} {request.note}".strip(), of_paid=True)
        # Click repeats it until it is answered: an operator who has looked is not asked again.
        return Tell((closed,), external_id=external_id, event_id=f"{external_id}:{request.error}")


def details(click_paydoc_id: int) -> str:
    """What is kept with the transaction: Click's payment number, which reversal and fiscal calls need."""
    return msgspec.json.encode({"click_paydoc_id": click_paydoc_id}).decode()


def _code(
    call: Inbound,
    message: Ask | Tell | Hint | Noise,
    request: Request,
    outcome: Record | Refusal | None,
) -> int:
    if isinstance(outcome, Refusal):
        given_up = request.error < 0 and isinstance(outcome, UnknownTransaction)
        return CANCELLED if given_up else code_of(outcome)
    if outcome is None or isinstance(message, Tell):
        return CANCELLED  # Click's error page: a negative error is answered -9, whatever we hold
    if isinstance(message, Settle):
        return ALREADY_PAID if _settled_before(call, outcome.attempt) else SUCCESS
    if not _same_order(request, outcome):
        return UNKNOWN_ORDER
    return _mislinked(request, outcome) if isinstance(message, Look) else SUCCESS


def _same_order(request: Request, record: Record) -> bool:
    """One click_trans_id belongs to one order for ever, whichever of the two the record was found by."""
    payment, attempt = record.payment, record.attempt
    if payment is None or attempt is None:
        return True
    return payment.order_id == request.merchant_trans_id and payment.id == attempt.payment_id


def _mislinked(request: Request, record: Record) -> int:
    """A cancellation whose merchant_prepare_id is not ours, judged in the order of Click's template."""
    attempt = record.attempt
    if attempt is not None and attempt.amount_minor != request.amount.minor:
        return WRONG_AMOUNT
    return UNKNOWN_TRANSACTION


def _settled_before(call: Inbound, attempt: Attempt | None) -> bool:
    """Whether this Complete found the transaction paid; one that raced with the first is answered like it."""
    return attempt is not None and attempt.paid_at is not None and attempt.paid_at < call.received_at


def _json(body: dict[str, object]) -> Reply:
    return Reply(200, msgspec.json.encode(body), "application/json; charset=utf-8")
