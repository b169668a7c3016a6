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
from bot.runtime.durable_files import replace_durably, sync_file, write_private
from bot.text import counted
from db import file_copies, jobs, meta
from db.database import DatabaseUnusable, connect
from db.opening import FolderLock

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
        ours = file_copies.is_ours(path)
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
    with suppress(sqlite3.Error):
        file_copies.move_log_into_file(data / DATABASE)
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
    replace_durably(fresh, target / DATABASE)
    return Copied(count, len(sizes), sum(sizes))


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    file_copies.copy_database(source, target)
    target.chmod(0o600)
    sync_file(target)


def _verify(path: Path, *, since: float) -> tuple[set[str], int]:
    """Return the hashes of the pictures that the copy refers to, and its number of jobs.

    Raises `OperatorError` if the file is damaged or its ledger is inconsistent.
    """
    with closing(connect(path, read_only=True)) as connection:
        faults = file_copies.faults_of(connection)
        if faults:
            raise OperatorError(
                f"The copied ledger is inconsistent ({faults[0]});"
                " keep your older backups and run `img2img-bot check`."
            )
        return jobs.hashes_to_keep(connection, since=since), jobs.count_all(connection)


def _identity(path: Path) -> str:
    with closing(connect(path, read_only=True)) as connection:
        return meta.get_value(connection, "identity") or ""


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
    write_private(fresh, data)
    replace_durably(fresh, path)
