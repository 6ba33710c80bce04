"""Facts in, plan out. A `Book` holds the facts of one batch; each command writes a `Plan` against it.

A plan that is finished is merged, so that a later command of the batch sees what an earlier one did; a plan
whose command refused is forgotten. Only the journal turns a book into SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import chain as joined
from operator import attrgetter
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.ledger import Posting
from tillgate.domain.payment import Attempt, Payment, Refund, StandingOrder
from tillgate.domain.record import of_row, record, replace
from tillgate.store import tables
from tillgate.store.ids import event_id, new_id
from tillgate.store.statements import Row, columns
from tillgate.store.work import Due, due_id

Record: TypeAlias = Payment | Attempt | Refund | StandingOrder
RecordT = TypeVar("RecordT", Payment, Attempt, Refund, StandingOrder)
T = TypeVar("T", covariant=True)

TABLE_OF: Final[dict[type, Table]] = {
    Payment: tables.payments,
    Attempt: tables.attempts,
    Refund: tables.refunds,
    StandingOrder: tables.standing_orders,
}
_FLAG: Final[dict[type, str]] = {Payment: "late", Attempt: "asked"}


_NAMES: Final[dict[type, tuple[str, ...]]] = {kind: columns(table) for kind, table in TABLE_OF.items()}
_READ: Final = {kind: attrgetter(*names) for kind, names in _NAMES.items()}


def row_of(record: Record) -> Row:
    found: Row = _READ[type(record)](record)
    return found


def _teller(kind: type) -> type[msgspec.Struct]:
    """Takes a row; encoded, it leaves out what is null, zero or false by default, as most of a row is."""
    shape = [(one.name, Any, ... if one.default is MISSING else one.default) for one in fields(kind)]
    return msgspec.defstruct(kind.__name__, shape, omit_defaults=True, gc=False)


_TELL: Final = {kind: _teller(kind) for kind in TABLE_OF}


def record_of(kind: type[RecordT], row: Row) -> RecordT:
    """A row in table order as the record it came from (SQLite keeps a boolean as 0 or 1)."""
    made = of_row(kind, row)
    flag = _FLAG.get(kind)
    if flag is not None:
        setattr(made, flag, bool(getattr(made, flag)))
    return made


for _kind, _names in _NAMES.items():
    assert tuple(one.name for one in fields(_kind)) == _names, _kind


@record
class Needs:
    """What a command must see before it decides, by key."""

    payments: tuple[str, ...] = ()
    orders: tuple[bytes, ...] = ()  # order keys, of payments and of standing orders
    attempts: tuple[str, ...] = ()
    externals: tuple[tuple[str, str], ...] = ()  # account, provider's id
    refunds: tuple[str, ...] = ()
    standing: tuple[str, ...] = ()
    idempotency: tuple[bytes, ...] = ()
    seen: tuple[bytes, ...] = ()  # digests of provider events
    named: tuple[bytes, ...] = ()  # as `idempotency`, with the attempt that is its subject


_NEEDED: Final = attrgetter(*(one.name for one in fields(Needs)))


def together(needs: Iterable[Needs]) -> Needs:
    """What all of them need, each key once."""
    return Needs(*(_once(keys) for keys in zip(*map(_NEEDED, needs), strict=True)))


def _once(keys: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple({*joined.from_iterable(keys)})


class Command(Protocol[T]):
    """A pure decision about one merchant's money."""

    @property
    def merchant_id(self) -> str: ...
    def needs(self) -> Needs: ...
    def decide(self, plan: Plan) -> T:
        """Read facts from `plan`, write changes to it. Whatever is raised, nothing of it is kept."""


@record
class Target:
    """Where an event is delivered."""

    endpoint_id: str | None
    url: str


@record
class Remembered:
    """The stored answer to a request with an `Idempotency-Key`; `status` is None while it is in flight."""

    digest: bytes
    fingerprint: bytes
    subject: str | None
    status: int | None
    body: bytes | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Change:
    """One statement about a merchant's configuration, committed with what else its command decides."""

    statement: ClauseElement
    params: Mapping[str, Any] = field(repr=False)
    guarded: bool = False  # it returns rows, and must have found one: else `Taken`


@record
class Draft:
    type: str
    subject: str
    body: bytes
    postings: tuple[Posting, ...]
    targets: tuple[Target, ...]
    occurred_at: int


