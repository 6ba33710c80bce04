"""The sandbox's dialect: JSON, notices signed with HMAC-SHA256 over their raw bytes."""

from __future__ import annotations

import hmac
from typing import Any, Final

import msgspec

from tillgate.domain.dialogue import Record, Tell
from tillgate.domain.errors import Declined, InvalidRequest, Refusal, Unauthenticated, Unreadable, Unsure
from tillgate.domain.payment import (
    Accepted,
    Closed,
    Fact,
    Paid,
    RefundAccepted,
    RefundFact,
    RefundFailed,
    RefundSucceeded,
)
from tillgate.qr import sandbox_qris
from tillgate.spi import (
    Channel,
    Heard,
    HttpCall,
    HttpReply,
    Inbound,
    Order,
    RefundOrder,
    RefundRules,
    Reply,
    Send,
    Show,
    Started,
)

BANK: Final = "sandbox://sandbox"
SIGNATURE: Final = "x-sandbox-signature"

CHANNELS: Final = tuple(
    Channel(id_, name, "IDR", min_minor=100, max_minor=10**11)
    for id_, name in (("gopay", "GoPay"), ("ovo", "OVO"), ("dana", "Dana"), ("shopeepay", "ShopeePay"))
)

FAULTS: Final = {
    901: "the bank takes the charge and its answer is lost",
    902: "the bank answers 503 and has not taken the charge",
    903: "the bank is slow: two seconds",
    904: "the bank declines the charge",
    905: "the answer is lost and the bank never got the charge",
}
"""The last three digits of an amount in rupiah, and what happens when such a payment is opened."""


class Config(msgspec.Struct, frozen=True):
    webhook_key: str


class _Charge(msgspec.Struct):
    state: str
    currency: str = "IDR"
    paid_minor: int = 0
    reason: str | None = None
    paid_with: str | None = None
    paid_at: int | None = None


class _Refund(msgspec.Struct):
    state: str
    reason: str | None = None


class _Notice(msgspec.Struct):
    event_id: str
    operation_id: str
    charge: _Charge | None = None
    refund: _Refund | None = None


_notice: Final = msgspec.json.Decoder(_Notice).decode
_charge: Final = msgspec.json.Decoder(_Charge).decode
_refund: Final = msgspec.json.Decoder(_Refund).decode


class Sandbox:
    def __init__(self, config: Config) -> None:
        self._key = config.webhook_key.encode()

    # --- out ---

    def invite(self, order: Order) -> Show | None:
        """Raises `InvalidRequest`: a QRIS code carries whole rupiah."""
        if order.amount.minor % 100:
            raise InvalidRequest("the amount must be whole rupiah", param="amount")
        if order.amount.minor // 100 % 1000 in FAULTS:
            return None
        return _show(order)

    async def start(self, order: Order, send: Send) -> Started:
        reply = await send(_post("/charges", charge_request(order, self._key.decode())))
        if 400 <= reply.status < 500:
            raise Declined(_reason(reply))
        if reply.status != 201:
            raise Unsure(f"the bank answered {reply.status}")
        return Started(order.operation_id, _show(order))

    async def look(self, order: Order, send: Send) -> Tell | None:
        reply = await send(HttpCall("GET", f"{BANK}/charges/{order.operation_id}"))
        if reply.status == 404:
            return None
        facts = _facts(_read(reply, _charge))
        if facts == (Accepted(),):  # its answer was lost: this is what the payer should have been shown
            facts = (Accepted(order.operation_id, msgspec.json.encode(_show(order)).decode()),)
        return Tell(facts, operation_id=order.operation_id)

    async def cancel(self, order: Order, send: Send) -> Tell:
        body = charge_request(order, self._key.decode())
        reply = await send(_post(f"/charges/{order.operation_id}/cancel", body))
        return Tell(_facts(_read(reply, _charge)), operation_id=order.operation_id)

    def refund_rules(self, channel: str) -> RefundRules:
        return RefundRules(step_minor=100)

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        if refund.amount.minor % 100:
            raise Declined("the amount must be whole rupiah")
        body = {
            "refund_id": refund.operation_id,
            "operation_id": refund.payment.operation_id,
            "amount_minor": refund.amount.minor,
            "notify_url": refund.payment.notify_url,
            "webhook_key": self._key.decode(),
        }
        reply = await send(_post("/refunds", body))
        if 400 <= reply.status < 500:
            raise Declined(_reason(reply))
        return Tell((_refund_fact(_read(reply, _refund)),), operation_id=refund.operation_id)

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None:
        reply = await send(HttpCall("GET", f"{BANK}/refunds/{refund.operation_id}"))
        if reply.status == 404:
            return None
        return Tell((_refund_fact(_read(reply, _refund)),), operation_id=refund.operation_id)

    # --- in ---

    def hear(self, call: Inbound) -> Heard:
        given = call.headers.get(SIGNATURE, "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(hmac.new(self._key, call.body, "sha256").hexdigest().encode(), given):
            raise Unauthenticated()
        try:
            notice = _notice(call.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(str(error)[:200]) from None
        facts: tuple[Fact | RefundFact, ...] = ()
        if notice.charge is not None:
            facts += _facts(notice.charge)
        if notice.refund is not None:
            facts += (_refund_fact(notice.refund),)
        return Heard(Tell(facts, operation_id=notice.operation_id, event_id=notice.event_id))

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        if isinstance(outcome, Refusal):
            return Reply(outcome.status, msgspec.json.encode({"error": outcome.code}))
        return Reply(200, b'{"received":true}')


def charge_request(order: Order, webhook_key: str) -> dict[str, Any]:
    """What the bank is told about a charge; also what a payer's action carries in the sandbox."""
    return {
        "operation_id": order.operation_id,
        "amount_minor": order.amount.minor,
        "currency": order.amount.currency,
        "channel": order.channel,
        "notify_url": order.notify_url,
        "webhook_key": webhook_key,
    }


def _show(order: Order) -> Show:
    return Show("qr", qr_string=sandbox_qris(order.operation_id, order.amount.minor, "Tillgate", "Jakarta"))


def _post(path: str, body: dict[str, Any]) -> HttpCall:
    return HttpCall("POST", BANK + path, {"content-type": "application/json"}, msgspec.json.encode(body))


def _read(reply: HttpReply, decode: Any) -> Any:
    if reply.status >= 400:
        raise Unsure(f"the bank answered {reply.status}")
    try:
        return decode(reply.body)
    except msgspec.DecodeError:
        raise Unsure("the bank's answer cannot be read") from None


def _reason(reply: HttpReply) -> str:
    try:
        return str(msgspec.json.decode(reply.body)["reason"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the bank answered {reply.status}"


def _facts(charge: _Charge) -> tuple[Fact, ...]:
    match charge.state:
        case "paid":
            return (Paid(charge.paid_minor, charge.currency, paid_with=charge.paid_with, at=charge.paid_at),)
        case "failed" | "expired" | "cancelled" as why:
            return (Closed(why, charge.reason),)
        case _:
            return (Accepted(),)


def _refund_fact(refund: _Refund) -> RefundFact:
    match refund.state:
        case "succeeded":
            return RefundSucceeded()
        case "failed":
            return RefundFailed(refund.reason or "failed")
        case _:
            return RefundAccepted()
