"""Who acts and where, as Discord described it at that moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bot.errors import NotAllowed


class Permission(StrEnum):
    """What moderators need; the values are Discord's names for the permissions."""

    MANAGE_SERVER = "manage_guild"
    MANAGE_MESSAGES = "manage_messages"


@dataclass(frozen=True, slots=True)
class Person:
    """A member of a server, with the roles and permissions that they have there now."""

    guild_id: int
    user_id: int
    roles: frozenset[int] = frozenset()
    permissions: frozenset[Permission] = frozenset()

    def require(self, permission: Permission | None) -> None:
        """Raise `NotAllowed` without this permission.

        Services check it for every command and button: Discord's own command permissions are a
        default that a server may override, and custom ids can be forged.
        """
        if permission is not None and permission not in self.permissions:
            name = "Manage Server" if permission is Permission.MANAGE_SERVER else "Manage Messages"
            raise NotAllowed(f"You need the {name} permission to do that.")


@dataclass(frozen=True, slots=True)
class Actor:
    """A person in one interaction, which counts once, with the reason that they gave."""

    interaction_id: int
    person: Person
    reason: str = ""

    @property
    def guild_id(self) -> int:
        """The server."""
        return self.person.guild_id

    @property
    def user_id(self) -> int:
        """Who acts."""
        return self.person.user_id


@dataclass(frozen=True, slots=True)
class ChannelContext:
    """Where something is requested: the channel and, of a thread, its parent; whether age-restricted."""

    channels: tuple[int, ...] = ()
    age_restricted: bool = False
