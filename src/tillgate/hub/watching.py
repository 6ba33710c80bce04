"""When to look at an attempt that nobody told us about: notices get lost."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tillgate.domain.payment import LIVE, Attempt, Payment
from tillgate.domain.record import record, replace
from tillgate.hub.kit import Kit
from tillgate.spi import Connector, Hinting, Looks, Schedules
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Merchant

LOOKS_MS: Final = (60_000, 180_000, 600_000)
"""After an attempt began, where its provider has no schedule of its own; its expiry looks once more."""
POLLED_AFTER_MS: Final = 60_000
POLLED_EVERY_MS: Final = 60_000
_REMEMBERED: Final = 10_000


def next_look(connector: Connector, attempt: Attempt, now: int) -> int | None:
    """When to look next (epoch ms) at an attempt as it stands; None: not before somebody says something."""
    if not isinstance(connector, Looks):
        return None
    if isinstance(connector, Schedules):
        return connector.next_look(attempt, now)
    if attempt.phase != "pending" or attempt.asked:
        return None
    first_ms = connector.poll_after_ms if isinstance(connector, Hinting) else LOOKS_MS[0]
    times = (attempt.created_at + after for after in sorted({first_ms, *LOOKS_MS}) if after >= first_ms)
    return next((at for at in times if at > now), None)


def first_look_ms(connector: Connector, attempt: Attempt, now: int) -> int | None:
    """How long to leave an attempt alone that the provider has just taken."""
    at = next_look(connector, replace(attempt, phase="pending"), now)
    return None if at is None else at - now


def rearm(plan: Plan, connector: Connector, attempt: Attempt) -> None:
    """Keep to the provider's own schedule, whatever an attempt was told, also once it is paid or closed."""
    if not isinstance(connector, Schedules) or attempt.phase in ("created", "unsure"):
        return
    at = connector.next_look(attempt, plan.now)
    if at is None:
        plan.done("look", attempt.id)
    else:
        plan.at("look", attempt.id, attempt.merchant_id, at)


@record
class Polled:
    """A merchant waits for this attempt: have it looked at now, unless that is to be done anyway."""

    merchant_id: str
    attempt_id: str

    def needs(self) -> Needs:
        return Needs(attempts=(self.attempt_id,))

    def decide(self, plan: Plan) -> None:
        attempt = plan.attempt(self.attempt_id)
        if attempt is not None and attempt.phase in LIVE:
            plan.at("look", attempt.id, attempt.merchant_id, plan.now)


class Watching:
    """`Hub.polled`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._looked: OrderedDict[str, int] = OrderedDict()

    async def polled(self, merchant: Merchant, payment: Payment) -> None:
        """A merchant asked about a payment: one that is open for a while is looked up, once a minute."""
        now = self._kit.clock()
        attempt_id = payment.live_attempt_id
        if attempt_id is None or payment.status != "pending" or now - payment.created_at < POLLED_AFTER_MS:
            return
        if now - self._looked.get(attempt_id, 0) < POLLED_EVERY_MS:
            return
        account = merchant.account(payment.account_id)
        if account is None or self._kit.asks(account):
            return
        connector = self._kit.connector(account)
        if not isinstance(connector, Looks) or isinstance(connector, Schedules):
            return
        self._looked[attempt_id] = now
        if len(self._looked) > _REMEMBERED:
            self._looked.popitem(last=False)
        await self._kit.journal.submit(Polled(merchant.id, attempt_id))
