"""For the bot's owner: alerts in a direct message, the books proved and old pictures removed on time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from discord.ext import commands, tasks

from bot.client import Img2ImgBot
from bot.events import Event, OperatorAlert
from bot.interactions import NO_MENTIONS, TROUBLE

log = logging.getLogger(__name__)


class Operator(commands.Cog):
    """Tells the owner what only he can mend."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unsubscribe = bot.app.events.subscribe(self._heard)

    async def cog_load(self) -> None:
        """Begin the hourly round."""
        self._hourly.start()

    async def cog_unload(self) -> None:
        """Listen no more."""
        self._unsubscribe()
        self._hourly.cancel()

    def _heard(self, event: Event) -> None:
        if isinstance(event, OperatorAlert):
            task = asyncio.create_task(self._alert(event.sentence))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _alert(self, sentence: str) -> None:
        try:
            info = await self._bot.application_info()
            await info.owner.send(f"⚠️ {sentence}", allowed_mentions=NO_MENTIONS)
        except TROUBLE as error:
            log.warning("The owner could not be reached: %s", error)

    @tasks.loop(hours=1)
    async def _hourly(self) -> None:
        try:
            await self._bot.app.reconcile()
            removed = await self._bot.app.sweep()
            log.info("The books add up; %d old pictures removed", removed)
        except Exception:
            log.exception("The hourly round failed")


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Operator(bot))
