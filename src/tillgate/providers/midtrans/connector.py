"""Midtrans (Indonesia), Core API: QRIS for every wallet, or a wallet's own rail.

A notification's signature covers order id, code and amount, glued together, and not the status: a genuine
"cancel" signs a made-up "settlement", and fields can be moved across their seams. So it is a hint and nothing
more: the transaction is looked up with our own key, and only what the API answers moves a payment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tillgate.domain.dialogue import Hint, Noise, Record, Tell
from tillgate.domain.errors import (
    Declined,
    InvalidRequest,
    Refusal,
    Unauthenticated,
    UnknownMethod,
    Unreachable,
    Unreadable,
    Unsure,
)
from tillgate.domain.money import UNITS
from tillgate.domain.payment import (
    Accepted,
    Closed,
    Fact,
    Paid,
    RefundAccepted,
    Refunded,
    RefundFact,
    RefundSucceeded,
)
from tillgate.providers.midtrans import codes, wire
from tillgate.providers.midtrans.config import LIVE_URL, SANDBOX_URL, Config, Rail, checked, rail
from tillgate.spi import (
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

SEAL: Final = "-t"
"""Ends our order ids: all of one length and none on a digit, so that no two of them glue alike."""

_OURS: Final = re.compile(rf"(att_[0-9a-f]{{32}}){SEAL}", re.ASCII)
_REFUND: Final = re.compile(r"refund_[0-9a-f]{32}", re.ASCII)
_PHONE: Final = re.compile(r"(?:\+62|62|0)(8\d{7,12})", re.ASCII)
_PUBLISHED: Final = frozenset(urlsplit(url).hostname for url in (LIVE_URL, SANDBOX_URL))


class Midtrans:
    """One merchant account at Midtrans."""

    poll_after_ms = 60_000

    def __init__(self, config: Config) -> None:
        self._config = checked(config)
        self._base = config.url
        self._keys = tuple(one.encode() for one in (config.server_key, config.previous_server_key) if one)
        basic = base64.b64encode(f"{config.server_key}:".encode()).decode()
        self._headers = {
            "authorization": f"Basic {basic}",
            "accept": "application/json",
            "content-type": "application/json",
        }

    # --- starting -------------------------------------------------------------------------------------------

    def invite(self, order: Order) -> Show | None:
        """Never invites by itself; refuses in time what the rail does not take. Raises `InvalidRequest`."""
        self._rail(order)
        return None

    def _rail(self, order: Order) -> Rail:
        one = rail(self._config, order.channel)
        rupiah, sen = divmod(order.amount.minor, UNITS["IDR"])
        if order.amount.currency != "IDR" or sen:
            raise InvalidRequest("the amount must be whole rupiah", param="amount")
        if not one.min_idr <= rupiah <= one.max_idr:
            raise InvalidRequest(
                f"amount must be {one.min_idr} to {one.max_idr} rupiah for {one.type}", param="amount"
            )
        if one.kind == "push":
            _phone(order)
        return one

    async def start(self, order: Order, send: Send) -> Started:
        """POST /v2/charge. Raises `Declined`, `Unreachable` or `Unsure`."""
        try:
            one = self._rail(order)
        except InvalidRequest as error:
            raise Declined(str(error)) from None
        reply = await self._charge(order, one, send)
        found = wire.json_object(reply.body)
        code = wire.code(reply.status, found)
        if code != 201 or found is None:
            raise _refused(code, found, codes.CHARGE)
        self._same(order, found)
        status, show = wire.text(found, "transaction_status").lower(), _show(found, one)
        if status in ("deny", "failure"):
            raise Declined(codes.explain(code, wire.text(found, "status_message"), {}))
        if show is None or not wire.identifier(found, "transaction_id"):
            raise Unsure("Midtrans took it and gave nothing to show")
        return Started(wire.identifier(found, "transaction_id"), show)

    async def _charge(self, order: Order, one: Rail, send: Send) -> HttpReply:
        """The same key and order id however often it is sent: Midtrans makes one transaction of it."""
        body: dict[str, Any] = {
            "payment_type": one.type,
            "transaction_details": {"order_id": _order_id(order), "gross_amount": order.amount.major},
            "custom_field1": order.channel,
            "custom_field2": order.payment_id,
        }
        back = self._config.callback_url or order.return_url or ""
        match one.type:
            case "qris":
                body["qris"] = {"acquirer": self._config.acquirer}
            case "gopay":
                body["gopay"] = {"enable_callback": bool(back), **({"callback_url": back} if back else {})}
            case "shopeepay":
                body["shopeepay"] = {"callback_url": back}
            case "ovo":
                body["ovo"] = {"payer_phone_number": _phone(order)}
        if one.expiry_s is not None:
            least, most = one.expiry_s
            seconds = min(max((order.expires_at - order.created_at) // 1000, least), most)
            body["custom_expiry"] = {
                "order_time": wire.order_time(order.created_at),
                "expiry_duration": seconds,
                "unit": "second",
            }
        headers = {"idempotency-key": _order_id(order)}
        if order.notify_url and self._config.notification != "dashboard":
            headers[f"x-{self._config.notification}-notification"] = order.notify_url
        return await self._call("POST", "/v2/charge", send, body, headers)

    # --- looking --------------------------------------------------------------------------------------------

    async def look(self, order: Order, send: Send) -> Tell | None:
        """GET /v2/{order_id}/status. None: Midtrans has no such order.

        Raises `Declined` where the question is refused, `Unsure` where its answer cannot be trusted."""
        found = await self._status(order, send)
        if found is None:
            return None
        facts = self._facts(found)
        if isinstance(facts[0], Accepted) and not order.show:
            facts = (await self._shown_again(order, facts[0], send),)
        return Tell(facts, operation_id=order.operation_id)

    async def _shown_again(self, order: Order, known: Accepted, send: Send) -> Accepted:
        """A status has no code to show. For five minutes the charge's own answer can be had again by its key;
        after that it is refused as a duplicate, and nothing was done."""
        one = rail(self._config, order.channel)
        reply = await self._charge(order, one, send)
        found = wire.json_object(reply.body)
        if found is None or wire.code(reply.status, found) != 201 or not self._is(order, found):
            return known
        show = _show(found, one)
        return Accepted(known.external_id, msgspec.json.encode(show).decode() if show else None)

    async def _status(self, order: Order, send: Send) -> dict[str, Any] | None:
        reply = await self._call("GET", f"/v2/{_order_id(order)}/status", send, None, {})
        found = wire.json_object(reply.body)
        code = wire.code(reply.status, found)
        if found is not None and code == 404 and wire.text(found, "status_code") == "404":
            return None
        if found is not None and wire.text(found, "transaction_status"):
            self._same(order, found)
            return found
        if code in (401, 402, 403):
            raise Declined(codes.explain(code, wire.text(found or {}, "status_message"), codes.CHARGE))
        raise Unsure(f"Midtrans answered {code} to a look")

    def _facts(self, found: dict[str, Any]) -> tuple[Fact, ...]:
        status, fraud = (
            wire.text(found, "transaction_status").lower(),
            wire.text(found, "fraud_status").lower(),
        )
        external_id = wire.identifier(found, "transaction_id") or None
        message = wire.text(found, "status_message")[:160]
        if status in (
            "settlement",
            "capture",
            "refund",
            "partial_refund",
            "chargeback",
            "partial_chargeback",
        ):
            if fraud == "deny":
                return (Closed("failed", f"denied as fraud (Midtrans: {message})"),)
            if status == "capture" and fraud == "challenge":
                return (Accepted(external_id),)
            return self._paid(found, external_id)
        match status:
            case "pending" | "authorize":
                return (Accepted(external_id),)
            case "deny" | "failure":
                return (Closed("failed", f"denied (Midtrans: {status}: {message})"),)
            case "cancel":
                return (Closed("cancelled", "cancelled at Midtrans"),)
            case "expire":
                return (Closed("expired", "expired at Midtrans"),)
        raise Unsure(f"Midtrans' status {status[:40]!r} is not known")

    def _paid(self, found: dict[str, Any], external_id: str | None) -> tuple[Fact, ...]:
        total, currency = wire.minor(found.get("gross_amount")), wire.text(found, "currency") or "IDR"
        if not total or currency not in UNITS:
            raise Unsure("Midtrans says that it was paid and not how much")
        at = wire.moment_ms(wire.text(found, "settlement_time") or wire.text(found, "transaction_time"))
        payer = codes.payer(wire.text(found, "issuer") or wire.text(found, "payment_type"))
        paid = Paid(total, currency, paid_with=payer, external_id=external_id, at=at)
        rows = list(wire.parts(found, "refunds"))
        confirmed = [
            wire.minor(one.get("refund_amount")) or 0 for one in rows if one.get("bank_confirmed_at")
        ]
        return (paid, Refunded(sum(confirmed))) if any(confirmed) else (paid,)

    # --- cancelling -----------------------------------------------------------------------------------------

    async def cancel(self, order: Order, send: Send) -> Tell:
        """POST …/cancel, then how it stands. Raises `Declined` where Midtrans never had it."""
        reply = await self._call("POST", f"/v2/{_order_id(order)}/cancel", send, {}, {})
        if reply.status >= 500:
            raise Unsure(f"Midtrans answered {reply.status} to a cancel")
        found = await self._status(order, send)
        if found is None:
            raise Declined("Midtrans does not have it")
        return Tell(self._facts(found), operation_id=order.operation_id)

    # --- refunds --------------------------------------------------------------------------------------------

    def refund_rules(self, channel: str) -> RefundRules | None:
        return rail(self._config, channel).refunds

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        """POST …/refund; the same `refund_key` is the same refund for seven days.

        Raises `Declined`, `Unreachable` or `Unsure`."""
        body = {
            "refund_key": refund.operation_id,
            "amount": refund.amount.major,
            "reason": refund.reason[:255],
        }
        path = f"/v2/{_order_id(refund.payment)}/refund"
        headers = {"idempotency-key": refund.operation_id}
        reply = await self._call("POST", path, send, body, headers)
        found = wire.json_object(reply.body)
        code = wire.code(reply.status, found)
        if code == 429:
            raise Unreachable(codes.explain(code, "", codes.REFUND))  # not taken: safe to ask again
        if code != 200 or found is None:
            raise _refused(code, found, codes.REFUND)
        self._same(refund.payment, found)
        return Tell((RefundAccepted(),), operation_id=refund.operation_id)

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None:
        found = await self._status(refund.payment, send)
        if found is None:
            raise Unsure("Midtrans does not find the payment now")
        for one in wire.parts(found, "refunds"):
            if wire.text(one, "refund_key") == refund.operation_id:
                fact: RefundFact = RefundSucceeded() if one.get("bank_confirmed_at") else RefundAccepted()
                return Tell((fact,), operation_id=refund.operation_id)
        return None

    # --- hearing --------------------------------------------------------------------------------------------

    def hear(self, call: Inbound) -> Heard:
        """A notification, as a hint. Raises a `Refusal`."""
        if call.method != "POST":
            raise UnknownMethod()
        message = wire.json_object(call.body)
        if message is None:
            raise Unreadable()
        order_id = wire.text(message, "order_id")
        glued = order_id + wire.text(message, "status_code") + wire.text(message, "gross_amount")
        given = wire.text(message, "signature_key").encode("utf-8", "surrogatepass")
        signatures = [_signature(glued, key) for key in self._keys]
        if not order_id or not any(hmac.compare_digest(given, one) for one in signatures):
            raise Unauthenticated()
        ours = _OURS.fullmatch(order_id)
        if ours is None:
            return Heard(Noise("an order that is not ours"))
        for one in reversed(list(wire.parts(message, "refunds"))):
            if _REFUND.fullmatch(key := wire.text(one, "refund_key")):
                return Heard(Hint(operation_id=key))
        name = wire.identifier(message, "transaction_id")
        return Heard(Hint(operation_id=ours[1], clues=(name,) if name else ()))

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        """What decides on repeats: 200 none, 503 four at a minute's distance, others by Midtrans' table."""
        if isinstance(outcome, Refusal):
            status = 503 if outcome.status >= 500 else outcome.status
            return Reply(status, msgspec.json.encode({"error": outcome.code}))
        return Reply(200, b'{"received":true}')

    # --- playing the payer ----------------------------------------------------------------------------------

    def play(self, order: Order, action: str, fault: str) -> HttpCall | None:
        """Only our simulator can be told to; Midtrans' own is a web page for a person."""
        if self._config.live or urlsplit(self._base).hostname in _PUBLISHED:
            return None
        url = f"{self._base}/_simulator/{_order_id(order)}/{action}?fault={fault}"
        return HttpCall("POST", url, self._headers, b"{}", self._config.timeout_s)

    # --- the wire -------------------------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, send: Send, body: dict[str, Any] | None, headers: dict[str, str]
    ) -> HttpReply:
        raw = msgspec.json.encode(body) if body is not None else b""
        timeout_s = self._config.timeout_s
        return await send(HttpCall(method, self._base + path, {**self._headers, **headers}, raw, timeout_s))

    def _is(self, order: Order, found: dict[str, Any]) -> bool:
        merchant = wire.text(found, "merchant_id")
        if self._config.merchant_id and merchant and merchant != self._config.merchant_id:
            return False
        named = wire.identifier(found, "transaction_id")
        return wire.text(found, "order_id") == _order_id(order) and order.external_id in (None, named)

    def _same(self, order: Order, found: dict[str, Any]) -> None:
        if not self._is(order, found):
            raise Unsure("Midtrans answers about something else")


