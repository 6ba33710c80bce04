"""Messages for the host's own function: handed on once each, in order within their stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tillgate.spi import Once
from tillgate.store.book import Plan, Remembered, Target
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import digest

KIND = "hand_on"
"""Due work: its subject is `STREAM + inbound id`, so that ids tell the order within a stream."""
BURIED = "buried"
"""What a message becomes whose function failed too often: due work that is never due."""
NEVER_MS = 2**53
Verdict: TypeAlias = Literal["new", "repeat", "conflict"]


@dataclass(frozen=True, slots=True)
class Hand:
    """One message that comes in, and whether somebody here waits for it."""

    account: Account
    once: Once
    wanted: bool

    def digests(self) -> tuple[bytes, bytes]:
        """Of the message's name, and of what it says under that name."""
        key = self.once.key
        return (
            digest("once", self.account.id, key),
            digest("once", self.account.id, key, self.once.content.hex()),
        )

    def take(self, plan: Plan, merchant: Merchant, inbound_id: str, payment_id: str | None) -> Verdict:
        """Have it handed on, unless it was. The same name with other words is a conflict: told once, and not
        handed on."""
        first, other = self.digests()
        known = plan.answer(first)
        if known is None:
            plan.answers.append(Remembered(first, self.once.content, inbound_id, 200, None, plan.now))
            if self.wanted:
                stream = digest("stream", self.account.id, self.once.stream).hex()
                plan.at(KIND, f"{stream}{inbound_id}", merchant.id, plan.now)
            return "new"
        if known.fingerprint == self.once.content:
            return "repeat"
        if plan.answer(other) is None:
            plan.answers.append(Remembered(other, self.once.content, inbound_id, 200, None, plan.now))
            note = {"first": known.subject, "payment_id": payment_id}
            announce(plan, merchant, "inbound.conflict", inbound_id, self.account, note)
        return "conflict"


def announce(
    plan: Plan, merchant: Merchant, kind: str, inbound_id: str, account: Account, note: dict[str, Any]
) -> None:
    """An event about a message that belongs to no payment, or not to the one it names."""
    targets = tuple(Target(one.id, one.url) for one in merchant.endpoints if one.wants(kind))
    about = {"inbound_id": inbound_id, "account": account.id}
    plan.note_event(kind, inbound_id, {**about, **{k: v for k, v in note.items() if v is not None}}, targets)
