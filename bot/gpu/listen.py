"""The server as a process: who may reach it, and how uvicorn runs it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from bot.errors import OperatorError
from bot.gpu.api_keys import open_keys
from bot.gpu.server import Server

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


async def serve(server: Server, address: Address) -> None:
    """Serve until a signal says to end: what is in the making is then finished, within 30 seconds."""
    await uvicorn.Server(configured(server, address)).serve()
