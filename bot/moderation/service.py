"""Moderation: actions are previewed, confirmed, done once and recorded; and what moderators look up.

An action runs in one transaction together with its audit record. A wide one is first run and
rolled back, to show what it would change; confirmed, it runs once, however often the button is
pressed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from bot.actors import Actor, Permission, Person
from bot.clock import Clock
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Limits
from bot.errors import JobGone, NotAllowed
from bot.events import AuditLogGrew, Events
from bot.moderation import changes as change_lists
from bot.moderation.actions import (
    ActionContext,
    BlockMember,
    BlockText,
    ModerationAction,
    SetChannel,
    SetLimits,
    SetOptions,
    SetRole,
    StopServer,
    UnblockText,
)
from bot.moderation.changes import Changes
from bot.moderation.credit_actions import FreezeMember, Give, Grant, ResetAllowance, SetAllowance, Take
from db import audit_records, guilds, jobs, ledger, proposals
from db.audit_records import AuditRecord
from db.database import Database
from db.guilds import BlockedText, GuildSettings
from db.jobs import ID_END
from db.proposals import Proposal

CONFIRM_WITHIN_S: Final = 15 * 60  # as long as the question's message can be edited
_NOT_WAITING: Final = "That is no longer waiting to be confirmed; please run the command again."

AnyAction = Annotated[
    BlockMember
    | BlockText
    | FreezeMember
    | Give
    | Grant
    | ResetAllowance
    | SetAllowance
    | SetChannel
    | SetLimits
    | SetOptions
    | SetRole
    | StopServer
    | Take
    | UnblockText,
    Field(discriminator="kind"),
]
_stored_actions: Final[TypeAdapter[ModerationAction]] = TypeAdapter(AnyAction)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action changed, or would change once it is confirmed; empty if nothing."""

    changes: Changes
    needs_confirmation: bool = False


class _DryRun(Exception):
    """Rolls back an action that was run to see what it would change."""

    def __init__(self, changes: Changes) -> None:
        super().__init__("dry run")
        self.changes = changes


