"""Payme's four calls as a flow, and who can be asked them: the hub, a shop with a drop-in handler, nobody."""

from __future__ import annotations

import base64
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench.contestant import HttpContestant, request, uvicorn
from bench.hub import Hub, token
from bench.load import ID, ONE_OF_1000, Step, json_post
from bench.process import BenchError

PEER = "0.4.1"
"""Of the published package; a dependency of nothing but this benchmark, in an environment of its own."""

_SAME = ("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools", "sqlalchemy")
_VENV = Path(__file__).parent / "bin" / f"paytechuz-{PEER}"
KEY = secrets.token_hex(18)
TIYIN = 50_000
WEBHOOK = "/payments/payme/webhook"


def four_calls(path: str, field_name: str, colon: str = ":") -> list[Step]:
    """CheckPerform, Create, Perform, CheckTransaction by a payer of one of a thousand accounts.

    `colon`: how the answers write one; the published package's have a blank after it."""
    door = base64.b64encode(f"Paycom:{KEY}".encode()).decode()
    name = f"{'a' * 12}{ID}"
    account = {field_name: f"1{ONE_OF_1000}"}

    def step(method: str, marker: str, **params: object) -> Step:
        body = {"method": method, "params": params, "id": 1}
        return json_post(path, body, {"Authorization": f"Basic {door}"}, marker=marker)

    return [
        step("CheckPerformTransaction", f'"allow"{colon}true', amount=TIYIN, account=account),
        step(
            "CreateTransaction", f'"state"{colon}1',
            id=name, time=time.time_ns() // 1_000_000, amount=TIYIN, account=account,
        ),
        step("PerformTransaction", f'"state"{colon}2', id=name),
        step("CheckTransaction", f'"state"{colon}2', id=name),
    ]  # fmt: skip


def account_of_the_hub() -> dict[str, object]:
    config = {"merchant_id": "587f72c72cac0d162c722ae2", "test_key": KEY, "sandbox": True}
    return {"provider": "payme", "name": "payme", "config": config}


def standing_order(number: int) -> dict[str, object]:
    return {"order_id": str(number), "channel": "payme", "currency": "UZS"}


@dataclass
class PaymeHub(Hub):
    """The hub with a Payme account and a thousand standing orders."""

    account: str = field(default="", init=False)

    def flow(self) -> list[Step]:
        if not self.account:
            self._prepare()
        return four_calls(f"/in/{self.account}", "order_id")

    def _prepare(self) -> None:
        headers = {"Authorization": f"Bearer {token(self.port)}"}
        status, made = request(self.port, "POST", "/v1/accounts", account_of_the_hub(), headers)
        if status != 201:
            raise BenchError(f"the hub refuses an account: {status} {made}")
        for number in range(1000, 2000):
            status, said = request(self.port, "POST", "/v1/standing-orders", standing_order(number), headers)
            if status != 201:
                raise BenchError(f"the hub refuses a standing order: {status} {said}")
        self.account = made["id"]


@dataclass
class PaymeShop(HttpContestant):
    """A FastAPI shop with a handler on its own session: ours, or the published package's."""

    library: str = "tillgate"

    def command(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        if self.postgres:
            self.url = self.postgres.database(f"shop_{self.port}")
            driven = self.url.replace("postgresql://", "postgresql+psycopg://")
        else:
            self.database = directory / "shop.db"
            driven = f"sqlite:///{self.database}"
        argv = uvicorn("bench.peers.payme_shop:app", self.port)
        if self.library != "tillgate":
            argv[0] = str(published(with_postgres=self.postgres is not None))
        env = {"PEER_DATABASE_URL": driven, "PEER_SECRET": KEY, "PEER_LIBRARY": self.library}
        # A pool that PostgreSQL has connections for, when several contestants are up at once.
        return argv, env | ({"PEER_POOL": "30"} if self.postgres else {})

    def flow(self) -> list[Step]:
        return four_calls(WEBHOOK, "id", ":" if self.library == "tillgate" else ": ")

    def stored(self) -> int:
        statement = "SELECT count(*) FROM payments WHERE state = 2"
        if self.postgres:
            return int(self.postgres.sql(self.url.rpartition("/")[2], statement))
        with closing(sqlite3.connect(self.database)) as db:
            count: int = db.execute(statement).fetchone()[0]
            return count


@dataclass
class PaymeNull(HttpContestant):
    """Answers without doing anything: the ceiling of framework, server and loader."""

    def command(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        return uvicorn("bench.peers.payme_null:app", self.port), {}

    def flow(self) -> list[Step]:
        return four_calls(WEBHOOK, "id")

    def stored(self) -> int:
        return self.acknowledged


def published(*, with_postgres: bool) -> Path:
    """The Python of an environment with the published package, with our versions of what both stand on.

    Made once, by pip, beside the C tools. Raises `BenchError` where it cannot be."""
    python = _VENV / "bin" / "python"
    wanted = [f"paytechuz[fastapi]=={PEER}", *(f"{name}=={version(name)}" for name in _SAME)]
    if with_postgres:
        wanted.append(f"psycopg[binary]=={version('psycopg')}")
    mark = _VENV / ("with-postgres" if with_postgres else "made")
    if mark.exists() or (_VENV / "with-postgres").exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", str(_VENV)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ})
        if done.returncode:
            raise BenchError(f"the published package cannot be installed: {done.stderr.strip()[-600:]}")
    mark.touch()
    return python
