"""`img2img-bot backup` and `restore`: books and pictures, copied while the bot runs and proved.

The database is copied first, by SQLite's own online backup, in one consistent
piece; then the pictures, each under the hash of its bytes. Whatever the copied
books name was on disk before they named it, so nothing of it is missed. SQLite
has no page checksums: a copy is believed only once its books are reconciled.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from bot.clock import DAY_S
from bot.errors import OperatorError
from bot.runtime.durable_files import replace_durably, sync_file, write_private
from bot.text import counted
from db import jobs, ledger
from db.database import APPLICATION_ID, DatabaseUnfitError, connect, locked

DATABASE: Final = "bot.sqlite3"
IDENTITY: Final = "identity"
PICTURES: Final = "pictures"
_NEW: Final = ".new"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: jobs, and pictures with their bytes."""

    jobs: int
    pictures: int
    pictures_bytes: int

    def __str__(self) -> str:
        """Say it in half a sentence."""
        pictures = counted(self.pictures, "picture")
        return f"{counted(self.jobs, 'job')} and {pictures} ({self.pictures_bytes / 2**20:.1f} MiB)"


def back_up(data: Path, target: Path, *, retention_days: int) -> Copied:
    """Copy the data folder to `target`, the bot running or not; what `target` held stays until then.

    Pictures that are there already are not copied again. Raises `OperatorError`.
    """
    if target.resolve().is_relative_to(data.resolve()):
        raise OperatorError(f"{target} lies in the bot's own folder; choose one on another disk.")
    _check_is_ours(data / DATABASE)
    try:
        return _copy(data, target, since=time.time() - retention_days * DAY_S)
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(
            f"The backup could not be written: {error}. The one before it is untouched."
        ) from error


def restore(source: Path, data: Path, *, replace: bool, retention_days: int) -> Copied:
    """Put a backup into the data folder, in which no bot may run. Raises `OperatorError`.

    What was there is kept beside it, if `replace` allows that at all.
    """
    _check_is_ours(source / DATABASE)
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(data / "lock"):
            if (data / DATABASE).exists() and not replace:
                raise OperatorError(
                    f"{data} holds a database already; add --replace to set it aside and restore over it."
                )
            return _copy(source, data, since=time.time() - retention_days * DAY_S, keep_old=True)
    except DatabaseUnfitError as error:
        raise OperatorError(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"The backup could not be restored: {error}.") from error


def _check_is_ours(path: Path) -> None:
    if not path.is_file():
        raise OperatorError(f"There is no database {path}; name the folder that holds one.")
    try:
        with closing(_open(path)) as connection:
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    except sqlite3.Error as error:
        raise OperatorError(f"The database {path} can't be read ({error}); take another one.") from error
    if not ours:
        raise OperatorError(f"{path} is not this bot's database; name the folder that holds it.")


def _set_aside(data: Path) -> None:
    """Keep the database that a restore is about to replace, its log moved out of the way of the new one.

    It stays in its place until then: at no moment would a start find an empty folder.
    """
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
    wanted, count = _proved(fresh, since=since)
    sizes = [_copy_picture(source / PICTURES, target / PICTURES, digest) for digest in sorted(wanted)]
    identity = _identity(fresh)
    if keep_old and (target / DATABASE).exists():
        _set_aside(target)
    _write(target / IDENTITY, identity.encode())
    replace_durably(fresh, target / DATABASE)
    return Copied(count, len(sizes), sum(sizes))


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(_open(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        # One file, no log beside it: what is renamed is all there is.
        copy.execute("PRAGMA journal_mode = DELETE")
    target.chmod(0o600)
    sync_file(target)


def _open(path: Path) -> sqlite3.Connection:
    """Open what exists, without making anything."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)


def _proved(path: Path, *, since: float) -> tuple[set[str], int]:
    """Return the pictures that the copied books name, and the number of jobs; raise if they are wrong."""
    with closing(connect(path, read_only=True)) as connection:
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
        faults += [
            f"row {row[1]} of {row[0]} hangs loose" for row in connection.execute("PRAGMA foreign_key_check")
        ]
        faults = faults or ledger.reconcile(connection)
        if faults:
            raise OperatorError(
                f"The copied books are wrong ({faults[0]}); keep older backups and run `check`."
            )
        count = connection.execute("SELECT count(*) FROM job").fetchone()[0]
        return jobs.kept_hashes(connection, since=since), count


def _identity(path: Path) -> str:
    with closing(connect(path, read_only=True)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()[0])


def _copy_picture(source: Path, target: Path, digest: str) -> int:
    """Copy one picture unless it is there; return its size in bytes. A damaged one is an error."""
    there = target / digest[:2] / digest
    data = there.read_bytes() if there.exists() else b""
    if sha256(data).hexdigest() != digest:
        data = _read(source / digest[:2] / digest, digest)
        there.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(there, data)
    return len(data)


def _read(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise OperatorError(f"The picture {path} is missing; run `img2img-bot check`.") from error
    if sha256(data).hexdigest() != digest:
        raise OperatorError(f"The picture {path} is damaged; restore it from an older backup.")
    return data


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + _NEW)
    write_private(fresh, data)
    replace_durably(fresh, path)
