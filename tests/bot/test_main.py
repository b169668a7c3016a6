"""The command line as an operator types it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from db.database import connect
from db.opening import open_database
from tests.support.ledgers import a_job
from tests.support.live_bot import eventually
from tests.support.provider import API_KEY, running_provider, silence

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60
#: What a shell reports for a command that Ctrl-C ended.
INTERRUPTED = 128 + signal.SIGINT


def _environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}


def _bot(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot", *words],
        cwd=folder,
        env=_environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    """An operator who asks for help sees every command."""
    helped = _bot(tmp_path, "--help")
    assert helped.returncode == 0
    assert all(command in helped.stdout for command in ("run", "demo", "check", "backup", "restore", "gpu"))


def test_run_without_token_is_one_sentence(tmp_path: Path) -> None:
    """Starting without a token says which variable to set, with exit code 2 and no traceback."""
    refused = _bot(tmp_path, "run")
    assert refused.returncode == 2
    assert refused.stderr.startswith("IMG2IMG_DISCORD_TOKEN is empty")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("variables", "code"), [({}, 1), ({"IMG2IMG_DISCORD_TOKEN": "x" * 60}, 0)])
def test_check_answers_with_its_exit_code(tmp_path: Path, variables: dict[str, str], code: int) -> None:
    """A script can see from the exit code whether everything is in place."""
    checked = _bot(tmp_path, "check", **variables)
    assert checked.returncode == code, checked.stdout + checked.stderr
    assert ("WRONG" in checked.stdout) == bool(code)


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    """A typo in a setting is named in a sentence, not shown as a traceback."""
    refused = _bot(tmp_path, "check", IMG2IMG_RETENTION_DAYS="soon")
    assert refused.returncode == 2
    assert "IMG2IMG_RETENTION_DAYS" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("command", [("check",), ("run",), ("backup", "copy"), ("restore", "copy")])
def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A data folder that can't exist is reported in a sentence by every command, without a traceback."""
    (tmp_path / "file").touch()
    (tmp_path / "copy").mkdir()
    refused = _bot(
        tmp_path,
        *command,
        IMG2IMG_DISCORD_TOKEN="x" * 60,
        IMG2IMG_DATA_DIR=str(tmp_path / "file" / "data"),
    )
    assert refused.returncode == (1 if command == ("check",) else 2)
    assert "Traceback" not in refused.stderr
    lines = [line for line in (refused.stdout + refused.stderr).splitlines() if not line.startswith("ok")]
    assert len(lines) == 1


async def _interrupted(child: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Press Ctrl-C; return the exit code and everything that was printed."""
    child.send_signal(signal.SIGINT)
    output, _ = await asyncio.wait_for(child.communicate(), TIMEOUT_S)
    return child.returncode, output.decode()


async def _start(folder: Path, *words: str, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", *words),
        cwd=folder,
        env=_environment(**variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_an_interrupted_check_ends_quietly(tmp_path: Path) -> None:
    """Ctrl-C while a backend doesn't answer ends the check with exit code 130 and no traceback."""
    async with running_provider() as provider:
        provider.will(silence)
        child = await _start(
            tmp_path,
            "check",
            IMG2IMG_SEGMIND_API_KEY=API_KEY,
            IMG2IMG_SEGMIND_BASE_URL=provider.url,
            NO_PROXY="127.0.0.1",
        )
        await eventually(lambda: bool(provider.received), timeout_s=TIMEOUT_S)
        assert await _interrupted(child) == (INTERRUPTED, "")


async def _with_a_slow_picture(folder: Path) -> Path:
    """Store a job whose picture never finishes reading; return the picture's path."""
    async with open_database(folder):
        pass
    with closing(connect(folder / "bot.sqlite3")) as connection:
        digest = a_job(connection).input_hash
    assert digest is not None
    picture = folder / "pictures" / digest[:2] / digest
    picture.parent.mkdir(parents=True)
    os.mkfifo(picture)
    return picture


async def _wait_for_reader(fifo: Path) -> int:
    """Wait until a process reads a FIFO; return its open writing end, which keeps the reader waiting."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                assert error.errno == errno.ENXIO  # noqa: PT017 - the one error that means: no reader yet
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_an_interrupted_copy_ends_quietly(tmp_path: Path, command: str) -> None:
    """Ctrl-C ends a backup or a restore with exit code 130, and no database is left in the target."""
    source, target = tmp_path / "source", tmp_path / "target"
    picture = await _with_a_slow_picture(source)
    argument, data = (target, source) if command == "backup" else (source, target)
    child = await _start(tmp_path, command, str(argument), IMG2IMG_DATA_DIR=str(data))
    writing_end = await _wait_for_reader(picture)
    assert await _interrupted(child) == (INTERRUPTED, "")
    os.close(writing_end)
    assert not (target / "bot.sqlite3").exists()


async def test_an_interrupted_gpu_server_ends_quietly(tmp_path: Path) -> None:
    """Ctrl-C stops the GPU server without a traceback."""
    pytest.importorskip("torch", reason="the GPU server's extra is not installed")
    child = await _start(tmp_path, "gpu", "--tiny", "--device", "cpu", "--port", "0", "--keys", "keys.sqlite")
    assert child.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        while b"running on" not in await child.stdout.readline():
            assert not child.stdout.at_eof()
    status, output = await _interrupted(child)
    assert status == INTERRUPTED
    assert "Traceback" not in output
