"""One server's credits on a real database: the services wired as the app wires them, and a clock to move."""

from __future__ import annotations

import sqlite3
from typing import Final

from bot.actors import Actor, Permission, Person
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Ceilings, Limits
from bot.credits.prices import Prices
from bot.credits.service import CreditService, WalletSummary
from bot.events import Events
from bot.moderation.actions import ModerationAction
from bot.moderation.credit_actions import Grant, SetAllowance, Take
from bot.moderation.service import ModerationService, Outcome
from db import jobs
from db.database import Database
from db.jobs import Job
from db.operations import Operation
from tests.support.clock import HandClock

DAILY_ALLOWANCE: Final = 40
PRICES: Final = Prices(per_sample=1, per_megapixel_step=0.15)
MODERATOR_ID: Final = 99
ALICE: Final = Person(1, 7)


class Bank:
    """Server 1 with member 7 and moderator 99."""

    def __init__(self, db: Database, *, ceilings: Ceilings | None = None) -> None:
        self.db = db
        self.clock = HandClock()
        self.limits = Limits(
            clock=self.clock, daily_allowance=DAILY_ALLOWANCE, ceilings=ceilings or Ceilings()
        )
        self.allowance = DailyAllowance(clock=self.clock, limits=self.limits)
        self.credits = CreditService(
            db=db, clock=self.clock, limits=self.limits, allowance=self.allowance, prices=PRICES
        )
        self.moderation = ModerationService(
            db=db, clock=self.clock, limits=self.limits, allowance=self.allowance, events=Events()
        )
        self._interactions = 1000

    def actor(self, interaction_id: int | None = None) -> Actor:
        """Return the moderator in a new interaction, or in one that was."""
        self._interactions += 1
        person = Person(1, MODERATOR_ID, permissions=frozenset({Permission.MANAGE_SERVER}))
        return Actor(interaction_id or self._interactions, person, "test")

    async def perform(self, action: ModerationAction, actor: Actor | None = None) -> Outcome:
        """Let the moderator do something, and confirm it where that is asked for."""
        actor = actor or self.actor()
        outcome = await self.moderation.perform(actor, action)
        if outcome.needs_confirmation:
            outcome = await self.moderation.confirm(actor.interaction_id, actor.person)
        return outcome

    async def grant(self, amount: int, *, user_id: int = 7, actor: Actor | None = None) -> Outcome:
        """Add to a member's balance."""
        return await self.perform(Grant(user_id=user_id, amount=amount), actor)

    async def take(self, amount: int) -> Outcome:
        """Take from the member's balance."""
        return await self.perform(Take(user_id=7, amount=amount))

    async def set_allowance(self, allowance: int | None, *, user_id: int = 7) -> Outcome:
        """Set a member's own daily allowance."""
        return await self.perform(SetAllowance(user_id=user_id, allowance=allowance))

    async def wallet(
        self, user_id: int = 7, *, guild_id: int = 1, roles: tuple[int, ...] = ()
    ) -> WalletSummary:
        """Return what a member can spend."""
        return await self.credits.wallet(Person(guild_id, user_id, frozenset(roles)))

    async def available(self) -> int:
        """Return what the member can spend, in all."""
        return (await self.wallet()).available

    async def hold(self, job_id: int, amount: int) -> None:
        """Hold `amount` for a new job of the member."""

        def unit(tx: sqlite3.Connection) -> None:
            jobs.insert(tx, a_new_job(job_id, price=amount))
            self.credits.hold(tx, ALICE, job_id=job_id, amount=amount)

        await self.db.write(unit)

    async def settle(self, job_id: int, charged: int) -> None:
        """Charge the job."""
        await self.db.write(lambda tx: self.credits.settle_hold(tx, job_id=job_id, charged=charged))

    async def release(self, job_id: int) -> None:
        """Release the job's hold."""
        await self.db.write(lambda tx: self.credits.release_hold(tx, job_id=job_id))


def a_new_job(job_id: int, *, price: int, guild_id: int = 1, day: int = 0) -> Job:
    """Return a job of member 7 that is not stored yet."""
    return Job(
        id=job_id,
        guild_id=guild_id,
        user_id=7,
        channel_id=3,
        operation=Operation.IMG2IMG,
        params_json="{}",
        created_at=0,
        price=price,
        day=day,
    )
