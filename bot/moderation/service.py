"""What moderators do: each act as data, so that it can be shown before it is done, and confirmed.

An act runs in one transaction together with its record. Large and server-wide ones are
first run and undone, to show what they would change; confirmed, they run once, however
often the button is pressed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from bot.clock import Clock
from bot.credits.limits import RULE_NAMES, Person, megapixels_text
from bot.credits.service import Credits
from bot.errors import InvalidOption, JobGone, NotAllowed
from bot.events import Events, TrailGrew
from bot.moderation.audit import Difference, Moderator, detail_of, record
from bot.moderation.blocklist import plain_text, validate_entry
from db import audit_log as trail
from db import guilds as rules
from db import members as guilds
from db.database import Database
from db.guilds import BlockedText

LARGE_AMOUNT: Final = 1_000
CONFIRM_WITHIN_S: Final = 15 * 60

Deed = Literal[
    "set",
    "role",
    "server",
    "grant",
    "take",
    "reset",
    "freeze",
    "block",
    "channel",
    "option",
    "text",
]


class Act(BaseModel):
    """One act: what is done (`do`), to whom or what, and the new values; what it has no use for is None.

    `roles` are those of the member `user_id`; `rules` are fields of `db.rules.Rules`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    do: Deed
    user_id: int | None = None
    role_id: int | None = None
    channel_id: int | None = None
    roles: frozenset[int] = frozenset()
    amount: int | None = None
    on: bool | None = None
    rules: dict[str, int | None] = {}
    text: str = ""
    kind: Literal["word", "pattern"] = "word"
    adult_ok: bool = False
    forget: bool = False

    @property
    def is_wide(self) -> bool:
        """Tell whether it is large or concerns the whole server: to be confirmed."""
        whole_server = self.do in {"reset", "freeze"} and self.user_id is None
        large = self.do in {"grant", "take"} and (self.amount or 0) >= LARGE_AMOUNT
        return whole_server or large or self.do in {"server", "role"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an act changed, or would change once it is confirmed; nothing if it was done before."""

    differences: tuple[Difference, ...]
    needs_confirming: bool = False


class _OnlyLooking(Exception):
    """Undoes an act that was run to see what it would change."""

    def __init__(self, differences: tuple[Difference, ...]) -> None:
        super().__init__("only looking")
        self.differences = differences


_Doer = Callable[[sqlite3.Connection, Moderator, Act], tuple[Difference, ...]]


class Moderation:
    """The acts of moderators over one server's members and rules."""

    def __init__(self, *, db: Database, clock: Clock, wallet: Credits, events: Events) -> None:
        self._db = db
        self._clock = clock
        self._credits = wallet
        self._events = events
        self._doers: Mapping[Deed, _Doer] = {
            "set": self._set,
            "role": self._role,
            "server": self._rules,
            "option": self._rules,
            "grant": self._adjust,
            "take": self._adjust,
            "reset": self._reset,
            "freeze": self._freeze,
            "block": self._block,
            "channel": self._channel,
            "text": self._text,
        }

    # ------------------------------------------------------------ doing and confirming

    async def perform(self, by: Moderator, act: Act) -> Outcome:
        """Do the act, or, where it must be confirmed, keep it and return what it would change.

        Raises `UserError` for what can't be done; then nothing was changed.
        """
        if not act.is_wide:
            return Outcome(await self._do(by, act))
        differences = await self._foresee(by, act)
        kept = rules.Proposal(**{**asdict(by), "act": act.model_dump_json(), "created_at": self._clock.now()})
        await self._db.write(lambda tx: rules.propose(tx, kept))
        return Outcome(differences, needs_confirming=True)

    async def confirm(self, interaction_id: int, *, guild_id: int, actor_id: int) -> Outcome:
        """Do what the moderator `actor_id` proposed in this interaction.

        Raises `NotAllowed` for another's proposal, `JobGone` for one that is done, withdrawn or too old.
        """
        kept = await self._proposal(interaction_id, guild_id=guild_id, actor_id=actor_id)
        by = Moderator(kept.interaction_id, kept.guild_id, kept.actor_id, kept.reason)
        return Outcome(await self._do(by, Act.model_validate_json(kept.act)))

    async def withdraw(self, interaction_id: int, *, guild_id: int, actor_id: int) -> None:
        """Forget a proposal. Raises as `confirm`."""
        await self._proposal(interaction_id, guild_id=guild_id, actor_id=actor_id)
        await self._db.write(lambda tx: rules.withdraw(tx, interaction_id))

    async def _proposal(self, interaction_id: int, *, guild_id: int, actor_id: int) -> rules.Proposal:
        kept = await self._db.read(lambda tx: rules.proposal(tx, interaction_id))
        if kept is None or kept.guild_id != guild_id:
            raise JobGone("That is not waiting to be confirmed any more; please give the command again.")
        if kept.actor_id != actor_id:
            raise NotAllowed("Only the moderator who gave this command can confirm it.")
        if self._clock.now() > kept.created_at + CONFIRM_WITHIN_S:
            raise JobGone("That was too long ago to be confirmed; please give the command again.")
        return kept

    async def _do(self, by: Moderator, act: Act) -> tuple[Difference, ...]:
        def unit(tx: sqlite3.Connection) -> tuple[Difference, ...]:
            rules.withdraw(tx, by.interaction_id)
            return self._doers[act.do](tx, by, act)

        differences = await self._db.write(unit)
        self._events.emit(TrailGrew(by.guild_id))
        return differences

    async def _foresee(self, by: Moderator, act: Act) -> tuple[Difference, ...]:
        def unit(tx: sqlite3.Connection) -> None:
            raise _OnlyLooking(self._doers[act.do](tx, by, act))

        try:
            await self._db.write(unit)
        except _OnlyLooking as seen:
            return seen.differences
        return ()

    # --------------------------------------------------------------------- the acts

    def _set(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        who = Person(by.guild_id, act.user_id or 0, act.roles)
        change = self._credits.allowance_set(tx, by, who, allowance=act.amount)
        return (_amounts(f"<@{who.user_id}>'s daily allowance", change.before, change.after),)

    def _adjust(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        user_id = act.user_id or 0
        change = self._credits.adjusted(tx, by, user_id=user_id, amount=act.amount or 0, action=act.do)
        return (_amounts(f"<@{user_id}>'s balance", change.before, change.after),)

    def _role(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        self._credits.limits.check_allowance(act.amount)
        role_id = act.role_id or 0
        known = {rule.role_id: rule for rule in rules.roles(tx, by.guild_id)}
        before = known.get(role_id, rules.RoleRule(role_id, None, may_use=False))
        # What a moderator does not mention stays as it is.
        after = rules.RoleRule(
            role_id,
            before.allowance if act.amount is None else act.amount,
            may_use=before.may_use if act.on is None else act.on,
        )
        if act.forget:
            after = rules.RoleRule(role_id, None, may_use=False)
        name = f"<@&{role_id}>"
        differences = (
            Difference(
                f"the daily allowance of {name}", _or_none(before.allowance), _or_none(after.allowance)
            ),
            Difference(f"whether {name} opens the bot", _yes(before.may_use), _yes(after.may_use)),
        )
        return self._recorded(
            tx, by, act, differences, lambda: rules.set_role(tx, guild_id=by.guild_id, rule=after)
        )

    def _rules(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        now_set = rules.of_guild(tx, by.guild_id)
        for name, value in act.rules.items():
            self._credits.limits.check_rule(name, value)
        differences = tuple(
            Difference(RULE_NAMES[name], rule_text(name, getattr(now_set, name)), rule_text(name, value))
            for name, value in act.rules.items()
        )

        def change() -> None:
            for name, value in act.rules.items():
                rules.change(tx, guild_id=by.guild_id, name=name, value=value)
            if act.rules.get("log_channel_id"):
                trail.start_mirror(tx, by.guild_id)

        return self._recorded(tx, by, act, differences, change)

    def _reset(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        if act.user_id is not None:
            whom = [act.user_id]
        else:
            whom = guilds.given_on(tx, guild_id=by.guild_id, day=self._credits.today(tx))
        if not self._recorded(tx, by, act, (Difference("today's allowances", "as used", "as given"),)):
            return ()
        found = (self._credits.reset(tx, by, user_id=user_id) for user_id in whom)
        return tuple(difference for difference in found if difference)

    def _freeze(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        frozen = bool(act.on)
        if act.user_id is None:
            stop = act.model_copy(update={"rules": {"frozen": int(frozen)}})
            return self._rules(tx, by, stop)
        before = self._credits.freeze(tx, by, user_id=act.user_id, frozen=frozen)
        what = f"whether <@{act.user_id}>'s credits are frozen"
        return self._recorded(
            tx,
            by,
            act,
            (Difference(what, _yes(before), _yes(frozen)),),
            undo=lambda: self._credits.freeze(tx, by, user_id=act.user_id or 0, frozen=before),
        )

    def _block(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        user_id, blocked = act.user_id or 0, bool(act.on)
        before = guilds.member(tx, guild_id=by.guild_id, user_id=user_id).blocked
        what = f"whether <@{user_id}> is kept from using the bot"
        differences = (Difference(what, _yes(before), _yes(blocked)),)
        return self._recorded(
            tx,
            by,
            act,
            differences,
            lambda: guilds.set_blocked(tx, guild_id=by.guild_id, user_id=user_id, blocked=blocked),
        )

    def _channel(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        channel_id = act.channel_id or 0
        before = rules.channels(tx, by.guild_id).get(channel_id)
        differences = (Difference(f"the rule for <#{channel_id}>", _CHANNEL[before], _CHANNEL[act.on]),)
        return self._recorded(
            tx,
            by,
            act,
            differences,
            lambda: rules.set_channel(tx, guild_id=by.guild_id, channel_id=channel_id, allowed=act.on),
        )

    def _text(self, tx: sqlite3.Connection, by: Moderator, act: Act) -> tuple[Difference, ...]:
        known = rules.blocked_texts(tx, by.guild_id)
        if act.on:
            entry = validate_entry(act.kind, act.text, known, adult_ok=act.adult_ok)
        else:
            entry = _found(known, act.text)
        before = entry.text in {old.text for old in known}
        differences = (Difference(f"“{entry.text}” in prompts", _BLOCKED[before], _BLOCKED[bool(act.on)]),)

        def change() -> None:
            if act.on:
                rules.set_blocked_text(tx, guild_id=by.guild_id, entry=entry)
            else:
                rules.remove_blocked_text(tx, guild_id=by.guild_id, text=entry.text)

        return self._recorded(tx, by, act, differences, change)

    def _recorded(
        self,
        tx: sqlite3.Connection,
        by: Moderator,
        act: Act,
        differences: tuple[Difference, ...],
        change: Callable[[], Any] = lambda: None,
        *,
        undo: Callable[[], Any] = lambda: None,
    ) -> tuple[Difference, ...]:
        """Record the act and make its change, unless it was done before."""
        target = act.user_id or act.role_id or act.channel_id
        detail = detail_of(differences)
        if not record(tx, by, action=act.do, target_id=target, detail=detail, now=self._clock.now()):
            undo()
            return ()
        change()
        return differences


def _found(known: list[BlockedText], text: str) -> BlockedText:
    for entry in known:
        if entry.text in (text.strip(), plain_text(text)):
            return entry
    raise InvalidOption("That is not blocked here; /calm show lists what is.")


_BLOCKED: Final = {True: "blocked", False: "let through"}
_CHANNEL: Final = {None: "as everywhere", True: "allowed", False: "forbidden"}


def _amounts(what: str, before: int, after: int) -> Difference:
    return Difference(what, f"{before:,}", f"{after:,}")


def _or_none(amount: int | None) -> str:
    return "none" if amount is None else f"{amount:,}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def rule_text(name: str, value: Any) -> str:
    """Return a server's rule as a person would say it."""
    if name in {"giving", "frozen", "private"}:
        return _yes(bool(value))
    if name.endswith("channel_id"):
        return "none" if value is None else f"<#{value}>"
    if value is None:
        return "not set (the bot's own counts)"
    return megapixels_text(value) if name == "pixels_max" else f"{value:,}"


def check_some(act: Act) -> None:
    """Raise `InvalidOption` for a command in which nothing was chosen to be changed."""
    if not act.rules:
        raise InvalidOption("Please choose at least one of the options to change.")
