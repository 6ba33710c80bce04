"""Click's own side on HTTP: the Merchant API, and with it the pages where a person plays the payer."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tillgate.providers.click.simulator import page
from tillgate.providers.click.simulator.payer import ClickSimulator, Payment
from tillgate.providers.click.simulator.wire import tiyin

API: Final = "/v2/merchant"
SMS_CODE: Final = "12345"
CONFIRM_WITHIN_S: Final = 30.0
AUTH_WINDOW_S: Final = 600
MAX_BODY_BYTES: Final = 256 * 1024
DESK_FAULTS: Final = ("none", "server_error", "lost_answer", "uzcard_refuses", "no_money")


class Refused(Exception):
    """A business error: HTTP 200 and an `error_code` that is our own, for Click publishes no list of its."""

    def __init__(self, code: int, note: str) -> None:
        super().__init__(note)
        self.body = {"error_code": code, "error_note": note}


@dataclass(slots=True)
class Token:
    card: str
    temporary: bool
    verified: bool = False


@dataclass(slots=True)
class Desk:
    """What Click remembers besides payments."""

    click: ClickSimulator
    fault: str = "none"
    confirm_mode: bool = False
    invoices: dict[int, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    unconfirmed: dict[int, float] = field(default_factory=dict)
    receipts: dict[int, str] = field(default_factory=dict)

    # --- invoices and payments ------------------------------------------------------------------------------

    async def invoice_create(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        if not re.fullmatch(r"998\d{9}", _text(body, "phone_number")):
            raise Refused(-2, "phone_number is not 998XXXXXXXXX")
        number = secrets.randbelow(10**9) + 1
        self.invoices[number] = {
            "order": _text(body, "merchant_trans_id"),
            "tiyin": _amount(body),
            "status": 0,
        }
        return {"invoice_id": number}

    async def invoice_status(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        invoice = self.invoices.get(int(path["number"]))
        if invoice is None:
            raise Refused(-404, "Invoice not found")
        notes = {0: "Created", 1: "Paid", -99: "Deleted"}
        return {"invoice_status": invoice["status"], "invoice_status_note": notes[invoice["status"]]}

    async def payment_status(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        payment = self._payment(int(path["number"]))
        return {"payment_id": payment.paydoc_id, "payment_status": payment.status}

    async def status_by_mti(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        found = [p for p in self.click.payments.values() if p.order == path["order"]]
        found = [p for p in found if page.day(p.made_at) == path["day"]]
        if not found:
            raise Refused(-404, "Payment not found")
        best = max(found, key=lambda p: (p.status, p.made_at))
        self._expire(best)
        return {
            "payment_id": best.paydoc_id,
            "payment_status": best.status,
            "merchant_trans_id": best.order,
        }

    async def reversal(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        payment = self._payment(int(path["number"]))
        if payment.status != 2:
            raise Refused(-10, "Only a successful payment can be reversed")
        today, made = page.day(self.click.clock()), page.day(payment.made_at)
        months = (int(today[:4]) - int(made[:4])) * 12 + int(today[5:7]) - int(made[5:7])
        if months > 1 or (months == 1 and today[8:] != "01"):
            raise Refused(-11, "The reporting month of this payment is closed")
        if self.fault == "uzcard_refuses":
            raise Refused(-12, "UZCARD refused the reversal")
        payment.status, payment.reversed, payment.debited = -1, True, False
        return {"payment_id": payment.paydoc_id}

    def _payment(self, number: int) -> Payment:
        payment = self.click.payments.get(number)
        if payment is None:
            raise Refused(-404, "Payment not found")
        self._expire(payment)
        return payment

    def _expire(self, payment: Payment) -> None:
        """What was not confirmed within 30 s is given back."""
        made_at = self.unconfirmed.get(payment.paydoc_id)
        if made_at is not None and self.click.clock() - made_at >= CONFIRM_WITHIN_S:
            del self.unconfirmed[payment.paydoc_id]
            payment.status, payment.debited = -1, False

    # --- card tokens ----------------------------------------------------------------------------------------

    async def token_request(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        card, expire = _text(body, "card_number"), _text(body, "expire_date")
        if not re.fullmatch(r"\d{16}", card) or not re.fullmatch(r"(0[1-9]|1[0-2])\d\d", expire):
            raise Refused(-2, "The card number or its expiry (MMYY) is wrong")
        token = str(secrets.token_hex(16)).upper()
        self.tokens[token] = Token(card[:6] + "******" + card[-4:], bool(body.get("temporary")))
        return {
            "card_token": token,
            "phone_number": "99890***1234",
            "temporary": bool(body.get("temporary")),
        }

    async def token_verify(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        token = self._token(_text(body, "card_token"))
        if str(body.get("sms_code")) != SMS_CODE:
            raise Refused(-5, "Wrong code")
        token.verified = True
        return {"card_number": token.card}

    async def token_payment(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        name = _text(body, "card_token")
        token = self._token(name)
        if not token.verified:
            raise Refused(-6, "The card is not verified")
        if self.fault == "no_money":
            raise Refused(-7, "Insufficient funds")
        order, amount = _text(body, "transaction_parameter"), _amount(body)
        receipt = await self.click.pay(order, page.som(amount))
        if receipt.status != "paid":
            raise Refused(-8, "The merchant refused the payment")
        if token.temporary:
            del self.tokens[name]
        return {"payment_id": receipt.payment.paydoc_id, "payment_status": receipt.payment.status}

    async def token_delete(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        self._token(path["token"])
        del self.tokens[path["token"]]
        return {}

    def _token(self, name: str) -> Token:
        if name not in self.tokens:
            raise Refused(-404, "Token not found")
        return self.tokens[name]

    # --- Click Pass -----------------------------------------------------------------------------------------

    async def pass_payment(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        if not re.fullmatch(r"\d{6,24}", _text(body, "otp_data")):
            raise Refused(-2, "otp_data is not a Click Pass code")
        if self.fault == "no_money":
            raise Refused(-7, "Insufficient funds")
        payment = self.click.open(str(body.get("transaction_id", "")), _amount(body), mode="pass")
        payment.status, payment.debited = (1, True) if self.confirm_mode else (2, True)
        if self.confirm_mode:
            self.unconfirmed[payment.paydoc_id] = self.click.clock()
        return {
            "payment_id": payment.paydoc_id,
            "payment_status": payment.status,
            "confirm_mode": int(self.confirm_mode),
            "card_type": "private",
            "processing_type": "UZCARD",
            "card_number": "860002******8331",
            "phone_number": "998221234567",
        }

    async def pass_confirm(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        number = body.get("payment_id")
        payment = self._payment(number if isinstance(number, int) else 0)
        if self.unconfirmed.pop(payment.paydoc_id, None) is None:
            raise Refused(-9, "There is nothing to confirm")
        payment.status = 2
        return {}

    async def pass_mode(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        self.confirm_mode = path["method"] == "PUT"
        return {}

    # --- fiscal data ----------------------------------------------------------------------------------------

    async def submit_items(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        payment = self._payment(_int(body, "payment_id"))
        items = body.get("items")
        if not isinstance(items, list) or not items:
            raise Refused(-2, "items is empty")
        for item in items:
            for name in ("Name", "SPIC", "PackageCode", "Price", "Amount", "VAT", "VATPercent"):
                if name not in item:
                    raise Refused(-2, f"an item lacks {name}")
        got = sum(_int(body, name) for name in ("received_ecash", "received_cash", "received_card"))
        if got != payment.tiyin:
            raise Refused(-2, "what was received is not what was paid, in tiyin")
        self.receipts[payment.paydoc_id] = f"https://ofd.example/epi?t=EZ0000&r={payment.paydoc_id}"
        return {}

    async def submit_qrcode(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        payment = self._payment(_int(body, "payment_id"))
        self.receipts[payment.paydoc_id] = _text(body, "qrcode")
        return {}

    async def ofd_data(self, body: dict[str, Any], path: dict[str, str]) -> dict[str, Any]:
        payment = self._payment(int(path["number"]))
        return {"paymentId": payment.paydoc_id, "qrCodeURL": self.receipts.get(payment.paydoc_id)}

    def routes(self) -> list[BaseRoute]:
        service, number = "{service:int}", "{number:int}"
        table: list[tuple[str, str, Callable[..., Awaitable[dict[str, Any]]]]] = [
            ("POST", "invoice/create", self.invoice_create),
            ("GET", f"invoice/status/{service}/{number}", self.invoice_status),
            ("GET", f"payment/status/{service}/{number}", self.payment_status),
            ("GET", f"payment/status_by_mti/{service}/{{order}}/{{day}}", self.status_by_mti),
            ("DELETE", f"payment/reversal/{service}/{number}", self.reversal),
            ("POST", "card_token/request", self.token_request),
            ("POST", "card_token/verify", self.token_verify),
            ("POST", "card_token/payment", self.token_payment),
            ("DELETE", f"card_token/{service}/{{token}}", self.token_delete),
            ("POST", "click_pass/payment", self.pass_payment),
            ("POST", "click_pass/confirm", self.pass_confirm),
            ("PUT", f"click_pass/confirmation/{service}", self.pass_mode),
            ("DELETE", f"click_pass/confirmation/{service}", self.pass_mode),
            ("POST", "payment/ofd_data/submit_items", self.submit_items),
            ("POST", "payment/ofd_data/submit_qrcode", self.submit_qrcode),
            ("GET", f"payment/ofd_data/{service}/{number}", self.ofd_data),
        ]
        return [
            Route(f"{API}/{path}", self._endpoint(play), methods=[method]) for method, path, play in table
        ]

    def _endpoint(
        self, play: Callable[..., Awaitable[dict[str, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if not self._authentic(request.headers.get("auth", "")):
                return JSONResponse({"error_code": -1, "error_note": "Not authorized"}, 401)
            if self.fault == "server_error":
                return Response("Bad Gateway", 502)
            content = await request.body()
            try:
                body = json.loads(content[:MAX_BODY_BYTES], parse_float=Decimal) if content else {}
                named = request.path_params.get("service", body.get("service_id"))
            except (ValueError, AttributeError, RecursionError):
                return JSONResponse({"error_code": -1, "error_note": "Bad request"}, 400)
            if str(named) != self.click.service_id:
                return JSONResponse({"error_code": -1, "error_note": "Unknown service"}, 404)
            try:
                found = await play(body, {**request.path_params, "method": request.method})
            except Refused as refused:
                return JSONResponse(refused.body)
            if self.fault == "lost_answer":
                return Response("", 502)
            return JSONResponse({"error_code": 0, "error_note": "Success", **found})

        return endpoint

    def _authentic(self, header: str) -> bool:
        user, _, rest = header.partition(":")
        digest, _, moment = rest.partition(":")
        if user != self.click.merchant_user_id or not re.fullmatch(r"\d{10}", moment, re.ASCII):
            return False
        text = f"{moment}{self.click.secret_key}".encode()
        wanted = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        fresh = abs(int(moment) - self.click.clock()) <= AUTH_WINDOW_S
        return fresh and hmac.compare_digest(digest.encode(), wanted.encode())


def build_app(click: ClickSimulator) -> Starlette:
    """The Merchant API under `/v2/merchant`, the pay page at `/services/pay`, an overview at `/`.

    `app.state.desk.fault` is one of `DESK_FAULTS`.
    """
    desk = Desk(click)
    app = Starlette(routes=[*desk.routes(), *page.routes(click, desk.invoices)])
    app.state.desk = desk
    return app


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(-2, f"{name} is missing")
    return value


def _int(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if type(value) is not int or value < 0:
        raise Refused(-2, f"{name} is not a whole number")
    return value


def _amount(body: dict[str, Any]) -> int:
    value = body.get("amount")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Refused(-2, "amount is not a number of som")
    try:
        return tiyin(str(value))
    except ValueError as error:
        raise Refused(-2, str(error)) from None
