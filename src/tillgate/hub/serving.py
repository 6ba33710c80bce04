"""Payments that are asked for at a provider's own documented paths, by its merchants and their payers."""

from __future__ import annotations

from typing import Any

import msgspec

from tillgate.domain.errors import (
    AlreadyClosed,
    AlreadyPaid,
    Fault,
    NoProvider,
    OrderConflict,
    TillgateError,
    UnknownReference,
)
from tillgate.domain.payment import Attempt, Payment
from tillgate.hub.kit import Kit, log, order_key
from tillgate.hub.opening import Intent, Opening
from tillgate.spi import Connector, Inbound, Reply, Served, Wanted
from tillgate.store.directory import Account, Merchant

USER = "user"
"""Who may pay an order, in its metadata."""


class Serving:
    """`Hub.serve`."""

    def __init__(self, kit: Kit, opening: Opening) -> None:
        self._kit = kit
        self._opening = opening

    async def serve(self, merchant: Merchant, account: Account, call: Inbound, *, trusted: bool) -> Reply:
        """A request in, the provider's dialect out, also when we fail. `trusted`: it bears a token of the
        merchant's own."""
        connector: Connector = self._kit.connector(account)
        outcome: Served | TillgateError
        try:
            outcome = await self._served(merchant, account, connector.wanted(call, trusted))
        except TillgateError as error:
            outcome = error
        except Exception:  # noqa: BLE001 - whoever asks always gets an answer in the dialect
            log.error("a payment could not be served", provider=account.provider, exc_info=True)
            outcome = Fault()
        reply: Reply = connector.served(call, outcome)
        return reply

    async def _served(self, merchant: Merchant, account: Account, wanted: Wanted) -> Served:
        if wanted.account is not None:
            account = self._named(merchant, account, wanted.account)
        payment = await self._kit.reads.payment_of(order_key(merchant.id, wanted.order_id))
        if wanted.amount is None:
            payment = _payable(payment, account, wanted)
        elif payment is not None:
            if (payment.amount_minor, payment.currency) != (wanted.amount.minor, wanted.amount.currency):
                raise OrderConflict()
            if payment.account_id != account.id:
                raise OrderConflict()
        if payment is not None:
            attempt = await self._kit.reads.live_attempt(payment.id)
            if attempt is None and not wanted.again:
                attempt = await self._begun(payment)
            if attempt is not None:
                return self._told(merchant, payment, attempt)
        intent = _intent(wanted, payment, account)
        opened = await self._opening.open(merchant, intent)
        found = opened.attempt or await self._kit.reads.live_attempt(opened.payment.id)
        if found is None:
            raise AlreadyClosed()
        return self._told(merchant, opened.payment, found)

    def _named(self, merchant: Merchant, account: Account, name: str) -> Account:
        found = merchant.account(name)
        if found is None or found.disabled or found.provider != account.provider:
            raise NoProvider()
        return found

    async def _begun(self, payment: Payment) -> Attempt | None:
        """The latest attempt that the provider had: what was begun once is not begun again."""
        had = [one for one in await self._kit.reads.attempts(payment.id) if one.external_id or one.paid_minor]
        return had[-1] if had else None

    def _told(self, merchant: Merchant, payment: Payment, attempt: Attempt) -> Served:
        account = merchant.account(attempt.account_id)
        if account is None:
            raise NoProvider()
        return Served(self._kit.order(payment, attempt, account), attempt.phase, attempt.reason)


def _payable(payment: Payment | None, account: Account, wanted: Wanted) -> Payment:
    """An order that is stored, that this account collects and that this payer may pay."""
    if payment is None or payment.account_id != account.id:
        raise UnknownReference()
    if wanted.payer is not None:
        metadata: dict[str, Any] = msgspec.json.decode(payment.metadata) if payment.metadata else {}
        if str(metadata.get(USER, "")) != wanted.payer:
            raise UnknownReference()  # another's order is not told from none
    if payment.paid_minor or payment.hold:
        raise AlreadyPaid()
    if payment.closed not in (None, "failed"):
        raise AlreadyClosed()
    return payment


def _intent(wanted: Wanted, payment: Payment | None, account: Account) -> Intent:
    if payment is None:
        assert wanted.amount is not None
        return Intent(
            order_id=wanted.order_id,
            amount_minor=wanted.amount.minor,
            currency=wanted.amount.currency,
            channel=wanted.channel,
            account=account.id,
            metadata=wanted.metadata,
            ttl_s=wanted.ttl_s,
        )
    return Intent(
        order_id=payment.order_id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        channel=payment.channel,
        account=account.id,
        callback_url=payment.callback_url,
        metadata=payment.metadata,
        ttl_s=wanted.ttl_s,
    )
