"""Payme's Subscribe API for a merchant's server: cards by token, receipts, holds, fiscal data.

Source: Payme Business, "Subscribe API". Card numbers and tokens pass through and are never logged, kept or
shown in a repr. A card's number should not reach a merchant's server at all: the three card methods that take
it or its code may be called from the payer's browser with the merchant's id alone.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar

import msgspec

from tillgate.domain.errors import Declined, Unsure
from tillgate.spi import HttpCall, HttpReply, Send

API_URL: Final = "https://checkout.paycom.uz/api"
SANDBOX_API_URL: Final = "https://checkout.test.paycom.uz/api"
MAX_PAGE: Final = 50

ReceiptState: TypeAlias = Literal[0, 1, 2, 3, 4, 5, 6, 20, 21, 30, 50]
"""0 created · 1 checking · 2 debiting · 3 closing · 4 paid · 5 held · 6 hold command received ·
20 paused for a person · 21 to be cancelled · 30 to be closed · 50 cancelled."""

PAID: Final = 4
HELD: Final = 5
CANCELLED: Final = 50
BROWSER_METHODS: Final = frozenset({"cards.create", "cards.get_verify_code", "cards.verify"})

WHY: Final[Mapping[int, str]] = {
    -31002: "processing_unavailable",
    -31101: "code_expired",
    -31102: "too_many_codes",
    -31103: "wrong_code",
    -31110: "code_not_sent",
    -31300: "bad_card",
    -31301: "sms_off",
    -31302: "balance_unavailable",
    -31303: "no_funds",
    -31400: "card_not_found",
    -31601: "merchant_not_found",
    -31602: "receipt_not_found",
    -31610: "bad_field",
    -31611: "amount_too_small",
    -31612: "amount_too_large",
    -31622: "merchant_unavailable",
    -31623: "merchant_faulty",
    -31630: "no_funds",
    -32500: "bad_token",
    -32504: "forbidden",
}
SYSTEM_ERROR: Final = -32400

T = TypeVar("T", bound=msgspec.Struct)


class PaymeDeclined(Declined):
    """Payme understood the call and said no."""

    def __init__(self, rpc_code: int, message: str, data: Any = None) -> None:
        super().__init__(f"Payme said {rpc_code}: {message}")
        self.rpc_code = rpc_code
        self.why = WHY.get(rpc_code, "declined")
        self.data = data


class Card(msgspec.Struct, frozen=True):
    """`number` is masked, `expire` is MM/YY."""

    number: str
    expire: str
    token: str = ""
    recurrent: bool = False
    verify: bool = False

    def __repr__(self) -> str:
        return f"Card({self.number!r}, verify={self.verify})"


class CodeSent(msgspec.Struct, frozen=True):
    """`phone` is masked; a new code may be asked for after `wait` ms."""

    sent: bool
    phone: str = ""
    wait: int = 0


class Receipt(msgspec.Struct, frozen=True):
    """`amount` in tiyin, times in epoch ms (0: has not happened)."""

    id: str = msgspec.field(name="_id")
    state: int
    amount: int = 0
    create_time: int = 0
    pay_time: int = 0
    cancel_time: int = 0
    description: str | None = None
    error: Any = None


class Payer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who pays, for Payme's own checks."""

    id: str | None = None
    phone: str | None = None
    email: str | None = None
    name: str | None = None
    ip: str | None = None


class FiscalData(msgspec.Struct, frozen=True, omit_defaults=True):
    """`date` is YYYYMMDDHHmmss."""

    receipt_id: int
    qr_code_url: str
    status_code: int | None = None
    message: str | None = None
    terminal_id: str | None = None
    fiscal_sign: str | None = None
    date: str | None = None


