"""Webhook endpoints: make, change, switch, rotate, test; and send again what was sent before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from tillgate.domain.errors import InvalidRequest, NotAllowed, NotFound
from tillgate.domain.record import record, replace
from tillgate.hub.configuring import Configures, Notice, configure, endpoint_targets
from tillgate.hub.keys import Key
from tillgate.hub.kit import Kit
from tillgate.store.book import Target
from tillgate.store.configuration import Configuration
from tillgate.store.directory import Endpoint, Merchant, MerchantSettings, Secrets
from tillgate.store.ids import new_id
from tillgate.webhooks import new_secret

MAX_ENDPOINTS: Final = 32
OVERLAP_S: Final = 86_400
"""How long a secret goes on signing after it was replaced, where nothing else is said."""
MAX_OVERLAP_S: Final = 30 * 86_400

EVENT_KINDS: Final = (
    "payment.pending", "payment.paid", "payment.failed", "payment.expired", "payment.cancelled",
    "payment.unsure", "payment.review", "payment.reversed", "payment.updated", "payment.resolved",
    "payment.noted", "payment.discrepancy",
    "refund.created", "refund.pending", "refund.unsure", "refund.succeeded", "refund.failed",
    "refund.updated",
    "standing_order.created", "standing_order.closed",
    "endpoint.disabled", "endpoint.enabled", "endpoint.test",
    "inbound.unmatched", "inbound.conflict", "inbound.dead",
)  # fmt: skip
"""All that is ever told to an endpoint."""


@record
class Wanted:
    """What a merchant says of an endpoint; None leaves it as it is."""

    url: str | None = None
    types: tuple[str, ...] | None = None
    description: str | None = None


@record
class Made:
    endpoint: Endpoint
    answer: tuple[int, bytes] | None  # the first one to the same key


Render = Callable[[Endpoint], bytes]


class Endpoints:
    """`Hub.endpoints`. What is found of another merchant is `NotFound`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._rows = Configuration(kit.directory.sealer)

    def one(self, merchant: Merchant, endpoint_id: str) -> Endpoint:
        found = next((one for one in merchant.endpoints if one.id == endpoint_id), None)
        if found is None:
            raise NotFound("There is no such webhook endpoint")
        return found

    async def create(self, merchant: Merchant, wanted: Wanted, key: Key | None, render: Render) -> Made:
        now = self._kit.clock()
        full = NotAllowed(f"There are {MAX_ENDPOINTS} webhook endpoints already; delete one first")
        secret = new_secret()
        made = Endpoint(
            id=new_id("ep_", now),
            merchant_id=merchant.id,
            url=wanted.url or "",
            types=checked_types(wanted.types or ()),
            secrets=(secret,),
            kept_secrets=((secret, None),),
            disabled=False,
            disabled_why=None,
            created_at=now,
            description=wanted.description,
        )
        refused = full if len(merchant.endpoints) >= MAX_ENDPOINTS else None
        changes = (self._rows.new_endpoint(made),)
        command = Configures(merchant.id, changes, key, render(made), refused=refused)
        return Made(made, await configure(self._kit, command))

    async def update(self, merchant: Merchant, endpoint_id: str, wanted: Wanted) -> Endpoint:
        endpoint = self.one(merchant, endpoint_id)
        new: dict[str, Any] = {}
        if wanted.url is not None:
            new["url"] = wanted.url
        if wanted.types is not None:
            new["types"] = checked_types(wanted.types)
        if wanted.description is not None:
            new["description"] = wanted.description
        if not new:
            return endpoint
        await configure(self._kit, Configures(merchant.id, (self._rows.endpoint(endpoint.id, **new),)))
        return replace(endpoint, **new)

    async def switch(
        self, merchant: Merchant, endpoint_id: str, on: bool, key: Key | None, render: Render
    ) -> Made:
        """On or off, by the merchant. What could not be delivered meanwhile is kept, and can be replayed."""
        endpoint, now = self.one(merchant, endpoint_id), self._kit.clock()
        if endpoint.disabled is not on:
            answer = await configure(self._kit, Configures(merchant.id, (), key, render(endpoint)))
            return Made(endpoint, answer)
        if on:
            after = replace(endpoint, disabled=False, disabled_at=None, disabled_why=None, failing_since=None)
            change, kind = self._rows.endpoint_on(endpoint.id), "endpoint.enabled"
        else:
            why = "switched off by the merchant"
            after = replace(endpoint, disabled=True, disabled_at=now, disabled_why=why)
            change, kind = self._rows.endpoint_off(endpoint.id, why, now), "endpoint.disabled"
        notice = self._notice(merchant, kind, after)
        command = Configures(merchant.id, (change,), key, render(after), notice)
        return Made(after, await configure(self._kit, command))

    async def give_up(self, merchant: Merchant, endpoint: Endpoint, why: str) -> bool:
        """Switch an endpoint off that wants no more, or that failed for days; False where it was off."""
        now = self._kit.clock()
        after = replace(endpoint, disabled=True, disabled_at=now, disabled_why=why)
        change = self._rows.endpoint_off(endpoint.id, why, now)
        notice = self._notice(merchant, "endpoint.disabled", after)
        command = Configures(merchant.id, (change,), notice=notice, taken="it is off already")
        try:
            await configure(self._kit, command)
        except NotAllowed:
            return False
        return True

    async def failing(self, merchant: Merchant, endpoint: Endpoint, since: int | None) -> None:
        """Keep since when nothing could be delivered to it; None: something was."""
        change = self._rows.endpoint(endpoint.id, failing_since=since)
        with suppress(NotAllowed):  # it is gone
            await configure(self._kit, Configures(merchant.id, (change,)))

    async def rotate(
        self, merchant: Merchant, endpoint_id: str, overlap_s: int, key: Key | None, render: Render
    ) -> Made:
        """A new secret; the one before goes on signing beside it for `overlap_s`."""
        endpoint = self.one(merchant, endpoint_id)
        kept = rotated(endpoint.kept_secrets, self._kit.clock(), overlap_s)
        after = replace(endpoint, secrets=tuple(secret for secret, _ in kept), kept_secrets=kept)
        change = self._rows.endpoint_secrets(endpoint, kept)
        return Made(after, await configure(self._kit, Configures(merchant.id, (change,), key, render(after))))

    async def remove(self, merchant: Merchant, endpoint_id: str) -> None:
        endpoint = self.one(merchant, endpoint_id)
        await configure(
            self._kit, Configures(merchant.id, (self._rows.remove_endpoint(endpoint.id),), taken="gone")
        )

    async def test(self, merchant: Merchant, endpoint_id: str, key: Key | None, render: Render) -> Made:
        """Tell this endpoint alone an `endpoint.test`, by the same way as everything else."""
        endpoint = self.one(merchant, endpoint_id)
        off = NotAllowed("This webhook endpoint is disabled; enable it first")
        target = (Target(endpoint.id, endpoint.url),)
        notice = Notice("endpoint.test", endpoint.id, public(endpoint), target)
        refused = off if endpoint.disabled else None
        command = Configures(merchant.id, (), key, render(endpoint), notice, refused=refused)
        answer = await configure(self._kit, command)
        return Made(endpoint, answer)

    # --- the merchant's own settings ---

    async def settings(self, merchant: Merchant, settings: MerchantSettings) -> None:
        change = self._rows.merchant_settings(merchant.id, settings)
        await configure(self._kit, Configures(merchant.id, (change,)))

    async def rotate_callback_secret(
        self, merchant: Merchant, overlap_s: int, key: Key | None, render: Callable[[Secrets], bytes]
    ) -> tuple[Secrets, tuple[int, bytes] | None]:
        """What a `callback_url` is signed with; the secret before goes on beside it for `overlap_s`."""
        kept = rotated(merchant.kept_secrets, self._kit.clock(), overlap_s)
        change = self._rows.merchant_secrets(merchant, kept)
        answer = await configure(self._kit, Configures(merchant.id, (change,), key, render(kept)))
        return kept, answer

    def _notice(self, merchant: Merchant, kind: str, after: Endpoint) -> Notice:
        others = endpoint_targets(merchant, kind, but=after.id)
        own = (Target(after.id, after.url),) if not after.disabled and after.wants(kind) else ()
        return Notice(kind, after.id, public(after), others + own)


