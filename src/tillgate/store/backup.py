"""Copies of a SQLite database, made while the hub runs, with a manifest to prove them by."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tillgate.domain.errors import Misconfigured, NotAllowed, Unavailable

FORMAT: Final = 1
_COUNTED: Final = ("merchants", "payments", "refunds", "events", "postings", "deliveries")


class Manifest(msgspec.Struct, frozen=True):
    """What stands beside a backup, as JSON."""

    format: int
    made_at: str
    version: str
    revision: str
    file: str
    size: int
    sha256: str
    rows: dict[str, int]


def path_of(url: str) -> Path:
    """The file behind a database URL. Raises `Misconfigured` with what to do for PostgreSQL."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///"))
    raise Misconfigured(
        'this hub is on PostgreSQL: use pg_dump --format=custom "$TILLGATE_DATABASE_URL" > till.dump, and'
        ' pg_restore --clean --if-exists -d "$TILLGATE_DATABASE_URL" till.dump with all hubs stopped'
    )


def backup(url: str, directory: Path, version: str) -> tuple[Path, Manifest]:
    """A consistent copy, whole or not there at all. Raises `Unavailable` or `Misconfigured`."""
    source = path_of(url)
    if not source.exists():
        raise Misconfigured(f"there is no database file {source}")
    now = datetime.now(UTC)
    name = f"tillgate-{now.strftime('%Y%m%dT%H%M%S%fZ')}.db"
    target, growing = directory / name, directory / f".{name}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _copy(source, growing)
        os.chmod(growing, 0o600)
        manifest = _manifest(growing, name, now, version)
        _written(directory / f"{name}.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        growing.rename(target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            growing.unlink()
        raise Unavailable(f"the backup was not made: {error}") from None
    return target, manifest


def restore(url: str, backup_file: Path, *, force: bool, wanted: str) -> Manifest:
    """Put a proven backup where the database is. Raises `NotAllowed` where one is already and not `force`."""
    target = path_of(url)
    manifest = proven(backup_file)
    if manifest.revision != wanted:
        raise NotAllowed(
            f"the backup is at {manifest.revision or 'nothing'}, this version at {wanted}: restore it with"
            f" the version that made it ({manifest.version}), then migrate"
        )
    if target.exists() and not force:
        raise NotAllowed(f"{target} is there already; --force replaces it, once no hub is running on it")
    growing = target.with_name(f".{target.name}.part")
    try:
        _copy(backup_file, growing)
        os.chmod(growing, 0o600)
        for suffix in (
            "-wal",
            "-shm",
        ):  # of the database that is replaced: they must not be read into this one
            with suppress(FileNotFoundError):
                target.with_name(target.name + suffix).unlink()
        growing.replace(target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            growing.unlink()
        raise Unavailable(f"nothing was restored: {error}") from None
    return manifest


def proven(backup_file: Path) -> Manifest:
    """The manifest, once the file is what it says. Raises `Misconfigured`."""
    try:
        raw = backup_file.with_name(f"{backup_file.name}.json").read_bytes()
        manifest = msgspec.json.decode(raw, type=Manifest)
        size, digest = backup_file.stat().st_size, _digest(backup_file)
    except OSError as error:
        raise Misconfigured(f"the backup cannot be read: {error}") from None
    except msgspec.DecodeError:
        raise Misconfigured("the manifest beside the backup cannot be read") from None
    if manifest.format != FORMAT:
        raise Misconfigured(f"the backup has format {manifest.format}, this version reads {FORMAT}")
    if (size, digest) != (manifest.size, manifest.sha256):
        raise Misconfigured("the backup is not what its manifest says: it was changed or cut")
    return manifest


def _copy(source: Path, target: Path) -> None:
    """SQLite's own online backup: writers go on meanwhile. The result is checked and on disk."""
    with suppress(FileNotFoundError):
        target.unlink()
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new, pages=1024, sleep=0.01)
        new.execute("PRAGMA journal_mode = DELETE")
        [(verdict,)] = new.execute("PRAGMA integrity_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {verdict}")
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _manifest(file: Path, name: str, now: datetime, version: str) -> Manifest:
    with closing(sqlite3.connect(file)) as copy:
        rows = {table: _count(copy, table) for table in _COUNTED}
        [(revision,)] = copy.execute("SELECT version_num FROM alembic_version").fetchall() or [("",)]
    made_at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Manifest(FORMAT, made_at, version, revision, name, file.stat().st_size, _digest(file), rows)


def _count(connection: sqlite3.Connection, table: str) -> int:
    [(found,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - our own names
    return int(found)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _written(path: Path, body: Any) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
