from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from bot.errors import JobGone, OperatorError
from bot.pictures.store import PictureStore

PICTURE = b"\xff\xd8 a picture"
DIGEST = hashlib.sha256(PICTURE).hexdigest()
ROOT = str(Path(__file__).resolve().parents[3])
DAY_S = 86_400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder for pictures that is yet to be made."""
    return tmp_path / "data" / "pictures"


@pytest.fixture
def store(root: Path) -> PictureStore:
    """Give an empty store."""
    return PictureStore(root)


def files(root: Path) -> list[str]:
    """Return the names of all files under `root`, sorted."""
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def mode(path: Path) -> int:
    """Return who may do what with `path`."""
    return path.stat().st_mode & 0o777


def aged(root: Path, digest: str, *, by_s: float) -> None:
    """Make a stored picture older."""
    then = time.time() - by_s
    os.utime(root / digest[:2] / digest, (then, then))


async def test_what_was_stored_comes_back(store: PictureStore) -> None:
    """A picture comes back by the digest that storing it gave."""
    digest = await store.put(PICTURE)
    assert digest == DIGEST
    assert await store.get(digest) == PICTURE


async def test_a_later_start_finds_the_pictures(store: PictureStore, root: Path) -> None:
    """Pictures are there after the bot has been started again."""
    await store.put(PICTURE)
    assert await PictureStore(root).get(DIGEST) == PICTURE


async def test_storing_twice_keeps_one(store: PictureStore, root: Path) -> None:
    """The same picture stored again, even many times at once, takes its room only once."""
    assert set(await asyncio.gather(*(store.put(PICTURE) for _ in range(20)))) == {DIGEST}
    assert files(root) == [DIGEST]


async def test_only_the_bot_may_read_its_pictures(store: PictureStore, root: Path) -> None:
    """Files and folders are for the bot's own user, whatever the umask."""
    await store.put(PICTURE)
    assert mode(root / DIGEST[:2] / DIGEST) == 0o600
    assert {mode(folder) for folder in (root.parent, root, root / DIGEST[:2])} == {0o700}


async def test_a_missing_picture_is_gone(store: PictureStore) -> None:
    """Asking for a picture that is no longer stored raises the error for that."""
    with pytest.raises(JobGone):
        await store.get(DIGEST)


@pytest.mark.parametrize("damage", [b"", PICTURE[:-1], PICTURE + b"!", b"\0" * len(PICTURE)])
async def test_a_damaged_picture_is_gone_until_stored_again(
    store: PictureStore, root: Path, damage: bytes
) -> None:
    """A file that is not what its name says is never handed out, and storing the picture again repairs it."""
    await store.put(PICTURE)
    (root / DIGEST[:2] / DIGEST).write_bytes(damage)
    with pytest.raises(JobGone) as gone:
        await store.get(DIGEST)
    assert "damaged" in gone.value.detail
    await store.put(PICTURE)
    assert await store.get(DIGEST) == PICTURE


@pytest.mark.parametrize(
    "digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "/" + "a" * 63, "ab/" + "a" * 61]
)
async def test_no_forged_digest_leaves_the_folder(store: PictureStore, digest: str) -> None:
    """What is no digest reads and removes nothing."""
    with pytest.raises(JobGone):
        await store.get(digest)
    with pytest.raises(JobGone):
        await store.delete(digest)


async def test_deleting_is_for_good(store: PictureStore, root: Path) -> None:
    """A deleted picture is gone, and deleting it again does nothing."""
    await store.put(PICTURE)
    assert await store.delete(DIGEST) is True
    assert files(root) == []
    assert await store.delete(DIGEST) is False


async def test_old_pictures_are_swept(store: PictureStore, root: Path) -> None:
    """Sweeping removes what is old and not to be kept, and nothing else."""
    old, kept, new = [await store.put(name) for name in (b"old", b"kept", b"new")]
    aged(root, old, by_s=2 * DAY_S)
    aged(root, kept, by_s=2 * DAY_S)
    assert await store.sweep(keep={kept}, older_than_s=DAY_S, now=time.time()) == 1
    assert files(root) == sorted([kept, new])


async def test_storing_again_makes_a_picture_young(store: PictureStore, root: Path) -> None:
    """A picture stored again just before a sweep is not taken for old."""
    await store.put(PICTURE)
    aged(root, DIGEST, by_s=2 * DAY_S)
    await store.put(PICTURE)
    assert await store.sweep(keep=(), older_than_s=DAY_S, now=time.time()) == 0


async def test_sweeping_an_empty_store_is_fine(store: PictureStore) -> None:
    """Before the first picture there is nothing to sweep."""
    assert await store.sweep(keep=(), older_than_s=0, now=time.time()) == 0


async def test_leftovers_of_a_crash_are_swept(store: PictureStore, root: Path) -> None:
    """A half written file is removed however young, strangers' files are left alone."""
    await store.put(PICTURE)
    (root / DIGEST[:2] / f"{DIGEST}.0123456789abcdef.tmp").write_bytes(b"half")
    (root / DIGEST[:2] / "notes.txt").write_text("the operator's own")
    assert await store.sweep(keep=(), older_than_s=DAY_S, now=time.time()) == 0
    assert files(root) == sorted([DIGEST, "notes.txt"])


async def test_sweeping_while_storing_loses_nothing(store: PictureStore) -> None:
    """Pictures stored while sweeps run are all there afterwards."""
    pictures = [str(index).encode() for index in range(60)]

    async def sweep() -> int:
        return await store.sweep(keep=(), older_than_s=DAY_S, now=time.time())

    digests = await asyncio.gather(*(store.put(data) for data in pictures))
    again, _ = await asyncio.gather(
        asyncio.gather(*(store.put(data) for data in pictures)), asyncio.gather(*(sweep() for _ in range(20)))
    )
    assert again == digests
    assert [await store.get(digest) for digest in digests] == pictures


async def test_a_store_removed_under_the_bot_is_made_again(store: PictureStore, root: Path) -> None:
    """When somebody empties the data folder the next picture is stored all the same."""
    await store.put(PICTURE)
    shutil.rmtree(root)
    await store.put(PICTURE)
    assert await store.get(DIGEST) == PICTURE


NO_ROOM = """
import asyncio, resource, sys
from pathlib import Path
from bot.errors import OperatorError
from bot.pictures.store import PictureStore

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    asyncio.run(PictureStore(Path(sys.argv[1])).put(bytes(10_000)))
except OperatorError as error:
    print(error)
"""


async def test_no_room_leaves_nothing_behind(root: Path) -> None:
    """When there is no room for a picture a sentence says so, and no part of it stays."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NO_ROOM, str(root)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    out, _ = await process.communicate()
    assert b"disk is full" in out
    assert files(root) == []


async def test_a_disk_that_can_t_be_used_is_reported(tmp_path: Path) -> None:
    """When the pictures' folder is no folder, the operator's sentence comes, not a bare error."""
    (tmp_path / "pictures").write_text("a file where a folder should be")
    store = PictureStore(tmp_path / "pictures")
    with pytest.raises(OperatorError, match="stored pictures") as failure:
        await store.put(PICTURE)
    assert failure.value.detail
