"""Answers to moderation actions: what changed, or what would change and whether to do it."""

from __future__ import annotations

from typing import Any, Final

import discord
from discord import app_commands

from bot.gateway.buttons import ProposalButton
from bot.gateway.interactions import reply
from bot.moderation.actions import ModerationAction
from bot.moderation.service import ModerationService, Outcome
from cogs.actors import actor_of
from cogs.changes import changes_text
from db.operations import Operation

NOTHING_CHANGED: Final = "Nothing changed: that's already the current setting."
#: Where what was asked for is no setting.
NOTHING_MOVED: Final = {
    "take": "Nothing changed: there is nothing to take.",
    "reset": "Nothing changed: nothing of today's allowance was used.",
}

Reason = app_commands.Range[str, 1, 200]  # fits beside everything else on a line of the audit log


async def perform(
    service: ModerationService,
    interaction: discord.Interaction[Any],
    action: ModerationAction,
    reason: str | None,
) -> None:
    """Do the action, or ask for confirmation; answer what it changes."""
    outcome = await service.perform(actor_of(interaction, reason), action)
    if not outcome.needs_confirmation:
        await reply(interaction, outcome_text(outcome, action.kind))
        return
    buttons = [
        ProposalButton.make(
            Operation.CONFIRM, interaction.id, label="Confirm", style=discord.ButtonStyle.danger
        ),
        ProposalButton.make(Operation.WITHDRAW, interaction.id, label="Cancel"),
    ]
    await reply(interaction, f"Apply these changes?\n{changes_text(outcome.changes)}", buttons=buttons)


def outcome_text(outcome: Outcome, kind: str = "") -> str:
    """Return each thing that an action of this kind changed, before and after."""
    return changes_text(outcome.changes) or NOTHING_MOVED.get(kind, NOTHING_CHANGED)
