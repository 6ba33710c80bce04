"""Xendit (Indonesia), Payments API v3: QRIS for every wallet, or a wallet's own rail.

A webhook carries a static token and an unsigned body, so it is a hint and nothing more: its names are looked
up with our own key, and only what the API answers about our own reference moves a payment.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import AsyncIterator
from typing import Any, Final

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
    Refunded,
)
from tillgate.providers.xendit import codes, messages, statement, wire
from tillgate.providers.xendit.config import Config, Rail, checked, rail
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
    StatementLine,
)

TOKEN: Final = "x-callback-token"  # noqa: S105 - a header's name
EVENTS: Final = ("payment.", "payment_request.", "refund.")
PAYMENTS_LOOKED_AT: Final = 8

_OURS: Final = re.compile(r"(att|refund)_[0-9a-f]{32}", re.ASCII)
_PENDING: Final = ("REQUIRES_ACTION", "ACCEPTING_PAYMENTS", "PENDING", "AUTHORIZED")
_MAYBE_TAKEN: Final = (408, 409, 425, 499)


class Xendit:
    """One merchant account at Xendit. `reference_id` is the operation id: the hub's, never the merchant's."""

    poll_after_ms = 60_000

    def __init__(self, config: Config) -> None:
        self._config = checked(config)
        self._base = config.base_url.rstrip("/")
        self._tokens = tuple(
            one.encode() for one in (config.callback_token, config.previous_callback_token) if one
        )
        basic = base64.b64encode(f"{config.secret_key}:".encode()).decode()
        self._headers = {
            "authorization": f"Basic {basic}",
            "api-version": config.api_version,
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
                f"amount must be {one.min_idr} to {one.max_idr} rupiah for {one.code}", param="amount"
            )
        if one.kind == "push":
            messages.phone(order)
        return one

    async def start(self, order: Order, send: Send) -> Started:
        """POST /v3/payment_requests. Raises `Declined`, `Unreachable` or `Unsure`."""
        try:
            one = self._rail(order)
        except InvalidRequest as error:
            raise Declined(str(error)) from None
        body: dict[str, Any] = {
            "reference_id": order.operation_id,
            "type": "PAY",
            "country": "ID",
            "currency": "IDR",
            "request_amount": order.amount.major,
            "capture_method": "AUTOMATIC",
            "channel_code": one.code,
            "metadata": {"payment_id": order.payment_id, "wallet_id": order.channel},
        }
        if properties := self._properties(order, one):
            body["channel_properties"] = properties
        reply = await self._call("POST", "/v3/payment_requests", send, body, order.operation_id)
        found = wire.json_object(reply.body)
        if reply.status not in (200, 201):
            raise _refused(reply, found)
        if found is None:
            raise Unsure("Xendit's answer cannot be read")
        self._same(order, found)
        show = messages.show(found, one)
        if wire.text(found, "status") == "FAILED":
            raise Declined(codes.explain(wire.text(found, "failure_code"), "", codes.FAILURES))
        if show is None:
            raise Unsure("Xendit took it and gave nothing to show")
        return Started(wire.identifier(found, "payment_request_id"), show)

    def _properties(self, order: Order, one: Rail) -> dict[str, str]:
        if one.kind == "push":
            return {"mobile_number": messages.phone(order)}
        if one.kind == "qr":
            return {}
        back = order.return_url or ""
        found = {
            "success_return_url": self._config.success_return_url or back,
            "failure_return_url": self._config.failure_return_url or back,
        }
        return {name: url for name, url in found.items() if url}

    # --- looking --------------------------------------------------------------------------------------------

    async def look(self, order: Order, send: Send) -> Tell | None:
        """The payment request and its payments, by id, by the clues of webhooks, or by our reference.

        None: Xendit does not list it, and whoever could have paid it was never shown how.
        Raises `Declined` where the question is refused, `Unsure` where its answer cannot be trusted."""
        found = await self._request(order, send)
        if found is None:
            return None
        return Tell(await self._facts(order, found, send), operation_id=order.operation_id)

    async def _request(self, order: Order, send: Send) -> dict[str, Any] | None:
        clues = messages.clues(order)
        for name in filter(None, (order.external_id, *(one for one in clues if one.startswith("pr-")))):
            reply = await self._get(f"/v3/payment_requests/{name}", send)
            found = reply and wire.json_object(reply.body)
            if found and messages.about(order, found):
                return found
            if name == order.external_id:
                raise Unsure(
                    "Xendit answers about something else" if found else "Xendit does not find it now"
                )
        unseen = rail(self._config, order.channel).kind != "push"  # only we could have shown it to a payer
        try:
            rows = await self._listed(f"/payment_requests?reference_id={order.operation_id}", send)
        except Declined:
            if unseen:
                return None
            raise
        for one in rows:
            name = wire.identifier(one, "payment_request_id") or wire.identifier(one, "id")
            if wire.text(one, "reference_id") == order.operation_id:
                reply = await self._get(f"/v3/payment_requests/{name}", send)
                found = reply and wire.json_object(reply.body)
                if not found or not messages.about(order, found):
                    raise Unsure("Xendit lists it and shows something else")
                return found
        if not unseen:
            raise Declined("Xendit does not list it, and a phone may have rung: an operator decides")
        return None

    async def _facts(self, order: Order, found: dict[str, Any], send: Send) -> tuple[Fact, ...]:
        self._same(order, found)
        request_id, status = wire.identifier(found, "payment_request_id"), wire.text(found, "status")
        total, paid_with, at = await self._captured(order, found, send)
        currency = wire.text(found, "currency")
        if not total and status == "SUCCEEDED":  # there is money, whatever its details say
            total = wire.minor(found.get("request_amount")) or 0
            paid_with = paid_with or codes.payer(wire.text(found, "channel_code"))
        if total:
            if currency not in UNITS:
                raise Unsure("Xendit says that it was paid in a currency we do not know")
            paid = Paid(total, currency, paid_with=paid_with, external_id=request_id, at=at)
            back = await self._given_back(order, request_id, send)
            return (paid, Refunded(back)) if back else (paid,)
        why = codes.explain(wire.text(found, "failure_code"), "", codes.FAILURES)
        match status:
            case "FAILED":
                return (Closed("failed", why),)
            case "CANCELED" | "CANCELLED":
                return (Closed("cancelled", "cancelled at Xendit"),)
            case "EXPIRED":
                return (Closed("expired", "expired at Xendit"),)
            case _ if status in _PENDING:
                show = messages.show(found, rail(self._config, order.channel))
                return (Accepted(request_id, msgspec.json.encode(show).decode() if show else None),)
        raise Unsure(f"Xendit's status {status[:40]!r} is not known")

    async def _captured(
        self, order: Order, found: dict[str, Any], send: Send
    ) -> tuple[int, str | None, int | None]:
        """What the payments of a request brought in sen, whose wallet paid, and when.

        A code may be paid again, and after it expired: the payments that webhooks named count, too."""
        names = [wire.identifier(found, "latest_payment_id")]
        names += [one for one in messages.clues(order) if one.startswith("py-")]
        total, paid_with, at = 0, None, None
        for name in [one for one in dict.fromkeys(names) if one][:PAYMENTS_LOOKED_AT]:
            reply = await self._get(f"/v3/payments/{name}", send)
            payment = (reply and wire.json_object(reply.body)) or {}
            if wire.text(payment, "payment_request_id") != wire.text(found, "payment_request_id"):
                continue
            if wire.text(payment, "status") != "SUCCEEDED":
                continue
            captures = list(wire.parts(payment, "captures"))
            amounts = [wire.minor(one.get("capture_amount")) for one in captures]
            amounts = amounts or [wire.minor(payment.get("request_amount"))]
            if None in amounts or wire.text(payment, "currency") != wire.text(found, "currency"):
                raise Unsure("Xendit's payment carries no amount that can be read")
            total += sum(one or 0 for one in amounts)
            issuer = wire.text(wire.part(payment, "payment_details"), "issuer_name")
            paid_with = paid_with or codes.payer(issuer or wire.text(payment, "channel_code"))
            stamp = captures[0].get("capture_timestamp") if captures else payment.get("updated")
            at = at or wire.moment_ms(stamp if isinstance(stamp, str) else "")
        return total, paid_with, at

    async def _given_back(self, order: Order, request_id: str, send: Send) -> int:
        """What was refunded in all, where a webhook spoke of a refund that was not ours."""
        if not any(one.startswith("rfd-") for one in messages.clues(order)):
            return 0
        rows = await self._refunds_of(request_id, send)
        done = [one for one in rows if wire.text(one, "status") == "SUCCEEDED"]
        return sum(wire.minor(one.get("amount")) or 0 for one in done)

    # --- cancelling -----------------------------------------------------------------------------------------

    async def cancel(self, order: Order, send: Send) -> Tell:
        """POST …/cancel, then how it stands. Raises `Declined` where Xendit never had it."""
        found = await self._request(order, send)
        if found is None:
            raise Declined("Xendit does not have it")
        if wire.text(found, "status") in _PENDING:
            name = wire.identifier(found, "payment_request_id")
            reply = await self._call("POST", f"/v3/payment_requests/{name}/cancel", send, {}, "")
            after = wire.json_object(reply.body) if reply.status == 200 else None
            if reply.status >= 500:
                raise Unsure(f"Xendit answered {reply.status} to a cancel")
            found = (
                after if after and messages.about(order, after) else await self._request(order, send) or found
            )
        return Tell(await self._facts(order, found, send), operation_id=order.operation_id)

    # --- refunds --------------------------------------------------------------------------------------------

    def refund_rules(self, channel: str) -> RefundRules | None:
        return rail(self._config, channel).refunds

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        """POST /refunds: taken now, done later. Raises `Declined`, `Unreachable` or `Unsure`."""
        if not refund.payment.external_id:
            raise Declined("Xendit's id of the payment is not known")
        body = {
            "payment_request_id": refund.payment.external_id,
            "reference_id": refund.operation_id,
            "currency": refund.amount.currency,
            "amount": refund.amount.major,
            "reason": codes.reason(refund.reason),
            "metadata": {"reason": refund.reason[:500]},
        }
        reply = await self._call("POST", "/refunds", send, body, refund.operation_id)
        found = wire.json_object(reply.body)
        if reply.status not in (200, 201):
            code = wire.text(found or {}, "error_code")
            if reply.status == 429 or (400 <= reply.status < 500 and code in codes.LATER):
                raise Unreachable(codes.explain(code, "", codes.ERRORS))  # not taken: safe to ask again
            raise _refused(reply, found)
        if found is None or wire.text(found, "reference_id") != refund.operation_id:
            raise Unsure("Xendit's answer to a refund cannot be read")
        return Tell((messages.refund_fact(found),), operation_id=refund.operation_id)

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None:
        if refund.external_id:
            reply = await self._get(f"/refunds/{refund.external_id}", send)
            found = reply and wire.json_object(reply.body)
            if not found or wire.text(found, "reference_id") != refund.operation_id:
                raise Unsure("Xendit answers about another refund")
            return Tell((messages.refund_fact(found),), operation_id=refund.operation_id)
        if not refund.payment.external_id:
            return None
        for one in await self._refunds_of(refund.payment.external_id, send):
            if wire.text(one, "reference_id") == refund.operation_id:
                return Tell((messages.refund_fact(one),), operation_id=refund.operation_id)
        return None

    async def _refunds_of(self, request_id: str, send: Send) -> list[dict[str, Any]]:
        return await self._listed(f"/refunds?payment_request_id={request_id}&limit=100", send)

    async def _listed(self, path: str, send: Send) -> list[dict[str, Any]]:
        """Raises `Unsure` for what is no list of objects: nothing may be concluded from it."""
        reply = await self._get(path, send)
        rows = ((reply and wire.json_object(reply.body)) or {}).get("data")
        if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
            raise Unsure("Xendit's list cannot be read")
        return rows

    def statement(self, from_ms: int, to_ms: int, send: Send) -> AsyncIterator[StatementLine]:
        """What Xendit booked. Its iterator raises `Declined`, `Unreachable` or `Unsure`."""

        async def fetch(path: str) -> dict[str, Any] | None:
            reply = await self._get(path, send)
            return wire.json_object(reply.body) if reply else None

        return statement.lines(from_ms, to_ms, fetch)

    # --- hearing --------------------------------------------------------------------------------------------

    def hear(self, call: Inbound) -> Heard:
        """Any webhook, as a hint. Raises a `Refusal`."""
        if call.method != "POST":
            raise UnknownMethod()
        given = call.headers.get(TOKEN, "").encode("utf-8", "surrogatepass")
        if not any(hmac.compare_digest(given, token) for token in self._tokens):
            raise Unauthenticated()
        message = wire.json_object(call.body)
        if message is None:
            raise Unreadable()
        event, data = wire.text(message, "event"), wire.part(message, "data")
        data = wire.part(data, "data") or data  # the published refund example nests it twice
        if not event.startswith(EVENTS):
            return Heard(Noise(event[:100] or "no event"))
        reference = wire.text(data, "reference_id")
        names = [wire.identifier(data, name) for name in ("payment_request_id", "payment_id", "id")]
        clues = tuple(one for one in names if one.startswith(("pr-", "py-", "rfd-")))
        operation_id = reference if _OURS.fullmatch(reference) else None
        request_id = next((one for one in clues if one.startswith("pr-")), None)
        if operation_id is None and request_id is None:
            return Heard(Noise(f"{event[:100]}, not of ours"))
        if operation_id and operation_id.startswith("refund_"):
            return Heard(Hint(operation_id=operation_id))
        return Heard(Hint(operation_id=operation_id, external_id=request_id, clues=clues))

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        if isinstance(outcome, Refusal):
            return Reply(outcome.status, msgspec.json.encode({"error": outcome.code}))
        return Reply(200, b'{"received":true}')

    # --- playing the payer, with a test key -----------------------------------------------------------------

    def play(self, order: Order, action: str, fault: str) -> HttpCall | None:
        """The published way to pay in test mode; other actions and faults are our simulator's own."""
        if self._config.live or not order.external_id:
            return None
        path = f"/v3/payment_requests/{order.external_id}/simulate"
        if (action, fault) != ("pay", "none"):
            path = f"/_simulator/{order.external_id}/{action}?fault={fault}"
        body = msgspec.json.encode({"amount": order.amount.major})
        return HttpCall("POST", self._base + path, self._headers, body, self._config.timeout_s)

    # --- the wire -------------------------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, send: Send, body: dict[str, Any] | None, key: str
    ) -> HttpReply:
        headers = self._headers
        if key:  # its clients send it; nothing here relies on it
            headers = {**headers, "idempotency-key": key}
        raw = msgspec.json.encode(body) if body is not None else b""
        return await send(HttpCall(method, self._base + path, headers, raw, self._config.timeout_s))

    async def _get(self, path: str, send: Send) -> HttpReply | None:
        """None where it is not found. Raises `Declined` for another 4xx, `Unsure` for what is no answer."""
        reply = await self._call("GET", path, send, None, "")
        found = wire.json_object(reply.body)
        if reply.status == 404 and found is not None and wire.text(found, "error_code"):
            return None
        if reply.status == 200 and found is not None:
            return reply
        if 400 <= reply.status < 500 and reply.status not in (404, 429, *_MAYBE_TAKEN):
            raise _refused(reply, found)
        raise Unsure(f"Xendit answered {reply.status} to a look")

    def _same(self, order: Order, found: dict[str, Any]) -> None:
        if not messages.about(order, found) or not wire.identifier(found, "payment_request_id"):
            raise Unsure("Xendit answers about something else")


def _refused(reply: HttpReply, found: dict[str, Any] | None) -> Declined | Unsure:
    code, message = wire.text(found or {}, "error_code"), wire.text(found or {}, "message")
    no = 400 <= reply.status < 500 and reply.status not in _MAYBE_TAKEN
    if no or (reply.status == 503 and code in codes.REFUSED):
        return Declined(codes.explain(code or str(reply.status), message, codes.ERRORS))
    return Unsure(f"Xendit answered {reply.status} {code}"[:200])
