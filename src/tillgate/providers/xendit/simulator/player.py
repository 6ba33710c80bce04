"""The desk with its way to the merchant: webhooks as Xendit sends them, and faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tillgate.providers.xendit.simulator.desk import Desk, Paid, Refund, Request, shown_refund, stamp
from tillgate.simulation import Gateway

FAULTS = {
    "none": "as it should be",
    "twice": "every webhook comes twice",
    "late": "the webhook comes two seconds late",
    "lost": "no webhook comes",
    "out_of_order": "a failure and an expiry come after the payment",
    "forged": "somebody without the token says that it was paid, before it is",
    "edited": "somebody with the token says that it was paid, before it is",
    "wrong_amount": "the payer pays one rupiah less",
    "pay_twice": "the payer pays the same code twice",
}
"""What can go wrong around one payment."""

API_FAULTS = {
    "lost": "it is done, and the answer is lost",
    "never": "it never arrives",
    "slow": "the answer takes a while",
    "500": "500 SERVER_ERROR; nothing is done",
    "503": "503 CHANNEL_UNAVAILABLE; nothing is done",
    "429": "429 RATE_LIMIT_EXCEEDED",
    "refused": "400 INSUFFICIENT_BALANCE",
    "html": "200 and a page of HTML",
    "empty": "200 and nothing",
    "types": "200 and JSON whose values are of other types",
    "huge": "200 and five megabytes",
    "webhook_first": "it is paid, and its webhook comes before the answer",
}
"""What can go wrong with one call: `create`, `get`, `payment`, `cancel`, `refund`, `get_refund`."""

LATE_S = 2.0
RETRIES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class XenditSimulator(Gateway):
    """An async context manager. `webhook_url` is what the dashboard holds; it may be set later."""

    def __init__(
        self,
        *,
        secret_key: str,
        callback_token: str,
        webhook_url: str = "",
        clock: Callable[[], float] = time.time,
        refund_s: float = 0.2,
        slow_s: float = 2.0,
        late_s: float = LATE_S,
    ) -> None:
        super().__init__(webhook_url, late_s)
        self.secret_key, self.callback_token = secret_key, callback_token
        self.desk = Desk(clock, lambda name: f"{self.base_url}/pay/{name}")
        self.clock, self.refund_s, self.slow_s = clock, refund_s, slow_s
        self.refund_failure: str | None = None

    # --- the payer ---

    async def act(self, name: str, action: str, fault: str = "none", issuer: str = "") -> Request:
        """Let the payer act. Raises `XenditError` where that cannot be."""
        if action == "pay-late":
            self.desk.expire(name)
            looked = self.calls["get"]
            await self._expired(self.desk.request(name))
            if self.webhook_url:
                await self.looked("get", looked)
        if action in ("pay", "pay-late"):
            await self.pay(name, fault=fault, issuer=issuer)
        elif action == "fail":
            await self._failed(self.desk.fail(name), fault)
        else:
            await self._expired(self.desk.expire(name), fault)
        return self.desk.request(name)

    async def pay(self, name: str, amount: int | None = None, issuer: str = "", fault: str = "none") -> Paid:
        request = self.desk.request(name)
        if fault in ("forged", "edited"):
            token = self.callback_token if fault == "edited" else "somebody-elses-token"
            lie = {**self.desk.shown(request), "status": "SUCCEEDED", "payment_id": "py-made-up"}
            await self.send("payment.capture", lie, token)
        if fault == "wrong_amount":
            amount = request.amount - 1
        paid = self.desk.pay(name, amount, issuer)
        await self.captured(request, paid, fault)
        if fault == "pay_twice":
            await self.captured(request, self.desk.pay(name, amount, issuer))
        return paid

    async def captured(self, request: Request, paid: Paid, fault: str = "none") -> None:
        await self._tell("payment.capture", self.desk.shown_payment(request, paid), fault)
        if fault == "out_of_order":
            await self._failed(request, "none")
            await self._expired(request)

    async def _failed(self, request: Request, fault: str = "none") -> None:
        body = {**self.desk.shown(request), "status": "FAILED", "failure_code": "USER_DECLINED_PAYMENT"}
        await self._tell("payment.failure", body, fault)

    async def _expired(self, request: Request, fault: str = "none") -> None:
        await self._tell("payment_request.expiry", {**self.desk.shown(request), "status": "EXPIRED"}, fault)

    # --- refunds ---

    def refunding(self, refund: Refund) -> None:
        """A refund ends a little later, and says so."""

        async def end() -> None:
            await asyncio.sleep(self.refund_s)
            refund.status = "FAILED" if self.refund_failure else "SUCCEEDED"
            refund.failure_code = self.refund_failure
            event = "refund.failed" if self.refund_failure else "refund.succeeded"
            nested = {"event": event, "data": shown_refund(refund)}  # twice, as the published example has it
            await self.send(event, nested, self.callback_token)

        self.after(end())

    # --- webhooks ---

    async def _tell(self, event: str, data: dict[str, Any], fault: str) -> None:
        await self.told(lambda: self.send(event, data, self.callback_token), fault)

    async def send(self, event: str, data: dict[str, Any], token: str) -> int:
        """One webhook; what is not taken is repeated up to six times, ever later."""
        body = {
            "event": event,
            "business_id": "6094fa76c2fd53701b8e079c",
            "created": stamp(self.clock()),
            "data": data,
        }
        status = await self._post(body, token)
        if status >= 500 or status == 0:

            async def again() -> None:
                for pause_s in RETRIES_S:
                    await asyncio.sleep(pause_s)
                    if 0 < await self._post(body, token) < 500:
                        return

            self.after(again())
        return status

    async def _post(self, body: dict[str, Any], token: str) -> int:
        """0: nobody answered."""
        if not self.webhook_url:
            return 200
        return await self.post(self.webhook_url, body, {"x-callback-token": token})
