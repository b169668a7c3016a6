"""The GPU server as the bot's own child process: started, waited for, restarted, ended."""

from __future__ import annotations

import asyncio
import logging
import socket
from itertools import repeat
from pathlib import Path
from typing import Final

import httpx

from bot.clock import Clock
from bot.errors import BackendDown
from bot.runtime.child_process import ChildProcess
from bot.runtime.retry import retry

#: Loading 16 GB of weights from a slow disk takes minutes.
START_S_MAX: Final = 900.0
POLL_S: Final = 0.5  # short beside the seconds that loading takes
#: A server that dies at once is not restarted again and again.
RESTART_S_MIN: Final = 60.0
#: What a server gets to finish the jobs it has begun.
END_S_MAX: Final = 30.0

#: The model that is built in code, to try the wiring.
TINY: Final = "tiny"

#: What the server needs of the bot's environment: drivers, caches, the hub (`HF_TOKEN` for gated weights).
_ALLOWED_ENVIRONMENT: Final = (
    *("HOME", "LANG", "TMPDIR", "VIRTUAL_ENV"),
    *("CUDA_*", "HF_*", "LD_*", "NVIDIA_*", "PYTORCH_*", "TORCH_*", "XDG_*"),
)

_log = logging.getLogger(__name__)


class GpuProcess:
    """A GPU server on loopback that lives as long as the bot."""

    def __init__(self, *, model: str, port: int, keys_path: Path, clock: Clock, device: str = "cuda") -> None:
        """Describe the server; nothing is started yet. `model` is a folder, a file, a hub id or `TINY`."""
        chosen = ["--tiny"] if model == TINY else ["--model", model]
        self._arguments = [
            *("gpu", *chosen, "--device", device),
            *("--host", "127.0.0.1", "--port", str(port), "--keys", str(keys_path), "--with-parent"),
        ]
        self._health_url = f"http://127.0.0.1:{port}/health"
        self._clock = clock
        self._process: ChildProcess | None = None
        self._started_at = float("-inf")
        self._is_up = False
        self._starting = asyncio.Lock()

    async def up(self) -> None:
        """Return once the server answers, started if need be. Raises `BackendDown` if it can't."""
        async with self._starting:
            if self._is_up and self._is_running():
                return
            self._is_up = False
            if not self._is_running():
                await self._start()
            await self._wait_until_healthy()
            self._is_up = True

    def _is_running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    async def _start(self) -> None:
        since_s = self._clock.now() - self._started_at
        if since_s < RESTART_S_MIN:
            raise BackendDown(detail=f"The GPU server ended {since_s:.0f} s after its start; see its log.")
        self._started_at = self._clock.now()
        await self.aclose()  # the one that died still has its pipe here
        # stdout, stderr and folder are the bot's: operators read the server's log, and paths may be relative
        self._process = await ChildProcess.start(
            "bot", *self._arguments, allow=_ALLOWED_ENVIRONMENT, stdout=None, stderr=None, cwd=None
        )

    async def _wait_until_healthy(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:

            async def is_healthy() -> bool:
                if not self._is_running():
                    raise BackendDown(detail="The GPU server ended while starting; see its log.")
                try:
                    return (await client.get(self._health_url)).is_success
                except httpx.TransportError:
                    _log.debug("The GPU server does not answer yet")
                    return False

            if not await retry(self._clock, repeat(POLL_S, int(START_S_MAX / POLL_S)), is_healthy):
                raise BackendDown(
                    detail=f"The GPU server did not answer within {START_S_MAX:.0f} s; see its log."
                )

    async def aclose(self) -> None:
        """End the server: it finishes what it has begun, within `END_S_MAX`."""
        process, self._process = self._process, None
        if process is not None:
            await process.end(END_S_MAX)


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
