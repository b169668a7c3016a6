"""`img2img-bot backup` and `restore`: database and pictures, copied while the bot runs, and verified.

The database is copied first, as one consistent snapshot, with SQLite's online
backup; then the pictures, each under the hash of its bytes. The bot stores a
picture before the database refers to it, so every picture in the snapshot is on
disk. SQLite has no page checksums, so a copy counts only once its ledger is reconciled.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from bot.clock import DAY_S
from bot.errors import OperatorError
from bot.text import counted
from db import jobs, ledger
from db.database import DatabaseUnusable, connect
from db.opening import APPLICATION_ID, FolderLock

DATABASE: Final = "bot.sqlite3"
IDENTITY: Final = "identity"
PICTURES: Final = "pictures"
_NEW: Final = ".new"


@dataclass(frozen=True, slots=True)
class Copied:
    """The contents of a copy: the numbers of jobs and pictures, and the pictures' bytes."""

    jobs: int
    pictures: int
    pictures_bytes: int

    def __str__(self) -> str:
        """Return "3 jobs and 6 pictures (1.2 MiB)"."""
        pictures = counted(self.pictures, "picture")
        return f"{counted(self.jobs, 'job')} and {pictures} ({self.pictures_bytes / 2**20:.1f} MiB)"


def back_up(data: Path, target: Path, *, retention_days: int) -> Copied:
    """Copy the data folder to `target`, whether or not the bot is running.

    An earlier backup in `target` stays until the new one is verified; its pictures are
    not copied again. Raises `OperatorError`.
    """
    if target.resolve().is_relative_to(data.resolve()):
        raise OperatorError(f"{target} is inside the bot's data folder; choose a folder on another disk.")
    _check_is_ours(data / DATABASE)
    try:
        return _copy(data, target, since=time.time() - retention_days * DAY_S)
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(
            f"The backup could not be written: {error}. The previous backup is unchanged."
        ) from error


def restore(source: Path, data: Path, *, replace: bool, retention_days: int) -> Copied:
    """Restore a backup into the data folder, on which no bot may be running.

    An existing database is set aside, and only if `replace` is true. Raises `OperatorError`.
    """
    _check_is_ours(source / DATABASE)
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FolderLock(data / "lock"):
            if (data / DATABASE).exists() and not replace:
                raise OperatorError(
                    f"{data} already contains a database; add --replace to set it aside and replace it."
                )
            return _copy(source, data, since=time.time() - retention_days * DAY_S, keep_old=True)
    except DatabaseUnusable as error:
        raise OperatorError(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"The backup could not be restored: {error}.") from error


def _check_is_ours(path: Path) -> None:
    if not path.is_file():
        raise OperatorError(f"There is no database {path}; please name the folder that contains it.")
    try:
        with closing(_open(path)) as connection:
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    except sqlite3.Error as error:
        raise OperatorError(f"The database {path} can't be read ({error}); use an older backup.") from error
    if not ours:
        raise OperatorError(f"{path} is not this bot's database; please name the folder that contains it.")


def _set_aside(data: Path) -> None:
    """Keep the database that a restore is about to replace, with its write-ahead log.

    The log is moved, as SQLite would apply it to the new database. The database is linked and
    stays in its folder until it is replaced, so a bot never starts on an empty folder.
    """
    # Without its log the old database would lose commits if the restore were interrupted here, so
    # they are moved into the file first. A damaged database can't do that; it is replaced anyway.
    with suppress(sqlite3.Error), closing(_open(data / DATABASE)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    aside = data / time.strftime("before-restore-%Y%m%dT%H%M%SZ", time.gmtime())
    aside.mkdir(mode=0o700)
    os.link(data / DATABASE, aside / DATABASE)
    for name in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        if (data / name).exists():
            (data / name).rename(aside / name)


def _copy(source: Path, target: Path, *, since: float, keep_old: bool = False) -> Copied:
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = target / f"{DATABASE}{_NEW}"
    _copy_database(source / DATABASE, fresh)
    digests, count = _verify(fresh, since=since)
    sizes = [_copy_picture(source / PICTURES, target / PICTURES, digest) for digest in sorted(digests)]
    identity = _identity(fresh)
    if keep_old and (target / DATABASE).exists():
        _set_aside(target)
    _write(target / IDENTITY, identity.encode())
    fresh.replace(target / DATABASE)
    _sync_folder(target)
    return Copied(count, len(sizes), sum(sizes))


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(_open(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        # Without a write-ahead log: the file alone is renamed, so it must be complete.
        copy.execute("PRAGMA journal_mode = DELETE")
    target.chmod(0o600)
    _sync(target)


def _open(path: Path) -> sqlite3.Connection:
    """Open an existing database; never create one."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)


def _verify(path: Path, *, since: float) -> tuple[set[str], int]:
    """Return the hashes of the pictures that the copy refers to, and its number of jobs.

    Raises `OperatorError` if the file is damaged or its ledger is inconsistent.
    """
    with closing(connect(path, read_only=True)) as connection:
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
        faults += [
            f"row {row[1]} of {row[0]} refers to a missing row"
            for row in connection.execute("PRAGMA foreign_key_check")
        ]
        faults = faults or ledger.reconcile(connection)
        if faults:
            raise OperatorError(
                f"The copied ledger is inconsistent ({faults[0]});"
                " keep your older backups and run `img2img-bot check`."
            )
        count = connection.execute("SELECT count(*) FROM job").fetchone()[0]
        return jobs.hashes_to_keep(connection, since=since), count


def _identity(path: Path) -> str:
    with closing(connect(path, read_only=True)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()[0])


def _copy_picture(source: Path, target: Path, digest: str) -> int:
    """Copy one picture unless an undamaged copy exists; return its size in bytes."""
    copy = target / digest[:2] / digest
    data = copy.read_bytes() if copy.exists() else b""
    if sha256(data).hexdigest() != digest:
        data = _read_picture(source / digest[:2] / digest, digest)
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(copy, data)
    return len(data)


def _read_picture(path: Path, digest: str) -> bytes:
    """Return a picture's bytes. Raises `OperatorError` if they are missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise OperatorError(f"The picture {path} is missing; restore it from an older backup.") from error
    if sha256(data).hexdigest() != digest:
        raise OperatorError(f"The picture {path} is damaged; restore it from an older backup.")
    return data


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + _NEW)
    with open(fresh, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_folder(path.parent)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
