"""Click's Merchant API: what we may ask Click for (invoice, status, reversal, card token, Click Pass).

Every method describes one call and gives it to `send`. An `error_code` other than 0 or a 4xx is `Declined`;
an answer that cannot be read, or a 5xx, is `Unsure`: the API has no idempotency key, so nothing that moves
money may be repeated before `payment_by_reference` or `payment_status` was asked. Where Click named the
payment before things went wrong, the error names it too: `PaymentUnsure`, `PaymentDeclined`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from tillgate.domain.errors import Declined, Misconfigured, Unreachable, Unsure
from tillgate.domain.money import Money
from tillgate.providers.click.config import Config
from tillgate.spi import HttpCall, HttpReply, Send

CREATED: Final = 0
PROCESSING: Final = 1
PAID: Final = 2
"""`payment_status`; below 0 the payment failed."""

INVOICE_DELETED: Final = -99

CONFIRM_TIMEOUT_S: Final = 10.0
"""For the two calls that follow a Click Pass payment, while a payer stands at the till."""

Number: TypeAlias = Annotated[int, msgspec.Meta(gt=0)]


class PaymentUnsure(Unsure):
    """Click has made a payment, and whether it stands is not known: ask `payment_status` by its number."""

    def __init__(self, message: str, payment_id: int) -> None:
        super().__init__(f"payment {payment_id}: {message}")
        self.payment_id = payment_id


class PaymentDeclined(Declined):
    """Click has made a payment, and it came to nothing."""

    def __init__(self, message: str, payment_id: int) -> None:
        super().__init__(f"payment {payment_id}: {message}")
        self.payment_id = payment_id


class Payment(msgspec.Struct, frozen=True):
    """`payment_status` is None where the call names the payment only."""

    payment_id: Number
    payment_status: int | None = None


class Invoice(msgspec.Struct, frozen=True):
    invoice_id: Number


class InvoiceState(msgspec.Struct, frozen=True):
    """-99 deleted · 0 pending · above 0 paid. Click's text says `invoice_status`, its templates `status`."""

    invoice_status: int | None = None
    invoice_status_note: str = ""
    status: int | None = None

    @property
    def value(self) -> int | None:
        return self.invoice_status if self.invoice_status is not None else self.status


class CardToken(msgspec.Struct, frozen=True):
    card_token: str
    phone_number: str = ""  # masked
    temporary: bool | int = False

    def __repr__(self) -> str:
        return f"CardToken(card_token=***, phone_number={self.phone_number!r})"


class PassPayment(msgspec.Struct, frozen=True):
    """A Click Pass payment: the till scanned the payer's QR."""

    payment_id: Number
    payment_status: int
    confirm_mode: int = 0  # 1: must be confirmed within 30 s of its creation
    card_type: str = ""  # private | corporate
    processing_type: str = ""  # UZCARD | HUMO | WALLET
    card_number: str = ""  # masked
    phone_number: str = ""


class _FiscalReceipt(msgspec.Struct, frozen=True):
    qr_code_url: str | None = msgspec.field(default=None, name="qrCodeURL")


class _Head(msgspec.Struct, frozen=True):
    error_code: int | None = None
    error_note: object = ""  # decides nothing, so that it may be anything


class _Nothing(msgspec.Struct, frozen=True):
    pass


class _Named(msgspec.Struct, frozen=True):
    payment_id: Number | None = None


