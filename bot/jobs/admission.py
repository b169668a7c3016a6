"""Whether one more job may wait: the bounds of the queue, and reservations within them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TypeVar

from bot.errors import QueueFull
from bot.text import counted

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs may wait and run at once, each at least 1.

    A member is the same person in every guild: both of a member's bounds count all guilds.
    """

    guild_running_max: int = 4
    member_running_max: int = 2
    waiting_max: int = 2000
    guild_waiting_max: int = 200
    member_waiting_max: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")


class Admission:
    """Counts the jobs that wait against the bounds; a reservation counts as a job until it ends."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._waiting = 0
        self._of_guild: dict[int, int] = {}
        self._of_member: dict[int, int] = {}
        self._reserved: dict[tuple[int, int], int] = {}  # by guild and member

    def check(self, guild_id: int, member_id: int) -> None:
        """Check that one more job of the member may wait; nothing is reserved.

        Raises:
            QueueFull: One of the bounds is reached: the member's, the guild's or the bot's.
        """
        limits = self._limits
        if self._of_member.get(member_id, 0) >= limits.member_waiting_max:
            raise QueueFull(
                f"You already have {counted(limits.member_waiting_max, 'picture')} waiting; "
                "please wait until one is done, or cancel one."
            )
        if self._of_guild.get(guild_id, 0) >= limits.guild_waiting_max:
            raise QueueFull(
                f"This server already has {counted(limits.guild_waiting_max, 'picture')} waiting; "
                "please try again in a few minutes."
            )
        if self._waiting >= limits.waiting_max:
            raise QueueFull(
                f"The bot already has {counted(limits.waiting_max, 'picture')} waiting; "
                "please try again in a few minutes."
            )

    @contextmanager
    def reserve(self, guild_id: int, member_id: int) -> Iterator[None]:
        """Reserve room for one more job of the member until the block ends.

        Raises:
            QueueFull: As `check`.
        """
        self.check(guild_id, member_id)
        self.add(guild_id, member_id)
        self._reserved[guild_id, member_id] = self._reserved.get((guild_id, member_id), 0) + 1
        try:
            yield
        finally:
            _decrement(self._reserved, (guild_id, member_id))
            self.remove(guild_id, member_id)

    def is_reserved(self, guild_id: int, member_id: int) -> bool:
        """Whether a reservation of the member in this guild is open."""
        return (guild_id, member_id) in self._reserved

    def add(self, guild_id: int, member_id: int) -> None:
        """Count one more job, even beyond the bounds."""
        self._waiting += 1
        self._of_guild[guild_id] = self._of_guild.get(guild_id, 0) + 1
        self._of_member[member_id] = self._of_member.get(member_id, 0) + 1

    def remove(self, guild_id: int, member_id: int) -> None:
        """Count one job less."""
        self._waiting -= 1
        _decrement(self._of_guild, guild_id)
        _decrement(self._of_member, member_id)


def _decrement(counts: dict[_Key, int], key: _Key) -> None:
    if counts[key] == 1:
        del counts[key]  # so that guilds and members that come and go take no memory
    else:
        counts[key] -= 1
