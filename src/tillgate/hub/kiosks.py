"""Kiosks: enrolled once by a code, then they fetch their orders and report. Nothing is ever sent to them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from tillgate.domain.errors import NotAllowed, NotFound, Unauthorized
from tillgate.domain.payment import Attempt, Payment
from tillgate.hub.configuring import Configures, configure
from tillgate.hub.keys import Kept, Key, Keyed
from tillgate.hub.kiosk_orders import Loses, Reports, Takes, Wishes, held
from tillgate.hub.kit import Kit
from tillgate.hub.upkeep import RenderPayment
from tillgate.schemas_kiosk import (
    EnrolOut,
    KioskOrder,
    Report,
    ReportOut,
    TakeOut,
    Wish,
    WorkOut,
)
from tillgate.spi import Fetched
from tillgate.store.book import Needs, Plan
from tillgate.store.configuration import Configuration
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import new_id

CODE_TTL_MS: Final = 60 * 60_000
ELSEWHERE_S: Final = 1.0
"""How soon a kiosk that waits here hears of what another process of the hub wrote."""


class Kiosks:
    """`Hub.kiosks`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._rows = Configuration(kit.directory.sealer)

    async def invite(self, merchant: Merchant, account: Account) -> tuple[str, int]:
        """A code that enrols one kiosk for this account within the hour, and when it ends (epoch ms).

        It replaces one that was not used. Raises `NotAllowed` where the account's provider has no kiosks."""
        if not isinstance(self._kit.connector(account), Fetched):
            raise NotAllowed("This account's provider has no kiosks")
        code = f"{account.id}.{secrets.token_urlsafe(18)}"
        ends = self._kit.clock() + CODE_TTL_MS
        config = {**account.config, "code_sha256": _digest(code), "code_ends_at": ends}
        change = self._rows.account_config(account, config)
        await configure(self._kit, Configures(merchant.id, (change,)))
        return code, ends

    async def enrol(self, code: str, key: str) -> EnrolOut:
        """The kiosk behind `code` is from now on known by `key`. Repeating it with the same key is harmless.

        What a kiosk before it had taken and not reported is unsure. Raises `Unauthorized`."""
        merchant, account = await self._account(code.partition(".")[0])
        config, now = account.config, self._kit.clock()
        if not hmac.compare_digest(str(config.get("code_sha256", "")), _digest(code)):
            raise Unauthorized("This code is not known, or was replaced by a newer one")
        if not hmac.compare_digest(str(config.get("key_sha256", "")), _digest(key)):
            if now >= int(config.get("code_ends_at", 0)):
                raise Unauthorized("This code was used, or its hour is over")
            change = self._rows.account_config(
                account, {**config, "key_sha256": _digest(key), "code_ends_at": 0}
            )
            await configure(self._kit, Configures(merchant.id, (change,), taken="this code was just used"))
            for attempt, _ in await self._kit.reads.fetched(account.id):
                await self._kit.journal.submit(Loses(merchant, attempt.id))
        return EnrolOut(account.id, account.name)

    async def known(self, bearer: str) -> tuple[Merchant, Account]:
        """Whose `account.key` this is. Raises `Unauthorized`."""
        name, _, key = bearer.partition(".")
        merchant, account = await self._account(name)
        if not hmac.compare_digest(str(account.config.get("key_sha256", "")), _digest(key)):
            raise Unauthorized("This kiosk is not enrolled, or another took its place")
        return merchant, account

    async def work(
        self,
        account: Account,
        mark: str,
        wait_s: int,
        doubts: Sequence[str],
        hurried: Callable[[], bool] = lambda: False,
    ) -> WorkOut:
        """Orders to collect and wishes to follow; waits up to `wait_s` while `mark` stands for the same.

        `hurried`: nobody may wait any longer, the process is ending."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait_s
        bell = self._kit.bell(account.id)
        while True:
            bell.clear()
            found = await self._work(account, doubts)
            left = ends - loop.time()
            if found.mark != mark or left <= 0 or hurried():
                return found
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), min(left, ELSEWHERE_S))

    async def take(self, merchant: Merchant, account: Account, attempt_id: str, txn_id: str) -> TakeOut:
        """Raises `NotFound`, and `NotAllowed` for a `txn_id` of another order."""
        return await self._kit.journal.submit(Takes(merchant, account, attempt_id, txn_id))

    async def report(
        self, merchant: Merchant, account: Account, reports: Sequence[Report]
    ) -> list[ReportOut]:
        """Book reports, in order. What is answered is on disk."""
        now = self._kit.clock()
        booked = [
            self._kit.journal.submit(
                Reports(merchant, account, one, new_id("pay_", now), new_id("att_", now))
            )
            for one in reports
        ]
        results = list(await asyncio.gather(*booked))
        return results

    async def choose_plan(
        self,
        merchant: Merchant,
        payment_id: str,
        plan_id: str,
        key: Key | None,
        render: RenderPayment,
    ) -> Kept[Payment]:
        """Have the kiosk tell the terminal which plan the payer chose. Raises `NotFound`, `NotAllowed`."""
        wish = Wish("", "plan", plan_id=plan_id)
        wishes = Wishes(merchant, payment_id, wish, _NoPlan(merchant.id))
        kept = await self._kit.journal.submit(Keyed(wishes, key, render))
        await self._ring(payment_id)
        return kept

    async def _work(self, account: Account, doubts: Sequence[str]) -> WorkOut:
        orders, wishes = [], []
        now = self._kit.clock()
        for attempt, payment in await self._kit.reads.fetched(account.id):
            kept = held(attempt)
            if kept.report is None:
                if attempt.external_id is not None or now < payment.expires_at:
                    orders.append(self._order(account, attempt, payment))
            elif kept.wish is not None:
                wishes.append(kept.wish)
        for txn_id in doubts:
            found = await self._kit.reads.external(account.id, txn_id)
            decision = held(found).decision if found is not None and found.details else None
            if decision is not None:
                outcome = "paid" if decision.paid else "unpaid"
                reason = f"{decision.reason} ({decision.by})"[:500]
                wishes.append(
                    Wish(txn_id, "settle", outcome="paid" if outcome == "paid" else "unpaid", reason=reason)
                )
        mark = hashlib.sha256(msgspec.json.encode((orders, wishes))).hexdigest()[:32]
        return WorkOut(mark, orders, wishes)

    def _order(self, account: Account, attempt: Attempt, payment: Payment) -> KioskOrder:
        connector = self._kit.connector(account)
        return KioskOrder(
            attempt=attempt.id,
            order_id=payment.order_id,
            channel=attempt.channel,
            amount_minor=attempt.amount_minor,
            currency=attempt.currency,
            terminal=connector.terminal(self._kit.order(payment, attempt, account)),
            txn_id=attempt.external_id,
            expires_at=payment.expires_at,
        )

    async def _ring(self, payment_id: str) -> None:
        attempt = await self._kit.reads.live_attempt(payment_id)
        if attempt is not None:
            self._kit.bell(attempt.account_id).set()

    async def _account(self, account_id: str) -> tuple[Merchant, Account]:
        try:
            return await self._kit.directory.account(account_id[:80])
        except NotFound:
            raise Unauthorized("There is no such kiosk") from None


class _NoPlan:
    def __init__(self, merchant_id: str) -> None:
        self.merchant_id = merchant_id

    def needs(self) -> Needs:
        return Needs()

    def decide(self, plan: Plan) -> Payment:
        raise NotAllowed("No terminal has this payment")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
