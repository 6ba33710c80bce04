"""One ruling on a host's session: load the rows, decide, write what moved, call the hook.

Every rule is `domain.dialogue`'s; here is only what the rules look at and how what they say is written.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect as inspected
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from tillgate.domain.dialogue import (
    Ask,
    Check,
    Facts,
    Look,
    Note,
    Opening,
    Record,
    Reserve,
    Settle,
    Statement,
    Verdict,
    decide,
    lapse_live,
)
from tillgate.domain.errors import AlreadyPaid, Refusal, UnknownReference, WrongAmount
from tillgate.domain.payment import Attempt
from tillgate.embed import accounts
from tillgate.embed.facts import attempt_of, order_of, payment_of, reason_of, standing_of, state_of
from tillgate.embed.models import TABLE, PaymentTransaction, to_moment
from tillgate.embed.session import Moved, call_hook, engine_of, take_turns

if TYPE_CHECKING:
    from tillgate.embed.handler import EmbeddedHandler

LOOKS: Final = 4
_OPENING: Final = Opening(attempt_id="", payment_id="", order_key=b"", account_id="", provider="")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What to answer; `extra` is what a hook added to it."""

    outcome: Record | Refusal
    extra: Any = None


class Desk:
    """One ruling on one session."""

    def __init__(self, handler: EmbeddedHandler, session: Session, params: dict[str, Any]) -> None:
        self.handler = handler
        self.session = session
        self.params = params
        self.now = time.time_ns() // 1_000_000
        if engine_of(session).dialect.name in ("mysql", "mariadb"):
            self.now -= self.now % 1000  # an adopted column may keep whole seconds only
        self.kind: str = inspected(handler.account_model).local_table.name

    def hook(self, hook: Any, *arguments: Any) -> Any:
        return call_hook(self.session, isinstance(self.handler.db, AsyncSession), hook, *arguments)

    def rule(self, ask: Ask) -> Ruling:
        for _ in range(LOOKS):
            try:
                if isinstance(ask, Check):
                    return self._check(ask)
                if isinstance(ask, Statement):
                    return self._statement(ask)
                if isinstance(ask, Reserve):
                    return self._reserve(ask)
                return self._by_id(ask)
            except Moved:
                continue  # somebody was quicker: look again, in the same transaction
        raise Moved

    # --- the asks -------------------------------------------------------------------------------------------

    def _check(self, ask: Check) -> Ruling:
        account = self._account(ask.reference)
        if account is None:
            return Ruling(UnknownReference())
        try:
            rows = self._of_account(accounts.key_of(account))
            verdict = decide(ask, self._facts(account, ask.reference, rows), self.now, _OPENING)
        except WrongAmount as refusal:
            return Ruling(refusal)
        if isinstance(verdict.outcome, Refusal):
            return Ruling(verdict.outcome)
        return Ruling(verdict.outcome, self.handler.allowed(self.params, account, self.hook))

    def _reserve(self, ask: Reserve) -> Ruling:
        account = self._account(ask.reference)
        if account is not None:
            take_turns(self.session, self._key(accounts.key_of(account)))
        row = self._row(ask.external_id)
        if row is not None:
            return self._again(ask, row, account)
        if account is None:
            return Ruling(UnknownReference())
        if engine_of(self.session).dialect.name == "postgresql":
            self.session.refresh(account)  # it may have changed while we waited for our turn
        rows = self._of_account(accounts.key_of(account))
        try:
            facts = self._facts(account, ask.reference, rows)
        except WrongAmount as refusal:
            return Ruling(refusal)
        for held in rows:
            attempt = attempt_of(held)
            lapsed = lapse_live(Facts(payment=payment_of(attempt), live=attempt), self.now)
            if lapsed is not None:
                self._write(held, lapsed)
        verdict = decide(ask, facts, self.now, _OPENING)
        if isinstance(verdict.outcome, Refusal):
            return Ruling(verdict.outcome)
        assert verdict.change is not None
        row = self._insert(ask, verdict.change[1], account)
        self.hook(self.handler.transaction_created, self.params, row, account)
        return Ruling(Record(replace(verdict.change[1], id=str(row.id)), verdict.outcome.payment))

    def _again(self, ask: Reserve, row: PaymentTransaction, account: Any) -> Ruling:
        attempt = attempt_of(row)
        # The rules compare references; the host may have several texts for one account.
        same = account is not None and accounts.key_of(account) == row.account_id
        payment = replace(payment_of(attempt), order_id=ask.reference if same else "")
        verdict = decide(ask, Facts(payment=payment, attempt=attempt), self.now, _OPENING)
        if not same and isinstance(verdict.outcome, Record):
            return Ruling(UnknownReference())
        self._write(row, verdict)
        if isinstance(verdict.outcome, Record):
            self.hook(self.handler.transaction_already_exists, self.params, row)
        return Ruling(verdict.outcome)

    def _by_id(self, ask: Ask) -> Ruling:
        assert not isinstance(ask, Check | Reserve | Statement)
        row = self._row(ask.external_id)
        if row is None:
            return Ruling(decide(ask, Facts(), self.now, _OPENING).outcome)
        attempt = attempt_of(row)
        facts = Facts(payment=payment_of(attempt), attempt=attempt)
        verdict = decide(ask, facts, self.now, _OPENING)
        if verdict.change is not None or isinstance(ask, Note):
            take_turns(self.session, self._key(row.account_id or ""))
            row = self._row(ask.external_id)  # again: it may have moved while we waited for our turn
            if row is None or attempt_of(row) != attempt:
                raise Moved
        if isinstance(ask, Settle) and verdict.change is not None and self._bought_twice(row):
            return Ruling(AlreadyPaid())
        self._write(row, verdict)
        if isinstance(verdict.outcome, Record):
            if isinstance(ask, Note):
                self._note(row, ask)
            elif isinstance(ask, Look):
                self.handler.looked(self.params, row, self.hook)
        return Ruling(verdict.outcome)

    def _statement(self, ask: Statement) -> Ruling:
        t = PaymentTransaction
        wanted = select(t).where(t.gateway == self.handler.gateway, t.state != t.CREATED, self._ours())
        wanted = wanted.where(t.provider_time.between(ask.from_ms, ask.to_ms))
        rows = self.session.scalars(wanted.order_by(t.provider_time, t.id)).all()
        record = Record(rows=tuple(Record(attempt_of(row, self.handler.currency)) for row in rows))
        return Ruling(record, self.handler.stated(self.params, record, self.hook))

    def expire(self) -> int:
        t = PaymentTransaction
        over = select(t).where(t.gateway == self.handler.gateway, t.state.in_((0, 1)), self._ours())
        over = over.where(t.expires_at <= self.now).order_by(t.id).limit(100)
        take_turns(self.session, self._key(""))
        closed = 0
        for row in self.session.scalars(over).all():
            attempt = attempt_of(row)
            verdict = lapse_live(Facts(payment=payment_of(attempt), live=attempt), self.now)
            if verdict is not None:
                self._write(row, verdict)
                closed += 1
        return closed

    # --- reading --------------------------------------------------------------------------------------------

    def _account(self, reference: str) -> Any:
        try:
            wanted = self.handler.lookup(reference)
        except UnknownReference:
            return None
        return accounts.find(self.session, self.handler.account_model, wanted)

    def _row(self, external_id: str) -> PaymentTransaction | None:
        t = PaymentTransaction
        wanted = select(t).where(t.gateway == self.handler.gateway, t.transaction_id == external_id)
        wanted = wanted.where(self._ours()).execution_options(populate_existing=True)
        return self.session.scalars(wanted).first()

    def _ours(self) -> Any:
        """Rows that point into our account table; older rows do not say where they point."""
        kind = PaymentTransaction.account_kind
        return or_(kind == self.kind, kind.is_(None))

    def _facts(self, account: Any, reference: str, rows: list[PaymentTransaction]) -> Facts:
        """The order as the rules see it, without what holds it. Raises `WrongAmount`."""
        if not self.handler.one_time_payment:
            return Facts(standing=standing_of(reference, self.handler.currency))
        price = self.handler.expected_minor(account)
        paid = any(row.state in (2, -2) for row in rows)
        live = next(
            (a for a in map(attempt_of, rows) if a.phase == "pending" and (a.expires_at or 0) > self.now),
            None,
        )
        payment = order_of(reference, price, self.handler.currency, live, price if paid else 0)
        return Facts(payment=payment, live=live)

    def _of_account(self, key: str) -> list[PaymentTransaction]:
        """What holds or bought a one-time order, whatever the gateway: Click may hold what Payme asks for."""
        if not self.handler.one_time_payment:
            return []
        t = PaymentTransaction
        wanted = select(t).where(t.account_id == key, t.state != t.CANCELLED_DURING_INIT, self._ours())
        return list(self.session.scalars(wanted.order_by(t.id)).all())

    def _bought_twice(self, row: PaymentTransaction) -> bool:
        """Older rows may hold one order several times; ours cannot (`order_hold` is unique)."""
        if not self.handler.one_time_payment or row.order_hold is not None:
            return False
        others = self._of_account(row.account_id or "")
        return any(other.id != row.id and other.state in (2, -2) for other in others)

    def _key(self, account_key: str) -> str:
        return f"{self.kind}:{account_key}"

    # --- writing --------------------------------------------------------------------------------------------

    def _insert(self, ask: Reserve, attempt: Attempt, account: Any) -> PaymentTransaction:
        key = accounts.key_of(account)
        hold = hashlib.blake2b(self._key(key).encode(), digest_size=16).hexdigest()
        made_at = to_moment(self.now)
        row = PaymentTransaction(
            gateway=self.handler.gateway,
            transaction_id=ask.external_id,
            account_id=key,
            amount=attempt.amount_minor / 100,
            amount_tiyin=attempt.amount_minor,
            state=PaymentTransaction.INITIATING,
            extra_data=json.loads(ask.details or "{}") | self.handler.extra_data(ask, self.params),
            created_at=made_at,
            updated_at=made_at,
            provider_time=ask.provider_at or self.now,
            expires_at=ask.expires_at,
            account_kind=self.kind,
            order_hold=hold if self.handler.one_time_payment else None,
        )
        self.session.add(row)
        self.session.flush()
        return row

    def _write(self, row: PaymentTransaction, verdict: Verdict) -> None:
        """Move the row if it still stands where we saw it, then say so. Raises `Moved` if it does not."""
        if verdict.change is None or verdict.change[0] is None:
            return
        before, after = verdict.change[0], verdict.change[1]
        state = state_of(after)
        changes: dict[str, Any] = {"state": state, "updated_at": to_moment(self.now)}
        if state == PaymentTransaction.SUCCESSFULLY:
            changes["performed_at"] = to_moment(after.paid_at)
        else:
            reason = reason_of(after)
            changes |= {"cancelled_at": to_moment(after.closed_at), "reason": reason}
            changes["extra_data"] = {**(row.extra_data or {}), "cancel_reason": reason}
            if after.reason is not None and reason is None:
                changes["extra_data"]["cancel_reason"] = after.reason
            if state == PaymentTransaction.CANCELLED_DURING_INIT:
                changes["order_hold"] = None  # the order may be bought by another transaction
        seen = {0, 1} if before.phase == "pending" else {state_of(before)}
        change = update(TABLE).where(TABLE.c.id == row.id, TABLE.c.state.in_(seen)).values(**changes)
        if self.session.execute(change).rowcount != 1:  # type: ignore[attr-defined]
            raise Moved
        for name, value in changes.items():
            set_committed_value(row, name, value)
        if state == PaymentTransaction.SUCCESSFULLY:
            self.hook(self.handler.successfully_payment, self.params, row)
        else:
            self.hook(self.handler.cancelled_payment, self._said_of(row), row)

    def _said_of(self, row: PaymentTransaction) -> dict[str, Any]:
        """A transaction that died of age has no request of its own: the hook is told as if it had one."""
        if self.params.get("id") == row.transaction_id and "reason" in self.params:
            return self.params
        if row.reason is None or row.gateway != "payme":
            return self.params
        return {"id": row.transaction_id, "reason": row.reason}

    def _note(self, row: PaymentTransaction, ask: Note) -> None:
        row.extra_data = {**(row.extra_data or {}), ask.key: json.loads(ask.value)}
        self.session.flush()
        self.hook(self.handler.fiscal_data_received, self.params, row)
