"""One ruling on a host's session: load the rows, decide, write what moved, call the hook.

Every rule is `domain.dialogue`'s; here is only what the rules look at and how what they say is written.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
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
from tillgate.domain.payment import Attempt, Payment
from tillgate.domain.record import replace
from tillgate.embed import accounts, statements
from tillgate.embed.facts import attempt_of, order_of, payment_of, reason_of, standing_of, state_of
from tillgate.embed.models import TABLE, PaymentTransaction, to_moment
from tillgate.embed.session import (
    Moved,
    Void,
    call_hook,
    connection_of,
    engine_of,
    failed_in_hook,
    is_empty,
    take_turns,
)

if TYPE_CHECKING:
    from tillgate.embed.handler import EmbeddedHandler

log = logging.getLogger("tillgate.embed")

LOOKS: Final = 4


def _called(payment: Payment, reference: str, same: bool) -> Payment:
    """The rules compare references; the host may have several texts for one account."""
    return replace(payment, order_id=reference if same else "")


def _judges_by_price(handler: EmbeddedHandler) -> bool:
    """Whether the rules need no more of the host's row than its price; a host's own rule may."""
    return all(rule.__module__.startswith("tillgate.") for rule in (handler.expected_minor, handler.allowed))


_OPENING: Final = Opening(attempt_id="", payment_id="", order_key=b"", account_id="", provider="")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What to answer; `extra` is what a hook added to it."""

    outcome: Record | Refusal
    extra: Any = None
    moved: bool = False  # by this ruling, and not by one before it


