"""Keeps the bot on Discord: connects, reconnects when the connection breaks, and shuts down in good order.

The library ends a client on an event that it can't parse, and gives up when
Discord can't be reached at the start. Neither may end the work: the app lives on
and gets a new client.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Final

from bot.app import App, open_app
from bot.errors import OperatorError, UnusablePicture
from bot.gateway.client import Img2ImgBot
from bot.jobs.service import PauseReason
from bot.settings import Settings

log = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Waits before reconnecting, doubled each time in a row: Discord allows 1,000 new sessions a day.
BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 60.0
#: A connection that lasted this long was a working one: the next wait is the shortest again.
STABLE_S: Final = 60.0
#: Part of the shutdown's grace that is kept for delivering what running jobs finished in it.
DELIVERY_RESERVE_S: Final = 5.0


async def supervise(settings: Settings, token: str, *, make_client: Callable[[], Img2ImgBot]) -> None:
    """Run the whole bot until it is signalled to stop. Raises `OperatorError` with a sentence."""
    supervisor = Supervisor(make_client)
    async with open_app(settings, fetch=supervisor.fetch) as app:
        await supervisor.run(app, token)


class Supervisor:
    """Runs one bot on Discord. `make_client` is called for each connection."""

    def __init__(self, make_client: Callable[[], Img2ImgBot]) -> None:
        self._make_client = make_client
        self._client: Img2ImgBot | None = None
        self._stopped = asyncio.Event()
        self._force_stop = asyncio.Event()

    async def fetch(self, url: str) -> bytes:
        """Return an attachment's bytes over the current connection. Raises `UnusablePicture` without one."""
        if self._client is None:
            raise UnusablePicture("That picture couldn't be downloaded; please attach it again.")
        return await self._client.fetch(url)

    def stop(self) -> None:
        """Shut down in good order; called a second time, stop at once."""
        (self._force_stop if self._stopped.is_set() else self._stopped).set()

    async def run(self, app: App, token: str) -> None:
        """Stay on Discord until SIGTERM or SIGINT. Raises `OperatorError` for a token Discord refuses."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            await self._run(app, token)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def _run(self, app: App, token: str) -> None:
        connecting = asyncio.create_task(self._keep_connected(app, token))
        stopping = asyncio.create_task(self._stopped.wait())
        await asyncio.wait([connecting, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if connecting.done():
            connecting.result()
            return
        await self._shut_down(app)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)

    async def _keep_connected(self, app: App, token: str) -> None:
        pause_s = BACKOFF_S_MIN
        while True:
            began = app.clock.now()
            await self._connect(app, token)
            lasted_s = app.clock.now() - began
            pause_s = BACKOFF_S_MIN if lasted_s > STABLE_S else min(pause_s * 2, BACKOFF_S_MAX)
            log.info("Reconnecting in %.0f s", pause_s)
            await app.clock.sleep(pause_s)

    async def _connect(self, app: App, token: str) -> None:
        """Stay connected for as long as one client lasts."""
        client = self._client = self._make_client()
        client.app = app
        try:
            await client.run_until_disconnected(token)
        except OperatorError:
            raise
        except Exception:
            log.exception("The connection to Discord broke")
        finally:
            await _close_uninterrupted(client)

    async def _shut_down(self, app: App) -> None:
        log.info("Stopping: running jobs may finish; a second signal stops at once")
        app.jobs.pause(PauseReason.RESTARTING)
        finishing = asyncio.create_task(self._finish(app))
        forced = asyncio.create_task(self._force_stop.wait())
        await asyncio.wait([finishing, forced], return_when=asyncio.FIRST_COMPLETED)
        for task in (finishing, forced):
            task.cancel()
        await asyncio.gather(finishing, forced, return_exceptions=True)
        await app.dispatcher.drain(0)

    async def _finish(self, app: App) -> None:
        grace_s = app.settings.shutdown_grace_s
        # A grace shorter than the reserve is shared between finishing and delivering.
        reserve_s = min(DELIVERY_RESERVE_S, grace_s / 2)
        await app.dispatcher.drain(grace_s - reserve_s)
        if self._client is not None:
            await self._client.run_shutdown_hooks(reserve_s)


async def _close_uninterrupted(client: Img2ImgBot) -> None:
    """Close the client to the end: interrupted half-way it would leave its sockets open."""
    closing = asyncio.ensure_future(client.close())
    interrupted = False
    while not closing.done():
        try:
            await asyncio.wait([closing])
        except asyncio.CancelledError:
            interrupted = True
    if interrupted:
        raise asyncio.CancelledError
