"""Send again: one delivery, or all that an endpoint missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tillgate.domain.errors import IdempotencyMismatch, NotAllowed
from tillgate.domain.record import record
from tillgate.hub.configuring import Configures, configure
from tillgate.hub.keys import Key, remembered, stored
from tillgate.hub.kit import Kit
from tillgate.store.book import Remembered, Target
from tillgate.store.directory import Endpoint, Merchant
from tillgate.store.resending import Replay, Replayed, again, hurry


@record
class Span:
    """Which of an endpoint's events: numbers above `after`, times from `since` up to `until` (epoch ms)."""

    after: int = 0
    since: int = 0
    until: int = 2**62
    everything: bool = False  # also what was delivered


class Resending:
    """`Hub.resending`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def one(
        self,
        merchant: Merchant,
        delivery: Mapping[str, Any],
        key: Key | None,
        render: Callable[[Mapping[str, Any]], bytes],
    ) -> tuple[Mapping[str, Any], tuple[int, bytes] | None]:
        """A new delivery of the same event, or the same one at once where it is still waiting.

        Raises `NotAllowed` for an endpoint that is off or gone."""
        now, endpoint_id = self._kit.clock(), delivery["endpoint_id"]
        url, refused = delivery["url"], None
        if endpoint_id is not None:
            endpoint = next((one for one in merchant.endpoints if one.id == endpoint_id), None)
            if endpoint is None or endpoint.disabled:
                refused = NotAllowed("The webhook endpoint of this delivery is disabled or gone")
            else:
                url = endpoint.url
        if delivery["state"] == "pending":
            row: Mapping[str, Any] = {**delivery, "next_at": now}
            change = hurry(delivery["id"], now)
        else:
            row, change = again(merchant.id, delivery["seq"], Target(endpoint_id, url), now)
        command = Configures(merchant.id, (change,), key, render(row), refused=refused)
        answer = await configure(self._kit, command)
        self._kit.journal.kick()
        return row, answer

    async def replay(
        self,
        merchant: Merchant,
        endpoint: Endpoint,
        span: Span,
        key: Key | None,
        render: Callable[[Replayed], bytes],
    ) -> tuple[Replayed | None, tuple[int, bytes] | None]:
        """Put what an endpoint missed on its way again, in order; looks at so many events, and says where it
        stopped. Raises `NotAllowed` for one that is off, `IdempotencyMismatch`, `Unavailable`."""
        if endpoint.disabled:
            raise NotAllowed("This webhook endpoint is disabled; enable it first")

        def remember(done: Replayed, now: int) -> Remembered | None:
            return None if key is None else remembered(key, endpoint.id, render(done), now)

        work = Replay(
            merchant_id=merchant.id,
            target=Target(endpoint.id, endpoint.url),
            wants=endpoint.wants,
            after=span.after,
            since=span.since,
            until=span.until,
            everything=span.everything,
            remember=remember,
            digest=key.digest if key else None,
        )
        found = await self._kit.journal.run(work)
        if isinstance(found, Remembered):
            if key is None or found.fingerprint != key.fingerprint:
                raise IdempotencyMismatch()
            return None, stored(found)
        self._kit.journal.kick()
        return found, None
