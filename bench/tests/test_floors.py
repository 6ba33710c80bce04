"""What a create writes is learned from a database, and the C floor writes exactly that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bench import standin
from bench.floors import SqliteFloor, Template, bulk_load
from bench.process import BenchError
from bench.shape import LOOKS, ShapeError, learn
from bench.storage import Storage, memory

MADE = LOOKS + 1


@pytest.fixture
def template(tmp_path: Path) -> Template:
    database = tmp_path / "hub.db"
    standin.make(database)
    return Template(database, learn(database, lambda: standin.create(database)))


def ask(database: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(sql).fetchall()


def test_a_create_is_seen_as_the_rows_it_writes(template: Template) -> None:
    assert sorted(template.shape.summary().split(", ")) == [
        "attempts insert", "balances update x2", "due insert", "events insert", "heads update",
        "payments insert", "postings insert",
    ]  # fmt: skip


@pytest.mark.parametrize("group", [1, 32])
def test_the_floor_writes_the_same_rows(template: Template, tmp_path: Path, group: int) -> None:
    floor = SqliteFloor("floor", template, group=group)
    floor.start(Storage("here", tmp_path))
    for _ in range(2):  # the second slice goes on where the first ended
        assert floor.measure(0.2).rate > 0
    n = MADE + floor._next
    for table in ("payments", "attempts", "postings", "events", "due"):
        assert ask(floor.database, f"SELECT count(*) FROM {table}") == [(n,)], table
    assert ask(floor.database, "SELECT account, amount FROM balances ORDER BY account") == [
        ("merchant:1", 15_000_000 * n),
        ("provider:sandbox", -15_000_000 * n),
    ]
    assert (
        ask(floor.database, "SELECT seq FROM heads")
        == ask(floor.database, "SELECT max(seq) FROM events")
        == [(n,)]
    )
    assert ask(floor.database, "SELECT count(*) FROM attempts a JOIN payments p ON p.id = a.payment_id") == [
        (n,)
    ]
    assert ask(floor.database, "SELECT DISTINCT length(order_key), length(id) FROM payments") == [(16, 36)]
    assert ask(floor.database, "PRAGMA integrity_check") == [("ok",)]
    assert ask(floor.database, "PRAGMA foreign_key_check") == []
    floor.finish()


def test_a_bulk_load_leaves_nothing_due(template: Template, tmp_path: Path) -> None:
    target = tmp_path / "large.db"
    bulk_load(template, target, 50_000)
    assert ask(target, "SELECT count(*) FROM payments") == [(50_000 + MADE,)]
    in_a_day = "(CAST(strftime('%s', 'now') AS INTEGER) + 86400) * 1000"
    assert ask(target, f"SELECT count(*) FROM due WHERE due_at < {in_a_day}") == [(MADE,)]
    assert ask(target, "PRAGMA integrity_check") == [("ok",)]


def test_requests_that_write_different_rows_have_no_shape(tmp_path: Path) -> None:
    database, turns = tmp_path / "hub.db", iter(range(100))
    standin.make(database)

    def now_one_now_two() -> None:
        for _ in range(1 + next(turns) % 2):
            standin.create(database)

    with pytest.raises(ShapeError):
        learn(database, now_one_now_two)


def test_a_lost_row_is_noticed(template: Template, tmp_path: Path) -> None:
    floor = SqliteFloor("floor", template)
    floor.start(Storage("here", tmp_path))
    floor.measure(0.1)
    with closing(sqlite3.connect(floor.database)) as db, db:
        db.execute("DELETE FROM attempts WHERE id = (SELECT max(id) FROM attempts)")
    with pytest.raises(BenchError, match="stored"):
        floor.finish()


def test_tmpfs_takes_the_time_it_is_told() -> None:
    assert 2000 <= memory(2000).probe_us() < 6000
