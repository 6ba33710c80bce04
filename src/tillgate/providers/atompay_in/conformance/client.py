"""How the checks speak: callbacks sealed and signed as AtomPay does it, and what the endpoint then shows.

The seal and the signature are the simulator's own; nothing here is the connector's.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from tillgate.conform import Answer, Orders, Payable, Skipped, Wire, expect
from tillgate.providers.atompay_in.simulator_crypto import encrypt, signature
from tillgate.providers.atompay_in.simulator_menu import UAT

DOCUMENT = "the AtomPay document"
GATEWAY = "NDPS: response handling, status codes"
SIGNED = "NDPS: response signature"
FACTS = "AtomPay facts, edge cases"
LEAKS = ("Traceback", "Exception", 'File "', "DecryptionError", "padding", "KeyError", UAT["password"])


@dataclass(frozen=True, slots=True)
class Settings:
    """Keys of the merchant under test (the public test keys by default), and where its state can be seen."""

    orders: Orders
    merch_id: str
    res_key: str = field(repr=False)
    res_hash: str = field(repr=False)
    state_url: str = ""  # with {reference}; GET
    state_header: tuple[str, str] | None = field(default=None, repr=False)
    paid: str = r'"status"\s*:\s*"paid"'


class Client:
    """One check's talk with the endpoint."""

    def __init__(self, wire: Wire) -> None:
        settings = wire.target.settings
        assert isinstance(settings, Settings)
        self.wire, self.settings = wire, settings

    async def order(self) -> Payable:
        return await self.settings.orders()

    def message(self, order: Payable, code: str = "OTS0000", **changes: Any) -> dict[str, Any]:
        """A callback as captured ones are; `changes` of payDetails come after signing.

        `merch_id`, `hash_key`, `mode`, `bank`, `surcharge` and `atom` are changed before.
        """
        settings = self.settings
        merch_id = str(changes.pop("merch_id", settings.merch_id))
        mode, bank = changes.pop("mode", "NB"), changes.pop("bank", "B" + secrets.token_hex(5))
        surcharge = Decimal(changes.pop("surcharge", "0.00"))
        amount = Decimal(changes.pop("signed_amount", Decimal(order.amount_minor) / 100))
        total = amount + surcharge
        atom = changes.pop("atom", str(11_000_000_000_000 + secrets.randbelow(10**9)))
        hash_key = changes.pop("hash_key", settings.res_hash)
        merch_txn_id = order.account["merchTxnId"]
        parts = [merch_id, atom, merch_txn_id, f"{total:.2f}", code, mode, bank or ""]
        pay: dict[str, Any] = {
            "atomTxnId": int(atom),
            "prodDetails": [{"prodName": "NSE", "prodAmount": float(amount)}],
            "amount": float(amount),
            "surchargeAmount": float(surcharge),
            "totalAmount": float(total),
            "txnCurrency": "INR",
            "signature": signature(hash_key, parts),
            "txnInitDate": "2026-11-21 10:00:00",
            "txnCompleteDate": "2026-11-21 10:00:31",
            **changes,
        }
        pay = {name: value for name, value in pay.items() if value is not ...}
        return {
            "payInstrument": {
                "merchDetails": {
                    "merchId": int(merch_id),
                    "merchTxnId": merch_txn_id,
                    "merchTxnDate": "2026-11-21T10:00:00",
                },
                "payDetails": pay,
                "payModeSpecificData": {
                    "subChannel": [mode],
                    "bankDetails": {"otsBankId": 2001, "bankTxnId": bank, "otsBankName": "Atom Bank"},
                },
                "extras": {"udf1": "OTS0000"},
                "custDetails": {"custEmail": "payer@example.com", "custMobile": "8888888800"},
                "responseDetails": {"statusCode": code, "message": "SUCCESS", "description": "SUCCESS"},
            }
        }

    def sealed(self, message: Any, key: str = "") -> str:
        return encrypt(message, key or self.settings.res_key)

    async def post(self, sealed: str, *, body: bytes | None = None, content_type: str = "") -> Answer:
        """Send `encData`; no answer may be a 5xx or show what is inside."""
        fields = {"encData": sealed, "merchId": self.settings.merch_id}
        headers = {"content-type": content_type or "application/x-www-form-urlencoded"}
        sent = urlencode(fields).encode() if body is None else body
        answer = await self.wire.send(sent, headers=headers)
        expect(answer.status < 500, f"the endpoint answered {answer.status}")
        shown = answer.body.decode("utf-8", "replace")
        for leak in LEAKS:
            expect(leak not in shown, f"the answer shows {leak!r}")
        return answer

    async def taken(self, message: Any, why: str) -> Answer:
        """The callback is acknowledged: 2xx, or for a browser 303 or 302."""
        answer = await self.post(self.sealed(message))
        expect(200 <= answer.status < 400, f"{why}: answered {answer.status}")
        return answer

    async def refused(self, sealed: str, why: str) -> Answer:
        answer = await self.post(sealed)
        expect(400 <= answer.status < 500, f"{why}: answered {answer.status}, not a refusal")
        return answer

    async def is_paid(self, order: Payable) -> bool:
        return re.search(self.settings.paid, await self.state(order)) is not None

    async def state(self, order: Payable) -> str:
        """What the endpoint says of the order, if it says."""
        settings = self.settings
        if not settings.state_url:
            raise Skipped("name --state-url, where the order's state can be read")
        headers = {} if settings.state_header is None else dict([settings.state_header])
        url = settings.state_url.replace("{reference}", order.reference)
        answer = await self.wire.send(b"", method="GET", url=url, headers=headers)
        expect(answer.status == 200, f"the state of {order.reference} was answered {answer.status}")
        return answer.body.decode("utf-8", "replace")

    async def paid(self, order: Payable, why: str, within_s: float = 5.0) -> None:
        for _ in range(int(within_s / 0.1)):
            if await self.is_paid(order):
                return
            await asyncio.sleep(0.1)
        expect(False, f"{why}: the order is not paid")

    async def unpaid(self, order: Payable, why: str) -> None:
        """Also after a while, because a hint may be looked into."""
        for pause_s in (0.0, 0.3):
            await asyncio.sleep(pause_s)
            expect(not await self.is_paid(order), f"{why}: and the order is paid")


def as_json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()