class Subscribe:
    """One merchant's client. Calls raise `PaymeDeclined`, `Unreachable` (nothing left us) or `Unsure`."""

    ids: ClassVar[itertools.count[int]] = itertools.count(1)

    def __init__(
        self,
        merchant_id: str,
        key: str,
        send: Send,
        *,
        sandbox: bool = False,
        url: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        if not merchant_id or not key:
            raise ValueError("merchant_id and key are needed")
        self._merchant_id, self._key, self._send = merchant_id, key, send
        self._url = url or (SANDBOX_API_URL if sandbox else API_URL)
        self._timeout_s = timeout_s
        self.cards = Cards(self)
        self.receipts = Receipts(self)

    def __repr__(self) -> str:
        return f"Subscribe({self._merchant_id!r})"

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """One JSON-RPC call; its `result`."""
        rpc_id = next(self.ids)
        own = self._merchant_id if method in BROWSER_METHODS else f"{self._merchant_id}:{self._key}"
        body = msgspec.json.encode({"id": rpc_id, "method": method, "params": params})
        headers = {"Content-Type": "application/json", "X-Auth": own, "Cache-Control": "no-cache"}
        reply = await self._send(HttpCall("POST", self._url, headers, body, self._timeout_s))
        return _result(method, reply, rpc_id)


class Cards:
    def __init__(self, api: Subscribe) -> None:
        self._api = api

    async def create(
        self,
        number: str,
        expire: str,
        *,
        save: bool = False,
        account: Mapping[str, str] | None = None,
        customer: str | None = None,
    ) -> Card:
        """`expire` is MMYY (MM/YY is understood). The token is for one payment unless `save`."""
        params: dict[str, Any] = {
            "card": {"number": _digits(number), "expire": _digits(expire)},
            "save": save,
        }
        if account is not None:
            params["account"] = dict(account)
        if customer is not None:
            params["customer"] = customer
        return _typed(Card, _member("card", await self._api.call("cards.create", params)))

    async def get_verify_code(self, token: str) -> CodeSent:
        return _typed(CodeSent, await self._api.call("cards.get_verify_code", {"token": token}))

    async def verify(self, token: str, code: str) -> Card:
        """The card with its token from now on, which may be another."""
        found = await self._api.call("cards.verify", {"token": token, "code": code})
        return _typed(Card, _member("card", found))

    async def check(self, token: str) -> Card:
        return _typed(Card, _member("card", await self._api.call("cards.check", {"token": token})))

    async def remove(self, token: str) -> bool:
        return _success(await self._api.call("cards.remove", {"token": token}))


class Receipts:
    def __init__(self, api: Subscribe) -> None:
        self._api = api

    async def create(
        self,
        amount_tiyin: int,
        account: Mapping[str, str],
        *,
        description: str | None = None,
        detail: Mapping[str, Any] | None = None,
        hold: bool = False,
    ) -> Receipt:
        """A receipt to be paid; each call makes another one."""
        if type(amount_tiyin) is not int or amount_tiyin <= 0:
            raise ValueError("an amount is a positive whole number of tiyin")
        params: dict[str, Any] = {"amount": amount_tiyin, "account": dict(account)}
        params |= {k: v for k, v in {"description": description, "detail": detail}.items() if v is not None}
        if hold:
            params["hold"] = True
        return await self._receipt("receipts.create", params)

    async def pay(
        self, receipt_id: str, token: str, *, payer: Payer | None = None, hold: bool = False
    ) -> Receipt:
        """State 4 (paid) or 5 (held). After `Unsure` look with `check` before anything else."""
        params: dict[str, Any] = {"id": receipt_id, "token": token}
        if payer is not None:
            params["payer"] = payer
        if hold:
            params["hold"] = True
        return await self._receipt("receipts.pay", params)

    async def confirm_hold(self, receipt_id: str) -> Receipt:
        return await self._receipt("receipts.confirm_hold", {"id": receipt_id})

    async def cancel(self, receipt_id: str) -> Receipt:
        """State 21 at once, 50 when it is done."""
        return await self._receipt("receipts.cancel", {"id": receipt_id})

    async def check(self, receipt_id: str) -> int:
        """The state alone."""
        state = _member("state", await self._api.call("receipts.check", {"id": receipt_id}))
        if type(state) is not int:
            raise Unsure("receipts.check was answered without a state")
        return state

    async def get(self, receipt_id: str) -> Receipt:
        return await self._receipt("receipts.get", {"id": receipt_id})

    async def get_all(
        self, from_ms: int, to_ms: int, *, count: int = MAX_PAGE, offset: int = 0
    ) -> Sequence[Receipt]:
        if not 0 < count <= MAX_PAGE:
            raise ValueError(f"count is 1 to {MAX_PAGE}")
        params = {"count": count, "from": from_ms, "to": to_ms, "offset": offset}
        found = await self._api.call("receipts.get_all", params)
        if not isinstance(found, list):
            raise Unsure("receipts.get_all was not answered with a list")
        return [_typed(Receipt, row) for row in found]

    async def send(self, receipt_id: str, phone: str) -> bool:
        """By SMS to the payer."""
        params = {"id": receipt_id, "phone": _digits(phone)}
        return _success(await self._api.call("receipts.send", params))

    async def set_fiscal_data(self, receipt_id: str, fiscal_data: FiscalData) -> bool:
        params = {"id": receipt_id, "fiscal_data": fiscal_data}
        return _success(await self._api.call("receipts.set_fiscal_data", params))

    async def _receipt(self, method: str, params: Mapping[str, Any]) -> Receipt:
        return _typed(Receipt, _member("receipt", await self._api.call(method, params)))


def _result(method: str, reply: HttpReply, rpc_id: int) -> Any:
    if reply.status != 200:
        raise Unsure(f"{method} was answered HTTP {reply.status}")
    try:
        envelope = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise Unsure(f"{method} was not answered with JSON") from None
    if not isinstance(envelope, dict) or envelope.get("id") not in (rpc_id, None):
        raise Unsure(f"{method} was answered for another call")
    error = envelope.get("error")
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        if isinstance(message, dict):
            message = message.get("en") or message.get("ru") or ""
        if type(code) is not int or code == SYSTEM_ERROR:
            raise Unsure(f"{method}: Payme has a system error")
        raise PaymeDeclined(code, str(message)[:300], error.get("data"))
    if envelope.get("result") is None:
        raise Unsure(f"{method} was answered with neither result nor error")
    return envelope["result"]


def _typed(kind: type[T], content: Any) -> T:
    try:
        return msgspec.convert(content, kind, strict=False)
    except msgspec.ValidationError:
        raise Unsure(f"Payme's answer is no {kind.__name__.lower()}") from None


def _member(name: str, content: Any) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _success(content: Any) -> bool:
    return _member("success", content) is True


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isascii() and character.isdigit())
