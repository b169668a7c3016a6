"""Who acts and where, read off an interaction for the services below."""

from __future__ import annotations

from typing import Any

import discord

from bot.actors import Actor, ChannelContext, Permission, Person
from bot.errors import NotAllowed
from bot.gateway.sentences import NOT_IN_A_SERVER
from bot.jobs.service import RequestContext

#: A member, or somebody who has left the server: their credits can still be looked at and changed.
AnyUser = discord.User | discord.Member


def guild_id_of(interaction: discord.Interaction[Any]) -> int:
    """Return the server's id. Raises `NotAllowed` outside a server."""
    if interaction.guild_id is None:
        raise NotAllowed(NOT_IN_A_SERVER)
    return interaction.guild_id


def person_of(interaction: discord.Interaction[Any]) -> Person:
    """Return who acts, with what they may do here. Raises `NotAllowed` outside a server."""
    permissions = frozenset(p for p in Permission if getattr(interaction.permissions, p))
    return Person(guild_id_of(interaction), interaction.user.id, roles_of(interaction.user), permissions)


def member_of(interaction: discord.Interaction[Any], user: AnyUser) -> Person:
    """Return somebody else in this server, whose permissions count for nothing."""
    return Person(guild_id_of(interaction), user.id, roles_of(user))


def actor_of(interaction: discord.Interaction[Any], reason: str | None = None) -> Actor:
    """Return who acts in this interaction and why. Raises `NotAllowed` outside a server."""
    return Actor(interaction.id, person_of(interaction), reason or "")


def roles_of(user: discord.abc.User) -> frozenset[int]:
    """Return the ids of the roles that a member has; somebody who has left has none."""
    return frozenset(role.id for role in user.roles) if isinstance(user, discord.Member) else frozenset()


def channel_context_of(interaction: discord.Interaction[Any]) -> ChannelContext:
    """Return where someone acts; of a thread, its parent counts as well."""
    channel = interaction.channel
    ids = [interaction.channel_id, getattr(channel, "parent_id", None)]
    is_nsfw = getattr(channel, "is_nsfw", None)
    return ChannelContext(tuple(id_ for id_ in ids if id_ is not None), bool(is_nsfw and is_nsfw()))


def request_of(interaction: discord.Interaction[Any], *, private: bool | None = False) -> RequestContext:
    """Return where a request for pictures came from. Raises `NotAllowed` outside a server."""
    return RequestContext(
        id=interaction.id,
        person=person_of(interaction),
        channel_id=interaction.channel_id or 0,
        token=interaction.token,
        token_expires_at=interaction.expires_at.timestamp(),
        private=private,
        where=channel_context_of(interaction),
    )
