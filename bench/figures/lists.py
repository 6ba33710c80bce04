"""Lists among a million payments: pages near and deep, with and without filters, against a small hub's page.

The rows are copies of one real payment, its events and postings, written by SQL under a running hub in tmpfs;
one in five thousand waits for an operator, one in ten was never paid. One connection reads, in a closed loop.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.contestant import request
from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub, create
from bench.load import Step, play
from bench.postgres import Postgres
from bench.process import BenchError
from bench.rounds import say

if TYPE_CHECKING:
    from bench.storage import Storage

TITLE = "lists among a million payments"
MOST, SMALL = 1_000_000, 100
DEEP_PAGES = 50
BOUND = 3.0
"""A page at any depth takes at most so many times a small hub's first page."""

# Copies of the newest payment, each a second older than the one before.
_STATUS = (
    "CASE WHEN n % 5000 = 0 THEN 'review' WHEN n % 10 = 0 THEN 'expired' WHEN n % 1000 = 1 THEN 'failed' "
    "ELSE 'paid' END"
)


@dataclass
class ListedHub(Hub):
    """A hub with so many payments; `cursors` are the deep pages of its lists."""

    rows: int = SMALL
    ready: dict[str, str] = field(default_factory=dict, init=False)  # list → path

    def start(self, storage: Storage) -> None:
        super().start(storage)
        bearer = self.bearer()
        create(self.port, bearer)
        self._copy()
        for name, path in LISTS.items():
            self.ready[name] = self._deep(path, bearer) if name.endswith("deep") else path

    def page_ms(self, name: str, seconds: float) -> float:
        step = Step("GET", self.ready[name], {"Authorization": f"Bearer {self.bearer()}"}, marker='"data":[')
        return play(self.port, [step], seconds=seconds, connections=1, warm=0.1).right(self.name).p50_ms

    def _deep(self, path: str, bearer: str) -> str:
        """Where a reader is after many pages, as far as this hub has them."""
        at = path
        for _ in range(DEEP_PAGES):
            cursor = self._get(at, bearer)["next_cursor"]
            if cursor is None:
                break
            at = f"{path}&cursor={cursor}"
        return at

    def _get(self, path: str, bearer: str) -> dict[str, str | None]:
        status, answer = request(
            self.port, "GET", path, headers={"Authorization": f"Bearer {bearer}"}, timeout_s=60
        )
        if status != 200:
            raise BenchError(f"{self.name}: {path}: {status} {answer}")
        found: dict[str, str | None] = answer
        return found

    def _copy(self) -> None:
        engine = _POSTGRES if self.postgres else _SQLITE
        for table in ("payments", "events", "postings"):
            changed = engine.changed[table]
            names = [name for name in self._sql(engine.columns.format(table=table)).split("\n") if name]
            values = ", ".join(changed.get(name, f"one.{name}") for name in names)
            self._sql(
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} "
                f"FROM (SELECT * FROM {table} ORDER BY {engine.newest[table]} LIMIT 1) AS one, "
                f"{engine.series.format(rows=self.rows)}"
            )
        self._sql(f"UPDATE heads SET seq = seq + {self.rows}")
        if self.postgres:
            self._sql("ANALYZE")

    def _sql(self, statement: str) -> str:
        if self.postgres:
            return self.postgres.sql(self.url.rpartition("/")[2], statement)
        with closing(sqlite3.connect(self.file, timeout=60)) as db, db:
            return "\n".join(str(row[0]) for row in db.execute(statement).fetchall())


@dataclass(frozen=True)
class _Engine:
    columns: str
    series: str
    changed: dict[str, dict[str, str]]
    newest: dict[str, str]


_NEWEST = {"payments": "id DESC", "events": "seq DESC", "postings": "seq DESC, line DESC"}


def _engine(columns: str, series: str, hexed: str, text: str, blob: str) -> _Engine:
    """`hexed` prints a number as 12 hex digits, `text` and `blob` make a number one of those."""
    at = "(one.created_at - 1000 * n)"
    payment_id = f"'pay_' || {hexed.format(at)} || substr(one.id, 17, 8) || {hexed.format('n')}"
    return _Engine(
        columns,
        series,
        {
            "payments": {
                "id": payment_id, "order_id": f"'listed-' || {text.format('n')}",
                "order_key": blob.format("n"), "live_attempt_id": "NULL", "status": _STATUS,
                "created_at": at,
            },
            "events": {
                "seq": "one.seq + n",
                "id": f"'evt_' || {hexed.format('(one.seq + n)')} || substr(one.id, 17)",
            },
            "postings": {"seq": "one.seq + n"},
        },
        _NEWEST,
    )  # fmt: skip


_SQLITE = _engine(
    "SELECT name FROM pragma_table_info('{table}')",
    "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s)",
    "printf('%012x', {})",
    "{}",
    "CAST(printf('%016d', {}) AS BLOB)",
)
_POSTGRES = _engine(
    "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'",
    "generate_series(1, {rows}) AS s(n)",
    "lpad(to_hex(({})::bigint), 12, '0')",
    "({})::text",
    "convert_to(lpad(({})::text, 16, '0'), 'UTF8')",
)

LISTS = {
    "payments": "/v1/payments?limit=20",
    "payments, deep": "/v1/payments?limit=20",
    "paid": "/v1/payments?limit=20&status=paid",
    "paid, deep": "/v1/payments?limit=20&status=paid",
    "in review": "/v1/payments?limit=20&status=review",
    "long ago": "/v1/payments?limit=20&created_before=2099-01-01T00:00:00Z",
    "failed (rare, searched)": "/v1/payments?limit=20&status=failed",
    "nothing (searched)": "/v1/payments?limit=20&channel=ovo",
    "one order": "/v1/payments?order_id=listed-77",
    "events": "/v1/events?limit=20",
    "events, deep": "/v1/events?limit=20",
    "postings": "/v1/ledger/postings?limit=20",
    "postings, deep": "/v1/ledger/postings?limit=20",
}
SEARCHED = ("failed (rare, searched)", "nothing (searched)")
"""Without an index of their own: bounded by the rows that one page may look at, not by the first page."""


def run(setup: Setup) -> Outcome:
    storage, figures = setup.memory(100), []
    rows = min(setup.payments, MOST)
    postgres = Postgres(storage)
    for engine, server in (("SQLite", None), ("PostgreSQL", postgres)):
        say(f"  {engine}: loading {rows:,} payments")
        small = ListedHub(f"{engine}, small", postgres=server)
        large = ListedHub(f"{engine}, large", postgres=server, rows=rows)
        for hub in (small, large):
            hub.start(storage)
        found: dict[str, list[float]] = {name: [] for name in LISTS}
        against: list[float] = []
        for _ in range(setup.rounds):
            against.append(small.page_ms("payments", setup.seconds / 8))
            for name in LISTS:
                found[name].append(large.page_ms(name, setup.seconds / 8))
        for hub in (small, large):
            hub.server.stop()
        for name, times in found.items():
            ratios = [one / first for one, first in zip(times, against, strict=True)]
            bound = None if name in SEARCHED else BOUND
            note = f"{sorted(times)[len(times) // 2]:.2f} ms among {rows:,}"
            title = f"{engine} page of {name} / a small hub's first page"
            figures.append(Figure(title, storage.name, ratios, "x", bound, at_most=True, note=note))
    postgres.stop()
    return Outcome(figures)
