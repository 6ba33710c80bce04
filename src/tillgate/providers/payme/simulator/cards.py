"""Payme's Subscribe API as a merchant's server sees it: cards, receipts, holds. Kept in memory.

No card number is kept: the last four digits at most.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tillgate.providers.payme.simulator.desk import new_id, now_ms

SMS_CODE: Final = "666666"
TEST_CARDS: Final[Mapping[str, str]] = {
    "8600069195406311": "good",
    "8600495473316478": "good",
    "8600000000000001": "no SMS",
    "8600000000000002": "expired",
    "8600000000000003": "blocked",
    "8600000000000004": "no funds",
    "8600000000000005": "system error",
}
"""The first two are Payme's own test cards (03/99); the others are this simulator's."""

MAX_RECEIPTS_PAGE: Final = 50
BROWSER_METHODS: Final = frozenset({"cards.create", "cards.get_verify_code", "cards.verify"})


class RpcFault(Exception):
    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


@dataclass(slots=True)
class Card:
    masked: str
    expire: str
    kind: str
    recurrent: bool
    verified: bool = False
    code_sent: bool = False
    tries: int = 0


@dataclass(slots=True)
class Cards:
    """The Subscribe API of one merchant."""

    merchant_id: str
    key: str = field(repr=False)
    clock: Callable[[], int] = now_ms
    _cards: dict[str, Card] = field(default_factory=dict, repr=False)
    _receipts: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def call(self, x_auth: str, method: Any, params: Any) -> dict[str, Any]:
        """The `result` of one call. Raises `RpcFault`."""
        full = f"{self.merchant_id}:{self.key}"
        may = hmac.compare_digest(x_auth.encode(), full.encode())
        if not may and not (method in BROWSER_METHODS and x_auth == self.merchant_id):
            raise RpcFault(-32504, "Access denied")
        if not isinstance(method, str) or not isinstance(params, dict):
            raise RpcFault(-32600, "Invalid request")
        found = getattr(self, "_" + method.replace(".", "_"), None)
        if method.partition(".")[0] not in ("cards", "receipts") or found is None:
            raise RpcFault(-32601, "Method not found", method)
        result: dict[str, Any] = found(params)
        return result

    # --- cards ----------------------------------------------------------------------------------------------

    def _cards_create(self, params: dict[str, Any]) -> dict[str, Any]:
        card = params.get("card")
        number = str(card.get("number", "")).replace(" ", "") if isinstance(card, dict) else ""
        expire = str(card.get("expire", "")).replace("/", "") if isinstance(card, dict) else ""
        kind = TEST_CARDS.get(number)
        if kind is None or len(expire) != 4 or not expire.isdigit():
            raise RpcFault(-31300, "Bad card number or expiry")
        if kind == "expired":
            raise RpcFault(-31300, "The card is expired")
        if kind == "system error":
            raise RpcFault(-31002, "Processing is unavailable")
        token = secrets.token_hex(48)
        made = Card(
            f"{number[:6]}******{number[-4:]}", f"{expire[:2]}/{expire[2:]}", kind, params.get("save") is True
        )
        self._cards[token] = made
        return {"card": _card(token, made)}

    def _cards_get_verify_code(self, params: dict[str, Any]) -> dict[str, Any]:
        card = self._card(params)
        if card.kind in ("no SMS", "blocked"):
            raise RpcFault(-31301, "SMS informing is off, or the card is blocked")
        card.code_sent, card.tries = True, 0
        return {"sent": True, "phone": "99890*****31", "wait": 60_000}

    def _cards_verify(self, params: dict[str, Any]) -> dict[str, Any]:
        card = self._card(params)
        if not card.code_sent:
            raise RpcFault(-31101, "The code has expired")
        card.tries += 1
        if card.tries > 3:
            raise RpcFault(-31102, "Too many attempts")
        if params.get("code") != SMS_CODE:
            raise RpcFault(-31103, "Wrong code")
        card.verified, card.code_sent = True, False
        token = secrets.token_hex(48)  # it may change, so it does
        self._cards[token] = self._cards.pop(params["token"])
        return {"card": _card(token, card)}

    def _cards_check(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"card": _card(params["token"], self._card(params))}

    def _cards_remove(self, params: dict[str, Any]) -> dict[str, Any]:
        self._card(params)
        del self._cards[params["token"]]
        return {"success": True}

    # --- receipts -------------------------------------------------------------------------------------------

    def _receipts_create(self, params: dict[str, Any]) -> dict[str, Any]:
        amount, account = params.get("amount"), params.get("account")
        if type(amount) is not int or amount <= 0:
            raise RpcFault(-31611, "The amount is too small")
        if not isinstance(account, dict) or not account:
            raise RpcFault(-31610, "Bad field", "account")
        receipt = {
            "_id": new_id(),
            "create_time": self.clock(),
            "pay_time": 0,
            "cancel_time": 0,
            "state": 0,
            "amount": amount,
            "currency": 860,
            "account": [{"name": name, "title": name, "value": value} for name, value in account.items()],
            "description": params.get("description", ""),
            "detail": params.get("detail"),
            "merchant": {"_id": self.merchant_id},
            "hold": bool(params.get("hold")),
            "card": None,
        }
        self._receipts[str(receipt["_id"])] = receipt
        return {"receipt": dict(receipt)}

    def _receipts_pay(self, params: dict[str, Any]) -> dict[str, Any]:
        receipt, card = self._receipt(params), self._card(params)
        if receipt["state"] in (4, 5):
            return {"receipt": dict(receipt)}
        if receipt["state"] != 0:
            raise RpcFault(-31008, "The receipt cannot be paid")
        if not card.verified:
            raise RpcFault(-31400, "The card is not verified")
        if card.kind == "no funds":
            raise RpcFault(-31630, "Not enough money on the card")
        held = bool(params.get("hold")) or receipt["hold"]
        receipt.update(state=5 if held else 4, pay_time=self.clock())
        receipt["card"] = {"number": card.masked, "expire": card.expire}
        return {"receipt": dict(receipt)}

    def _receipts_confirm_hold(self, params: dict[str, Any]) -> dict[str, Any]:
        receipt = self._receipt(params)
        if receipt["state"] not in (4, 5):
            raise RpcFault(-31008, "Nothing is held")
        receipt["state"] = 4
        return {"receipt": dict(receipt)}

    def _receipts_send(self, params: dict[str, Any]) -> dict[str, Any]:
        self._receipt(params)
        return {"success": True}

    def _receipts_cancel(self, params: dict[str, Any]) -> dict[str, Any]:
        receipt = self._receipt(params)
        if receipt["state"] not in (21, 50):
            receipt.update(state=21, cancel_time=self.clock())
        return {"receipt": dict(receipt)}

    def _receipts_check(self, params: dict[str, Any]) -> dict[str, Any]:
        receipt = self._receipt(params)
        if receipt["state"] == 21:
            receipt["state"] = 50  # the queue was worked off between two looks
        return {"state": receipt["state"]}

    def _receipts_get(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"receipt": dict(self._receipt(params))}

    def _receipts_get_all(self, params: dict[str, Any]) -> Any:
        count, offset = params.get("count"), params.get("offset", 0)
        if type(count) is not int or not 0 < count <= MAX_RECEIPTS_PAGE:
            raise RpcFault(-32602, "count is 1 to 50")
        begin, end = params.get("from", 0), params.get("to", 10**15)
        rows = [dict(row) for row in self._receipts.values() if begin <= row["create_time"] <= end]
        return rows[offset : offset + count]

    def _receipts_set_fiscal_data(self, params: dict[str, Any]) -> dict[str, Any]:
        data = params.get("fiscal_data")
        if not isinstance(data, dict) or not data.get("receipt_id") or not data.get("qr_code_url"):
            raise RpcFault(-32602, "receipt_id and qr_code_url are needed")
        self._receipt(params)["fiscal_data"] = data
        return {"success": True}

    # --- inside ---------------------------------------------------------------------------------------------

    def _card(self, params: dict[str, Any]) -> Card:
        found = self._cards.get(params.get("token", ""))
        if found is None:
            raise RpcFault(-31400, "Card not found")
        return found

    def _receipt(self, params: dict[str, Any]) -> dict[str, Any]:
        found = self._receipts.get(params.get("id", ""))
        if found is None:
            raise RpcFault(-31602, "Receipt not found")
        return found


def _card(token: str, card: Card) -> dict[str, Any]:
    return {
        "number": card.masked,
        "expire": card.expire,
        "token": token,
        "recurrent": card.recurrent,
        "verify": card.verified,
    }