def public(endpoint: Endpoint) -> dict[str, Any]:
    """What an event says of an endpoint: never its secrets."""
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "event_types": list(endpoint.types),
        "status": "disabled" if endpoint.disabled else "enabled",
        "disabled_reason": endpoint.disabled_why,
    }


def rotated(kept: Secrets, now: int, overlap_s: int) -> Secrets:
    """The new secret first; of the old ones only the newest goes on, until the overlap ends."""
    live = [(secret, ends) for secret, ends in kept if ends is None or now < ends]
    ends_at = now + overlap_s * 1000
    before = [(secret, ends_at if ends is None else min(ends, ends_at)) for secret, ends in live[:1]]
    return ((new_secret(), None), *(before if overlap_s else ()))


def checked_types(types: Sequence[str]) -> tuple[str, ...]:
    """Event types, or patterns such as `payment.*`. Raises `InvalidRequest` for what never comes."""
    found = tuple(dict.fromkeys(types))
    for one in found:
        family = one.removesuffix("*")
        fits = one in EVENT_KINDS or (
            one.endswith("*") and any(kind.startswith(family) for kind in EVENT_KINDS) and "*" not in family
        )
        if not fits or "[" in one or "?" in one:
            raise InvalidRequest(f"There are no events of type {one[:40]!r}", param="event_types")
    return found