@dataclass(frozen=True, slots=True)
class FiscalItem:
    """One line of a fiscal receipt. All money in tiyin, unlike everywhere else at Click.

    `price` is the whole line before discounts; exactly one of `tin` (9 digits) and `pinfl` (14) names whose
    sale it is. Raises `ValueError` for what the tax office would refuse.
    """

    name: str
    spic: str  # IKPU/MXIK, 17 digits
    package_code: str
    price: int
    amount: int
    vat: int
    vat_percent: int
    tin: str | None = None
    pinfl: str | None = None
    barcode: str | None = None
    labels: tuple[str, ...] = ()
    units: int | None = None
    good_price: int | None = None
    discount: int | None = None
    other: int | None = None

    def __post_init__(self) -> None:
        numbers = (self.price, self.amount, self.vat, self.vat_percent, self.units, self.good_price)
        if any(type(n) is not int or n < 0 for n in (*numbers, self.discount, self.other) if n is not None):
            raise ValueError("numbers of a fiscal line are whole and not negative; money is in tiyin")
        if not 0 < len(self.name) <= 63:
            raise ValueError("the name of a fiscal line has 1 to 63 characters")
        if not _digits(self.spic, 17):
            raise ValueError("SPIC (IKPU) has 17 digits")
        if not 0 < len(self.package_code) <= 20:
            raise ValueError("the package code has 1 to 20 characters")
        if (self.tin is None) == (self.pinfl is None):
            raise ValueError("name either a TIN or a PINFL")
        if not _digits(self.tin or "0" * 9, 9) or not _digits(self.pinfl or "0" * 14, 14):
            raise ValueError("a TIN has 9 digits, a PINFL 14")
        if len(self.labels) > 300 or any(len(label) > 21 for label in self.labels):
            raise ValueError("at most 300 labels of at most 21 characters")

    def wire(self) -> dict[str, Any]:
        found = {
            "Name": self.name,
            "Barcode": self.barcode,
            "Labels": list(self.labels) or None,
            "SPIC": self.spic,
            "Units": self.units,
            "PackageCode": self.package_code,
            "GoodPrice": self.good_price,
            "Price": self.price,
            "Amount": self.amount,
            "VAT": self.vat,
            "VATPercent": self.vat_percent,
            "Discount": self.discount,
            "Other": self.other,
            "CommissionInfo": {"TIN": self.tin} if self.tin else {"PINFL": self.pinfl},
        }
        return {name: value for name, value in found.items() if value is not None}


T = TypeVar("T")


