"""`Idempotency-Key`: the first answer to a request is kept with the change it answers, in one commit.

A key is in flight only while a provider is being called for a new payment. Its row names that payment, so the
payment is what tells how the request ended when its process did not live to say it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Generic, TypeVar

from tillgate.domain.errors import IdempotencyMismatch, InFlight
from tillgate.domain.record import record, replace
from tillgate.store.book import Command, Needs, Plan, Remembered
from tillgate.store.sealing import Sealer

T = TypeVar("T")


@record
class Key:
    """An `Idempotency-Key`, digested with its merchant, and the request's fingerprint."""

    digest: bytes
    fingerprint: bytes
    status: int  # of the answer that is stored
    sealer: Sealer | None = field(default=None, repr=False)  # the answer shows a secret: it is kept sealed

    @property
    def where(self) -> str:
        return f"idempotency:{self.digest.hex()}:body"


def remembered(
    key: Key, subject: str | None, body: bytes | None, now: int, status: int | None = None
) -> Remembered:
    """The answer to keep; without a body the request is in flight."""
    if body is not None and key.sealer is not None:
        body = key.sealer.seal(body, key.where)
    known = None if body is None else status or key.status
    return Remembered(key.digest, key.fingerprint, subject, known, body, now)


def known_answer(plan: Plan, key: Key | None) -> Remembered | None:
    """What is kept for this key, in flight or not. Raises `IdempotencyMismatch`."""
    known = plan.answer(key.digest) if key else None
    if key is not None and known is not None and known.fingerprint != key.fingerprint:
        raise IdempotencyMismatch()
    return known


def recall(plan: Plan, key: Key | None) -> Remembered | None:
    """The stored answer for this key. Raises `IdempotencyMismatch` or `InFlight`."""
    known = known_answer(plan, key)
    if key is None or known is None:
        return None
    if known.status is None:
        raise InFlight()
    if key.sealer is not None and known.body is not None:
        return replace(known, body=key.sealer.open(known.body, key.where))
    return known


def stored(known: Remembered) -> tuple[int, bytes]:
    """Status and body, as they were first answered."""
    return known.status or 200, known.body or b""


@record
class Kept(Generic[T]):
    """What a command brought; or, to a repeat, the first answer."""

    result: T | None
    stored: tuple[int, bytes] | None = None


@record
class Keyed(Generic[T]):
    """A command whose answer is kept under a key, in its own commit. A repeat decides nothing."""

    command: Command[T]
    key: Key | None
    render: Callable[[T], bytes]

    @property
    def merchant_id(self) -> str:
        return self.command.merchant_id

    def needs(self) -> Needs:
        needs = self.command.needs()
        return needs if self.key is None else replace(needs, idempotency=(self.key.digest,))

    def decide(self, plan: Plan) -> Kept[T]:
        known = recall(plan, self.key)
        if known is not None:
            return Kept(None, stored(known))
        result = self.command.decide(plan)
        if self.key is not None:
            plan.answers.append(remembered(self.key, None, self.render(result), plan.now))
        return Kept(result)


@record
class Recalls:
    """Only look whether there is an answer; before something is called that a repeat must not call."""

    merchant_id: str
    key: Key

    def needs(self) -> Needs:
        return Needs(idempotency=(self.key.digest,))

    def decide(self, plan: Plan) -> tuple[int, bytes] | None:
        known = recall(plan, self.key)
        return None if known is None else stored(known)
