"""Changes of a merchant's configuration: one commit with the event that tells of it and the kept answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tillgate.domain.errors import TillgateError
from tillgate.domain.record import record
from tillgate.hub.keys import Key, recall, remembered, stored
from tillgate.hub.kit import Kit
from tillgate.store.book import Change, Needs, Plan, Target
from tillgate.store.directory import Merchant


@record
class Notice:
    """An event about an endpoint, and who is told."""

    kind: str
    endpoint_id: str
    endpoint: Mapping[str, Any]
    targets: tuple[Target, ...]


@record
class Configures:
    """The changes, or the answer that the same key was given before."""

    merchant_id: str
    changes: tuple[Change, ...]
    key: Key | None = None
    answer: bytes = b""
    notice: Notice | None = None
    taken: str = "somebody changed this at the same time: read it again"
    refused: TillgateError | None = None  # what a first request is told; a repeat has its answer

    def needs(self) -> Needs:
        return Needs(idempotency=(self.key.digest,) if self.key else ())

    def decide(self, plan: Plan) -> tuple[int, bytes] | None:
        known = recall(plan, self.key)
        if known is not None:
            return stored(known)
        if self.refused is not None:
            raise self.refused
        plan.changes += self.changes
        if self.key is not None:
            plan.answers.append(remembered(self.key, None, self.answer, plan.now))
        if self.notice is not None:
            one = self.notice
            plan.endpoint_event(one.kind, one.endpoint_id, one.endpoint, one.targets)
        return None


async def configure(kit: Kit, command: Configures) -> tuple[int, bytes] | None:
    """Commit it, and have it seen at once in this process (in others within seconds).

    Gives the first answer where the same key was used before. Raises `NotAllowed` where somebody was quicker,
    `IdempotencyMismatch`, `Unavailable`."""
    try:
        return await kit.journal.submit(command)
    finally:
        kit.directory.forget()


def endpoint_targets(merchant: Merchant, kind: str, but: str | None = None) -> tuple[Target, ...]:
    """The merchant's endpoints that want this kind of event; `but`: not this one."""
    return tuple(Target(one.id, one.url) for one in merchant.endpoints if one.id != but and one.wants(kind))
