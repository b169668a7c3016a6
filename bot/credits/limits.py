"""Which limit applies to whom, and why: every rule that can refuse a job, and the one that won.

A member's own allowance overrides their roles' (the best of them wins), these the server's, that
the operator's default; the operator's ceilings are above them all. Functions that take a `tx` are
steps of the transaction that also holds the credits, so that no two requests can pass one limit
together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bot.actors import ChannelContext, Person
from bot.clock import DAY_S, Clock
from bot.errors import ChannelNotAllowed, InvalidOption, LimitReached, NotAllowed, RoleRequired
from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL
from bot.text import SETTING_LABELS, counted, credits_text, exact_duration_text, megapixels_text
from db import guilds, jobs, ledger, members, spending
from db.guilds import GuildSettings
from db.jobs import Job

AMOUNT_MAX: Final = (
    1_000_000  # keeps sums far from SQLite's integers' end, and a slip of a key from a fortune
)
SLOW_S_MAX: Final = 6 * 3_600  # as Discord's own slow mode


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the operator lets no moderator exceed; None: no ceiling.

    Amounts are in credits: `allowance_max` of one member a day, `grant_max` in one action,
    `guild_daily_max` of one server a day, `provider_daily_max` of all servers together a day.
    """

    allowance_max: int = AMOUNT_MAX
    grant_max: int = AMOUNT_MAX
    guild_daily_max: int | None = None
    provider_daily_max: int | None = None
    running_max: int = 2
    waiting_max: int = 5
    steps_max: int = 100
    samples_max: int = 4


