"""The desk with its way to the merchant: notifications as Midtrans signs and sends them, and faults."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

from tillgate.providers.midtrans.simulator.desk import PHONES, Desk, Refund, Transaction
from tillgate.simulation import Gateway

FAULTS = {
    "none": "as it should be",
    "twice": "every notification comes twice",
    "late": "the notification comes two seconds late",
    "lost": "no notification comes",
    "out_of_order": "the pending notification comes after the settlement",
    "forged": "somebody without the key says that it was paid, before it is",
    "edited": "a genuine notification is changed to a settlement on its way, before it is paid",
    "wrong_amount": "one rupiah less arrives",
}
"""What can go wrong around one payment."""

API_FAULTS = {
    "lost": "it is done, and the answer is lost",
    "never": "it never arrives",
    "slow": "the answer takes a while",
    "500": "500; nothing is done",
    "503": "503; nothing is done",
    "429": "429; nothing is done",
    "refused": "412 in a body that came with HTTP 200",
    "denied": "202: the bank denied it",
    "concurrent": "HTTP 202: an earlier request with this key is still being worked on",
    "html": "200 and a page of HTML",
    "empty": "200 and nothing",
    "types": "200 and JSON whose values are of other types",
    "huge": "200 and five megabytes",
    "webhook_first": "it is paid, and its notification comes before the answer",
}
"""What can go wrong with one call: `charge`, `status`, `cancel`, `expire`, `refund`."""

KEPT_S = 300
"""For how long the answer to an Idempotency-Key is kept."""

_RETRIES = {500: 1, 503: 4, 400: 2, 404: 2}


class MidtransSimulator(Gateway):
    """An async context manager. `webhook_url` is the dashboard's; a request's own headers override it."""

    def __init__(
        self,
        *,
        server_key: str,
        webhook_url: str = "",
        clock: Callable[[], float] = time.time,
        refund_s: float = 0.2,
        slow_s: float = 2.0,
        late_s: float = 2.0,
        retry_s: float = 60.0,
    ) -> None:
        super().__init__(webhook_url, late_s)
        self.server_key = server_key
        self.desk = Desk(clock, lambda name: f"{self.base_url}/pay/{name}")
        self.clock, self.refund_s, self.slow_s, self.retry_s = clock, refund_s, slow_s, retry_s
        self.kept: dict[str, tuple[float, int, dict[str, Any]]] = {}  # by Idempotency-Key
        self.running: set[str] = set()  # keys that are being worked on

    # --- the payer ---

    async def act(self, name: str, action: str, fault: str = "none", issuer: str = "") -> Transaction:
        """Let the payer act. Raises `MidtransError` where that cannot be."""
        if action == "fail":
            await self._tell(self.desk.close(name, "deny"), fault)
        elif action == "expire":
            await self._tell(self.desk.close(name, "expire"), fault)
        elif action == "pay-late":
            looked = self.calls["status"]
            await self._tell(self.desk.close(name, "expire"))
            await self.looked("status", looked)
            await self._tell(self.desk.pay(name, issuer, late=True), fault)
        else:
            await self.pay(name, issuer, fault)
        return self.desk.find(name)

    async def pay(
        self, name: str, issuer: str = "", fault: str = "none", *, late: bool = False
    ) -> Transaction:
        found = self.desk.find(name)
        before = self.signed(found)
        if fault == "forged":
            await self.notify(
                found, {**before, "transaction_status": "settlement", "signature_key": "0" * 128}
            )
        if fault == "edited":  # the status is not signed
            await self.notify(found, {**before, "transaction_status": "settlement"})
        amount = found.amount - 1 if fault == "wrong_amount" else None
        found = self.desk.pay(name, issuer, late=late, amount=amount)
        await self._tell(found, fault)
        if fault == "out_of_order":
            await self.notify(found, before)
        return found

    async def pushed(self, one: Transaction) -> None:
        """What an OVO payer does with the push, by the phone's number."""
        match PHONES.get(one.phone):
            case "cancel" | "push_failed" | "failed":
                await self.act(one.id, "fail")
            case "pending" | "expire":
                return
            case _:
                return  # paid where somebody plays it

    # --- refunds ---

    async def refunding(self, one: Transaction, refund: Refund) -> None:
        """Two notifications: it is taken, and the bank has confirmed it."""
        if refund.confirmed_at is not None:
            return
        first = self.signed(one)

        async def confirm() -> None:
            await self.notify(one, first)
            await asyncio.sleep(self.refund_s)
            refund.confirmed_at = self.clock()
            await self.notify(one, self.signed(one))

        self.after(confirm())

    # --- notifications ---

    def signed(self, one: Transaction) -> dict[str, Any]:
        """A notification: the signature covers order id, code and amount, and nothing between them."""
        found = {**self.desk.shown(one), "status_message": "midtrans payment notification"}
        glued = found["order_id"] + found["status_code"] + found["gross_amount"] + self.server_key
        return {**found, "signature_key": hashlib.sha512(glued.encode()).hexdigest()}

    async def _tell(self, one: Transaction, fault: str = "none") -> None:
        notice = self.signed(one)
        await self.told(lambda: self.notify(one, notice), fault)

    async def notify(self, one: Transaction, notice: dict[str, Any]) -> None:
        """To every address, with the repeats of Midtrans' table at a minute's distance."""
        for url in one.notify or [self.webhook_url]:
            if not url:
                continue
            status = await self.post(url, notice)
            if not 200 <= status < 300:
                self.after(self._again(url, notice, _RETRIES.get(status, 5)))

    async def _again(self, url: str, notice: dict[str, Any], times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(self.retry_s)
            if 200 <= await self.post(url, notice) < 300:
                return
