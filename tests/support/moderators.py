"""What moderators type on the simulated Discord, and what they read."""

from __future__ import annotations

from typing import Any

import discord
import simcord

from tests.support.simulated_server import World, said


async def quota(world: World, command: str, who: simcord.MemberActor | None = None, **options: Any) -> str:
    """Type `/quota command`; return the answer, which is private."""
    answer = await (who or world.moderator).slash(world.channel, f"quota {command}", **options)
    assert answer.ephemeral
    return str(said(answer).content)


async def confirmed(
    world: World, command: str, who: simcord.MemberActor | None = None, **options: Any
) -> tuple[str, str]:
    """Type `/quota command` and confirm; return what was announced and what was done."""
    who = who or world.moderator
    answer = await who.slash(world.channel, f"quota {command}", **options)
    announced = str(said(answer).content)
    await who.click(said(answer), label="Confirm")
    return announced, str(said(answer).content)


async def calm(world: World, command: str, **options: Any) -> str:
    """Type `/calm command`; return the answer, which is private."""
    answer = await world.moderator.slash(world.channel, f"calm {command}", **options)
    assert answer.ephemeral
    return str(said(answer).content)


async def open_log(world: World) -> Any:
    """Create a log channel and return it."""
    log = world.guild.create_text_channel("log")
    assert f"Log channel: none → **{log.mention}**" in await calm(world, "options", log=log)
    await world.env.advance_time(3)
    return log


def content_of(channel: Any) -> str:
    """Return the text of all messages in a channel."""
    return "\n".join(message.content for message in channel.history())


async def report(world: World, card: discord.Message, why: str = "it is me") -> str:
    """Let bob report a picture; return the answer, which is private."""
    shown = await world.bob.click(card, label="Report")
    assert shown.modal is not None
    (field,) = [c["component"]["custom_id"] for c in shown.modal["components"]]
    answer: simcord.InteractionResult = await world.bob.submit_modal(shown, {field: why})
    assert answer.ephemeral
    assert answer.response is not None
    return said(answer).content
