"""Pictures on disk, each under the SHA-256 of its bytes: durable once stored, checked when read.

`<root>/ab/abcdef…` holds the picture whose digest is `abcdef…`. A file appears
whole or not at all: it is written under another name, fsynced, renamed, and its
folder fsynced too. All work is done in threads. One process at a time
owns a store.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from bot.errors import JobGone, OperatorError
from bot.runtime.durable_files import sync_folder, write_private

P = ParamSpec("P")
T = TypeVar("T")

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TEMPORARY: Final = ".tmp"
#: No space, no quota, over the process's or the file system's largest file.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_NO_ROOM: Final = "The bot's disk is full, so the picture couldn't be stored; please tell the bot's operator."
_NO_DISK: Final = "The bot can't access its stored pictures; please tell the bot's operator."


class PictureStore:
    """Pictures under `root`, which is created with the first one."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        # Between a sweep's look at a file's age and the file's removal, no put may renew it.
        self._lock = threading.Lock()
        self._writing: set[Path] = set()
        self._durable: set[Path] = set()

    async def put(self, data: bytes) -> str:
        """Store `data` and return its digest, 64 hexadecimal digits; once returned, it survives a power cut.

        Storing the same again renews the file: its age counts from now, damage is repaired.

        Raises:
            OperatorError: the disk is full, or can't be written; nothing is left behind.
        """
        return await _in_thread(self._put, data)

    async def get(self, digest: str) -> bytes:
        """Return the picture stored as `digest`.

        Raises:
            JobGone: there is none, or its file is damaged.
            OperatorError: the disk can't be read.
        """
        return await _in_thread(self._get, digest)

    async def delete(self, digest: str) -> bool:
        """Remove the picture stored as `digest` for good and return whether there was one.

        Raises:
            JobGone: `digest` is no digest.
            OperatorError: the disk can't be written.
        """
        return await _in_thread(self._delete, digest)

    async def sweep(self, *, keep: Container[str], older_than_s: float, now: float) -> int:
        """Remove all pictures not in `keep` that were stored `older_than_s` seconds before `now` or earlier.

        `now` is in seconds since 1970, by the file system's own clock; `keep` is read in a thread
        and must not change meanwhile. Half-written files that a crash left are removed too.
        Returns how many pictures were removed.

        Raises:
            OperatorError: the disk can't be read or written.
        """
        return await _in_thread(self._sweep, keep, now - older_than_s)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise JobGone(detail=f"not a digest: {digest[:80]!r}")
        return self._root / digest[:2] / digest

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        temporary = path.with_name(f"{digest}.{secrets.token_hex(8)}{_TEMPORARY}")
        self._writing.add(temporary)
        try:
            self._make_folder(path.parent)
            write_private(temporary, data)
            with self._lock:
                temporary.replace(path)
            sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._writing.discard(temporary)
        return digest

    def _get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise JobGone(detail=f"no picture {digest}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise JobGone(detail=f"picture {digest} is damaged on disk")
        return data

    def _delete(self, digest: str) -> bool:
        path = self._path(digest)
        try:
            path.unlink()
            sync_folder(path.parent)
        except FileNotFoundError:
            return False
        return True

    def _sweep(self, keep: Container[str], stored_until: float) -> int:
        removed = 0
        for path in self._files():
            if path.name.endswith(_TEMPORARY):
                self._remove_leftover(path)
            elif _DIGEST.fullmatch(path.name) and path.name not in keep:
                removed += self._remove_old(path, stored_until)
        return removed

    def _files(self) -> Iterator[Path]:
        if self._root.is_dir():
            for folder in self._root.iterdir():
                if folder.is_dir():
                    yield from folder.iterdir()

    def _remove_leftover(self, path: Path) -> None:
        if path not in self._writing:
            path.unlink(missing_ok=True)

    def _remove_old(self, path: Path, stored_until: float) -> bool:
        with self._lock, suppress(FileNotFoundError):
            if path.stat().st_mtime <= stored_until:
                path.unlink()
                return True
        return False

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and those above it, and have their entries survive a power cut.

        The store's own folders are synced once a process even if they exist: the process
        that made them may have died before it synced them.
        """
        if folder in self._durable and folder.is_dir():
            return
        ours = folder.is_relative_to(self._root)
        if not ours and folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
        if ours:
            self._durable.add(folder)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread; what the disk refuses is an `OperatorError`."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise OperatorError(_NO_ROOM if error.errno in _FULL else _NO_DISK, detail=str(error)) from error
