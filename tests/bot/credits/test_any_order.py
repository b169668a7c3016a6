"""Members' credits under everything that can happen to them, in any order, against a small model."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bot.actors import Actor, Permission, Person
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Ceilings, Limits
from bot.credits.prices import Prices
from bot.credits.service import CreditService
from bot.errors import LimitReached, NotAllowed, NotEnoughCredits, UserError
from bot.jobs.service import JobService, RequestContext
from bot.moderation.actions import ModerationAction
from bot.moderation.credit_actions import FreezeMember, Grant, ResetAllowance, SetAllowance, Take
from bot.moderation.service import ModerationService
from bot.params import Img2ImgParams
from db import guilds, jobs, ledger, members, spending
from db.jobs import Job, Result
from db.operations import Operation
from tests.support.clock import HandClock
from tests.support.ledgers import open_ledger

T = TypeVar("T")

DAY_S = 86_400
DEFAULT = 10
OPERATOR_CAP = 20
GUILDS = (1, 2)
USERS = (7, 8)
PEOPLE = st.sampled_from([(guild, user) for guild in GUILDS for user in USERS])
AMOUNTS = st.integers(1, 25)
LIMITS = st.integers(0, 20)
PARAMS = Img2ImgParams(prompt="x", seed=0)


@dataclass
class Wallet:
    """What the model believes of one member in one server."""

    balance: int = 0
    allowance: int = 0
    held: dict[int, tuple[int, int]] = field(default_factory=dict)  # job: from allowance, from balance
    given: int = 0
    day: int = -1
    own: int | None = None
    frozen: bool = False

    @property
    def allowance_held(self) -> int:
        """What waiting jobs hold of the allowance."""
        return sum(part for part, _ in self.held.values())


class Money(RuleBasedStateMachine):
    """Grants, holds, settlements, refunds, resets, midnights and steps of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = open_ledger(Path(self.folder.name))
        self.tx = self.ledger.__enter__()
        self.clock = HandClock()
        ceilings = Ceilings(provider_daily_max=OPERATOR_CAP, allowance_max=15)
        nothing: Any = None
        self.limits = Limits(clock=self.clock, daily_allowance=DEFAULT, ceilings=ceilings)
        self.allowance = DailyAllowance(clock=self.clock, limits=self.limits)
        self.credits = CreditService(
            db=nothing,
            clock=self.clock,
            limits=self.limits,
            allowance=self.allowance,
            prices=Prices(1, 0),
        )
        self.jobs = JobService(
            db=nothing,
            clock=self.clock,
            records=nothing,
            credit_service=self.credits,
            limits=self.limits,
            allowance=self.allowance,
            queue=nothing,
            dispatcher=nothing,
        )
        self.moderation = ModerationService(
            db=nothing, clock=self.clock, limits=self.limits, allowance=self.allowance, events=nothing
        )
        self.day = 0
        self.number = 0
        self.wallets = {(guild, user): Wallet() for guild in GUILDS for user in USERS}
        self.default: dict[int, int] = {}
        self.cap: dict[int, int] = {}
        self.spent: dict[tuple[int, int], int] = {}
        self.open: dict[int, tuple[tuple[int, int], int, int]] = {}  # job: whose, price, day

    def teardown(self) -> None:
        """Close the ledger."""
        self.ledger.__exit__(None, None, None)
        self.folder.cleanup()

    def unit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run as the database does: a unit that raises leaves nothing behind."""
        self.tx.execute("BEGIN IMMEDIATE")
        try:
            outcome = work(self.tx)
        except BaseException:
            self.tx.execute("ROLLBACK")
            raise
        self.tx.execute("COMMIT")
        return outcome

    def perform(self, guild_id: int, action: ModerationAction, number: int | None = None) -> None:
        """Let a moderator do something in a new interaction, or in one that was: that counts once."""
        if number is None:
            self.number += 1
        actor = Actor(number or self.number, Person(guild_id, 99, permissions=frozenset(Permission)), "test")
        self.unit(lambda tx: self.moderation.apply_once(tx, actor, action))

    def limit(self, who: tuple[int, int]) -> int:
        """Return the allowance that the rules give."""
        own, server = self.wallets[who].own, self.default.get(who[0])
        wanted = own if own is not None else server if server is not None else DEFAULT
        return min(wanted, 15)

    def refresh(self, who: tuple[int, int]) -> Wallet:
        """Bring the model's wallet to today."""
        self.day = max(self.day, int(self.clock.time // DAY_S))
        wallet = self.wallets[who]
        if wallet.frozen:
            return wallet
        due = self.limit(who)
        if wallet.day != self.day:
            wallet.allowance, wallet.given, wallet.day = due, due, self.day
        elif due != wallet.given:
            change = max(due - wallet.given, -wallet.allowance)
            wallet.allowance += change
            wallet.given += change
        return wallet

    def expected(self, who: tuple[int, int], price: int) -> type[UserError] | None:
        """Return the refusal that the rules call for, None for a job that is due."""
        wallet = self.refresh(who)
        if wallet.frozen:
            return NotAllowed
        spent_here = self.spent.get((self.day, who[0]), 0)
        if spent_here + price > self.cap.get(who[0], 10**9):
            return LimitReached
        if self.spent.get((self.day, 0), 0) + price > OPERATOR_CAP:
            return LimitReached
        return NotEnoughCredits if wallet.allowance + wallet.balance < price else None

    def spend(self, guild_id: int, day: int, amount: int) -> None:
        """Count what a day's jobs hold or cost."""
        for key in ((day, guild_id), (day, 0)):
            self.spent[key] = self.spent.get(key, 0) + amount

    @rule(who=PEOPLE, price=AMOUNTS)
    def ask(self, who: tuple[int, int], price: int) -> None:
        """A member asks for a picture: accepted or refused exactly as the rules say."""
        self.number += 1
        job_id, (guild_id, user_id) = self.number, who
        job = Job(job_id, guild_id, user_id, 3, Operation.IMG2IMG, PARAMS.model_dump_json(), self.clock.time)
        job = replace(job, price=price, input_hash="a")
        request = RequestContext(job_id, Person(*who), 3, "token", 0.0)
        before, day = replace(self.wallets[who]), self.day
        expected = self.expected(who, price)
        refused: type[UserError] | None = None
        try:
            self.unit(lambda tx: self.jobs._store(tx, request, job, PARAMS))
        except UserError as error:
            refused = type(error)
        assert refused is expected
        if refused is not None:
            self.wallets[who], self.day = before, day  # a refusal leaves nothing behind
            return
        wallet = self.wallets[who]
        from_allowance = min(wallet.allowance, price)
        wallet.allowance -= from_allowance
        wallet.balance -= price - from_allowance
        wallet.held[job_id] = (from_allowance, price - from_allowance)
        self.open[job_id] = (who, price, self.day)
        self.spend(guild_id, self.day, price)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def render(self, data: st.DataObject) -> None:
        """A picture is made, at its price or less: the allowance pays first, the rest is let go."""
        job_id = data.draw(st.sampled_from(sorted(self.open)))
        who, price, day = self.open.pop(job_id)
        charged = data.draw(st.integers(0, price))
        now = self.clock.time

        def work(tx: sqlite3.Connection) -> None:
            assert jobs.mark_sending(tx, job_id=job_id, backend="test", now=now)
            self.credits.settle_hold(tx, job_id=job_id, charged=charged)
            picture = Result(job_id, 0, 1, "b" * 64, 64, 64)
            assert jobs.mark_rendered(tx, job_id=job_id, pictures=(picture,), charged=charged, now=now)

        self.unit(work)
        wallet = self.wallets[who]
        from_allowance, from_balance = wallet.held.pop(job_id)
        wallet.allowance += from_allowance - min(from_allowance, charged)
        wallet.balance += from_balance - max(0, charged - from_allowance)
        self.spend(who[0], day, charged - price)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """No picture came of it: everything is given back to where it came from."""
        job_id = data.draw(st.sampled_from(sorted(self.open)))
        who, price, day = self.open.pop(job_id)

        def work(tx: sqlite3.Connection) -> None:
            self.credits.release_hold(tx, job_id=job_id)
            assert jobs.mark_failed(tx, job_id=job_id, failure="no", now=self.clock.time)

        self.unit(work)
        wallet = self.wallets[who]
        from_allowance, from_balance = wallet.held.pop(job_id)
        wallet.allowance += from_allowance
        wallet.balance += from_balance
        self.spend(who[0], day, -price)

    @rule(who=PEOPLE, amount=AMOUNTS, action=st.sampled_from(["grant", "take"]), twice=st.booleans())
    def adjust(self, who: tuple[int, int], amount: int, action: str, twice: bool) -> None:
        """A moderator grants or takes; Discord may deliver it twice."""
        wallet = self.wallets[who]
        self.number += 1
        kind = Grant if action == "grant" else Take
        for _ in range(1 + twice):
            try:
                self.perform(who[0], kind(user_id=who[1], amount=amount), self.number)
            except NotAllowed:
                assert wallet.frozen
                return
        assert not wallet.frozen or (action == "take" and wallet.balance == 0)
        wallet.balance += amount if action == "grant" else -min(amount, wallet.balance)

    @rule(who=PEOPLE, allowance=st.one_of(st.none(), st.integers(0, 15)))
    def set_own(self, who: tuple[int, int], allowance: int | None) -> None:
        """A moderator sets or clears a member's allowance: it counts at once."""
        self.perform(who[0], SetAllowance(user_id=who[1], allowance=allowance))
        self.wallets[who].own = allowance
        self.refresh(who)

    @rule(guild_id=st.sampled_from(GUILDS), allowance=LIMITS)
    def set_default(self, guild_id: int, allowance: int) -> None:
        """A server's default changes; each member's wallet follows when it is looked at."""
        self.unit(lambda tx: guilds.change_setting(tx, guild_id=guild_id, name="allowance", value=allowance))
        self.default[guild_id] = allowance

    @rule(guild_id=st.sampled_from(GUILDS), cap=st.integers(0, 40))
    def set_cap(self, guild_id: int, cap: int) -> None:
        """A server's daily cap changes."""
        self.unit(lambda tx: guilds.change_setting(tx, guild_id=guild_id, name="daily_cap", value=cap))
        self.cap[guild_id] = cap

    @rule(who=PEOPLE)
    def reset(self, who: tuple[int, int]) -> None:
        """A moderator gives back what was spent of today's allowance, and no more."""
        self.perform(who[0], ResetAllowance(user_id=who[1]))
        self.day = max(self.day, int(self.clock.time // DAY_S))
        wallet = self.wallets[who]
        spent = wallet.given - wallet.allowance - wallet.allowance_held
        if wallet.day == self.day and spent > 0 and not wallet.frozen:
            wallet.allowance += spent

    @rule(who=PEOPLE, frozen=st.booleans())
    def freeze(self, who: tuple[int, int], frozen: bool) -> None:
        """A moderator freezes or frees a member's credits."""
        self.perform(who[0], FreezeMember(user_id=who[1], frozen=frozen))
        self.wallets[who].frozen = frozen

    @rule(step_s=st.sampled_from([-2 * DAY_S, -3_600, 60, 3_600, DAY_S // 2, DAY_S, 3 * DAY_S]))
    def let_time_pass(self, step_s: int) -> None:
        """Midnights pass, and clocks step back."""
        self.clock.time += step_s

    @rule(who=PEOPLE)
    def look(self, who: tuple[int, int]) -> None:
        """A member looks at their credits and sees what the rules give."""
        wallet = self.refresh(who)
        shown = self.unit(lambda tx: self.credits.refreshed_wallet(tx, Person(*who)))
        assert (shown.allowance_left, shown.balance) == (wallet.allowance, wallet.balance)
        assert shown.on_hold == sum(a + b for a, b in wallet.held.values())
        assert shown.allowance == self.limit(who)

    @invariant()
    def the_ledger_is_consistent(self) -> None:
        """Sums are zero, each balance is what its transfers say, days are counted right."""
        assert ledger.reconcile(self.tx) == []

    @invariant()
    def nothing_is_below_its_bound(self) -> None:
        """Nobody spends what is not there, no cap is exceeded by what was accepted."""
        low = "SELECT count(*) FROM account WHERE kind <> 'mint' AND (posted < held OR held < 0)"
        assert self.tx.execute(low).fetchone()[0] == 0
        assert all(amount <= OPERATOR_CAP for (_, guild), amount in self.spent.items() if guild == 0)
        for (day, guild_id), amount in self.spent.items():
            assert spending.spent(self.tx, day=day, guild_id=guild_id) == amount

    @invariant()
    def everyone_has_what_the_model_says(self) -> None:
        """Each account holds what the model believes, to the credit."""
        for (guild_id, user_id), wallet in self.wallets.items():
            found = ledger.peek_account(self.tx, kind="user", guild_id=guild_id, user_id=user_id)
            assert found.available == wallet.balance
            own = ledger.peek_account(self.tx, kind="allowance", guild_id=guild_id, user_id=user_id)
            assert (own.available, own.held) == (wallet.allowance, wallet.allowance_held)
            member = members.get_member(self.tx, guild_id=guild_id, user_id=user_id)
            assert wallet.day < 0 or member.given == wallet.given


TestMoney = Money.TestCase
TestMoney.__doc__ = (
    "Whatever happens in whatever order, the ledger is consistent and refusals have their rule."
)
TestMoney.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
