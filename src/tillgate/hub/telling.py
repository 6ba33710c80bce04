"""Evidence that is told: which attempt or refund it is about, what it says, and the row that keeps it."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from tillgate.domain.dialogue import Hint, Tell
from tillgate.domain.errors import OutOfOrder
from tillgate.domain.payment import Attempt, Payment, Refund
from tillgate.domain.record import record, replace
from tillgate.hub.handing import Hand, announce
from tillgate.hub.kit import Kit, order_key, targets
from tillgate.hub.moves import move, move_refund
from tillgate.hub.pushed import Pushed
from tillgate.hub.watching import rearm
from tillgate.spi import Compares, Connector, Inbound, Keeps, Names, Reply, can
from tillgate.store.book import Needs, Plan
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import digest, new_id
from tillgate.store.statements import Row

_ATTEMPT_FACTS: Final = ("Accepted", "AnswerLost", "Closed", "Paid", "Refunded", "Reversed")
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "cookie", "x-callback-token", "x-auth", "auth", "proxy-authorization", "x-signature"}
)


@record
class Told:
    """What became of a tell."""

    verdict: Literal["applied", "repeated", "unmatched", "look", "noted", "conflict"]
    payment: Payment | None = None
    attempt: Attempt | None = None
    refund: Refund | None = None


@record
class Tells:
    """Book evidence about one attempt or refund; what cannot be true yet sends us to look."""

    merchant: Merchant
    account: Account
    tell: Tell
    kit: Kit
    inbound: Inbound | None = None
    reply: Reply | None = None  # what the provider is answered
    hand: Hand | None = None  # the host's function wants it, too
    looking: bool = False  # a look brought it, and ends itself

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        tell = self.tell
        named = (tell.operation_id,) if tell.operation_id else ()
        return Needs(
            attempts=named,
            refunds=named,
            orders=tuple(order_key(self.merchant.id, one) for one in tell.references),
            externals=((self.account.id, tell.external_id),) if tell.external_id else (),
            seen=(self._event(), self._event("unmatched")) if tell.event_id else (),
            idempotency=self.hand.digests() if self.hand else (),
            named=(pushed.digest,) if (pushed := self._pushed()) else (),
        )

    def _pushed(self) -> Pushed | None:
        name = self.tell.external_id
        if not name or not can(self.kit.connector(self.account), Names):
            return None
        return Pushed(self.account.id, name)

    def _event(self, kind: str = "event") -> bytes:
        return digest(kind, self.account.id, self.tell.event_id or "")

    def decide(self, plan: Plan) -> Told:
        inbound_id = new_id("in_", plan.now)
        attempt, refund = self._about(plan)
        payment_id = refund.payment_id if refund else attempt.payment_id if attempt else None
        said = self.hand.take(plan, self.merchant, inbound_id, payment_id) if self.hand else "new"
        if said == "conflict":  # what it said first is what counts, until a person says otherwise
            told = Told("conflict", plan.payment(payment_id), attempt, refund)
        else:
            told = self._decide(plan, attempt, refund)
            if self.looking and attempt is not None:
                plan.not_done("look", attempt.id)
        if self.inbound is not None:
            self._keep(plan, told, inbound_id)
        return told

    def _keep(self, plan: Plan, told: Told, inbound_id: str) -> None:
        assert self.inbound is not None
        seen = None
        if self.tell.event_id and told.verdict == "applied":
            seen = self._event()
        elif told.verdict == "unmatched" and self.tell.facts:
            # It may be matched when it is repeated; until then a person has to know, once.
            unmatched = self._event("unmatched") if self.tell.event_id else None
            if unmatched is None or not plan.is_seen(unmatched):
                seen = unmatched
                about = {"names": [one for one in (self.tell.operation_id, self.tell.external_id) if one][:1]}
                announce(plan, self.merchant, "inbound.unmatched", inbound_id, self.account, about)
        payment_id = told.payment.id if told.payment else None
        plan.inbound.append(
            inbound_row(
                plan, self.account, self.inbound, told.verdict, seen, payment_id, self.reply, inbound_id
            )
        )
        if seen:
            plan.seen.append(seen)

    def _about(self, plan: Plan) -> tuple[Attempt | None, Refund | None]:
        attempt, refund = named(plan, self.account, self.tell)
        if attempt is None and refund is None and (pushed := self._pushed()):
            attempt = pushed.attempt(plan)
        if attempt is None and refund is None:
            found = (self._ordered(plan, reference) for reference in self.tell.references)
            attempt = next((one for one in found if one is not None), None)
        return attempt, refund

    def _ordered(self, plan: Plan, reference: str) -> Attempt | None:
        """The attempt at an order that the message names: one whose own name we never learnt."""
        payment = plan.order(order_key(self.merchant.id, reference))
        if payment is None:
            return None
        found = [
            one
            for one in plan.attempts(payment.id)
            if one.account_id == self.account.id and not one.asked and one.external_id is None
        ]
        return max(found, key=lambda one: (one.id == payment.live_attempt_id, one.id), default=None)

    def _decide(self, plan: Plan, attempt: Attempt | None, refund: Refund | None) -> Told:
        tell = self.tell
        if refund is None and attempt is None:
            return Told("unmatched")
        payment = plan.payment((refund or attempt).payment_id)  # type: ignore[union-attr]
        if tell.event_id and plan.is_seen(self._event()):
            return Told("repeated", payment, attempt, refund)
        before = attempt
        if attempt is not None and tell.details:
            attempt = self._detailed(attempt, payment)
        for fact in tell.facts:
            if type(fact).__name__ in _ATTEMPT_FACTS:
                owner = attempt or plan.attempt(refund.attempt_id if refund else None)
                assert owner is not None
                try:
                    payment, attempt = move(plan, self.merchant, owner, fact)  # type: ignore[arg-type]
                except OutOfOrder:
                    if self.inbound is not None:  # a look of our own says itself when to look again
                        plan.at("look", owner.id, owner.merchant_id, plan.now)
                    return Told("look", payment, owner, refund)
            elif refund is not None:
                payment, refund = move_refund(plan, self.merchant, refund, fact)  # type: ignore[arg-type]
        if attempt is not None:
            payment, attempt = self._noted(plan, payment, before, attempt)
            rearm(plan, self.kit.connector(self.account), attempt)
        return Told("applied", payment, attempt, refund)

    def _detailed(self, attempt: Attempt, payment: Payment | None) -> Attempt:
        """The attempt with what its provider says of it beside the money, and where that differs from what
        was ordered."""
        connector: Connector = self.kit.connector(self.account)
        assert payment is not None
        known, order = _details(attempt), self.kit.order(payment, attempt, self.account)
        said = msgspec.json.decode(self.tell.details or "{}")
        kept = connector.kept(order, said) if can(connector, Keeps) else said
        details = {**known, **{k: v for k, v in kept.items() if v is not None or k not in known}}
        if can(connector, Compares) and (found := dict(connector.differences(order, self.tell))):
            details["differences"] = found
        if details == known:
            return attempt
        return replace(attempt, details=msgspec.json.encode(details).decode())

    def _noted(
        self, plan: Plan, payment: Payment | None, before: Attempt | None, attempt: Attempt
    ) -> tuple[Payment | None, Attempt]:
        """Keep details that came without a fact, and tell of differences, which no amount shows."""
        if before is None or attempt.details == before.details or payment is None:
            return payment, attempt
        found = _details(attempt).get("differences")
        different = found is not None and found != _details(before).get("differences")
        if attempt.version == before.version:
            attempt = plan.save(before, attempt)
        elif not different:
            return payment, attempt
        kind = "payment.discrepancy" if different else "payment.noted"
        to = targets(self.merchant, payment, kind)
        plan.event(kind, payment, attempt, None, (), to, found if different else None)
        return payment, attempt


def _details(attempt: Attempt) -> dict[str, Any]:
    return msgspec.json.decode(attempt.details) if attempt.details else {}


def named(plan: Plan, account: Account, said: Tell | Hint) -> tuple[Attempt | None, Refund | None]:
    """The attempt or the refund that a message is about. An account speaks of its own operations only:
    whoever holds the keys of one account must not say what became of another's money."""
    refund = plan.refund(said.operation_id)
    attempt = plan.attempt(refund.attempt_id if refund else said.operation_id)
    if attempt is None and refund is None and said.external_id:
        attempt = plan.external(account.id, said.external_id)
    if attempt is None or attempt.account_id != account.id:
        return None, None
    return (None, refund) if refund else (attempt, None)


def inbound_row(
    plan: Plan,
    account: Account,
    call: Inbound,
    verdict: str,
    seen: bytes | None,
    payment_id: str | None,
    reply: Reply | None = None,
    inbound_id: str | None = None,
) -> Row:
    """The message as it came (less its credentials), what we made of it and what we answered."""
    headers = {name: "…" if name in _SECRET_HEADERS else value for name, value in call.headers.items()}
    request = {
        "method": call.method,
        "path": call.path,
        "query": call.query,
        "headers": headers,
        "peer": call.peer,
    }
    return (
        inbound_id or new_id("in_", plan.now), account.merchant_id, account.id, seen, payment_id,
        call.received_at,
        msgspec.json.encode(request), call.body, verdict, reply and reply.status, reply and reply.body,
    )  # fmt: skip