class Book:
    """The facts of one batch and what was changed in them."""

    def __init__(self, now: int, *, view: bool = False) -> None:
        self.now = now
        self.is_view = view  # nothing that is planned on it is written
        self.records: dict[str, Record] = {}
        self.by_order: dict[bytes, str] = {}
        self.standing_by_order: dict[bytes, str] = {}
        self.by_external: dict[tuple[str, str], str] = {}
        self.attempts_of: dict[str, list[str]] = {}
        self.remembered: dict[bytes, Remembered] = {}
        self.seen: set[bytes] = set()
        self.heads: dict[str, tuple[int, bytes]] = {}
        # what the journal writes
        self.before: dict[str, int | None] = {}  # id → version it was loaded with; None: it is new
        self.new_events: list[Row] = []
        self.new_postings: list[Row] = []
        self.new_deliveries: list[Row] = []
        self.new_inbound: list[Row] = []
        self.known_answers: set[bytes] = set()  # digests that were loaded
        self.answered: dict[bytes, None] = {}  # digests to write
        self.due: dict[str, Row | None] = {}  # None: done
        self.claims: list[tuple[Due, int | None]] = []  # when again; None: never
        self.moved: dict[tuple[str, str, str], int] = {}
        self.changes: list[Change] = []
        self.rows: dict[str, tuple[Record, Row]] = {}  # of what was told, ready to be written

    @property
    def makes_work(self) -> bool:
        """Whether a worker finds something to do as soon as it is committed."""
        return bool(self.new_deliveries) or any(row and row[4] <= self.now for row in self.due.values())

    @property
    def changed(self) -> bool:
        """Whether something was decided that has to be written."""
        return bool(self.before or self.new_events or self.new_inbound or self.due or self.answered)

    def row(self, record: Record) -> Row:
        made = self.rows.get(record.id)
        return made[1] if made is not None and made[0] is record else row_of(record)

    def load(self, record: Record) -> None:
        self.records[record.id] = record
        match record:
            case Payment():
                self.by_order[record.order_key] = record.id
            case StandingOrder():
                self.standing_by_order[record.order_key] = record.id
            case Attempt():
                known = self.attempts_of.setdefault(record.payment_id, [])
                if record.id not in known:
                    known.append(record.id)
                if record.external_id is not None:
                    self.by_external[record.account_id, record.external_id] = record.id
            case Refund():
                pass

    def merge(self, merchant_id: str, plan: Plan) -> None:
        for record_id, (version, saved) in plan.saved.items():
            self.before.setdefault(record_id, version)
            self.load(saved)
        for draft in plan.drafts:
            self._append(merchant_id, draft)
        self.due.update(plan.due)
        self.claims += plan.claims
        self.new_inbound += plan.inbound
        self.changes += plan.changes
        self.rows.update(plan.rows)
        for digest in plan.seen:
            self.seen.add(digest)
        for answer in plan.answers:
            self.answered[answer.digest] = None
            self.remembered[answer.digest] = answer

    def _append(self, merchant_id: str, draft: Draft) -> None:
        seq, chain = self.heads[merchant_id]
        seq += 1
        named = event_id(seq)
        chain = link(
            chain, seq, named, draft.type, draft.subject, draft.occurred_at, draft.body, draft.postings
        )
        self.heads[merchant_id] = seq, chain
        self.new_events.append(
            (merchant_id, seq, named, draft.type, draft.subject, draft.occurred_at, draft.body, chain)
        )
        for line, p in enumerate(draft.postings):
            row = (merchant_id, seq, line, p.kind, p.source, p.destination, p.amount_minor, p.currency)
            self.new_postings.append(row)
            for account, amount_minor in ((p.source, -p.amount_minor), (p.destination, p.amount_minor)):
                key = merchant_id, account, p.currency
                self.moved[key] = self.moved.get(key, 0) + amount_minor
        for target in draft.targets:
            self.new_deliveries.append(
                delivery_row(merchant_id, seq, draft.subject, target, draft.occurred_at)
            )


def delivery_row(merchant_id: str, seq: int, subject: str, target: Target, now: int) -> Row:
    stream = f"{subject}>{target.endpoint_id or 'callback'}"
    return (
        new_id("dlv_", now), merchant_id, seq, stream, target.endpoint_id, target.url,
        "pending", 0, now, None, None, None, now,
    )  # fmt: skip


def link(
    chain: bytes,
    seq: int,
    event_id: str,
    kind: str,
    subject: str,
    occurred_at: int,
    body: bytes,
    postings: Iterable[Posting],
) -> bytes:
    """The next end of a merchant's chain: a byte changed in an event or a posting breaks all that follow."""
    lines = "".join(
        f"\n{p.kind}\t{p.source}\t{p.destination}\t{p.amount_minor}\t{p.currency}" for p in postings
    )
    head = f"{seq}\t{event_id}\t{kind}\t{subject}\t{occurred_at}\t{len(body)}{lines}\n"
    return hashlib.blake2b(chain + head.encode() + body, digest_size=32).digest()


