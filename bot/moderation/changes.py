"""What a moderation action changed, as data; the words are made where it is shown."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass

Value = int | str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One value before and after. `subject` is whose or what it belongs to: an id, a text, None: the server.

    `field` is a field of `db.guilds.GuildSettings`, or one of: `member_allowance`, `own_allowance`,
    `balance`, `allowance_left`, `member_blocked`, `member_frozen` (of a member), `role_allowance`,
    `role_opens_bot` (of a role), `channel_rule` (of a channel), `blocked_text` (of a text). Flags
    are 0 and 1.
    """

    field: str
    before: Value
    after: Value
    subject: int | str | None = None


Changes = tuple[Change, ...]


def to_json(changes: Changes) -> str:
    """Return the changes as they are stored in an audit record."""
    return json.dumps([astuple(change) for change in changes])


def from_json(text: str | None) -> Changes:
    """Return the changes of an audit record; none for one of a version that stored words."""
    return tuple(Change(*parts) for parts in json.loads(text or "[]"))
