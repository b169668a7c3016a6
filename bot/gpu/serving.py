"""The server as a process: model, engine, keys and sockets, opened in order and closed in order."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from bot.errors import OperatorError
from bot.gpu.engine import Engine, Limits
from bot.gpu.keys import open_keys
from bot.gpu.model import Model
from bot.gpu.server import Server, Settings

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 65
CLOSING_S = 30


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether nobody beyond this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


async def checked_door(keys_path: Path, address: Address) -> None:
    """Raise `OperatorError` if strangers could reach a server that has no keys."""
    if address.is_loopback:
        return
    async with open_keys(keys_path) as keys:
        if not await keys.any_live():
            raise OperatorError(
                "Without a key only this machine may use the server: run `img2img-bot gpu keys add NAME "
                f"--credits N` first, or leave out --host {address.host}."
            )


@asynccontextmanager
async def opened(
    model: Model, *, keys_path: Path, settings: Settings, limits: Limits | None = None
) -> AsyncIterator[Server]:
    """Open the engine and the keys around a model, and close them at the end."""
    async with open_keys(keys_path) as keys:
        engine = Engine(model, limits)
        try:
            yield Server(engine, keys, settings)
        finally:
            await asyncio.to_thread(engine.close)


def configured(server: Server, address: Address) -> uvicorn.Config:
    """Return how uvicorn runs the application: no access log, no sockets but HTTP's."""
    return uvicorn.Config(
        server.app(),
        host=address.host,
        port=address.port,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSING_S,
    )


async def serve(
    model: Model, *, address: Address, keys_path: Path, settings: Settings, limits: Limits | None = None
) -> None:
    """Serve until a signal says to end: what is in the making is then finished, within 30 seconds."""
    async with opened(model, keys_path=keys_path, settings=settings, limits=limits) as server:
        _log.info("%s listens on http://%s:%d", settings.label, address.host, address.port)
        await uvicorn.Server(configured(server, address)).serve()
