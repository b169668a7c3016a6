"""A real server on a real socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import uvicorn

from bot.gpu.continuous_batch import EngineLimits
from bot.gpu.engine import Engine
from bot.gpu.key_file import open_keys
from bot.gpu.listen import Address, uvicorn_config
from bot.gpu.model import Model
from bot.gpu.server import GpuServerSettings, Server

START_TIMEOUT_S = 30


class LiveServer:
    """A running server at `url`."""

    def __init__(
        self,
        model: Model,
        keys_path: Path,
        *,
        settings: GpuServerSettings | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._keys_path = keys_path
        self._settings = settings or GpuServerSettings(label="tiny", open_without_keys=True)
        self._limits = limits
        self._ready = threading.Event()
        self._uvicorn: uvicorn.Server
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(model)))
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S)
        while not self._uvicorn.started and self._thread.is_alive():
            time.sleep(0.01)

    async def _run(self, model: Model) -> None:
        server = Server(Engine(model, self._limits), self._keys_path, self._settings)
        self._uvicorn = uvicorn.Server(uvicorn_config(server, Address("127.0.0.1", 0)))
        self._ready.set()
        await self._uvicorn.serve(sockets=[self._socket])

    def new_key(self, *, credits_given: float = 1000, name: str = "bot") -> str:
        """Add a key as the command line does: from outside the server."""

        async def add() -> str:
            async with open_keys(self._keys_path) as keys:
                return await keys.add(name, credits_given=credits_given)

        return asyncio.run(add())

    def close(self) -> None:
        """End the server and wait for it."""
        self._uvicorn.should_exit = True
        self._thread.join()
        self._socket.close()
