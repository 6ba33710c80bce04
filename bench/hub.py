"""The hub as a contestant: its own command line, known only by its environment and its HTTP surface."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contestant import HttpContestant, request
from bench.floors import Template
from bench.process import BenchError, clean_environment
from bench.shape import learn

if TYPE_CHECKING:
    from bench.storage import Storage

# One identity for the whole run: a database made by one hub is opened by another.
_SECRET_KEY = secrets.token_hex(32)
_API_KEY, _API_SECRET = f"key_{secrets.token_hex(12)}", secrets.token_hex(32)


def hub_command() -> list[str]:
    """`tillgate` beside the running Python, or what BENCH_HUB says."""
    if chosen := os.environ.get("BENCH_HUB"):
        return shlex.split(chosen)
    return [str(Path(sys.executable).with_name("tillgate"))]


def hub_environment(url: str, port: int) -> dict[str, str]:
    return {
        "TILLGATE_DATABASE_URL": url,
        "TILLGATE_HOST": "127.0.0.1",
        "TILLGATE_PORT": str(port),
        "TILLGATE_SANDBOX": "1",
        "TILLGATE_SECRET_KEY": _SECRET_KEY,
        "TILLGATE_BOOTSTRAP_API_KEY": _API_KEY,
        "TILLGATE_BOOTSTRAP_API_SECRET": _API_SECRET,
        "TILLGATE_RATE_LIMIT": "0",
    }


@dataclass
class Hub(HttpContestant):
    """`tillgate up --sandbox` on SQLite, or on `postgres` when one is given.

    `database` is a file to begin with (its ledger is then not verified: bulk-loaded events have no
    true chain); `extra` goes into its environment.
    """

    database: Path | None = None
    extra: dict[str, str] = field(default_factory=dict)
    stored_before: int = field(default=0, init=False)

    def command(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        if self.postgres:
            self.url = self.postgres.database(f"hub_{self.port}")
        else:
            self.file = directory / "hub.db"
            if self.database:
                shutil.move(self.database, self.file)
                self.stored_before = self.stored()
            self.url = f"sqlite:///{self.file}"
        self.env = hub_environment(self.url, self.port) | self.extra
        return [*hub_command(), "up", "--sandbox"], self.env

    def bearer(self) -> str:
        return token(self.port)

    def stored(self) -> int:
        statement = "SELECT count(*) FROM payments"
        if self.postgres:
            return int(self.postgres.sql(self.url.rpartition("/")[2], statement))
        with closing(sqlite3.connect(self.file)) as db:
            count: int = db.execute(statement).fetchone()[0]
            return count - self.stored_before

    def finish(self) -> None:
        super().finish()
        if not self.database:
            self.verify()

    def verify(self) -> None:
        """The hub's own proof of its books."""
        done = subprocess.run(
            [*hub_command(), "ledger", "verify"],
            env=clean_environment(**self.env), cwd=self.server.log.parent,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise BenchError(f"{self.name}: ledger verify says: {(done.stdout + done.stderr)[-2000:]}")


def token(port: int) -> str:
    status, answer = request(port, "POST", "/token", {"api_key": _API_KEY, "api_secret": _API_SECRET})
    if status != 200:
        raise BenchError(f"the hub refuses a token: {status} {answer}")
    access: str = answer["access_token"]
    return access


def create(port: int, bearer: str, **rest: str) -> str:
    """One payment with a random order id; its payment id."""
    order = f"order-{secrets.randbelow(9 * 10**11) + 10**11}"
    body = {"wallet_id": "gopay", "amount": 150000, "currency": "IDR", "order_id": order} | rest
    status, answer = request(port, "POST", "/payments", body, {"Authorization": f"Bearer {bearer}"})
    if status != 200:
        raise BenchError(f"the hub refuses a payment: {status} {answer}")
    payment_id: str = answer["payment_id"]
    return payment_id


def learn_template(storage: Storage) -> Template:
    """Start a hub on an empty database, watch some creates, and keep its file for the floors."""
    hub = Hub("learned", extra={"TILLGATE_WORKER": "0"})  # so that nothing but the creates writes
    hub.start(storage)
    bearer = hub.bearer()
    shape = learn(hub.file, lambda: create(hub.port, bearer))
    hub.server.stop()
    return Template(hub.file, shape)
