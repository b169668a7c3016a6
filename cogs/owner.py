"""For the bot's owner: alerts in a direct message, the books proved and old pictures removed on time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import discord
from discord import app_commands
from discord.ext import commands, tasks

from bot.clock import utc_day
from bot.errors import NotAllowed
from bot.events import Event, OperatorAlert
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import NO_MENTIONS, TROUBLE, reply
from db import guilds as rules
from db import providers

#: One alert, not a hundred: the same is said once an hour, and never more than so many things.
REPEAT_S_MIN: Final = 3_600.0
ALERTS_AN_HOUR_MAX: Final = 10

log = logging.getLogger(__name__)


class Operator(commands.Cog):
    """Tells the owner what only he can mend."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._told: dict[str, float] = {}
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
        if isinstance(event, OperatorAlert) and self._is_news(event.sentence):
            task = asyncio.create_task(self._alert(event.sentence))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _is_news(self, sentence: str) -> bool:
        """Tell whether the owner has not heard the same within the hour."""
        now = self._bot.app.clock.now()
        self._told = {said: at for said, at in self._told.items() if now - at < REPEAT_S_MIN}
        is_news = sentence not in self._told and len(self._told) < ALERTS_AN_HOUR_MAX
        if is_news:
            self._told[sentence] = now
        return is_news

    async def _alert(self, sentence: str) -> None:
        try:
            info = await self._bot.application_info()
            await info.owner.send(f"⚠️ {sentence}", allowed_mentions=NO_MENTIONS)
        except TROUBLE as error:
            log.warning("The owner could not be reached: %s", error)

    @app_commands.command(name="operator", description="Health and balances, for the bot's owner.")
    @app_commands.default_permissions()
    async def operator(self, interaction: discord.Interaction[Any]) -> None:
        """Show what only the owner needs to know."""
        if not await self._bot.is_owner(interaction.user):
            raise NotAllowed("Only the bot's owner can do that.")
        await reply(interaction, await self._health())

    async def _health(self) -> str:
        app = self._bot.app
        day = utc_day(app.clock.now())
        balances = await app.db.read(providers.balances)
        spent = await app.db.read(lambda tx: rules.spent(tx, day=day))
        cap = app.settings.provider_daily_max
        lines = [
            f"Waiting: **{len(app.dispatcher.order()):,}** · servers: {len(self._bot.guilds):,}",
            f"Spent today by all servers: **{spent:,}**{'' if cap is None else f' of {cap:,}'} credits",
            *(f"{b.backend}: **{b.remaining:g}** credits left, told <t:{int(b.at)}:R>" for b in balances),
            *([f"⚠️ {app.jobs.paused}"] if app.jobs.paused else []),
        ]
        return "\n".join(lines)

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