class MerchantApi:
    """One Click service. `now_s` is the clock that signs (Click rejects a wrong one)."""

    def __init__(self, config: Config, send: Send, *, now_s: Callable[[], float] = time.time) -> None:
        """Raises `Misconfigured` where `merchant_user_id` is missing."""
        if not config.user:
            raise Misconfigured("Click: the Merchant API needs merchant_user_id")
        self._config = config
        self._send = send
        self._now_s = now_s
        self._service = int(config.service)

    # --- invoices and payments ------------------------------------------------------------------------------

    async def create_invoice(self, amount: Money, phone: str, reference: str) -> Invoice:
        """Ask a payer's phone (`998901234567`) for money; the payment comes by Prepare and Complete."""
        body = {"phone_number": phone, "merchant_trans_id": reference, "amount": som(amount)}
        return await self._call("POST", "invoice/create", Invoice, body)

    async def invoice_status(self, invoice_id: int) -> InvoiceState:
        found = await self._call("GET", f"invoice/status/{self._service}/{invoice_id}", InvoiceState)
        if found.value is None:
            raise Unsure("Click's answer has no status of the invoice")
        return found

    async def payment_status(self, payment_id: int, *, timeout_s: float = 30.0) -> Payment:
        """Never without a status: what lacks one, or is about another payment, is `Unsure`."""
        path = f"payment/status/{self._service}/{payment_id}"
        found = await self._call("GET", path, Payment, timeout_s=timeout_s)
        if found.payment_id != payment_id:
            raise Unsure("Click answers about another payment")
        if found.payment_status is None:
            raise Unsure("Click's answer has no status of the payment")
        return found

    async def payment_by_reference(self, reference: str, day: date) -> Payment:
        """The payment of an order, by the day on which Click made it (Tashkent time). It may have no status:
        `payment_status` has. `Declined` does not prove that there is none: it may be too early to ask."""
        path = f"payment/status_by_mti/{self._service}/{_segment(reference)}/{day.isoformat()}"
        return await self._call("GET", path, Payment)

    async def reverse(self, payment_id: int) -> None:
        """Give a whole payment back: one of this month, on the 1st also of the last. UZCARD may refuse.

        After `Unsure` ask `payment_status`: 2 is not given back, below 0 is."""
        named = await self._call("DELETE", f"payment/reversal/{self._service}/{payment_id}", _Named)
        if named.payment_id not in (None, payment_id):
            raise Unsure("Click answers about another payment")

    # --- card tokens ----------------------------------------------------------------------------------------

    async def request_card_token(self, card_number: str, expire_mmyy: str, *, temporary: bool) -> CardToken:
        """Begin to link a card; Click texts a code to its owner. The number is passed on and kept nowhere."""
        if not _digits(card_number, 16) or not _digits(expire_mmyy, 4):
            raise ValueError("a card number has 16 digits, its expiry 4 (MMYY)")
        body = {"card_number": card_number, "expire_date": expire_mmyy, "temporary": int(temporary)}
        return await self._call("POST", "card_token/request", CardToken, body)

    async def verify_card_token(self, token: str, sms_code: str) -> None:
        if not (sms_code.isascii() and sms_code.isdigit() and len(sms_code) <= 8):
            raise ValueError("the code has digits only")
        body = {"card_token": token, "sms_code": msgspec.Raw(str(int(sms_code)).encode())}
        await self._call("POST", "card_token/verify", _Nothing, body)

    async def pay_with_token(self, token: str, amount: Money, reference: str) -> Payment:
        """A payment that failed is returned, with a status below 0. Raises `ValueError` without a reference:
        by it alone can a payment be found whose answer was lost."""
        _segment(reference)
        body = {"card_token": token, "amount": som(amount), "transaction_parameter": reference}
        return await self._call("POST", "card_token/payment", Payment, body)

    async def delete_card_token(self, token: str) -> None:
        await self._call("DELETE", f"card_token/{self._service}/{_segment(token)}", _Nothing)

    # --- Click Pass -----------------------------------------------------------------------------------------

    async def click_pass(
        self, otp_data: str, amount: Money, *, reference: str, cashbox: str | None = None
    ) -> PassPayment:
        """Charge the payer whose QR the till scanned (`otp_data` is the text of the QR).

        `reference` is the till's own number of this charge, new each time: by it alone can a payment be found
        whose answer was lost. Raises `ValueError` without one.
        """
        _segment(reference)
        body = {"otp_data": otp_data, "amount": som(amount), "transaction_id": reference}
        body |= {"cashbox_code": cashbox} if cashbox else {}
        return await self._call("POST", "click_pass/payment", PassPayment, body)

    async def confirm_pass(self, payment_id: int) -> None:
        """Within 30 s of the payment, where `confirm_mode` is 1; else Click gives the money back."""
        body = {"payment_id": payment_id}
        await self._call("POST", "click_pass/confirm", _Nothing, body, timeout_s=CONFIRM_TIMEOUT_S)

    async def charge_pass(
        self, otp_data: str, amount: Money, *, reference: str, cashbox: str | None = None
    ) -> PassPayment:
        """`click_pass`, confirmed at once where the service asks for it; with the status of after that.

        Takes 50 s at most: 30 for the payment, 10 to confirm, 10 to ask. A payment whose own answer took the
        30 s that Click grants is confirmed nevertheless: whether that was in time only Click knows.

        - `Declined`: there is no payment; `PaymentDeclined`: there was one, it failed or was given back.
        - `PaymentUnsure`: there is one, perhaps not confirmed. Ask `payment_status` when the 30 s are over;
          before, 2 proves nothing: what an unconfirmed payment has is not documented.
        - `Unsure`: there may be one. Ask `payment_by_reference`, also when the 30 s are over.
        """
        made = await self.click_pass(otp_data, amount, reference=reference, cashbox=cashbox)
        number, status = made.payment_id, made.payment_status
        if made.confirm_mode and status >= CREATED:
            trouble = ""
            try:
                await self.confirm_pass(number)
            except (Declined, Unreachable, Unsure) as error:
                trouble = f"not confirmed: {error}"
            try:
                found = await self.payment_status(number, timeout_s=CONFIRM_TIMEOUT_S)
            except (Declined, Unreachable, Unsure) as error:
                raise PaymentUnsure(trouble or f"confirmed, and then: {error}", number) from error
            status = found.payment_status or CREATED  # it is never None
            if trouble and status >= CREATED:
                raise PaymentUnsure(trouble, number)
        if status < CREATED:
            raise PaymentDeclined(f"failed with status {status}", number)
        return msgspec.structs.replace(made, payment_status=status)

    async def set_pass_confirmation(self, *, on: bool) -> None:
        """Whether every Click Pass payment of this service must be confirmed."""
        await self._call("PUT" if on else "DELETE", f"click_pass/confirmation/{self._service}", _Nothing)

    # --- fiscal data ----------------------------------------------------------------------------------------

    async def submit_items(
        self,
        payment_id: int,
        items: list[FiscalItem],
        *,
        received_ecash: int = 0,
        received_cash: int = 0,
        received_card: int = 0,
    ) -> None:
        """Send the lines of a receipt (mandatory with more than one IKPU). What was received is in tiyin."""
        if not items:
            raise ValueError("a receipt has at least one line")
        body = {
            "payment_id": payment_id,
            "items": [item.wire() for item in items],
            "received_ecash": received_ecash,
            "received_cash": received_cash,
            "received_card": received_card,
        }
        await self._call("POST", "payment/ofd_data/submit_items", _Nothing, body)

    async def submit_receipt(self, payment_id: int, qr_code_url: str) -> None:
        """Attach a receipt that was made elsewhere."""
        body = {"payment_id": payment_id, "qrcode": qr_code_url}
        await self._call("POST", "payment/ofd_data/submit_qrcode", _Nothing, body)

    async def fiscal_receipt(self, payment_id: int) -> str | None:
        """The link of the receipt, None while there is none."""
        path = f"payment/ofd_data/{self._service}/{payment_id}"
        return (await self._call("GET", path, _FiscalReceipt)).qr_code_url

    # --- the wire -------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        into: type[T],
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> T:
        content = b"" if body is None else msgspec.json.encode({"service_id": self._service, **body})
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Auth": auth(self._config, int(self._now_s())),
        }
        url = f"{self._config.api_url.rstrip('/')}/{path}"
        reply = await self._send(HttpCall(method, url, headers, content, timeout_s))
        return _read(reply, into, said_so=method != "GET")


