"""Child processes of the bot: no secrets in, bounded messages out, nothing left running or unreaped."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Self, cast

from bot.runtime.frames import HEADER, BrokenFrame, parse_header

#: What `ChildProcess.send` and `receive` raise when the child died or sent nonsense.
CHILD_LOST: Final = (EOFError, ConnectionError, BrokenFrame)

#: What every child may know of the bot's environment: where Python is. Tokens and keys stay here.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH")
_CHUNK_BYTES: Final = 64 << 10  # what a Linux pipe holds
_EXIT_S_MAX: Final = 2.0  # a child that waits for a request exits within milliseconds of its stdin's end
_STDERR_BYTES_MAX: Final = 2000  # the end of a traceback, which is what a log line needs


def scrubbed_environment(allow: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment for a child: `_ENVIRONMENT`, the bot's import path and what `allow` matches.

    `allow` holds names or shell patterns such as `CUDA_*`.
    """
    patterns = (*_ENVIRONMENT, *allow)
    kept = {
        name: value
        for name, value in os.environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    folders = [str(Path(__file__).resolve().parents[2]), *(str(Path(entry).resolve()) for entry in sys.path)]
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


class ChildProcess:
    """A Python process and its pipes, for one event loop. Whoever starts one must `end` it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)  # `start` always asks for this pipe
        self._stderr_end = b""
        # Read all along: a child that fills its pipe would stand still.
        self._stderr_reading = asyncio.create_task(self._read_stderr()) if process.stderr else None

    @classmethod
    async def start(
        cls,
        module: str,
        *arguments: str,
        allow: Sequence[str] = (),
        stdout: int | None = PIPE,
        stderr: int | None = DEVNULL,
        cwd: str | None = "/",
    ) -> Self:
        """Run `python -m module`; None for `stdout`, `stderr` or `cwd` means the bot's own.

        `allow` is for `scrubbed_environment`. Raises `OSError` where the system has no room.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *arguments),
            stdin=PIPE,
            stdout=stdout,
            stderr=stderr,
            env=scrubbed_environment(allow),
            cwd=cwd,
            start_new_session=True,  # Ctrl-C is meant for the bot, which lets its children finish
        )
        return cls(process)

    def is_alive(self) -> bool:
        """Return whether the process runs and has not closed its stdout."""
        stdout = self._process.stdout
        return self._process.returncode is None and not (stdout and stdout.at_eof())

    async def send(self, kind: bytes, payload: bytes) -> None:
        """Send one frame. Raises one of `CHILD_LOST`."""
        self._stdin.write(HEADER.pack(kind, len(payload)))
        for start in range(0, len(payload), _CHUNK_BYTES):
            self._stdin.write(payload[start : start + _CHUNK_BYTES])
            await self._stdin.drain()
            # drain does not wait for a child that keeps up, and the event loop has others to serve
            await asyncio.sleep(0)

    async def receive(self, bytes_max: Mapping[bytes, int]) -> tuple[bytes, bytes]:
        """Return the next frame's kind and payload; `bytes_max` is as for `parse_header`.

        Raises one of `CHILD_LOST`.
        """
        stdout = cast("asyncio.StreamReader", self._process.stdout)
        kind, length = parse_header(await stdout.readexactly(HEADER.size), bytes_max)
        return kind, await stdout.readexactly(length)

    async def wait(self) -> None:
        """Wait until the process has exited."""
        await self._process.wait()

    def kill(self) -> None:
        """Kill the process. One that has exited already keeps its own exit status."""
        if self.is_alive():
            self._kill()

    async def end(self, exit_s_max: float = _EXIT_S_MAX) -> str:
        """Close stdin, kill the process if it takes over `exit_s_max` seconds to exit, and reap it.

        Returns its exit status and the end of its stderr, for the log. May be called again.
        """
        self._stdin.close()
        try:
            async with asyncio.timeout(exit_s_max):
                await self._reap()
        except TimeoutError:
            self._kill()
            await self._reap()
        return f"exit status {self._process.returncode} {self._stderr_end.decode(errors='replace')}".strip()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _reap(self) -> None:
        """Read the pipes to their ends, which closes them, and wait for the process."""
        while self._process.stdout and await self._process.stdout.read(_CHUNK_BYTES):
            pass
        if self._stderr_reading:
            await asyncio.wait([self._stderr_reading])
        await self._process.wait()
        with suppress(ConnectionError):
            await self._stdin.wait_closed()

    async def _read_stderr(self) -> None:
        stderr = cast("asyncio.StreamReader", self._process.stderr)
        while chunk := await stderr.read(_CHUNK_BYTES):
            self._stderr_end = (self._stderr_end + chunk)[-_STDERR_BYTES_MAX:]
