"""A disk that loses power: SQLite's file system in Python, where only what was synced is sure to be there.

Between two syncs a disk may write in any order, some of it, or half a write.
The bot's own SQL runs on it through `DiskDatabase`, which looks like `sqlite3` to it.
The SQLite is apsw's own copy: what is tried is how the database is set, used
and committed, not this or that release.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

import apsw

SECTOR_BYTES = 512
_names = count()


class PowerCut(Exception):
    """The power is gone; nothing is written any more."""


@dataclass
class Image:
    """One file: what is sure to be on the disk, and what was written since the last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        """Make everything durable."""
        for change in self.pending:
            _apply(self.durable, *change)
        self.pending.clear()

    def after_cut(self, rng: random.Random) -> bytes:
        """Return what may be left: any part of what was pending, in any order, the odd write torn."""
        left = bytearray(self.durable)
        survivors = [change for change in self.pending if rng.random() < 0.5]
        rng.shuffle(survivors)
        for offset, data in survivors:
            is_torn = data is not None and rng.random() < 0.3
            _apply(left, offset, _torn(data, rng) if data is not None and is_torn else data)
        return bytes(left)


def _torn(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(0, len(data) + 1, SECTOR_BYTES)]


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write `data` at `offset`; None cuts the file off there."""
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


@dataclass
class Disk:
    """All files, and the number of writes and syncs until the power goes (None: it stays)."""

    cut_after: int | None = None
    operations: int = 0
    images: dict[str, Image] = field(default_factory=dict)

    def spend(self) -> None:
        """Count one operation. Raises `PowerCut` where it is one too many."""
        if self.cut_after is not None and self.operations >= self.cut_after:
            raise PowerCut
        self.operations += 1

    def leave(self, folder: Path, rng: random.Random) -> None:
        """Write what is left after the cut into `folder`."""
        folder.mkdir()
        for path, image in self.images.items():
            (folder / Path(path).name).write_bytes(image.after_cut(rng))


class _File(apsw.VFSFile):
    def __init__(self, base: str, name: Any, flags: list[int], image: Image, disk: Disk) -> None:
        super().__init__(base, name, flags)
        self._image = image
        self._disk = disk

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.spend()
        self._image.pending.append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.spend()
        self._image.pending.append((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.spend()
        # A real sync would only cost time: this disk is the model.
        del flags
        self._image.sync()


class _FileSystem(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.name = f"powercut-{next(_names)}"
        self._disk = disk
        super().__init__(self.name, "unix")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        image = self._disk.images.setdefault(path, Image())
        return _File("unix", name, flags, image, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name and order
        self._disk.spend()
        self._disk.images.pop(filename, None)
        super().xDelete(filename, syncdir)


class Row(tuple[Any, ...]):  # noqa: SLOT001 - a tuple of any length has room for no slot
    """A row that knows its columns, as `sqlite3.Row` does."""

    names: tuple[str, ...]

    def keys(self) -> tuple[str, ...]:
        """Return the columns' names."""
        return self.names

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


class _Answer:
    def __init__(self, rows: list[Row], rowcount: int) -> None:
        self._rows = iter(rows)
        self.rowcount = rowcount

    def fetchone(self) -> Row | None:
        return next(self._rows, None)

    def __iter__(self) -> Iterator[Row]:
        return self._rows


class DiskDatabase:
    """A connection to a database on `disk` that does what the bot asks of `sqlite3.Connection`."""

    def __init__(self, path: Path, disk: Disk, pragmas: Sequence[str]) -> None:
        self._vfs = _FileSystem(disk)
        self._connection = apsw.Connection(str(path), vfs=self._vfs.name)
        for pragma in pragmas:
            self.execute(f"PRAGMA {pragma}")

    @property
    def tx(self) -> sqlite3.Connection:
        """This connection, for functions over `sqlite3`."""
        return cast("sqlite3.Connection", self)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    def execute(self, sql: str, values: Any = ()) -> _Answer:
        """Run one statement to its end."""
        before = self._connection.total_changes()
        cursor = self._connection.cursor()
        rows = []
        for values_found in cursor.execute(sql, values):
            row = Row(values_found)
            row.names = tuple(column[0] for column in cursor.get_description())
            rows.append(row)
        changed = self._connection.changes() if self._connection.total_changes() > before else 0
        return _Answer(rows, changed)

    def executemany(self, sql: str, values: Sequence[Any]) -> None:
        """Run one statement for each of `values`."""
        for one in values:
            self.execute(sql, one)

    def close(self) -> None:
        """Drop the connection as a power cut does: without another word to the disk."""
        self._connection.close(True)