def auth(config: Config, now_s: int) -> str:
    """`merchant_user_id:sha1(timestamp + secret_key):timestamp` (Merchant API, authentication)."""
    digest = hashlib.sha1(f"{now_s}{config.secret_key}".encode(), usedforsecurity=False).hexdigest()
    return f"{config.user}:{digest}:{now_s}"


def som(amount: Money) -> msgspec.Raw:
    """A JSON number of som, exact: `5000`, `5000.5` is written `5000.50`. Raises `ValueError`."""
    if amount.currency != "UZS" or amount.minor <= 0:
        raise ValueError("Click takes UZS only, and more than nothing")
    return msgspec.Raw(amount.decimal().removesuffix(".00").encode())


def _read(reply: HttpReply, into: type[T], *, said_so: bool) -> T:
    """`said_so`: only an explicit `error_code` 0 is success, because the call changes something."""
    head = _decode(reply.body, _Head)
    code = head.error_code if head else None
    if 400 <= reply.status < 500 and reply.status not in (408, 429) and code != 0:
        raise Declined(f"Click answered HTTP {reply.status}{_words(head)}")
    if not 200 <= reply.status < 300 or head is None or (said_so and code is None):
        raise _unsure(f"Click answered HTTP {reply.status}, not readable", reply.body)
    if code:
        raise Declined(f"Click declined: {code}{_words(head)}")
    found = _decode(reply.body, into)
    if found is None:
        raise _unsure("Click's answer lacks what it should say", reply.body)
    return found


def _decode(body: bytes, into: type[T]) -> T | None:
    """None for what is no such object. A member that is null says nothing: it counts as one left out."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        told = {name: value for name, value in members.items() if bytes(value) != b"null"}
        return msgspec.json.decode(msgspec.json.encode(told), type=into, strict=False)
    except (ValueError, RecursionError):  # also of UTF-8 that is none
        return None


def _unsure(message: str, body: bytes) -> Unsure:
    """With the number of the payment, if the answer has at least that."""
    named = _decode(body, _Named)
    return PaymentUnsure(message, named.payment_id) if named and named.payment_id else Unsure(message)


def _words(head: _Head | None) -> str:
    note = head.error_note if head else ""
    text = "".join(c if c.isprintable() else " " for c in note).strip()[:200] if isinstance(note, str) else ""
    return f": {text}" if text else ""


def _segment(text: str) -> str:
    """One part of a path. Raises `ValueError` for what can be none."""
    if not text or text in (".", ".."):
        raise ValueError("a reference or a token has a text of its own")
    return quote(text, safe="")


def _digits(text: str, count: int) -> bool:
    return len(text) == count and text.isascii() and text.isdigit()
