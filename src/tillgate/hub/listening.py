"""What providers say: asks are ruled on and answered, tells are booked, hints send us to look."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from tillgate.domain import dialogue, ledger
from tillgate.domain.dialogue import Ask, Facts, Hint, Noise, Opening, Record, Tell, Verdict
from tillgate.domain.errors import (
    AlreadyClosed,
    AlreadyPaid,
    Refusal,
    TillgateError,
    TryLater,
    Unavailable,
    WrongAmount,
)
from tillgate.domain.payment import Attempt, Closed, Payment
from tillgate.domain.payment import Refunded as RefundedFact
from tillgate.domain.record import record, replace
from tillgate.hub.closing import Lapses
from tillgate.hub.handing import Hand, announce
from tillgate.hub.kit import Kit, log, order_key, targets
from tillgate.hub.moves import commit, contradicted, event_kind
from tillgate.hub.telling import Tells, Told, inbound_row, named
from tillgate.spi import Connector, Heard, Inbound, Reply, Scrubs, can
from tillgate.store.book import Needs, Plan, Remembered
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import digest, new_id

REFUSED_KEPT: Final = 60
"""Refused messages that are kept for one account in a minute, by one process."""
REFUSED_BYTES: Final = 4096
_NOTHING_OPENS: Final = Opening("", "", b"", "", "")
_MOVING_ASKS: Final = (dialogue.Reserve, dialogue.Settle, dialogue.Cancel)
_QUESTIONS: Final = (dialogue.Check, dialogue.Look)

CLUES_KEPT: Final = 8
"""Names a hint mentioned that one attempt remembers."""


@record
class Hints:
    """A message that proves nothing: have the operation looked up."""

    merchant: Merchant
    account: Account
    hint: Hint | Noise
    inbound: Inbound
    reply: Reply

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def needs(self) -> Needs:
        if isinstance(self.hint, Noise):
            return Needs()
        named = (self.hint.operation_id,) if self.hint.operation_id else ()
        external = ((self.account.id, self.hint.external_id),) if self.hint.external_id else ()
        return Needs(attempts=named, refunds=named, externals=external)

    def decide(self, plan: Plan) -> Told:
        told = self._decide(plan)
        payment_id = told.payment.id if told.payment else None
        # What answers a message about no payment may be a token that was asked for.
        reply = replace(self.reply, body=b"") if isinstance(self.hint, Noise) else self.reply
        plan.inbound.append(
            inbound_row(plan, self.account, self.inbound, told.verdict, None, payment_id, reply)
        )
        return told

    def _decide(self, plan: Plan) -> Told:
        if isinstance(self.hint, Noise):
            return Told("noted")
        attempt, refund = named(plan, self.account, self.hint)
        if refund is not None:
            plan.at("look_refund", refund.id, refund.merchant_id, plan.now)
            if refund.phase != "failed":
                # Its payment, too: a refund that another made may be told beside ours. One of ours that
                # failed and was given after all would be taken for another's.
                plan.at("look", refund.attempt_id, refund.merchant_id, plan.now)
            return Told("look", plan.payment(refund.payment_id), None, refund)
        if attempt is None:
            return Told("unmatched")
        plan.at("look", attempt.id, attempt.merchant_id, plan.now)
        payment = plan.payment(attempt.payment_id)
        assert payment is not None
        return Told("look", payment, self._clued(plan, payment, attempt))

    def _clued(self, plan: Plan, payment: Payment, attempt: Attempt) -> Attempt:
        """The attempt with the latest clues that it was given, a bounded number of them."""
        assert isinstance(self.hint, Hint)
        details: dict[str, Any] = msgspec.json.decode(attempt.details) if attempt.details else {}
        known: list[str] = details.get("clues", [])
        new = [one for one in dict.fromkeys(self.hint.clues) if one not in known]
        if not new:
            return attempt
        details["clues"] = [*known, *new][-CLUES_KEPT:]
        clued = plan.save(attempt, replace(attempt, details=msgspec.json.encode(details).decode()))
        kind = "payment.noted"
        plan.event(kind, payment, clued, None, (), targets(self.merchant, payment, kind))
        return clued


@record
class Asks:
    """Rule on one ask, write what follows, and render the answer, all in one commit."""

    merchant: Merchant
    account: Account
    connector: Connector
    heard: Heard
    ask: Ask
    inbound: Inbound

    @property
    def merchant_id(self) -> str:
        return self.merchant.id

    def _order_key(self) -> bytes | None:
        reference = getattr(self.ask, "reference", None)
        return None if reference is None else order_key(self.merchant.id, reference)

    def needs(self) -> Needs:
        external, key, booked = getattr(self.ask, "external_id", None), self._order_key(), self._booked_key()
        return Needs(
            orders=(key,) if key else (),
            externals=((self.account.id, external),) if external else (),
            idempotency=(booked,) if booked else (),
        )

    def decide(self, plan: Plan) -> Reply:
        inbound_id = None
        facts = self._facts(plan)
        lapsed = dialogue.lapse_live(facts, plan.now)
        if lapsed is not None and lapsed.change is not None:
            self._write(plan, lapsed)
            facts = self._facts(plan)
        verdict = dialogue.decide(self.ask, facts, plan.now, self._opening(plan.now))
        if verdict.change is not None and self._booked_as_another(plan, facts):
            verdict = Verdict(AlreadyPaid())
        record = self._write(plan, verdict)
        outcome = verdict.outcome if isinstance(verdict.outcome, Refusal) else record
        if isinstance(self.ask, dialogue.Settle):
            if not isinstance(outcome, Refusal):
                self._book_number(plan, record)
            elif self.ask.debited or isinstance(outcome, AlreadyClosed):
                inbound_id = new_id("in_", plan.now)
                record = self._disputed(plan, facts, outcome, inbound_id)
        if isinstance(self.ask, dialogue.Note) and not isinstance(outcome, Refusal):
            outcome = self._note(plan, outcome)
        reply: Reply = self.connector.answer(self.inbound, self.heard, outcome)
        if plan.is_view and plan.blank and not isinstance(outcome, Refusal):
            return reply  # it changed nothing and promised nothing: there is nothing to keep
        again = verdict.change is None and isinstance(self.ask, _MOVING_ASKS)
        word = outcome.code if isinstance(outcome, Refusal) else "repeated" if again else "answered"
        payment_id = record.payment.id if record.payment else None
        plan.inbound.append(
            inbound_row(plan, self.account, self.inbound, word, None, payment_id, reply, inbound_id)
        )
        return reply

    def _facts(self, plan: Plan) -> Facts:
        key = self._order_key()
        payment = plan.order(key) if key else None
        standing = plan.standing_order(key) if key else None
        attempt = None
        if external := getattr(self.ask, "external_id", None):
            attempt = plan.external(self.account.id, external)
        if attempt is not None:
            payment = plan.payment(attempt.payment_id)
            standing = plan.standing(payment.standing_id) if payment else None
        # An order that was opened for another provider is not this one's to collect. A disabled account
        # collects nothing new, and ends what it began.
        mine = None if self.account.disabled else self.account.id
        if attempt is None and payment is not None and payment.account_id != mine:
            payment = None
        if attempt is None and standing is not None and standing.account_id != mine:
            standing = None
        live = plan.attempt(payment.live_attempt_id) if payment and standing is None else None
        return Facts(payment, standing, attempt, live)

    def _opening(self, now: int) -> Opening:
        if not isinstance(self.ask, dialogue.Reserve):
            return _NOTHING_OPENS
        child_key = digest("child", self.account.id, self.ask.external_id)
        names = new_id("att_", now), new_id("pay_", now)
        return Opening(*names, child_key, self.account.id, self.account.provider)

    def _write(self, plan: Plan, verdict: Verdict) -> Record:
        """Save the verdict's change; the record with what was saved."""
        record = verdict.outcome if isinstance(verdict.outcome, Record) else Record()
        if verdict.change is None:
            return record
        before, after, fact = verdict.change
        payment = verdict.payment
        assert payment is not None
        if before is None:
            saved = plan.save(verdict.before, payment)
            plan.save(None, after)
            kind = event_kind(verdict.before, saved)
            postings = ledger.postings(verdict.before, saved, self.account.id)
            plan.event(kind, saved, after, None, postings, targets(self.merchant, saved, kind))
            if after.expires_at is not None:
                plan.at("lapse", after.id, after.merchant_id, after.expires_at)
            return replace(record, attempt=after, payment=saved)
        assert verdict.before is not None
        saved, attempt = commit(plan, self.merchant, verdict.before, payment, before, after, fact)
        if isinstance(fact, Closed | RefundedFact) or attempt.phase == "paid":
            plan.done("lapse", attempt.id)
        return replace(record, attempt=attempt, payment=saved)

    def _booked_key(self) -> bytes | None:
        """What one payment of the payer's is known by under a standing order."""
        ask = self.ask
        if not isinstance(ask, dialogue.Reserve | dialogue.Settle) or ask.payment_number is None:
            return None
        amount = "" if ask.amount is None else str(ask.amount)
        return digest("booked", self.account.id, ask.reference or "", amount, ask.payment_number)

    def _booked_as_another(self, plan: Plan, facts: Facts) -> bool:
        """Whether the payer's payment is booked already, under another transaction of this standing order."""
        key = self._booked_key()
        known = plan.answer(key) if key and facts.standing else None
        return known is not None and (facts.attempt is None or known.subject != facts.attempt.id)

    def _book_number(self, plan: Plan, record: Record) -> None:
        key, attempt, payment = self._booked_key(), record.attempt, record.payment
        if key and attempt and payment and payment.of_one_attempt and plan.answer(key) is None:
            plan.answers.append(Remembered(key, key, attempt.id, 200, None, plan.now))

    def _disputed(self, plan: Plan, facts: Facts, refusal: Refusal, inbound_id: str) -> Record:
        """Money is said to be taken that we do not book: refused, and kept where it is seen."""
        ask = self.ask
        assert isinstance(ask, dialogue.Settle)
        attempt = plan.attempt(facts.attempt.id) if facts.attempt else None
        payment = plan.payment(attempt.payment_id) if attempt else None
        if attempt is None or payment is None:
            about = {"names": [ask.external_id]}
            announce(plan, self.merchant, "inbound.unmatched", inbound_id, self.account, about)
            return Record()
        stands = "given back" if attempt.phase == "paid" else attempt.phase
        if isinstance(refusal, AlreadyClosed):
            words = f"said to be paid, is {stands} ({attempt.reason})"
        elif isinstance(refusal, WrongAmount):
            words = f"said to be paid with {ask.amount}"
        elif isinstance(refusal, AlreadyPaid) and ask.linked:
            words = f"said to be paid as another transaction of payment {ask.payment_number}, which is booked"
        elif isinstance(refusal, AlreadyPaid):
            return Record(attempt, payment)  # what is paid is told to be paid
        else:
            words = "said to be paid for another order or reservation"
        told = contradicted(attempt, words)
        if told != attempt:
            told, kind = plan.save(attempt, told), "payment.discrepancy"
            plan.event(kind, payment, told, None, (), targets(self.merchant, payment, kind))
        return Record(told, payment)

    def _note(self, plan: Plan, record: Record) -> Record:
        ask, attempt, payment = self.ask, record.attempt, record.payment
        assert isinstance(ask, dialogue.Note)
        assert attempt is not None
        assert payment is not None
        details: dict[str, Any] = msgspec.json.decode(attempt.details) if attempt.details else {}
        details[ask.key] = msgspec.Raw(ask.value.encode())
        noted = plan.save(attempt, replace(attempt, details=msgspec.json.encode(details).decode()))
        kind = "payment.noted"
        plan.event(kind, payment, noted, None, (), targets(self.merchant, payment, kind))
        return replace(record, attempt=noted)


