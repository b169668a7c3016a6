"""The GPU server as the bot's own child process: started, waited for, started again, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Final

import httpx

from bot.clock import Clock
from bot.errors import BackendDown

#: Loading 16 GB of weights from a slow disk takes minutes.
START_S_MAX: Final = 900.0
POLL_S: Final = 0.5
#: A server that dies at once is not started again and again.
RESTART_S_MIN: Final = 60.0
END_S_MAX: Final = 30.0

#: The model that is built in code, to try the wiring.
TINY: Final = "tiny"

#: What the server needs of our environment: never a token or a key of the bot's.
_ENVIRONMENT_PREFIXES: Final = ("CUDA_", "HF_", "LD_", "NVIDIA_", "PYTORCH_", "TORCH_", "XDG_")
_ENVIRONMENT: Final = frozenset({"HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV"})

_log = logging.getLogger(__name__)


class GpuProcess:
    """A GPU server on loopback that lives as long as the bot."""

    def __init__(self, *, model: str, port: int, keys_path: Path, clock: Clock, device: str = "cuda") -> None:
        """Describe the server; nothing is started yet. `model` is a folder, a file, a hub id or `TINY`."""
        chosen = ["--tiny"] if model == TINY else ["--model", model]
        self._command = [
            *(sys.executable, "-m", "bot", "gpu", *chosen, "--device", device),
            *("--host", "127.0.0.1", "--port", str(port), "--keys", str(keys_path), "--with-parent"),
        ]
        self._health_url = f"http://127.0.0.1:{port}/health"
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = float("-inf")
        self._is_up = False
        self._starting = asyncio.Lock()

    async def up(self) -> None:
        """Return once the server answers, started if need be. Raises `BackendDown` if it can't."""
        async with self._starting:
            if self._is_up and self._runs():
                return
            self._is_up = False
            if not self._runs():
                await self._start()
            await self._answering()
            self._is_up = True

    def _runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _start(self) -> None:
        since_s = self._clock.now() - self._started_at
        if since_s < RESTART_S_MIN:
            raise BackendDown(detail=f"The GPU server ended {since_s:.0f} s after its start; see its log.")
        self._started_at = self._clock.now()
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, env=_environment()
        )

    async def _answering(self) -> None:
        """Wait for the server to load its model and answer."""
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(int(START_S_MAX / POLL_S)):
                if not self._runs():
                    raise BackendDown(detail="The GPU server ended while starting; see its log.")
                try:
                    if (await client.get(self._health_url)).is_success:
                        return
                except httpx.TransportError:
                    _log.debug("The GPU server does not answer yet")
                await asyncio.sleep(POLL_S)
        raise BackendDown(detail=f"The GPU server did not answer within {START_S_MAX:.0f} s; see its log.")

    async def aclose(self) -> None:
        """End the server: it finishes what it has begun, within `END_S_MAX`."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_S_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
