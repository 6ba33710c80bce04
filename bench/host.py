"""What the machine was doing meanwhile: load, steal, and what it is made of."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "tillgate",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "sqlalchemy",
    "asyncpg",
    "msgspec",
    "aiohttp",
)


@dataclass(frozen=True)
class Ticks:
    """The whole machine's time so far, in clock ticks."""

    total: int
    idle: int
    steal: int

    @classmethod
    def now(cls) -> Ticks:
        values = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return cls(sum(values), values[3] + values[4], values[7])

    def steal_share(self, earlier: Ticks) -> float:
        """The share of time since `earlier` that the hypervisor gave to somebody else."""
        return (self.steal - earlier.steal) / max(1, self.total - earlier.total)


def load_average() -> float:
    return os.getloadavg()[0]


def description() -> dict[str, str]:
    """Versions and hardware, as they belong beside any figure."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    about = {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
    }
    for name in _PACKAGES:
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "missing"
    return about


def available_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0
