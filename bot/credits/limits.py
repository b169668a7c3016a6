"""Which limit holds for whom, and why: every rule that can refuse a job, and the one that won.

A member's own allowance beats his roles' (the best of them wins), these the server's, that
the operator's default; the operator's ceilings are above them all. Functions that take a
`tx` are steps of the transaction that also holds the credits, so that no two requests can
pass one limit together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bot.clock import DAY_S, Clock
from bot.errors import InvalidOption, LimitReached, NotAllowed
from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL
from bot.text import credits_text, duration_text
from db import guilds as rules
from db import ledger
from db import members as guilds
from db.guilds import Rules
from db.jobs import Job

AMOUNT_MAX: Final = 1_000_000
SLOW_S_MAX: Final = 6 * 3_600


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the operator lets no moderator exceed; None: no ceiling.

    Amounts are in credits: `allowance_max` of one member a day, `grant_max` in one act,
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


@dataclass(frozen=True, slots=True)
class Person:
    """Whose limits are asked for: a member of a server with the roles that he has now."""

    guild_id: int
    user_id: int
    roles: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is asked for: the channel and, of a thread, its parent; whether only adults are there."""

    channels: tuple[int, ...] = ()
    age_restricted: bool = False


@dataclass(frozen=True, slots=True)
class Ruling:
    """A limit in force: its amount (None: no limit) and, in words, the rule that won."""

    amount: int | None
    rule: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that holds for one member: the allowance, further limits by name, and what keeps him out."""

    allowance: Ruling
    limits: dict[str, Ruling]
    spent_by_server: int
    kept_out: tuple[str, ...] = field(default=())


class Limits:
    """Every limit, resolved and enforced."""

    def __init__(self, *, clock: Clock, daily_allowance: int, ceilings: Ceilings) -> None:
        self._clock = clock
        self._daily_allowance = daily_allowance
        self.ceilings = ceilings

    # ------------------------------------------------------------------ which rule wins

    def allowance(self, tx: sqlite3.Connection, who: Person) -> Ruling:
        """Return the member's credits a day, and why."""
        ruling = self._allowance_set(tx, who)
        ceiling = self.ceilings.allowance_max
        if ruling.amount is not None and ruling.amount > ceiling:
            return Ruling(ceiling, f"the operator's ceiling, below {ruling.rule}")
        return ruling

    def _allowance_set(self, tx: sqlite3.Connection, who: Person) -> Ruling:
        own = guilds.member(tx, guild_id=who.guild_id, user_id=who.user_id).allowance
        if own is not None:
            return Ruling(own, "this member's own allowance")
        of_roles = [
            (rule.allowance, rule.role_id)
            for rule in rules.roles(tx, who.guild_id)
            if rule.allowance is not None and rule.role_id in who.roles
        ]
        if of_roles:
            amount, role_id = max(of_roles)
            best = ", the best of this member's roles" if len(of_roles) > 1 else ""
            return Ruling(amount, f"the role <@&{role_id}>{best}")
        return self.server_allowance(tx, who.guild_id)

    def server_allowance(self, tx: sqlite3.Connection, guild_id: int) -> Ruling:
        """Return the allowance of everyone for whom nothing else was set."""
        server = rules.of_guild(tx, guild_id).allowance
        if server is not None:
            return Ruling(server, "this server's default")
        return Ruling(self._daily_allowance, "the bot's default, as this server set none")

    def of_server(self, mine: Rules) -> dict[str, Ruling]:
        """Return the limits of one member's jobs in a server with these rules, by the rules' names."""
        tops = self.ceilings
        return {
            "daily_cap": _lower(mine.daily_cap, tops.guild_daily_max),
            "running_max": _lower(mine.running_max, tops.running_max),
            "waiting_max": _lower(mine.waiting_max, tops.waiting_max),
            "steps_max": _lower(mine.steps_max, tops.steps_max),
            "samples_max": _lower(mine.samples_max, tops.samples_max),
            "pixels_max": _lower(mine.pixels_max, None),
            "slow_s": _lower(mine.slow_s or None, None),
        }

    def explain(self, tx: sqlite3.Connection, who: Person, *, day: int) -> Explanation:
        """Return every limit that holds for the member, each with the rule that won."""
        return Explanation(
            allowance=self.allowance(tx, who),
            limits=self.of_server(rules.of_guild(tx, who.guild_id)),
            spent_by_server=rules.spent(tx, day=day, guild_id=who.guild_id),
            kept_out=tuple(self._kept_out(tx, who)),
        )

    def _kept_out(self, tx: sqlite3.Connection, who: Person) -> Iterator[str]:
        if rules.of_guild(tx, who.guild_id).frozen:
            yield "The moderators have stopped the bot in this server for now."
        if guilds.member(tx, guild_id=who.guild_id, user_id=who.user_id).blocked:
            yield "The moderators of this server keep you from using the bot; please ask them why."
        if _is_frozen(tx, who):
            yield "Your credits are frozen; please ask a moderator why."
        opened = [rule.role_id for rule in rules.roles(tx, who.guild_id) if rule.may_use]
        if opened and who.roles.isdisjoint(opened):
            names = " or ".join(f"<@&{role_id}>" for role_id in opened[:5])
            yield f"Here only members with the role {names} may use the bot; please ask a moderator for it."

    # ----------------------------------------------------------------------- enforcing

    def check_person(self, tx: sqlite3.Connection, who: Person) -> None:
        """Raise `NotAllowed`, with the rule, for whoever may not use the bot in this server."""
        for sentence in self._kept_out(tx, who):
            raise NotAllowed(sentence)

    def check_place(self, tx: sqlite3.Connection, guild_id: int, place: Place) -> None:
        """Raise `NotAllowed` where the server does not want the bot."""
        known = rules.channels(tx, guild_id)
        of_place = [known[channel] for channel in place.channels if channel in known]
        if of_place and not of_place[0]:
            raise NotAllowed("The moderators don't want pictures in this channel; please use another one.")
        allowed = [channel for channel, is_allowed in known.items() if is_allowed]
        if allowed and not of_place:
            where = ", ".join(f"<#{channel}>" for channel in allowed[:5])
            raise NotAllowed(f"Here pictures are made in {where}; please go there.")

    def check_job(self, tx: sqlite3.Connection, job: Job, params: Img2ImgParams, *, day: int) -> None:
        """Raise `LimitReached`, saying which limit and when to come back, unless the job is within all."""
        limits = self.of_server(rules.of_guild(tx, job.guild_id))
        _check_options(limits, params)
        self._check_pace(tx, job, limits)
        self._check_caps(tx, job, limits["daily_cap"].amount, day=day)

    def _check_pace(self, tx: sqlite3.Connection, job: Job, limits: dict[str, Ruling]) -> None:
        at_once = (limits["running_max"].amount or 0) + (limits["waiting_max"].amount or 0)
        is_set = any(limits[name].rule == _BY_SERVER for name in ("running_max", "waiting_max"))
        if is_set and rules.open_jobs(tx, guild_id=job.guild_id, user_id=job.user_id) >= at_once:
            raise LimitReached(
                f"You already have {at_once} pictures under way, as many as this server allows;"
                " please wait until one is done, or cancel one."
            )
        slow_s = limits["slow_s"].amount or 0
        last = rules.last_job_at(tx, guild_id=job.guild_id, user_id=job.user_id) if slow_s else None
        # A clock that stepped back must not keep anyone waiting longer than the slow mode is.
        if last is not None and last <= self._clock.now() < last + slow_s:
            raise LimitReached(
                f"Slow mode: one picture every {duration_text(slow_s).removeprefix('about ')} here."
                " Please come back",
                until=last + slow_s,
            )

    def _check_caps(self, tx: sqlite3.Connection, job: Job, cap: int | None, *, day: int) -> None:
        until = (day + 1) * DAY_S
        if cap is not None:
            left = max(0, cap - rules.spent(tx, day=day, guild_id=job.guild_id))
            if job.price > left:
                raise LimitReached(
                    f"This server spends at most {credits_text(cap)} a day and {left:,} are left,"
                    f" but this costs {job.price:,}. More can be spent",
                    until=until,
                )
        top = self.ceilings.provider_daily_max
        if top is not None and rules.spent(tx, day=day) + job.price > top:
            raise LimitReached("The bot has made all the pictures it may make today. It goes on", until=until)

    def check_pixels(self, tx: sqlite3.Connection, guild_id: int, pixels: int) -> None:
        """Raise `LimitReached` for a picture larger than the server allows."""
        most = rules.of_guild(tx, guild_id).pixels_max
        if most is not None and pixels > most:
            raise LimitReached(
                f"That picture would be made at {megapixels_text(pixels)}, but this server allows"
                f" {megapixels_text(most)}; please attach a smaller one."
            )

    def running_max(self, tx: sqlite3.Connection, guild_id: int) -> int:
        """Return how many jobs one member may have running in the server."""
        return self.of_server(rules.of_guild(tx, guild_id))["running_max"].amount or 1

    # ------------------------------------------------------------------------ ceilings

    def check_allowance(self, allowance: int | None) -> None:
        """Raise `InvalidOption` for an allowance that no moderator may give."""
        if allowance is not None:
            _check_within("an allowance", allowance, 0, self.ceilings.allowance_max)

    def check_amount(self, amount: int) -> None:
        """Raise `InvalidOption` for an amount that no moderator may move in one act."""
        _check_within("an amount", amount, 1, self.ceilings.grant_max)

    def check_rule(self, name: str, value: int | None) -> None:
        """Raise `InvalidOption` for a server's limit above the operator's ceiling."""
        tops = {
            "allowance": self.ceilings.allowance_max,
            "daily_cap": self.ceilings.guild_daily_max or AMOUNT_MAX,
            "running_max": self.ceilings.running_max,
            "waiting_max": self.ceilings.waiting_max,
            "steps_max": self.ceilings.steps_max,
            "samples_max": self.ceilings.samples_max,
            "pixels_max": MEGAPIXEL,
            "slow_s": SLOW_S_MAX,
        }
        if value is not None and name in tops:
            least = 0 if name in {"allowance", "daily_cap", "slow_s"} else 1
            _check_within(f"{RULE_NAMES[name]}", value, least, tops[name])


