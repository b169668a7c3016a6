"""For the bot's owner: alerts in a direct message, and `/operator` with the bot's health."""

from __future__ import annotations

import logging
from typing import Any, Final

import discord
from discord import app_commands
from discord.ext import commands

from bot.app import Health
from bot.errors import NotAllowed
from bot.events import Event, OperatorAlert
from bot.gateway.client import Img2ImgBot
from bot.gateway.escaping import plain
from bot.gateway.interactions import NO_MENTIONS, TROUBLE, reply
from bot.runtime.background import BackgroundTasks

#: One alert, not a hundred: the same sentence once an hour, and at most so many different ones.
REPEAT_S_MIN: Final = 3_600.0
ALERTS_PER_HOUR_MAX: Final = 10
ALERT_CHARS_MAX: Final = 900  # escaped, it may be twice as long, and Discord takes 2,000

log = logging.getLogger(__name__)


class Owner(commands.Cog):
    """Alerts the owner to what only they can fix."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._app = bot.app
        self._recent_alerts: dict[str, float] = {}
        self._tasks = BackgroundTasks()
        self._unsubscribe = bot.app.events.subscribe(self._on_event)

    async def cog_unload(self) -> None:
        """Stop listening."""
        self._unsubscribe()
        await self._tasks.cancel()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, OperatorAlert) and self._is_new(event.sentence):
            self._tasks.spawn(self._alert(event.sentence), name="alert to the owner")

    def _is_new(self, sentence: str) -> bool:
        """Return whether the owner has not been sent this within the hour."""
        now = self._app.clock.now()
        self._recent_alerts = {s: at for s, at in self._recent_alerts.items() if now - at < REPEAT_S_MIN}
        is_new = sentence not in self._recent_alerts and len(self._recent_alerts) < ALERTS_PER_HOUR_MAX
        if is_new:
            self._recent_alerts[sentence] = now
        return is_new

    async def _alert(self, sentence: str) -> None:
        try:
            info = await self._bot.application_info()
            # What services answer is part of some alerts.
            await info.owner.send(f"⚠️ {plain(sentence, ALERT_CHARS_MAX)}", allowed_mentions=NO_MENTIONS)
        except TROUBLE as error:
            log.warning("Could not send the owner a direct message: %s", error)

    @app_commands.command(name="operator", description="Queue, spending and balances, for the bot's owner.")
    @app_commands.default_permissions()
    async def operator(self, interaction: discord.Interaction[Any]) -> None:
        """Show what only the owner needs to know."""
        if not await self._bot.is_owner(interaction.user):
            raise NotAllowed("Only the bot's owner can use this command.")
        daily_max = self._app.settings.provider_daily_max
        text = health_text(await self._app.health(), servers=len(self._bot.guilds), daily_max=daily_max)
        await reply(interaction, text)


def health_text(health: Health, *, servers: int, daily_max: int | None) -> str:
    """Return the bot's health; `daily_max` caps the credits of all servers together."""
    cap = "" if daily_max is None else f" of at most {daily_max:,}"
    lines = [
        f"Waiting jobs: **{health.waiting:,}**",
        f"Servers: **{servers:,}**",
        f"Credits spent today in all servers: **{health.spent_today:,}**{cap}",
        *(f"Credits left at {b.backend}: **{b.remaining:g}** (<t:{int(b.at)}:R>)" for b in health.balances),
        *([f"⚠️ {health.pause_reason.value}"] if health.pause_reason else []),
    ]
    return "\n".join(lines)


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Owner(bot))
