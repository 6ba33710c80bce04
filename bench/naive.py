"""The naive peers as contestants."""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt

from bench.contestant import HttpContestant, uvicorn

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class _Peer(HttpContestant):
    secret: str = field(default_factory=lambda: secrets.token_hex(32), init=False, repr=False)

    def bearer(self) -> str:
        return jwt.encode({"sub": "1", "exp": int(time.time()) + 3600}, self.secret, algorithm="HS256")


@dataclass
class NaiveSqlite(_Peer):
    """FastAPI + ORM + SQLite with its default settings."""

    def command(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        self.database = directory / "peer.db"
        env = {"PEER_DATABASE_URL": f"sqlite:///{self.database}", "PEER_SECRET": self.secret}
        return uvicorn("bench.peers.naive_sqlite:app", self.port), env

    def stored(self) -> int:
        with closing(sqlite3.connect(self.database)) as db:
            count: int = db.execute("SELECT count(*) FROM payments").fetchone()[0]
            return count


@dataclass
class NaivePostgres(_Peer):
    """FastAPI + SQLAlchemy async Core + asyncpg, one transaction per request."""

    def command(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        assert self.postgres
        self.url = self.postgres.database(f"peer_{self.port}")
        driver_url = self.url.replace("postgresql://", "postgresql+asyncpg://")
        return uvicorn("bench.peers.naive_pg:app", self.port), {
            "PEER_DATABASE_URL": driver_url,
            "PEER_SECRET": self.secret,
        }

    def stored(self) -> int:
        assert self.postgres
        return int(self.postgres.sql(self.url.rpartition("/")[2], "SELECT count(*) FROM payments"))
