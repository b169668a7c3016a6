from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bot.runtime.durable_files import replace_durably, sync_file, sync_folder, write_private


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what is fsynced, in order: files with what was in them by then, and folders."""
    names: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        names.append(f"{path.name}/" if path.is_dir() else f"{path.name}: {path.read_text()}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return names


def test_a_written_file_is_on_the_disk(tmp_path: Path, synced: list[str]) -> None:
    """All the bytes are handed to the disk before the function returns, and they replace what was there."""
    path = tmp_path / "picture"
    path.write_text("something longer that was there before")
    write_private(path, b"whole")
    assert synced == ["picture: whole"]
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_written_file_is_for_the_bots_user_alone(tmp_path: Path, umask: int) -> None:
    """Nobody else on the machine may read it, whatever the umask."""
    before = os.umask(umask)
    try:
        write_private(tmp_path / "picture", b"whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "picture").stat().st_mode) == 0o600


def test_a_replaced_file_keeps_its_name_in_a_power_cut(tmp_path: Path, synced: list[str]) -> None:
    """The new file takes the old one's place in one step, and the folder is synced after that."""
    (tmp_path / "picture").write_text("old")
    write_private(tmp_path / "picture.new", b"new")
    replace_durably(tmp_path / "picture.new", tmp_path / "picture")
    assert synced == ["picture.new: new", f"{tmp_path.name}/"]
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]
    assert (tmp_path / "picture").read_text() == "new"


def test_files_and_folders_of_others_are_synced(tmp_path: Path, synced: list[str]) -> None:
    """What something else wrote, such as SQLite, is synced unchanged."""
    (tmp_path / "copy.sqlite3").write_text("pages")
    sync_file(tmp_path / "copy.sqlite3")
    sync_folder(tmp_path)
    assert synced == ["copy.sqlite3: pages", f"{tmp_path.name}/"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A write that can't be made durable never looks as if it were."""
    with pytest.raises(FileNotFoundError):
        write_private(tmp_path / "missing" / "picture", b"whole")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