@record
class Refuses:
    """Keep a message that was refused before it said anything."""

    account: Account
    inbound: Inbound
    refusal: TillgateError
    reply: Reply

    @property
    def merchant_id(self) -> str:
        return self.account.merchant_id

    def needs(self) -> Needs:
        return Needs()

    def decide(self, plan: Plan) -> None:
        call = replace(self.inbound, body=self.inbound.body[:REFUSED_BYTES])
        plan.inbound.append(inbound_row(plan, self.account, call, self.refusal.code, None, None, self.reply))


def _scrubbed(connector: Connector, call: Inbound) -> Inbound:
    return connector.scrubbed(call) if can(connector, Scrubs) else call


class Listening:
    """`Hub.receive` and `Hub.told`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._refused: tuple[int, dict[str, int]] = (0, {})

    async def receive(self, merchant: Merchant, account: Account, call: Inbound) -> Reply:
        """A provider's message in, its dialect out, also when we fail."""
        connector = self._kit.connector(account)
        heard: Heard | None = None
        try:
            heard = connector.hear(call)
            return await self._rule(merchant, account, connector, call, heard)
        except Refusal as refusal:
            reply: Reply = connector.answer(call, heard, refusal)
            if heard is None:
                await self._keep(account, connector, call, refusal, reply)
            return reply
        except Unavailable:
            return self._later(connector, call, heard)
        except Exception:  # noqa: BLE001 - a provider always gets an answer in its dialect
            log.error("a message could not be handled", provider=account.provider, exc_info=True)
            return self._later(connector, call, heard)

    def _later(self, connector: Connector, call: Inbound, heard: Heard | None) -> Reply:
        reply: Reply = connector.answer(call, heard, TryLater())
        return reply

    async def _keep(
        self, account: Account, connector: Connector, call: Inbound, refusal: Refusal, reply: Reply
    ) -> None:
        """Of what anyone can send without a key, only so much a minute is kept, and looked through."""
        minute = call.received_at // 60_000
        if self._refused[0] != minute:
            self._refused = minute, {}
        kept = self._refused[1]
        kept[account.id] = kept.get(account.id, 0) + 1
        if kept[account.id] > REFUSED_KEPT:
            return
        # What is kept is half of it, so that a number which this cuts through is not.
        shown = _scrubbed(connector, replace(call, body=call.body[: 2 * REFUSED_BYTES]))
        try:
            await self._kit.journal.submit(Refuses(account, shown, refusal, reply))
        except Unavailable:
            log.warning("a refused message could not be kept", account=account.id)

    async def _rule(
        self, merchant: Merchant, account: Account, connector: Connector, call: Inbound, heard: Heard
    ) -> Reply:
        message, kit = heard.message, self._kit
        if isinstance(message, dialogue.Statement):
            reply: Reply = connector.answer(call, heard, await self._statement(merchant, account, message))
            return reply
        if not isinstance(message, Tell | Hint | Noise):
            asks = Asks(merchant, account, connector, heard, message, call)
            hand_in = kit.journal.ask if isinstance(message, _QUESTIONS) else kit.journal.submit
            reply = await hand_in(asks)
            return reply
        reply = connector.answer(call, heard, None)
        kept = _scrubbed(connector, call)
        if isinstance(message, Tell):
            hand = Hand(account, heard.once, account.provider in kit.hooks) if heard.once else None
            await kit.journal.submit(Tells(merchant, account, message, kit, kept, reply, hand))
        else:
            await kit.journal.submit(Hints(merchant, account, message, kept, reply))
        return reply

    async def _statement(self, merchant: Merchant, account: Account, ask: dialogue.Statement) -> Record:
        """Every transaction as it stands: one that outlived its time and was not looked at since ends now."""
        kit = self._kit
        found = await kit.reads.statement(account.id, ask.from_ms, ask.to_ms)
        attempts, now = (one.attempt for one in found.rows), kit.clock()
        over = [one.id for one in attempts if one is not None and dialogue.expired(one, now)]
        if over:
            await asyncio.gather(*(kit.journal.submit(Lapses(merchant, one)) for one in over))
            found = await kit.reads.statement(account.id, ask.from_ms, ask.to_ms)
        return found

    async def told(self, merchant: Merchant, account: Account, tell: Tell, *, looking: bool = False) -> Told:
        """Book evidence that we fetched ourselves; `looking`: by due work that says when to look again."""
        told = await self._kit.journal.submit(Tells(merchant, account, tell, self._kit, looking=looking))
        return told
