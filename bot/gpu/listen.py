"""Where the server listens, who may reach it, and how uvicorn runs it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from bot.errors import OperatorError
from bot.gpu.key_file import open_keys
from bot.gpu.server import Server

#: Longer than the usual 60 s of proxies, so that none reuses a connection while the server closes it.
KEEP_ALIVE_S: Final = 65
#: Time for live pictures to finish after a signal; the bot waits as long for its child.
CLOSING_S: Final = 30


@dataclass(frozen=True, slots=True)
class Address:
    """The host and port that the server listens on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a name that is not an address counts as reachable."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


async def require_keys_unless_loopback(keys_path: Path, address: Address) -> None:
    """Raise `OperatorError` if other machines could reach a server that has no keys."""
    if address.is_loopback:
        return
    async with open_keys(keys_path) as keys:
        if not await keys.has_active_key():
            raise OperatorError(
                "Without a key only this machine may use the server: run `img2img-bot gpu keys add NAME "
                f"--credits N` first, or leave out --host {address.host}."
            )


def uvicorn_config(server: Server, address: Address) -> uvicorn.Config:
    """Return how uvicorn runs the application: HTTP only, no access log, the program's own logging."""
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
    """Serve until a signal asks to end; requests under way then have `CLOSING_S` seconds to finish."""
    await uvicorn.Server(uvicorn_config(server, address)).serve()