class Desk:
    """One ruling on one session."""

    def __init__(self, handler: EmbeddedHandler, session: Session, params: dict[str, Any]) -> None:
        self.handler = handler
        self.session = session
        self.params = params
        self.now = time.time_ns() // 1_000_000
        self.database = engine_of(session).dialect.name
        if self.database in ("mysql", "mariadb"):
            self.now -= self.now % 1000  # an adopted column may keep whole seconds only
        # Most reservations are new: they are looked for only where the unique index denies it. That ends no
        # transaction on SQLite alone.
        self.sanguine = self.database == "sqlite"
        self.kind = accounts.kind_of(handler.account_model)
        self.stuck: set[int] = set()

    @functools.cached_property
    def connection(self) -> Connection:
        """Of our table, for this one transaction."""
        return connection_of(self.session)

    def hook(self, hook: Any, *arguments: Any) -> Any:
        if is_empty(hook):
            return None
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
        account = self._account(ask.reference, self.handler.check_hooks)
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
        if self.database == "sqlite" and not is_empty(self.handler.transaction_created):
            take_turns(self.session, "")  # before the account is read, which the hook may change
        account = self._account(ask.reference, (self.handler.transaction_created,))
        if account is not None and self.database != "sqlite":
            take_turns(self.session, self._key(accounts.key_of(account)))
        sanguine = self.sanguine
        ruling = self._open(ask, account) if sanguine else None
        if ruling is None or isinstance(ruling.outcome, Refusal):
            row = self._glance(ask.external_id)
            if row is not None:
                return self._again(ask, row, account)
            if not sanguine:
                ruling = self._open(ask, account)
        if ruling is None:
            raise Moved  # the same request was quicker, between our two looks
        return ruling

    def _open(self, ask: Reserve, account: Any) -> Ruling | None:
        """Reserve anew; None where it turns out that somebody has done so."""
        if account is None:
            return Ruling(UnknownReference())
        if self.database == "postgresql":  # it may have changed while we waited for our turn
            if isinstance(account, accounts.Glance):
                account = self._account(ask.reference, ())
            else:
                self.session.flush()  # what the host changed of it before us would be read over
                self.session.refresh(account)
            if account is None:
                return Ruling(UnknownReference())
        rows = self._of_account(accounts.key_of(account))
        if any(r.transaction_id == ask.external_id and r.gateway == self.handler.gateway for r in rows):
            return None  # a repeat is no rival of itself
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
        if self._booked_as_another(ask, accounts.key_of(account)):
            return Ruling(AlreadyPaid())
        assert verdict.change is not None
        row_id = self._insert(ask, verdict.change[1], account)
        if row_id is None:
            return None
        if not is_empty(self.handler.transaction_created):
            self.hook(self.handler.transaction_created, self.params, self._entity(row_id), account)
        return Ruling(Record(replace(verdict.change[1], id=str(row_id)), verdict.outcome.payment))

    def _again(self, ask: Reserve, row: Any, account: Any) -> Ruling:
        attempt = attempt_of(row)
        same = account is not None and accounts.key_of(account) == row.account_id
        payment = _called(payment_of(attempt), ask.reference, same)
        verdict = decide(ask, Facts(payment=payment, attempt=attempt), self.now, _OPENING)
        if not same and isinstance(verdict.outcome, Record):
            return Ruling(UnknownReference())
        self._write(row, verdict)
        self._claim(row, verdict)
        if isinstance(verdict.outcome, Record) and not is_empty(self.handler.transaction_already_exists):
            self.hook(self.handler.transaction_already_exists, self.params, self._entity(row.id))
        return Ruling(verdict.outcome)

    def _by_id(self, ask: Ask) -> Ruling:
        assert not isinstance(ask, Check | Reserve | Statement)
        looking = isinstance(ask, Look)
        row: Any = self._glance(ask.external_id) if looking else self._row(ask.external_id)
        if row is None:
            return Ruling(decide(ask, Facts(), self.now, _OPENING).outcome)
        attempt = attempt_of(row)
        payment = payment_of(attempt)
        if isinstance(ask, Settle) and ask.reference is not None:
            payment = _called(payment, ask.reference, self._names(ask.reference, row))
        facts = Facts(payment=payment, attempt=attempt)
        verdict = decide(ask, facts, self.now, _OPENING)
        # SQLite's own write lock comes with the guarded update; a hook reads after it. An older row, which
        # nothing guards against a second one for its order, and a look or a note need their turn first.
        sole = isinstance(row, PaymentTransaction) and (row.order_hold or not self.handler.one_time_payment)
        numbered = isinstance(ask, Settle) and ask.payment_number is not None
        alone = self.database == "sqlite" and sole and not numbered
        if isinstance(ask, Note) or (verdict.change is not None and not alone):
            take_turns(self.session, self._key(row.account_id or ""))
            row = self._row(ask.external_id)  # again: it may have moved while we waited for our turn
            if row is None or attempt_of(row) != attempt:
                raise Moved
        if isinstance(ask, Settle) and verdict.change is not None and self._bought_twice(row, ask):
            return Ruling(AlreadyPaid())
        self._write(row, verdict)
        if not looking:
            self._claim(row, verdict)
        if isinstance(verdict.outcome, Record):
            if isinstance(ask, Note):
                self._note(row, ask)
            elif looking and not is_empty(self.handler.look_hook):
                self.hook(self.handler.look_hook, self.params, self._entity(row.id))
        change = verdict.change
        return Ruling(verdict.outcome, moved=change is not None and change[0] != change[1])

    def _statement(self, ask: Statement) -> Ruling:
        window = {"gateway": self.handler.gateway, "from_ms": ask.from_ms, "to_ms": ask.to_ms}
        self._lapse_within(window)
        rows = self._seen(statements.STATEMENT, window)
        record = Record(
            rows=tuple(Record(attempt_of(row, self.handler.currency, whole=True)) for row in rows)
        )
        return Ruling(record, self.handler.stated(self.params, record, self.hook))

    def _lapse_within(self, window: dict[str, Any]) -> None:
        """A statement shows as ended what has ended, as a look at it does; but where a hook fails, as it is
        stored: one order's fault must not keep all the others from Payme."""
        rows = self._seen(statements.OVERDUE_WITHIN, window | {"now": self.now, "after": 0})
        for overdue in rows:
            try:
                if overdue.id not in self.stuck:
                    self.lapse(overdue)
            except Exception as error:
                if not failed_in_hook(error):
                    raise
                log.exception("%s: %d outlived its time and cannot be closed", TABLE.name, overdue.id)
                self.stuck.update(row.id for row in rows)
                raise Void from error

    def overdue(self, after: int) -> list[Any]:
        """Key and account of at most a hundred rows that outlived their time, of those after this one."""
        wanted = {"gateway": self.handler.gateway, "now": self.now, "after": after}
        return self._seen(statements.OVERDUE, wanted)

    def lapse(self, overdue: Any) -> bool:
        """Close one of them, with its hook; False where somebody was quicker."""
        take_turns(self.session, self._key(overdue.account_id or ""))
        row = self._entity(overdue.id)
        attempt = attempt_of(row)
        verdict = lapse_live(Facts(payment=payment_of(attempt), live=attempt), self.now)
        if verdict is not None:
            self._write(row, verdict)
        return verdict is not None

    # --- reading --------------------------------------------------------------------------------------------

    def _account(self, reference: str, hooks: tuple[Any, ...]) -> Any:
        """The host's object where these hooks want it, else what the rules need of it, or None."""
        handler = self.handler
        try:
            wanted = handler.lookup(reference)
        except UnknownReference:
            return None
        if all(is_empty(hook) for hook in hooks) and _judges_by_price(handler):
            return accounts.glance(self.session, handler.account_model, wanted, handler.amount_field)
        return accounts.find(self.session, handler.account_model, wanted)

    def _names(self, reference: str, row: Any) -> bool:
        """Whether this text is the order of that row."""
        if reference == row.account_id and self.handler.lookup(reference).keys() == {"id"}:
            return True
        account = self._account(reference, ())
        return account is not None and accounts.key_of(account) == row.account_id

    def _row(self, external_id: str) -> PaymentTransaction | None:
        named = {"gateway": self.handler.gateway, "external_id": external_id, "kind": self.kind}
        return self.session.scalars(statements.ROW, named).first()

    def _glance(self, external_id: str) -> Any:
        """The same, only to be looked at."""
        rows = self._seen(statements.GLANCE, {"gateway": self.handler.gateway, "external_id": external_id})
        return rows[0] if rows else None

    def _seen(self, statement: Any, values: dict[str, Any]) -> list[Any]:
        """Rows that point into our account table; older rows do not say where they point."""
        return list(self.connection.execute(statement, values | {"kind": self.kind}).all())

    def _entity(self, row_id: int) -> PaymentTransaction:
        return self.session.scalars(statements.ENTITY, {"row_id": row_id}).one()

    def _facts(self, account: Any, reference: str, rows: list[Any]) -> Facts:
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

    def _of_account(self, key: str) -> list[Any]:
        """What holds or bought a one-time order, whatever the gateway: Click may hold what Payme asks for."""
        return self._seen(statements.OF_ACCOUNT, {"key": key}) if self.handler.one_time_payment else []

    def _bought_twice(self, row: Any, ask: Settle) -> bool:
        """Older rows may hold one order several times; ours cannot (`order_hold` is unique)."""
        if not self.handler.one_time_payment:
            return self._booked_as_another(ask, row.account_id or "")
        if row.order_hold is not None:
            return False
        others = self._of_account(row.account_id or "")
        return any(other.id != row.id and other.state in (2, -2) for other in others)

    def _booked_as_another(self, ask: Reserve | Settle, key: str) -> bool:
        """Whether the payer's payment is booked for this account already, as another transaction: where many
        payments are taken, its number alone says that it is the same. A repeat comes soon, so that the latest
        are looked at."""
        if self.handler.one_time_payment or ask.payment_number is None:
            return False
        known = self._seen(statements.BOOKED, {"gateway": self.handler.gateway, "key": key})
        return any(
            row.transaction_id != ask.external_id
            and (ask.amount is None or row.amount_tiyin in (None, ask.amount.minor))
            and self.handler.payment_number(row.extra_data or {}) == ask.payment_number
            for row in known
        )

    def _key(self, account_key: str) -> str:
        return f"{self.kind}:{account_key}"

    # --- writing --------------------------------------------------------------------------------------------

    def _insert(self, ask: Reserve, attempt: Attempt, account: Any) -> int | None:
        """The new row's id; None where a sanguine one finds that its transaction or order is taken."""
        key = accounts.key_of(account)
        hold = hashlib.blake2b(self._key(key).encode(), digest_size=16).hexdigest()
        made_at = to_moment(self.now)
        values = {
            "gateway": self.handler.gateway,
            "transaction_id": ask.external_id,
            "account_id": key,
            "amount": attempt.amount_minor / 100,
            "amount_tiyin": attempt.amount_minor,
            "state": PaymentTransaction.INITIATING,
            "extra_data": json.loads(ask.details or "{}") | self.handler.extra_data(ask, self.params),
            "created_at": made_at,
            "updated_at": made_at,
            "provider_time": ask.provider_at or self.now,
            "expires_at": ask.expires_at,
            "account_kind": self.kind,
            "order_hold": hold if self.handler.one_time_payment else None,
        }
        try:
            made = self.connection.execute(statements.INSERT, values).inserted_primary_key
        except IntegrityError as error:
            if not self.sanguine:
                raise Void from error  # a row that was not there when we looked
            self.sanguine = False
            return None
        assert made is not None
        return int(made[0])

    def _claim(self, row: Any, verdict: Verdict) -> None:
        """An older row that was named through this handler points into its table, and into no other."""
        if row.account_kind is None and isinstance(verdict.outcome, Record):
            self.connection.execute(statements.CLAIM, {"row_id": row.id, "account_kind": self.kind})

    def _write(self, row: Any, verdict: Verdict) -> None:
        """Move the row if it still stands where we saw it, then say so. Raises `Moved` if it does not."""
        if verdict.change is None or verdict.change[0] in (None, verdict.change[1]):
            return  # a fact about the payment alone, which is the host's own
        before, after = verdict.change[0], verdict.change[1]
        state, noted = state_of(after), dict[str, Any]()
        changes: dict[str, Any] = {"state": state, "updated_at": to_moment(self.now)}
        if state == PaymentTransaction.SUCCESSFULLY:
            changes["performed_at"] = to_moment(after.paid_at)
        else:
            reason = reason_of(after)
            changes |= {"cancelled_at": to_moment(after.closed_at), "reason": reason}
            if state == PaymentTransaction.CANCELLED_DURING_INIT:
                changes["order_hold"] = None  # the order may be bought by another transaction
            noted = {"cancel_reason": after.reason if reason is None else reason}
        where = {"row_id": row.id, "seen": state_of(before), "seen_too": None}
        if before.phase == "pending":
            where["seen_too"] = PaymentTransaction.CREATED
        if self.connection.execute(statements.MOVE, changes | where).rowcount != 1:
            raise Moved
        paid = state == PaymentTransaction.SUCCESSFULLY
        hook = self.handler.successfully_payment if paid else self.handler.cancelled_payment
        if not isinstance(row, PaymentTransaction):
            if is_empty(hook) and not noted:
                return
            row = self._entity(row.id)
        for name, value in changes.items():
            set_committed_value(row, name, value)
        if noted:
            row.extra_data = {**(row.extra_data or {}), **noted}
        if not is_empty(hook):
            self.hook(hook, self.params if paid else self._said_of(row), row)

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
