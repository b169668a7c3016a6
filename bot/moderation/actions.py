"""What moderators do to a server and its members: one class an action, as data that can be stored.

Each says what it needs and whether it is wide (to be confirmed first), and makes its changes within
the transaction that records it. Those that move credits are in `credit_actions`.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from bot.actors import Actor, Permission
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Limits
from bot.errors import InvalidOption
from bot.moderation.blocklist import plain_text, validate_entry
from bot.moderation.changes import Change, Changes
from db import audit_log, guilds, members
from db.guilds import BlockedText, RoleRule


@dataclass(frozen=True, slots=True)
class ActionContext:
    """What an action works with; `now` in seconds since 1970."""

    actor: Actor
    limits: Limits
    allowance: DailyAllowance
    now: float


class ModerationAction(BaseModel, ABC):
    """One action. `kind` is its name in the audit records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: None: any member may do it.
    needs: ClassVar[Permission | None] = Permission.MANAGE_SERVER

    kind: str

    @property
    def target_id(self) -> int | None:
        """Whom or what it is about: a member, a role or a channel; None: the server."""
        return None

    @property
    def is_wide(self) -> bool:
        """Whether it is large or affects the whole server, so that it has to be confirmed."""
        return False

    @abstractmethod
    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Make the changes and return them. Raises `UserError` for what can't be done."""


class MemberAction(ModerationAction):
    """An action on one member."""

    user_id: int

    @property
    def target_id(self) -> int:
        """The member."""
        return self.user_id


class BlockMember(MemberAction):
    """Block a member from using the bot in the server, or unblock them."""

    kind: Literal["block"] = "block"
    blocked: bool

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Set the flag."""
        guild_id = context.actor.guild_id
        before = members.get_member(tx, guild_id=guild_id, user_id=self.user_id).blocked
        members.set_blocked(tx, guild_id=guild_id, user_id=self.user_id, blocked=self.blocked)
        return (Change("member_blocked", before, self.blocked, self.user_id),)


class SetRole(ModerationAction):
    """Set what a role gives; None leaves it as it is, `forget` removes all of it."""

    kind: Literal["role"] = "role"
    role_id: int
    allowance: int | None = None
    opens_bot: bool | None = None
    forget: bool = False

    @property
    def target_id(self) -> int:
        """The role."""
        return self.role_id

    @property
    def is_wide(self) -> bool:
        """A role may be everyone's."""
        return True

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Store the role's rule."""
        if self.allowance is None and self.opens_bot is None and not self.forget:
            raise InvalidOption("Please choose what to change for this role.")
        context.limits.check_allowance(self.allowance)
        guild_id = context.actor.guild_id
        rules = {rule.role_id: rule for rule in guilds.role_rules(tx, guild_id)}
        nothing = RoleRule(self.role_id, None, may_use=False)
        before = rules.get(self.role_id, nothing)
        after = nothing if self.forget else self._changed(before)
        guilds.set_role_rule(tx, guild_id=guild_id, rule=after)
        return (
            Change("role_allowance", before.allowance, after.allowance, self.role_id),
            Change("role_opens_bot", before.may_use, after.may_use, self.role_id),
        )

    def _changed(self, before: RoleRule) -> RoleRule:
        allowance = before.allowance if self.allowance is None else self.allowance
        return replace(
            before, allowance=allowance, may_use=before.may_use if self.opens_bot is None else self.opens_bot
        )


class SetChannel(ModerationAction):
    """Allow the bot in a channel or not; None removes the channel's rule."""

    kind: Literal["channel"] = "channel"
    channel_id: int
    allowed: bool | None

    @property
    def target_id(self) -> int:
        """The channel."""
        return self.channel_id

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Store the channel's rule."""
        guild_id = context.actor.guild_id
        before = guilds.channel_rules(tx, guild_id).get(self.channel_id)
        guilds.set_channel_rule(tx, guild_id=guild_id, channel_id=self.channel_id, allowed=self.allowed)
        return (Change("channel_rule", before, self.allowed, self.channel_id),)


class _ChangeSettings(ModerationAction):
    """Set fields of the server's `GuildSettings`; None gives a field back to the bot's default."""

    settings: dict[str, int | None]

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Store the settings."""
        if not self.settings:
            raise InvalidOption("Please choose at least one option to change.")
        guild_id = context.actor.guild_id
        before = guilds.get_settings(tx, guild_id)
        for name, value in self.settings.items():
            context.limits.check_setting(name, value)
            guilds.change_setting(tx, guild_id=guild_id, name=name, value=value)
        if self.settings.get("log_channel_id"):
            audit_log.skip_to_end(tx, guild_id)
        return tuple(Change(name, getattr(before, name), value) for name, value in self.settings.items())


class SetLimits(_ChangeSettings):
    """Set the limits of everyone in the server."""

    kind: Literal["server"] = "server"

    @property
    def is_wide(self) -> bool:
        """It affects everyone."""
        return True


class SetOptions(_ChangeSettings):
    """Set where and how the bot shows pictures in the server."""

    kind: Literal["option"] = "option"


class StopServer(ModerationAction):
    """Stop the bot in the whole server, or let it go on."""

    kind: Literal["stop"] = "stop"
    stopped: bool

    @property
    def is_wide(self) -> bool:
        """It affects everyone."""
        return True

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Set the flag."""
        guild_id = context.actor.guild_id
        before = guilds.get_settings(tx, guild_id).frozen
        guilds.change_setting(tx, guild_id=guild_id, name="frozen", value=self.stopped)
        return (Change("frozen", before, self.stopped),)


class BlockText(ModerationAction):
    """Keep a word or pattern out of prompts; `adult_ok` lets it through in age-restricted channels."""

    kind: Literal["text"] = "text"
    text: str
    text_kind: Literal["word", "pattern"] = "word"
    adult_ok: bool = False

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Add it to the blocklist."""
        guild_id = context.actor.guild_id
        known = guilds.blocked_texts(tx, guild_id)
        entry = validate_entry(self.text_kind, self.text, known, adult_ok=self.adult_ok)
        guilds.save_blocked_text(tx, guild_id=guild_id, entry=entry)
        old = next((e for e in known if (e.kind, e.text) == (entry.kind, entry.text)), None)
        return (Change("blocked_text", _strictness(old), _strictness(entry), entry.text),)


class UnblockText(ModerationAction):
    """Let a word or pattern into prompts again."""

    kind: Literal["untext"] = "untext"
    text: str

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Remove it from the blocklist."""
        guild_id = context.actor.guild_id
        for entry in guilds.blocked_texts(tx, guild_id):
            if entry.text in (self.text.strip(), plain_text(self.text)):
                guilds.remove_blocked_text(tx, guild_id=guild_id, text=entry.text)
                return (Change("blocked_text", _strictness(entry), None, entry.text),)
        raise InvalidOption("That text isn't blocked here; please pick one from the list.")


def _strictness(entry: BlockedText | None) -> str | None:
    if entry is None:
        return None
    return "blocked except in age-restricted channels" if entry.adult_ok else "blocked"