class RuleSource(Enum):
    """Which rule set a limit."""

    MEMBER = auto()
    ROLE = auto()
    BEST_ROLE = auto()
    SERVER = auto()
    BOT_DEFAULT = auto()
    CEILING = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Ruling:
    """A limit in force: its amount (None: no limit) and the rule that won.

    `role_id` is the role of `ROLE` and `BEST_ROLE`; `lowered` the rule that a ceiling overruled.
    """

    amount: int | None
    source: RuleSource
    role_id: int | None = None
    lowered: Ruling | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that applies to one member: the allowance, further limits by name, and what refuses them."""

    allowance: Ruling
    limits: dict[str, Ruling]
    spent_by_server: int
    refusals: tuple[NotAllowed, ...] = ()


class Limits:
    """Every limit, resolved and enforced."""

    def __init__(self, *, clock: Clock, daily_allowance: int, ceilings: Ceilings) -> None:
        self._clock = clock
        self._daily_allowance = daily_allowance
        self.ceilings = ceilings

    def allowance(self, tx: sqlite3.Connection, who: Person) -> Ruling:
        """Return the member's credits a day, and why. It has an amount."""
        ruling = self._allowance_set(tx, who)
        ceiling = self.ceilings.allowance_max
        if ruling.amount is not None and ruling.amount > ceiling:
            return Ruling(ceiling, RuleSource.CEILING, lowered=ruling)
        return ruling

    def _allowance_set(self, tx: sqlite3.Connection, who: Person) -> Ruling:
        own = members.get_member(tx, guild_id=who.guild_id, user_id=who.user_id).allowance
        if own is not None:
            return Ruling(own, RuleSource.MEMBER)
        of_roles = [
            (rule.allowance, rule.role_id)
            for rule in guilds.role_rules(tx, who.guild_id)
            if rule.allowance is not None and rule.role_id in who.roles
        ]
        if of_roles:
            amount, role_id = max(of_roles)
            return Ruling(amount, RuleSource.BEST_ROLE if len(of_roles) > 1 else RuleSource.ROLE, role_id)
        server = guilds.get_settings(tx, who.guild_id).allowance
        if server is not None:
            return Ruling(server, RuleSource.SERVER)
        return Ruling(self._daily_allowance, RuleSource.BOT_DEFAULT)

    def for_server(self, settings: GuildSettings) -> dict[str, Ruling]:
        """Return the limits on one member's jobs in a server with these settings, by setting."""
        ceilings = self.ceilings
        return {
            "daily_cap": _lower(settings.daily_cap, ceilings.guild_daily_max),
            "running_max": _lower(settings.running_max, ceilings.running_max),
            "waiting_max": _lower(settings.waiting_max, ceilings.waiting_max),
            "steps_max": _lower(settings.steps_max, ceilings.steps_max),
            "samples_max": _lower(settings.samples_max, ceilings.samples_max),
            "pixels_max": _lower(settings.pixels_max, None),
            "slow_s": _lower(settings.slow_s or None, None),
        }

    def explain(self, tx: sqlite3.Connection, who: Person, *, day: int) -> Explanation:
        """Return every limit that applies to the member, each with the rule that won."""
        return Explanation(
            allowance=self.allowance(tx, who),
            limits=self.for_server(guilds.get_settings(tx, who.guild_id)),
            spent_by_server=spending.spent(tx, day=day, guild_id=who.guild_id),
            refusals=tuple(self._refusals(tx, who)),
        )

    def _refusals(self, tx: sqlite3.Connection, who: Person) -> Iterator[NotAllowed]:
        member = {"guild_id": who.guild_id, "user_id": who.user_id}
        if guilds.get_settings(tx, who.guild_id).frozen:
            yield NotAllowed("Moderators have stopped the bot in this server; please try again later.")
        if members.get_member(tx, **member).blocked:
            yield NotAllowed("Moderators have blocked you from using this bot here; please ask them why.")
        if ledger.peek_account(tx, kind="user", **member).frozen:
            yield NotAllowed("Your credits are frozen; please ask a moderator why.")
        required = [rule.role_id for rule in guilds.role_rules(tx, who.guild_id) if rule.may_use]
        if required and who.roles.isdisjoint(required):
            yield RoleRequired(required)

    def check_person(self, tx: sqlite3.Connection, who: Person) -> None:
        """Raise `NotAllowed`, with the rule, for whoever may not use the bot in this server."""
        for refusal in self._refusals(tx, who):
            raise refusal

    def check_channel(self, tx: sqlite3.Connection, guild_id: int, where: ChannelContext) -> None:
        """Raise `NotAllowed` where the server does not allow the bot."""
        rules = guilds.channel_rules(tx, guild_id)
        # A thread's own rule comes before its parent's.
        found = [rules[channel] for channel in where.channels if channel in rules]
        if found and not found[0]:
            raise NotAllowed("The bot isn't allowed in this channel; please use another one.")
        allowed = [channel for channel, is_allowed in rules.items() if is_allowed]
        if allowed and not found:
            raise ChannelNotAllowed(allowed)

    def check_job(self, tx: sqlite3.Connection, job: Job, params: Img2ImgParams, *, day: int) -> None:
        """Raise `LimitReached`, saying which limit and when to come back, unless the job is within all."""
        limits = self.for_server(guilds.get_settings(tx, job.guild_id))
        _check_options(limits, params)
        self._check_pace(tx, job, limits)
        self._check_caps(tx, job, limits["daily_cap"].amount, day=day)

    def _check_pace(self, tx: sqlite3.Connection, job: Job, limits: dict[str, Ruling]) -> None:
        member = {"guild_id": job.guild_id, "user_id": job.user_id}
        open_max = (limits["running_max"].amount or 0) + (limits["waiting_max"].amount or 0)
        # The bot's own bounds are the queue's to enforce, over all servers.
        is_set = any(limits[name].source is RuleSource.SERVER for name in ("running_max", "waiting_max"))
        if is_set and jobs.count_open(tx, **member) >= open_max:
            raise LimitReached(
                f"You already have {counted(open_max, 'picture')} in progress, the most this server allows;"
                " please wait until one is done, or cancel one."
            )
        slow_s = limits["slow_s"].amount or 0
        last = jobs.last_accepted_at(tx, **member) if slow_s else None
        # A clock that stepped back must not make anyone wait longer than the slow mode is.
        if last is not None and last <= self._clock.now() < last + slow_s:
            raise LimitReached(
                f"Slow mode: wait {exact_duration_text(slow_s)} between pictures. Try again",
                until=last + slow_s,
            )

    def _check_caps(self, tx: sqlite3.Connection, job: Job, cap: int | None, *, day: int) -> None:
        until = (day + 1) * DAY_S
        if cap is not None:
            left = max(0, cap - spending.spent(tx, day=day, guild_id=job.guild_id))
            if job.price > left:
                raise LimitReached(
                    f"That costs {credits_text(job.price)}, but this server has {left:,} left"
                    f" of its {cap:,} for today. Try again",
                    until=until,
                )
        ceiling = self.ceilings.provider_daily_max
        if ceiling is not None and spending.spent(tx, day=day) + job.price > ceiling:
            raise LimitReached("The bot has reached its daily limit. Try again", until=until)

    def check_pixels(self, tx: sqlite3.Connection, guild_id: int, pixels: int) -> None:
        """Raise `LimitReached` for a picture larger than the server allows."""
        maximum = guilds.get_settings(tx, guild_id).pixels_max
        if maximum is not None and pixels > maximum:
            raise LimitReached(
                f"That picture would be made at {megapixels_text(pixels)}, but this server allows"
                f" {megapixels_text(maximum)}; please attach a smaller one."
            )

    def running_max(self, tx: sqlite3.Connection, guild_id: int) -> int:
        """Return how many jobs one member may have running in the server."""
        return self.for_server(guilds.get_settings(tx, guild_id))["running_max"].amount or 1

    def check_allowance(self, allowance: int | None) -> None:
        """Raise `InvalidOption` for an allowance that no moderator may give."""
        self.check_setting("allowance", allowance)

    def check_amount(self, amount: int) -> None:
        """Raise `InvalidOption` for an amount that no moderator may move in one action."""
        _check_within("amount", amount, 1, self.ceilings.grant_max)

    def check_setting(self, name: str, value: int | None) -> None:
        """Raise `InvalidOption` for a server's limit above the operator's ceiling."""
        ceilings = {
            "allowance": self.ceilings.allowance_max,
            "daily_cap": self.ceilings.guild_daily_max or AMOUNT_MAX,
            "running_max": self.ceilings.running_max,
            "waiting_max": self.ceilings.waiting_max,
            "steps_max": self.ceilings.steps_max,
            "samples_max": self.ceilings.samples_max,
            "pixels_max": MEGAPIXEL,
            "slow_s": SLOW_S_MAX,
        }
        if value is not None and name in ceilings:
            minimum = 0 if name in {"allowance", "daily_cap", "slow_s"} else 1
            _check_within(SETTING_LABELS[name], value, minimum, ceilings[name])


def _lower(server: int | None, ceiling: int | None) -> Ruling:
    if server is not None and (ceiling is None or server <= ceiling):
        return Ruling(server, RuleSource.SERVER)
    return Ruling(ceiling, RuleSource.NONE if ceiling is None else RuleSource.CEILING)


def _check_options(limits: dict[str, Ruling], params: Img2ImgParams) -> None:
    for name, wanted, noun in (
        ("steps_max", params.num_inference_steps, "step"),
        ("samples_max", params.samples, "sample"),
    ):
        maximum = limits[name].amount
        if maximum is not None and wanted > maximum:
            whose = "this server" if limits[name].source is RuleSource.SERVER else "the bot"
            raise LimitReached(
                f"You asked for {counted(wanted, noun)}, but {whose} allows {maximum}; please use fewer."
            )


def _check_within(what: str, value: int, minimum: int, maximum: int) -> None:
    if not minimum <= value <= maximum:
        raise InvalidOption(f"Please choose a value from {minimum:,} to {maximum:,} for the {what}.")
