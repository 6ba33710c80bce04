"""The floors: a C program on SQLite, and pgbench on PostgreSQL. No framework, no HTTP, no Python."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contestant import Sample
from bench.process import BenchError, clean_environment, slug
from bench.tools import run_json, tool

if TYPE_CHECKING:
    from bench.postgres import Postgres
    from bench.shape import Shape
    from bench.storage import Storage

_SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class Template:
    """A migrated, almost empty database of a hub, and what one create writes to it."""

    database: Path
    shape: Shape
    foreign_keys: bool = True

    def copy_to(self, target: Path) -> None:
        """A copy with everything in the one file."""
        with closing(sqlite3.connect(self.database)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(self.database, target)


@dataclass
class SqliteFloor:
    """C on libsqlite3: WAL, synchronous=FULL, one commit per `group` creates."""

    name: str
    template: Template
    group: int = 1
    _next: int = field(default=0, init=False)

    def start(self, storage: Storage) -> None:
        self.storage = storage
        self.directory = storage.directory(slug(self.name))
        self.database = self.directory / "floor.db"
        self.template.copy_to(self.database)
        (self.directory / "script").write_bytes(self.template.shape.script())
        self.per_request = Counter(w.table for w in self.template.shape.writes if w.key is None)
        self.before = self._stored()

    def measure(self, seconds: float) -> Sample:
        said = self.run(seconds=seconds, warm=0.1, group=self.group)
        return Sample(said["rate"], cpu_per_1k=said["cpu_s"] * 1000 / max(1, said["all"]))

    def run(self, *, timeout_s: float = 60, **arguments: float) -> dict[str, Any]:
        arguments |= {"first": self._next, "foreign_keys": int(self.template.foreign_keys)}
        command = [str(tool("floor")), str(self.database), str(self.directory / "script")]
        command += [f"{name}={value}" for name, value in arguments.items()]
        said = run_json(command, timeout_s=timeout_s, env=clean_environment(**self.storage.env()))
        self._next = said["next"]
        return said

    def _stored(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.database)) as db:
            return {
                table: db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
                for table in self.per_request
            }

    def finish(self) -> None:
        wanted = {table: self.before[table] + n * self._next for table, n in self.per_request.items()}
        if (stored := self._stored()) != wanted:
            raise BenchError(f"{self.name}: {self._next} requests should have stored {wanted}, not {stored}")


def bulk_load(template: Template, target: Path, count: int, *, timeout_s: float = 3600) -> dict[str, Any]:
    """Write `count` creates into a copy of the template, with no durability, and leave it in WAL mode."""
    template.copy_to(target)
    script = target.with_suffix(".script")
    script.write_bytes(template.shape.script(postpone=True))
    said = run_json(
        [str(tool("floor")), str(target), str(script), "group=20000", f"count={count}", "bulk=1"],
        timeout_s=timeout_s,
    )
    with closing(sqlite3.connect(target)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    return said


@dataclass
class Pgbench:
    """pgbench with a script, 8 clients, prepared statements; `script` is a file in bench/sql/."""

    name: str
    script: str
    postgres: Postgres
    clients: int = 8

    def start(self, storage: Storage) -> None:
        self.database = "floor_" + re.sub(r"\W+", "_", self.script)
        self.postgres.database(self.database)
        self.postgres.sql(self.database, (_SQL / "money.sql").read_text())
        self.directory = storage.directory(self.database)
        shutil.copy(_SQL / self.script, self.directory)

    def measure(self, seconds: float) -> Sample:
        cpu = self.postgres.cpu_s()
        command = [
            str(self.postgres.bin / "pgbench"), "-n", "-M", "prepared",
            "-f", str(self.directory / self.script), "-c", str(self.clients), "-j", "2",
            "-T", str(max(1, round(seconds))),
            "-h", "127.0.0.1", "-p", str(self.postgres.port), "-U", "bench", self.database,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment())
        count = re.search(r"transactions actually processed: (\d+)", done.stdout)
        rate = re.search(r"tps = ([\d.]+) \(without", done.stdout)
        failed = re.search(r"failed transactions: (\d+)", done.stdout)
        if done.returncode or not (count and rate) or (failed and int(failed[1])):
            raise BenchError(f"pgbench: {done.stdout}{done.stderr}")
        cpu = self.postgres.cpu_s() - cpu
        self.postgres.sql(self.database, "ANALYZE")
        return Sample(float(rate[1]), db_cpu_per_1k=cpu * 1000 / int(count[1]))

    def finish(self) -> None:
        """Each payment has its two entries, which cancel out, and its outbox row."""
        answer = self.postgres.sql(
            self.database,
            "SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM outbox), count(*), sum(amount) "
            "FROM ledger_entries",
        )
        payments, messages, entries, balance = map(int, answer.split("|"))
        if (messages, entries, balance) != (payments, 2 * payments, 0):
            raise BenchError(f"{self.name} stored payments|outbox|entries|balance = {answer.strip()}")