class ModerationService:
    """Moderators' actions on one server's members and settings, and members' gifts."""

    def __init__(
        self, *, db: Database, clock: Clock, limits: Limits, allowance: DailyAllowance, events: Events
    ) -> None:
        self._db = db
        self._clock = clock
        self._limits = limits
        self._allowance = allowance
        self._events = events

    async def perform(self, actor: Actor, action: ModerationAction) -> Outcome:
        """Do the action, or, where it must be confirmed, store it and return what it would change.

        Raises `UserError` for what can't be done; then nothing was changed.
        """
        actor.person.require(action.needs)
        if not action.is_wide:
            return Outcome(await self._apply(actor, action))
        changes = await self._preview(actor, action)
        if not changes:
            return Outcome(())
        proposal = Proposal(
            interaction_id=actor.interaction_id,
            guild_id=actor.guild_id,
            actor_id=actor.user_id,
            reason=actor.reason,
            action_json=action.model_dump_json(),
            created_at=self._clock.now(),
        )
        await self._db.write(lambda tx: proposals.insert(tx, proposal))
        return Outcome(changes, needs_confirmation=True)

    async def confirm(self, interaction_id: int, person: Person) -> Outcome:
        """Do what this moderator proposed in that interaction; done already, return what it changed.

        Raises `NotAllowed` for another's proposal, `JobGone` for one that was withdrawn or is too old.
        """
        person.require(Permission.MANAGE_SERVER)
        _check_id(interaction_id)
        recorded = await self._db.read(lambda tx: _own_record(tx, interaction_id, person))
        if recorded is not None:
            return Outcome(change_lists.from_json(recorded.changes_json))
        proposal = await self._proposal(interaction_id, person)
        actor = Actor(interaction_id, person, proposal.reason)
        return Outcome(await self._apply(actor, _stored_actions.validate_json(proposal.action_json)))

    async def withdraw(self, interaction_id: int, person: Person) -> None:
        """Delete a proposal. Raises as `confirm`."""
        person.require(Permission.MANAGE_SERVER)
        _check_id(interaction_id)
        await self._proposal(interaction_id, person)
        await self._db.write(lambda tx: proposals.delete(tx, interaction_id))

    async def _proposal(self, interaction_id: int, person: Person) -> Proposal:
        found = await self._db.read(lambda tx: proposals.get(tx, interaction_id))
        if found is None or found.guild_id != person.guild_id:
            raise JobGone(_NOT_WAITING)
        if found.actor_id != person.user_id:
            raise NotAllowed("Only the moderator who ran this command can confirm it.")
        if self._clock.now() > found.created_at + CONFIRM_WITHIN_S:
            raise JobGone("It's too late to confirm that; please run the command again.")
        return found

    async def _apply(self, actor: Actor, action: ModerationAction) -> Changes:
        changes = await self._db.write(lambda tx: self.apply_once(tx, actor, action))
        self._events.emit(AuditLogGrew(actor.guild_id))
        return changes

    def apply_once(self, tx: sqlite3.Connection, actor: Actor, action: ModerationAction) -> Changes:
        """Do the action and record it, once an interaction; a repeat returns what it changed then."""
        recorded = audit_records.of_interaction(tx, actor.interaction_id)
        if recorded is not None:
            return change_lists.from_json(recorded.changes_json)
        proposals.delete(tx, actor.interaction_id)
        changes = self._run(tx, actor, action)
        audit_records.insert(tx, self._record_of(actor, action, changes))
        return changes

    async def _preview(self, actor: Actor, action: ModerationAction) -> Changes:
        def unit(tx: sqlite3.Connection) -> None:
            raise _DryRun(self._run(tx, actor, action))

        try:
            await self._db.write(unit)
        except _DryRun as dry_run:
            return dry_run.changes
        return ()

    def _run(self, tx: sqlite3.Connection, actor: Actor, action: ModerationAction) -> Changes:
        context = ActionContext(actor, self._limits, self._allowance, self._clock.now())
        return tuple(change for change in action.apply(tx, context) if change.before != change.after)

    def _record_of(self, actor: Actor, action: ModerationAction, changes: Changes) -> AuditRecord:
        amounts = (c for c in changes if c.field in {"balance", "member_allowance"})
        before, after = next(((c.before, c.after) for c in amounts), (None, None))
        return AuditRecord(
            interaction_id=actor.interaction_id,
            guild_id=actor.guild_id,
            actor_id=actor.user_id,
            target_id=action.target_id,
            action=action.kind,
            before=before if isinstance(before, int) else None,
            after=after if isinstance(after, int) else None,
            reason=actor.reason,
            at=self._clock.now(),
            changes_json=change_lists.to_json(changes),
        )

    async def list_records(
        self, moderator: Person, *, member_id: int | None = None, limit: int
    ) -> list[AuditRecord]:
        """Return the server's latest audit records, or those by and on one member, newest first."""
        moderator.require(Permission.MANAGE_SERVER)
        return await self._db.read(
            lambda tx: audit_records.latest(tx, guild_id=moderator.guild_id, member_id=member_id, limit=limit)
        )

    async def leaderboard(
        self, moderator: Person, *, within_s: float, limit: int
    ) -> list[tuple[int, int, int]]:
        """Return (member, credits, jobs) of those who paid most in the last `within_s`, most first."""
        moderator.require(Permission.MANAGE_SERVER)
        since = self._clock.now() - within_s
        return await self._db.read(
            lambda tx: jobs.top_spenders(tx, guild_id=moderator.guild_id, since=since, limit=limit)
        )

    async def member_accounts(self, moderator: Person) -> list[ledger.Account]:
        """Return the accounts of the server's members, by member."""
        moderator.require(Permission.MANAGE_SERVER)
        return await self._db.read(lambda tx: ledger.member_accounts(tx, moderator.guild_id))

    async def settings(self, moderator: Person) -> tuple[GuildSettings, list[BlockedText]]:
        """Return the server's settings and its blocklist."""
        moderator.require(Permission.MANAGE_SERVER)
        return await self._db.read(
            lambda tx: (
                guilds.get_settings(tx, moderator.guild_id),
                guilds.blocked_texts(tx, moderator.guild_id),
            )
        )


def _check_id(interaction_id: int) -> None:
    """Raise `JobGone` for an id that SQLite can't store: it was forged."""
    if interaction_id >= ID_END:
        raise JobGone(_NOT_WAITING)


def _own_record(tx: sqlite3.Connection, interaction_id: int, person: Person) -> AuditRecord | None:
    record = audit_records.of_interaction(tx, interaction_id)
    is_own = record and (record.guild_id, record.actor_id) == (person.guild_id, person.user_id)
    return record if is_own else None
