"""Where a contestant keeps its files: the real disk, or tmpfs with a flush of a chosen time.

The second is the one to compare machines by: it costs the same everywhere, while a real disk may be ten
times quicker or slower, or have spent its burst budget.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.process import BenchError, after_the_servers, clean_environment
from bench.tools import tool

_PROBE = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
times, page = [], os.urandom(4096)
for i in range(int(sys.argv[2])):
    start = time.perf_counter()
    os.pwrite(fd, page, i % 64 * 4096)
    os.fdatasync(fd)
    times.append(time.perf_counter() - start)
print(sorted(times)[len(times) // 2] * 1e6)
"""


@dataclass(frozen=True)
class Storage:
    """A kind of storage; `fsync_delay_us` is 0 on the real disk."""

    name: str
    root: Path
    fsync_delay_us: int = 0

    def env(self) -> dict[str, str]:
        """What a process needs in its environment to feel this storage."""
        if not self.fsync_delay_us:
            return {}
        return {"LD_PRELOAD": str(self.root / "shim.so"), "FSYNC_DELAY_US": str(self.fsync_delay_us)}

    def directory(self, name: str) -> Path:
        """A new directory, open to other users because PostgreSQL refuses to run as root."""
        path, number = self.root / name, 1
        while path.exists():
            number += 1
            path = self.root / f"{name}-{number}"
        path.mkdir()
        path.chmod(0o755)
        return path

    def probe_us(self) -> float:
        """The median time of a 4 KiB pwrite + fdatasync, as the contestants see it."""
        count = 300 if self.fsync_delay_us <= 1000 else 60
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROBE, str(self.root / "probe"), str(count)],
            env=clean_environment(**self.env()), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return float(done.stdout)


def disk(parent: Path | None = None) -> Storage:
    """The real disk, below `parent` (/var/tmp, or what BENCH_DISK says)."""
    parent = parent or Path(os.environ.get("BENCH_DISK", "/var/tmp"))
    if _filesystem(parent) == "tmpfs":
        raise BenchError(f"{parent} is tmpfs, not a disk: set BENCH_DISK to a directory on one")
    return Storage("disk", _scratch(parent))


def memory(fsync_delay_us: int = 1000) -> Storage:
    """tmpfs with every fsync and fdatasync taking this much longer."""
    parent = Path(os.environ.get("BENCH_SHM", "/dev/shm"))
    if _filesystem(parent) != "tmpfs":
        raise BenchError(f"{parent} is not tmpfs: set BENCH_SHM to a directory that is")
    root = _scratch(parent)
    shutil.copy(tool("shim.so"), root / "shim.so")
    (root / "shim.so").chmod(0o755)
    return Storage(_delay_name(fsync_delay_us), root, fsync_delay_us)


def _delay_name(delay_us: int) -> str:
    return f"{delay_us // 1000} ms" if delay_us % 1000 == 0 else f"{delay_us} µs"


def _scratch(parent: Path) -> Path:
    root = Path(tempfile.mkdtemp(prefix="tillgate-bench-", dir=parent))
    root.chmod(0o755)
    after_the_servers(partial(shutil.rmtree, root, ignore_errors=True))
    return root


def _filesystem(path: Path) -> str:
    """The type of the filesystem a path lies on."""
    here = path.resolve()
    kinds = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        kinds[Path(mount)] = kind
    return next((kinds[p] for p in (here, *here.parents) if p in kinds), "")