def _order_id(order: Order) -> str:
    return order.operation_id + SEAL


def _signature(glued: str, key: bytes) -> bytes:
    """SHA-512 over the fields with nothing between them, and the server key; lower-case hex."""
    return hashlib.sha512(glued.encode("utf-8", "surrogatepass") + key).hexdigest().encode()


def _refused(code: int, found: dict[str, Any] | None, words: dict[int, str]) -> Declined | Unsure:
    message = wire.text(found or {}, "status_message")
    denied = words is codes.REFUND and code == 202
    if denied or (400 <= code < 500 and code not in (406, 408, 409, 425, 499)):
        return Declined(codes.explain(code, message, words))
    return Unsure(f"Midtrans answered {code} {message}"[:200])  # 202: the first try is still being worked on


def _show(found: dict[str, Any], one: Rail) -> Show | None:
    """What the payer is shown: `qr_string`, or the link into the app from `actions`."""
    if one.kind == "push":
        return Show("wait")
    text = wire.text(found, "qr_string")
    if one.kind == "qr":
        return Show("qr", qr_string=text) if text and len(text) <= 1024 else None
    for action in wire.parts(found, "actions"):
        url = wire.text(action, "url")
        if wire.text(action, "name") == "deeplink-redirect" and re.match(r"[a-z][a-z0-9+.-]*://", url):
            return Show("app", url=url[:2048], qr_string=text or None)
    return None


def _phone(order: Order) -> str:
    """The payer's phone in +62 form. Raises `InvalidRequest`."""
    given = str(order.metadata.get("customer_phone") or "")
    found = _PHONE.fullmatch(re.sub(r"[ .-]", "", given))
    if found is None:
        raise InvalidRequest("this wallet needs metadata.customer_phone, as +628…", param="customer_phone")
    return f"+62{found[1]}"