_BY_SERVER: Final = "this server's rule"
_BY_OPERATOR: Final = "the bot's ceiling"
_FREE: Final = "nobody set a limit"

#: How each rule of a server is called in a sentence.
RULE_NAMES: Final = {
    "allowance": "the daily allowance",
    "daily_cap": "credits of the whole server a day",
    "running_max": "a member's running pictures",
    "waiting_max": "a member's waiting pictures",
    "steps_max": "the most steps",
    "samples_max": "the most samples",
    "pixels_max": "the largest size",
    "slow_s": "the slow mode in seconds",
    "giving": "giving credits to each other",
    "frozen": "the stop of the whole server",
    "private": "private pictures by default",
    "results_channel_id": "the channel for results",
    "log_channel_id": "the log channel",
}


def megapixels_text(pixels: int) -> str:
    """Return "0.5 megapixels"."""
    return f"{pixels / MEGAPIXEL:.2g} megapixels"


def _lower(server: int | None, ceiling: int | None) -> Ruling:
    if server is not None and (ceiling is None or server <= ceiling):
        return Ruling(server, _BY_SERVER)
    return Ruling(ceiling, _FREE if ceiling is None else _BY_OPERATOR)


def _is_frozen(tx: sqlite3.Connection, who: Person) -> bool:
    return ledger.peek_account(tx, kind="user", guild_id=who.guild_id, user_id=who.user_id).frozen


def _check_options(limits: dict[str, Ruling], params: Img2ImgParams) -> None:
    for name, asked, noun in (
        ("steps_max", params.num_inference_steps, "steps"),
        ("samples_max", params.samples, "samples"),
    ):
        most = limits[name].amount
        if most is not None and asked > most:
            whose = "this server" if limits[name].rule == _BY_SERVER else "the bot"
            raise LimitReached(
                f"You asked for {asked} {noun}, but {whose} allows {most}; please ask for fewer."
            )


def _check_within(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidOption(f"Please give {what} a value from {least:,} to {most:,}.")
