"""Copies of a SQLite database, made while the hub runs, with a manifest to prove them by."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from tillgate.domain.errors import Misconfigured, NotAllowed, Unavailable

FORMAT: Final = 1
_LOGS: Final = ("-wal", "-shm")
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
    target, growing, beside = directory / name, directory / f".{name}.part", directory / f"{name}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _copy(source, growing)
        manifest = _manifest(growing, name, now, version)
        _written(beside, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        growing.rename(target)
        _settled(directory)
    except (OSError, sqlite3.Error) as error:
        for one in (growing, beside):
            with suppress(OSError):
                one.unlink()
        raise Unavailable(f"the backup was not made: {_words(error)}") from None
    return target, manifest


def restore(
    url: str, backup_file: Path, *, force: bool, known: Callable[[str], bool]
) -> tuple[Manifest, Path | None]:
    """Put a proven backup where the database is; what it replaces, if anything, is kept beside it.

    Raises `NotAllowed` where a database is there and not `force`, or a hub runs on it, or the backup is of a
    revision that this version does not know."""
    target = path_of(url)
    manifest = proven(backup_file)
    if not known(manifest.revision):
        raise NotAllowed(
            f"the backup was made by version {manifest.version}, whose tables this version does not know:"
            " restore it with that version, or a newer one"
        )
    if target.exists() and not force:
        raise NotAllowed(f"{target} is there already; --force replaces it, once no hub is running on it")
    growing, kept = target.with_name(f".{target.name}.part"), None
    try:
        _copy(backup_file, growing)
        if target.exists():
            if _in_use(target):
                raise NotAllowed(f"a hub is running on {target}: stop it first")
            kept = target.with_name(f"{target.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            target.rename(kept)
        # A log without its database belongs to nobody, and must not be read into this one.
        for suffix in _LOGS:
            beside = target.with_name(target.name + suffix)
            with suppress(FileNotFoundError):
                beside.rename(kept.with_name(kept.name + suffix)) if kept else beside.unlink()
        growing.replace(target)
        _settled(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"nothing was restored: {_words(error)}") from None
    finally:
        with suppress(OSError):
            growing.unlink()
    return manifest, kept


def _in_use(file: Path) -> bool:
    """Whether a process has the database open: who closes it last takes its log away.

    A file that is no database any more is in nobody's use."""
    try:
        with closing(sqlite3.connect(_uri(file, "rw"), uri=True, timeout=1)) as last:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            [(mode,)] = last.execute("PRAGMA journal_mode").fetchall()
        return mode == "wal" and file.with_name(f"{file.name}-wal").exists()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False


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
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(sqlite3.connect(_uri(source, "ro"), uri=True, timeout=30)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        # In one step: between two, a commit of another process makes SQLite begin anew, and a busy hub
        # commits all the time. A reader of the log stops no writer.
        old.backup(new, pages=-1)
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


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _settled(directory: Path) -> None:
    """New names in it outlive a power cut."""
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _written(path: Path, body: Any) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
