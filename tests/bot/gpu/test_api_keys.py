"""The GPU server's keys: secrets that can't be read back, and budgets that add up."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bot.errors import NotAllowed, NotEnoughCredits, OperatorError
from bot.gpu.api_keys import ORPHANED_AFTER_S, Keys, open_keys
from db.database import connect, open_database
from tests.bot.gpu.key_ledger import faults, states
from tests.support.clock import HandClock

ROOT = Path(__file__).parents[3]

#: Another server's process: it spends a credit at a time while it can, keeps every other one, gives the
#: rest back, and prints how many it kept.
SPENDS = """
import asyncio, sys
from pathlib import Path
from bot.errors import NotEnoughCredits
from bot.gpu.api_keys import open_keys

async def main(name, path):
    kept = 0
    async with open_keys(path) as keys:
        print("open", flush=True)
        sys.stdin.readline()
        for number in range(1000):
            try:
                charge = await keys.charge(key_id=1, request_id=f"{name}{number}", units=1000)
            except NotEnoughCredits:
                break
            await (keys.refund if number % 2 else keys.keep)(charge)
            kept += not number % 2
    print(kept)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""

#: A server's process that is killed at work: one request is paid, one is under way.
DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from bot.gpu.api_keys import open_keys

async def main(path):
    async with open_keys(path) as keys:
        await keys.keep(await keys.charge(key_id=1, request_id="paid", units=1000))
        await keys.charge(key_id=1, request_id="under way", units=1000)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


async def process(code: str, *words: object) -> asyncio.subprocess.Process:
    """Start a Python process that runs `code`."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *map(str, words)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def line(of: asyncio.subprocess.Process) -> str:
    """Return the next line that a process prints."""
    assert of.stdout is not None
    return (await of.stdout.readline()).decode().strip()


def contents(folder: Path) -> bytes:
    """Return all that the files of a folder hold."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.fixture
def clock() -> HandClock:
    """Return a clock that stands still."""
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Yield where a file of keys may be made; its books add up whatever the test did."""
    yield tmp_path / "keys.sqlite"
    assert faults(tmp_path / "keys.sqlite") == []


@pytest.fixture
async def keys(path: Path, clock: HandClock) -> AsyncIterator[Keys]:
    """Yield a new file of keys."""
    async with open_keys(path, clock) as opened:
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
    clock.time += ORPHANED_AFTER_S + 1
    await keys.charge(key_id=key_id, request_id="new", units=1000)
    assert await keys.refund_orphans() == 1
    assert await keys.refund_orphans() == 0
    assert await keys.units(key_id) == 9000


async def test_request_is_charged_once(keys: Keys) -> None:
    """The same request can't be charged a second time, whatever became of it."""
    key_id = await keys.find(await keys.add("bot", credits_given=10))
    await keys.keep(await keys.charge(key_id=key_id, request_id="a", units=1000))
    with pytest.raises(sqlite3.IntegrityError, match="exists"):
        await keys.charge(key_id=key_id, request_id="a", units=1000)
    assert await keys.units(key_id) == 9000


async def test_price_is_held_then_posted_or_voided(keys: Keys, path: Path) -> None:
    """A request's price is set aside while it is worked on, and moves only when there is a picture."""
    key_id = await keys.find(await keys.add("bot", credits_given=10))
    charges = [await keys.charge(key_id=key_id, request_id=name, units=1000) for name in "abc"]
    assert (states(path), await keys.units(key_id)) == ({"pending": 3}, 7000)
    await keys.keep(charges[0])
    await keys.refund(charges[1])
    assert (states(path), await keys.units(key_id)) == ({"pending": 1, "posted": 1, "voided": 1}, 8000)
    assert faults(path) == []


async def test_late_picture_of_a_server_taken_for_dead_is_free(keys: Keys, clock: HandClock) -> None:
    """A charge that was given back as an orphan is not taken after all, and nothing breaks."""
    key_id = await keys.find(await keys.add("bot", credits_given=10))
    charge = await keys.charge(key_id=key_id, request_id="slow", units=1000)
    clock.time += ORPHANED_AFTER_S + 1
    await keys.refund_orphans()
    await keys.keep(charge)
    assert await keys.units(key_id) == 10_000


async def test_killed_server_leaves_books_that_add_up(path: Path, clock: HandClock) -> None:
    """What a killed server held is still held until an hour has passed, and then comes back."""
    clock.time = time.time()
    async with open_keys(path, clock) as keys:
        await keys.add("bot", credits_given=10)
        assert await (await process(DIES, path)).wait() == -signal.SIGKILL
        assert (states(path), faults(path)) == ({"posted": 1, "pending": 1}, [])
        assert await keys.refund_orphans() == 0
        assert await keys.units(1) == 8000
    clock.time += 2 * ORPHANED_AFTER_S
    async with open_keys(path, clock) as keys:
        assert await keys.refund_orphans() == 1
        assert await keys.units(1) == 9000
    assert states(path) == {"posted": 1, "voided": 1}


async def test_two_processes_spend_one_budget_once(path: Path) -> None:
    """Two servers that race for a key's budget together keep exactly what it had."""
    async with open_keys(path) as keys:
        await keys.add("bot", credits_given=30)
    servers = [await process(SPENDS, name, path) for name in "ab"]
    assert [await line(server) for server in servers] == ["open", "open"]
    told = await asyncio.gather(*(server.communicate(b"go\n") for server in servers))
    kept = [int(out) for out, _ in told]
    async with open_keys(path) as keys:
        assert (sum(kept), await keys.units(1)) == (30, 0)
    assert states(path)["posted"] == 30
    assert states(path)["pending"] == 0


async def test_processes_may_make_the_file_together(path: Path) -> None:
    """Servers of several processes that start together on no file at all come up on one."""
    servers = [await process(SPENDS, name, path) for name in "abc"]
    assert [await line(server) for server in servers] == ["open"] * 3
    told = await asyncio.gather(*(server.communicate(b"go\n") for server in servers))
    assert [int(out) for out, _ in told] == [0, 0, 0]


async def test_transfers_can_not_be_rewritten(keys: Keys, path: Path) -> None:
    """Nobody changes or deletes what was booked, not even by hand."""
    await keys.add("bot", credits_given=1)
    with closing(connect(path)) as database:
        for statement in ("UPDATE transfer SET amount = 5", "DELETE FROM transfer"):
            with pytest.raises(sqlite3.IntegrityError, match=r"final|never deleted"):
                database.execute(statement)


async def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Servers that start together on a new file all come up, and see one budget."""

    async def spend(name: str) -> None:
        async with open_keys(tmp_path / "new.sqlite") as opened:
            await opened.add(name, credits_given=1)

    await asyncio.gather(*(spend(str(i)) for i in range(8)))
    async with open_keys(tmp_path / "new.sqlite") as opened:
        assert len(await opened.all()) == 8


async def test_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """A file that is no database, the bot's own database, or a folder, is refused in one sentence."""
    (tmp_path / "notes.txt").write_text("not a database, though quite long " * 40)
    async with open_database(tmp_path / "data"):
        pass
    for path in (tmp_path / "notes.txt", tmp_path / "data" / "bot.sqlite3", tmp_path):
        with pytest.raises(OperatorError):
            async with open_keys(path):
                pass


async def test_file_of_a_newer_version_is_refused(path: Path) -> None:
    """A file that a newer version wrote is left alone, and the sentence says what to do."""
    async with open_keys(path):
        pass
    with closing(connect(path)) as database:
        database.execute("PRAGMA user_version = 9999")
    with pytest.raises(OperatorError, match="newer version"):
        async with open_keys(path):
            pass
