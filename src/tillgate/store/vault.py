"""The simulators' memory, in the hub's own database."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select

from tillgate.store import tables as t
from tillgate.store.database import Database, Tx
from tillgate.store.journal import Journal

_GET = select(t.simulated.c.value).where(t.simulated.c.key == bindparam("key"))


@dataclass(frozen=True, slots=True)
class _Put:
    key: str
    value: bytes

    async def run(self, tx: Tx, now: int) -> None:
        await tx.upsert(t.simulated, [(self.key, self.value)])


class StoredVault:
    """One simulator's keys; `name` keeps simulators apart."""

    def __init__(self, database: Database, journal: Journal, name: str) -> None:
        self._database, self._journal, self._name = database, journal, name

    async def get(self, key: str) -> bytes | None:
        rows = await self._database.read(_GET, {"key": f"{self._name}:{key}"})
        return bytes(rows[0][0]) if rows else None

    async def put(self, key: str, value: bytes) -> None:
        await self._journal.run(_Put(f"{self._name}:{key}", value))
