"""The order of service, as members see it: who is first, second, third."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from bot.jobs.fair_levels import FairLevel, GuildQueue

#: Start tag between guilds, arrival, job id: in the order of service when sorted.
_OrderKey = tuple[int, int, int]


class QueueOrder:
    """Keeps all waiting jobs sorted by the order of service.

    A guild's jobs are sorted again only when somebody asks and the guild has changed, so that a
    change costs nothing while nobody looks.
    """

    def __init__(self, guilds: FairLevel) -> None:
        self._level = guilds
        self._sorted: list[_OrderKey] = []
        self._key_of_job: dict[int, _OrderKey] = {}
        self._keys_of_guild: dict[int, set[_OrderKey]] = {}
        self._changed: set[GuildQueue] = set()

    def mark_changed(self, guilds: Iterable[GuildQueue]) -> None:
        """Remember that these guilds' jobs, or the start tags of the guilds, may have changed."""
        self._changed.update(guilds)

    def position(self, job_id: int) -> int:
        """Return the position of a waiting job, from 1."""
        self._update()
        return bisect_left(self._sorted, self._key_of_job[job_id]) + 1

    def job_ids(self) -> tuple[int, ...]:
        """Return the ids of all waiting jobs, the next to be served first."""
        self._update()
        return tuple(job_id for _, _, job_id in self._sorted)

    def forget(self, guild: GuildQueue) -> None:
        """Drop a guild in which no job waits any more."""
        if guild.id in self._keys_of_guild:
            self._update_guild(guild)
            del self._keys_of_guild[guild.id]
        self._changed.discard(guild)

    def _update(self) -> None:
        for guild in self._changed:
            self._update_guild(guild)
        self._changed.clear()

    def _update_guild(self, guild: GuildQueue) -> None:
        """Move those of the guild's jobs whose key has changed."""
        old, new = self._keys_of_guild.get(guild.id, set()), self._keys(guild)
        for key in old - new:
            del self._sorted[bisect_left(self._sorted, key)]
            del self._key_of_job[key[2]]
        for key in new - old:
            insort(self._sorted, key)
            self._key_of_job[key[2]] = key
        self._keys_of_guild[guild.id] = new

    def _keys(self, guild: GuildQueue) -> set[_OrderKey]:
        """Return the keys of the guild's jobs.

        A member's later jobs have later start tags, and so have a guild's. So sorting by start
        tag, members inside the guild first, gives the order in which `pop` would take them.
        """
        start = self._level.start(guild.id)
        keys = set()
        for _, arrival, job in sorted(guild.start_tags()):
            keys.add((start, arrival, job.ticket.job_id))
            start += job.cost
        return keys
