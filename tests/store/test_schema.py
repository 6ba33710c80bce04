"""Migrations: up from empty to the tables of the code, again, by two at once, and cut off in between."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import op

from tillgate.domain.errors import Misconfigured, Unavailable
from tillgate.store import schema


def test_up_from_empty_is_what_the_code_says(empty_database_url: str) -> None:
    assert schema.state(empty_database_url) == (None, schema.head())
    assert schema.upgrade(empty_database_url) == schema.head()
    assert schema.differences(empty_database_url) == []
    assert schema.state(empty_database_url) == (schema.head(), schema.head())


def test_a_second_time_changes_nothing(empty_database_url: str) -> None:
    schema.upgrade(empty_database_url)
    assert schema.upgrade(empty_database_url) == schema.head()
    assert schema.differences(empty_database_url) == []


UPGRADE = """
import sys, time
from tillgate.store import schema
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(schema.upgrade(sys.argv[1]))
"""


def test_several_at_once_take_turns(empty_database_url: str) -> None:
    command = [sys.executable, "-c", UPGRADE, empty_database_url, str(time.time() + 3)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    said = [one.communicate(timeout=60)[0].strip() for one in processes]
    assert said == [schema.head()] * 5
    assert schema.differences(empty_database_url) == []


def test_a_migration_that_was_cut_off_leaves_nothing(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would keep half of the tables if each statement were a transaction of its own."""
    create_table, left = op.create_table, 6

    def cut_off(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return create_table(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(op, "create_table", cut_off)
        with pytest.raises(KeyboardInterrupt):
            schema.upgrade(sqlite_url)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    assert schema.upgrade(sqlite_url) == schema.head()
    assert schema.differences(sqlite_url) == []


def test_differences_are_seen(sqlite_url: str) -> None:
    schema.upgrade(sqlite_url)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("ALTER TABLE refunds ADD COLUMN more TEXT")
        connection.execute("DROP INDEX uq_attempts_external")
        connection.commit()
    assert len(schema.differences(sqlite_url)) == 2


def test_a_file_in_write_ahead_mode(sqlite_url: str) -> None:
    schema.upgrade(sqlite_url)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite://", "sqlite:memory", "/a/path.db", "postgres"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured):
        schema.upgrade(url)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/no/such/folder/x.db", "postgresql://nobody:x@127.0.0.1:1/none"):
        with pytest.raises(Unavailable):
            schema.upgrade(url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is a letter to my aunt" * 100)
    with pytest.raises(Unavailable):
        schema.upgrade(f"sqlite:///{tmp_path}/x.db")


def test_the_head_is_what_alembic_says() -> None:
    from alembic.script import ScriptDirectory

    folder = Path(schema.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == schema.head()
