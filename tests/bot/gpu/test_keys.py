"""The GPU server's keys: secrets that can't be read back, and budgets that add up."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from bot.errors import NotAllowed, NotEnoughCredits, OperatorError
from bot.gpu.keys import ORPHANED_AFTER_S, Keys, open_keys


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_s = 1_000_000.0

    def now(self) -> float:
        """Return the time."""
        return self.time_s

    async def sleep(self, delay_s: float) -> None:
        """Move on without waiting."""
        self.time_s += delay_s


def contents(folder: Path) -> bytes:
    """Return all that the files of a folder hold."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.fixture
def clock() -> HandClock:
    """Return a clock that stands still."""
    return HandClock()


@pytest.fixture
async def keys(tmp_path: Path, clock: HandClock) -> AsyncIterator[Keys]:
    """Yield a new file of keys."""
    async with open_keys(tmp_path / "keys.sqlite", clock) as opened:
        yield opened


async def test_key_opens_the_door_and_nothing_like_it_does(keys: Keys) -> None:
    """A key works as given; a changed, cut or empty one does not."""
    key = await keys.add("bot", credits_given=1)
    assert await keys.find(key) == 1
    for wrong in ("", ".", key[:-1], key + "x", key.partition(".")[0], "x" + key):
        with pytest.raises(NotAllowed):
            await keys.find(wrong)


async def test_secret_is_not_in_the_file(keys: Keys, tmp_path: Path) -> None:
    """Who steals the file can't use the keys, and only its owner may read it."""
    secret = (await keys.add("bot", credits_given=1)).partition(".")[2].encode()
    assert secret not in contents(tmp_path)
    assert stat.S_IMODE((tmp_path / "keys.sqlite").stat().st_mode) == 0o600


async def test_revoked_key_works_no_more(keys: Keys) -> None:
    """A revoked key is refused from then on, and stays in the list with its balance."""
    key = await keys.add("bot", credits_given=2)
    await keys.revoke("bot")
    with pytest.raises(NotAllowed):
        await keys.find(key)
    with pytest.raises(OperatorError, match="No live key"):
        await keys.revoke("bot")
    assert [(listed.name, listed.units, listed.revoked) for listed in await keys.all()] == [
        ("bot", 2000, True)
    ]
    assert not await keys.any_live()


async def test_names_are_taken_once(keys: Keys) -> None:
    """A second key of the same name is refused in one sentence, and nothing of it is kept."""
    await keys.add("bot", credits_given=1)
    with pytest.raises(OperatorError, match="taken"):
        await keys.add("bot", credits_given=1)
    assert len(await keys.all()) == 1


@pytest.mark.parametrize("budget", [0, -1, 1e12, float("nan")])
async def test_budget_must_be_an_amount(keys: Keys, budget: float) -> None:
    """A budget that is no amount is refused."""
    with pytest.raises(OperatorError, match="budget"):
        await keys.add("bot", credits_given=budget)


async def test_budget_can_be_spent_and_not_overdrawn(keys: Keys) -> None:
    """A key pays until its budget is used up, and then is told what is missing."""
    key_id = await keys.find(await keys.add("bot", credits_given=1))
    charge = await keys.charge(key_id=key_id, request_id="a", units=700)
    assert charge.units_left == 300
    with pytest.raises(NotEnoughCredits, match=r"takes 0\.7, the key has 0\.3 left"):
        await keys.charge(key_id=key_id, request_id="b", units=700)
    assert await keys.units(key_id) == 300


async def test_two_at_once_can_not_spend_the_same_credit(keys: Keys) -> None:
    """Ten requests at once on a budget for three: three are paid."""
    key_id = await keys.find(await keys.add("bot", credits_given=3))
    charges = (keys.charge(key_id=key_id, request_id=str(i), units=1000) for i in range(10))
    results = await asyncio.gather(*charges, return_exceptions=True)
    assert sum(isinstance(result, NotEnoughCredits) for result in results) == 7
    assert await keys.units(key_id) == 0


async def test_refund_happens_once_and_never_after_keeping(keys: Keys) -> None:
    """What failed is given back once; what was delivered never is."""
    key_id = await keys.find(await keys.add("bot", credits_given=10))
    failed = await keys.charge(key_id=key_id, request_id="failed", units=1000)
    await keys.refund(failed)
    await keys.refund(failed)
    earned = await keys.charge(key_id=key_id, request_id="earned", units=1000)
    await keys.keep(earned)
    await keys.refund(earned)
    assert await keys.units(key_id) == 9000


async def test_charges_of_a_dead_server_come_back(keys: Keys, clock: HandClock) -> None:
    """What a server took before it died is given back after an hour; work that still runs is not touched."""
    key_id = await keys.find(await keys.add("bot", credits_given=10))
    await keys.charge(key_id=key_id, request_id="old", units=1000)
    clock.time_s += ORPHANED_AFTER_S + 1
    await keys.charge(key_id=key_id, request_id="new", units=1000)
    assert await keys.refund_orphans() == 1
    assert await keys.refund_orphans() == 0
    assert await keys.units(key_id) == 9000


async def test_transfers_can_not_be_rewritten(keys: Keys, tmp_path: Path) -> None:
    """Nobody changes or deletes what was booked, not even by hand."""
    await keys.add("bot", credits_given=1)
    async with aiosqlite.connect(tmp_path / "keys.sqlite") as database:
        for statement in ("UPDATE transfers SET units = 5", "DELETE FROM transfers"):
            with pytest.raises(aiosqlite.IntegrityError, match="only added"):
                await database.execute(statement)


async def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Servers that start together on a new file all come up, and see one budget."""

    async def spend(name: str) -> None:
        async with open_keys(tmp_path / "new.sqlite") as opened:
            await opened.add(name, credits_given=1)

    await asyncio.gather(*(spend(str(i)) for i in range(8)))
    async with open_keys(tmp_path / "new.sqlite") as opened:
        assert len(await opened.all()) == 8


async def test_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """A file that is no database, or a folder, is refused in one sentence."""
    (tmp_path / "notes.txt").write_text("not a database, though quite long " * 40)
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(OperatorError):
            async with open_keys(path):
                pass
