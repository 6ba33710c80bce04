"""A Click account that also has the Merchant API: it can look at its payments and give them back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Declined
from tillgate.domain.payment import Accepted, Closed, Fact, Paid, RefundAccepted, RefundSucceeded
from tillgate.providers.click.config import Config
from tillgate.providers.click.connector import Click
from tillgate.providers.click.merchant_api import CREATED, PAID, MerchantApi
from tillgate.spi import Order, RefundOrder, RefundRules, Send

# A reversal is of the whole payment. Its window is Click's reporting month, which a number of seconds cannot
# say: Click itself refuses what is too old.
RULES: Final = RefundRules(partial=False, parallel=False)


class ClickWithApi(Click):
    """Looks and refunds by Click's payment number, which came with Prepare."""

    def __init__(self, config: Config, *, now_s: Callable[[], float] = time.time) -> None:
        super().__init__(config)
        self._now_s = now_s

    def _api(self, send: Send) -> MerchantApi:
        return MerchantApi(self._config, send, now_s=self._now_s)

    async def look(self, order: Order, send: Send) -> Tell | None:
        """`payment/status`: 2 is money, below 0 is not, between them nothing is known yet."""
        payment_id = paydoc(order)
        if payment_id is None:  # nothing to ask by, which is not the same as "Click never had it"
            return Tell((Accepted(),), operation_id=order.operation_id)
        found = await self._api(send).payment_status(payment_id)
        fact: Fact = Accepted()
        if found.payment_status == PAID:
            fact = Paid(order.amount.minor, order.amount.currency)
        elif found.payment_status is not None and found.payment_status < CREATED:
            fact = Closed("failed", f"click payment_status {found.payment_status}")
        return Tell((fact,), operation_id=order.operation_id)

    def refund_rules(self, channel: str) -> RefundRules:
        return RULES

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        """`payment/reversal`. Raises `Declined`, `Unreachable` or `Unsure`."""
        if refund.amount != refund.payment.amount:
            raise Declined("Click gives back whole payments only")
        payment_id = paydoc(refund.payment)
        if payment_id is None:
            raise Declined("Click's number of this payment is not known here")
        await self._api(send).reverse(payment_id)
        return Tell((RefundSucceeded(str(payment_id)),), operation_id=refund.operation_id)

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None:
        """A payment that still stands was not given back; one that failed was. Click says no more."""
        payment_id = paydoc(refund.payment)
        if payment_id is None:
            return Tell((RefundAccepted(),), operation_id=refund.operation_id)
        status = (await self._api(send).payment_status(payment_id)).payment_status
        if status == PAID:
            return None
        done = status is not None and status < CREATED
        fact = RefundSucceeded(str(payment_id)) if done else RefundAccepted()
        return Tell((fact,), operation_id=refund.operation_id)


class _Details(msgspec.Struct, frozen=True):
    click_paydoc_id: int | None = None


def paydoc(order: Order) -> int | None:
    """Click's payment number (`payment_id` of its API), kept with the transaction since Prepare."""
    kept = order.details
    return msgspec.json.decode(kept, type=_Details).click_paydoc_id if kept else None


def connect(config: Config) -> Click:
    """The connector that this configuration allows. Raises `Misconfigured`."""
    return ClickWithApi(config) if config.merchant_user_id is not None else Click(config)
