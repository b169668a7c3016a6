"""Modals whose errors are answered."""

from __future__ import annotations

from typing import Any

import discord
from discord import ui

from bot.gateway.interactions import explain


class GuardedModal(ui.Modal):
    """A modal that explains what went wrong to whoever submitted it. Subclasses do their work in `submit`."""

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Run `submit`."""
        try:
            await self.submit(interaction)
        except Exception as error:  # noqa: BLE001 - the library would answer nothing
            await explain(interaction, error)

    async def submit(self, interaction: discord.Interaction[Any]) -> None:
        """Do what the modal is for."""
        raise NotImplementedError
