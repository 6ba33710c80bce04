"""The databases that tests run on are real, fresh for each test, and gone after the run, however it ended."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from support.fixtures import fresh_database
from support.postgres import PREFIX, Run, Server, sweep, until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("round_", [1, 2])
async def test_each_test_has_a_database_of_its_own(pg_url: str, round_: int) -> None:
    connection = await asyncpg.connect(pg_url)
    try:
        await connection.execute("CREATE TABLE only_one (id int)")  # fails if the other round's table is here
        assert int(await connection.fetchval("SHOW server_version_num")) >= 150_000
        assert int(await connection.fetchval("SHOW max_connections")) >= 200
    finally:
        await connection.close()


async def test_a_connection_left_open_does_not_keep_the_database(pg_server_url: str) -> None:
    with fresh_database(pg_server_url) as url:
        left_open = await asyncpg.connect(url)
    left_open.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)


def test_a_test_can_run_on_both_engines(database_url: str) -> None:
    if database_url.startswith("sqlite:///"):
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.close()
    else:
        assert database_url.startswith("postgresql://")


async def test_the_durable_server_syncs(durable_pg_url: str) -> None:
    connection = await asyncpg.connect(durable_pg_url)
    try:
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    finally:
        await connection.close()


async def test_a_server_of_ones_own_keeps_its_rows_over_stop_and_kill(own_pg: Server) -> None:
    async def execute(statement: str) -> int:
        connection = await asyncpg.connect(own_pg.url)
        try:
            rows: int = await connection.fetchval(statement)
            return rows
        finally:
            await connection.close()

    await execute("CREATE TABLE kept AS SELECT generate_series(1, 3)")
    own_pg.stop()
    with pytest.raises(ConnectionRefusedError):
        await execute("SELECT 1")
    own_pg.start()
    own_pg.kill()
    assert own_pg.pid() is None
    own_pg.start()
    assert await execute("SELECT count(*) FROM kept") == 3


ENDLESS = """
import time, pathlib
def test_endless(pg_server_url):
    pathlib.Path({note!r}).write_text(pg_server_url)
    time.sleep(600)
"""


def test_nothing_is_left_after_kill_9(tmp_path: Path) -> None:
    """The janitor stops the server and removes the directory of a pytest that had no time to."""
    note = tmp_path / "note"
    (tmp_path / "test_endless.py").write_text(ENDLESS.format(note=str(note)))
    before = runs()
    pytest_ = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            ROOT / "pyproject.toml",
            "--rootdir",
            ROOT,
            tmp_path / "test_endless.py",
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "TILLGATE_TEST_PG_URL"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    with pytest_:
        until(note.exists, 60)
        (directory,) = [run for run in runs() - before if run.joinpath("quick").exists()]
        server = Server(directory / "quick")
        assert server.pid() is not None

        os.killpg(pytest_.pid, signal.SIGKILL)

    until(lambda: server.pid() is None and not directory.exists(), 30)


def test_a_run_whose_janitor_died_too_is_swept_by_the_next() -> None:
    run, alive = Run.begin()
    try:
        sweep()
        assert run.directory.exists(), "a living run was swept"
    finally:
        os.close(alive)
    sweep()
    assert not run.directory.exists()


def runs() -> set[Path]:
    return set(Path("/tmp").glob(f"{PREFIX}*"))