class Plan:
    """What one command wants to change, and its view of the facts."""

    __slots__ = (
        "_book", "answers", "changes", "claims", "drafts", "due", "inbound", "now", "rows", "saved", "seen",
    )  # fmt: skip

    def __init__(self, book: Book) -> None:
        self._book = book
        self.now = book.now
        self.saved: dict[str, tuple[int | None, Record]] = {}
        self.drafts: list[Draft] = []
        self.due: dict[str, Row | None] = {}
        self.claims: list[tuple[Due, int | None]] = []
        self.inbound: list[Row] = []
        self.seen: list[bytes] = []
        self.answers: list[Remembered] = []
        self.changes: list[Change] = []
        self.rows: dict[str, tuple[Record, Row]] = {}

    # --- facts ---

    def payment(self, payment_id: str | None) -> Payment | None:
        return self._get(Payment, payment_id)

    def attempt(self, attempt_id: str | None) -> Attempt | None:
        return self._get(Attempt, attempt_id)

    def refund(self, refund_id: str | None) -> Refund | None:
        return self._get(Refund, refund_id)

    def standing(self, standing_id: str | None) -> StandingOrder | None:
        return self._get(StandingOrder, standing_id)

    def order(self, order_key: bytes) -> Payment | None:
        return self.payment(self._book.by_order.get(order_key))

    def standing_order(self, order_key: bytes) -> StandingOrder | None:
        return self.standing(self._book.standing_by_order.get(order_key))

    def external(self, account_id: str, external_id: str) -> Attempt | None:
        return self.attempt(self._book.by_external.get((account_id, external_id)))

    def attempts(self, payment_id: str) -> list[Attempt]:
        found = (self.attempt(attempt_id) for attempt_id in self._book.attempts_of.get(payment_id, ()))
        return [attempt for attempt in found if attempt is not None]

    def answer(self, digest: bytes) -> Remembered | None:
        return self._book.remembered.get(digest)

    def is_seen(self, digest: bytes) -> bool:
        return digest in self._book.seen

    def _get(self, kind: type[RecordT], record_id: str | None) -> RecordT | None:
        if record_id is None:
            return None
        saved = self.saved.get(record_id)
        found = saved[1] if saved else self._book.records.get(record_id)
        return found if isinstance(found, kind) else None

    # --- changes ---

    @property
    def is_view(self) -> bool:
        """Whether an answer without a change is final: what would only be kept besides may be left out."""
        return self._book.is_view

    @property
    def blank(self) -> bool:
        """Whether nothing is to be written."""
        return not (
            self.saved or self.drafts or self.due or self.claims or self.inbound
            or self.seen or self.answers or self.changes
        )  # fmt: skip

    def save(self, before: RecordT | None, after: RecordT) -> RecordT:
        """Keep `after`; `before` is what it was decided on (None: it is new). Returns it with its version."""
        if before is None:
            self.saved[after.id] = None, after
            return after
        known = self.saved.get(before.id)
        after = replace(after, version=before.version + 1)
        self.saved[after.id] = known[0] if known else before.version, after
        return after

    def event(
        self,
        kind: str,
        payment: Payment,
        attempt: Attempt | None = None,
        refund: Refund | None = None,
        postings: tuple[Posting, ...] = (),
        targets: tuple[Target, ...] = (),
        note: dict[str, Any] | None = None,
    ) -> None:
        body: dict[str, Any] = {"payment": self._told(payment)}
        if attempt is not None:
            body["attempt"] = self._told(attempt)
        if refund is not None:
            body["refund"] = self._told(refund)
        if note is not None:
            body["note"] = note
        self._draft(kind, payment.id, body, postings, targets)

    def standing_event(self, kind: str, standing: StandingOrder, targets: tuple[Target, ...] = ()) -> None:
        self._draft(kind, standing.id, {"standing_order": self._told(standing)}, (), targets)

    def endpoint_event(
        self, kind: str, endpoint_id: str, endpoint: Mapping[str, Any], targets: tuple[Target, ...] = ()
    ) -> None:
        self._draft(kind, endpoint_id, {"endpoint": endpoint}, (), targets)

    def note_event(self, kind: str, subject: str, note: dict[str, Any], targets: tuple[Target, ...]) -> None:
        """An event about no payment: a message that nobody can place."""
        self._draft(kind, subject, {"note": note}, (), targets)

    def _told(self, record: Record) -> msgspec.Struct:
        row = row_of(record)
        self.rows[record.id] = record, row  # it is written as it was told
        return _TELL[type(record)](*row)

    def _draft(
        self, kind: str, subject: str, body: Any, postings: tuple[Posting, ...], targets: tuple[Target, ...]
    ) -> None:
        self.drafts.append(Draft(kind, subject, msgspec.json.encode(body), postings, targets, self.now))

    def at(self, kind: str, subject: str, merchant_id: str, run_at: int, tries: int = 0) -> None:
        """Have `kind` of work done for `subject` at a time; an earlier wish for the same is replaced."""
        named = due_id(kind, subject)
        self.due[named] = (named, kind, subject, merchant_id, run_at, tries)

    def done(self, kind: str, subject: str) -> None:
        self.due[due_id(kind, subject)] = None

    def not_done(self, kind: str, subject: str) -> None:
        """Take `done` back: whoever does the work ends his own claim (`conclude`), and no newer wish."""
        named = due_id(kind, subject)
        if self.due.get(named, ()) is None:
            del self.due[named]

    def conclude(self, claim: Due, again_at: int | None) -> None:
        """End a claim, for ever (None) or until a time. Who wished for the same work since it was claimed has
        news that the claim has not seen: that wish stays, and so does whoever has claimed it meanwhile."""
        self.claims.append((claim, again_at))
