"""Server processes: started, watched, accounted for, and stopped whatever happens.

CPU is read from `/proc/<pid>/task/*/schedstat` over the whole process tree, so a number belongs to what a
request really cost and hardly moves when the machine is busy with something else.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Iterator, Mapping, Sequence

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class BenchError(Exception):
    """The run is worth nothing: a tool is missing, a port is taken, a server died, an answer was wrong."""


_ports_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now and that this run has not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def port_answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def clean_environment(**extra: str) -> dict[str, str]:
    """A small environment, so that a developer's own TILLGATE_* or PG* settings cannot reach a contestant."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return kept | extra


def slug(name: str) -> str:
    """A contestant's name as a file name."""
    return re.sub(r"\W+", "-", name)


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """The arguments of `subprocess` that run a command as somebody else."""
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Server:
    """One contestant's server process with all its children."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        directory: Path,
        *,
        port: int | None = None,
        user: pwd.struct_passwd | None = None,
    ) -> None:
        if port is not None and port_answers(port):
            raise BenchError(f"{name}: port {port} is taken: a stale server would spoil the run")
        self.name, self.port, self.log = name, port, directory / f"{slug(name)}.log"
        self.started_at = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                list(argv), env=dict(env), cwd=directory, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, **as_user(user),
            )  # fmt: skip
        _running.append(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise when the server is gone, with the end of its log."""
        status = self._process.poll()
        if status is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self.name} died with status {status}; the end of {self.log}:\n{tail}")

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = 30, every_s: float = 0.02) -> float:
        """Wait for `ready()`; returns the seconds since the start of the process."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.check()
            if ready():
                return time.monotonic() - self.started_at
            time.sleep(every_s)
        raise BenchError(f"{self.name} was not ready after {timeout_s} s; see {self.log}")

    def cpu_s(self) -> float:
        """CPU seconds so far of this process, its descendants, and those of its children that ended."""
        return sum(_schedstat_s(pid) for pid in tree(self.pid)) + _reaped_s(self.pid)

    def rss_mib(self) -> float:
        return sum(_rss_kib(pid) for pid in tree(self.pid)) / 1024

    def stop(self, how: int = signal.SIGTERM, patience_s: float = 10) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self in _running:
            _running.remove(self)


_running: list[Server] = []


_afterwards: list[Callable[[], None]] = []


def after_the_servers(clean_up: Callable[[], None]) -> None:
    """Have something done at the end of the run, once no server uses it any more."""
    _afterwards.append(clean_up)


def stop_servers() -> None:
    """Stop whatever still runs: after a figure that failed, and at the end."""
    for server in reversed(_running.copy()):
        server.stop(patience_s=3)


@atexit.register
def _at_the_end() -> None:
    stop_servers()
    while _afterwards:
        _afterwards.pop()()


def exit_cleanly_on_signals() -> None:
    """SIGTERM and SIGHUP end the run through `atexit`, so that no server outlives it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))


def tree(root: int) -> Iterator[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(children.get(pid, ()))


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/pid/stat from the third on: the second may itself hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _schedstat_s(pid: int) -> float:
    total_ns = 0
    with suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with suppress(OSError):
                total_ns += int(Path(task.path, "schedstat").read_text().split()[0])
    return total_ns / 1e9


def _reaped_s(pid: int) -> float:
    with suppress(OSError):
        fields = _stat_fields(pid)
        return (int(fields[13]) + int(fields[14])) / _TICKS_PER_S
    return 0.0


def _rss_kib(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
