"""API keys: secrets that can't be read back, and budgets in a consistent ledger."""

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
from bot.gpu.api_keys import ORPHANED_AFTER_S, ApiKeys
from bot.gpu.key_file import open_keys
from db.database import connect
from tests.bot.gpu.key_ledger import faults, states
from tests.support.clock import HandClock

ROOT = Path(__file__).parents[3]

#: Another server's process: it charges a credit at a time while it can, posts every other charge,
#: refunds the rest, and prints how many it posted.
SPENDS = """
import asyncio, sys
from pathlib import Path
from bot.errors import NotEnoughCredits
from bot.gpu.key_file import open_keys

async def main(name, path):
    posted = 0
    async with open_keys(path) as keys:
        print("open", flush=True)
        sys.stdin.readline()
        for number in range(1000):
            try:
                charge = await keys.charge(key_id=1, request_id=f"{name}{number}", units=1000)
            except NotEnoughCredits:
                break
            await (keys.refund if number % 2 else keys.post)(charge)
            posted += not number % 2
    print(posted)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""

#: A server's process that is killed while working: one request is paid, one is under way.
DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from bot.gpu.key_file import open_keys

async def main(path):
    async with open_keys(path) as keys:
        await keys.post(await keys.charge(key_id=1, request_id="paid", units=1000))
        await keys.charge(key_id=1, request_id="under way", units=1000)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


async def process(code: str, *words: object) -> asyncio.subprocess.Process:
    """StartOptions a Python process that runs `code`."""
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
    """Yield where a file of keys may be made; its ledger is consistent whatever the test did."""
    yield tmp_path / "keys.sqlite"
    assert faults(tmp_path / "keys.sqlite") == []


@pytest.fixture
async def keys(path: Path, clock: HandClock) -> AsyncIterator[ApiKeys]:
    """Yield a new file of keys."""
    async with open_keys(path, clock) as opened:
        yield opened


async def test_only_the_exact_key_works(keys: ApiKeys) -> None:
    """A key works as given; a changed, cut or empty one does not."""
    key = await keys.add("bot", credits_given=1)
    assert await keys.authenticate(key) == 1
    for wrong in ("", ".", key[:-1], key + "x", key.partition(".")[0], "x" + key):
        with pytest.raises(NotAllowed):
            await keys.authenticate(wrong)


async def test_secret_is_not_in_the_file(keys: ApiKeys, tmp_path: Path) -> None:
    """A stolen file doesn't reveal the keys, and only its owner may read it."""
    secret = (await keys.add("bot", credits_given=1)).partition(".")[2].encode()
    assert secret not in contents(tmp_path)
    assert stat.S_IMODE((tmp_path / "keys.sqlite").stat().st_mode) == 0o600


async def test_revoked_key_stops_working(keys: ApiKeys) -> None:
    """A revoked key is refused from then on, and stays in the list with its balance."""
    key = await keys.add("bot", credits_given=2)
    await keys.revoke("bot")
    with pytest.raises(NotAllowed):
        await keys.authenticate(key)
    with pytest.raises(OperatorError, match="No active key"):
        await keys.revoke("bot")
    assert [(listed.name, listed.units, listed.revoked) for listed in await keys.list_all()] == [
        ("bot", 2000, True)
    ]
    assert not await keys.has_active_key()


async def test_names_are_unique(keys: ApiKeys) -> None:
    """A second key of the same name is refused in one sentence, and nothing of it is stored."""
    await keys.add("bot", credits_given=1)
    with pytest.raises(OperatorError, match="taken"):
        await keys.add("bot", credits_given=1)
    assert len(await keys.list_all()) == 1


@pytest.mark.parametrize("budget", [0, -1, 1e12, float("nan")])
async def test_budget_must_be_in_range(keys: ApiKeys, budget: float) -> None:
    """A budget of nothing, below 0, too large or not a number is refused."""
    with pytest.raises(OperatorError, match="budget"):
        await keys.add("bot", credits_given=budget)


async def test_budget_can_be_spent_and_not_overdrawn(keys: ApiKeys) -> None:
    """A key pays until its budget is used up; then the error says what is left."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=1))
    charge = await keys.charge(key_id=key_id, request_id="a", units=700)
    assert charge.units_left == 300
    with pytest.raises(NotEnoughCredits, match=r"costs 0\.7, the key has 0\.3 left"):
        await keys.charge(key_id=key_id, request_id="b", units=700)
    assert await keys.available_units(key_id) == 300


async def test_concurrent_requests_never_spend_a_credit_twice(keys: ApiKeys) -> None:
    """Ten requests at once on a budget for three: three are paid."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=3))
    charges = (keys.charge(key_id=key_id, request_id=str(i), units=1000) for i in range(10))
    results = await asyncio.gather(*charges, return_exceptions=True)
    assert sum(isinstance(result, NotEnoughCredits) for result in results) == 7
    assert await keys.available_units(key_id) == 0


async def test_refund_happens_once_and_never_after_posting(keys: ApiKeys) -> None:
    """A failed request is refunded once; a delivered one never is."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=10))
    failed = await keys.charge(key_id=key_id, request_id="failed", units=1000)
    await keys.refund(failed)
    await keys.refund(failed)
    made = await keys.charge(key_id=key_id, request_id="made", units=1000)
    await keys.post(made)
    await keys.refund(made)
    assert await keys.available_units(key_id) == 9000


async def test_charges_of_a_dead_server_are_refunded(keys: ApiKeys, clock: HandClock) -> None:
    """What a server charged before it died is refunded after an hour; work that still runs is not touched."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=10))
    await keys.charge(key_id=key_id, request_id="old", units=1000)
    clock.time += ORPHANED_AFTER_S + 1
    await keys.charge(key_id=key_id, request_id="new", units=1000)
    assert await keys.refund_orphans() == 1
    assert await keys.refund_orphans() == 0
    assert await keys.available_units(key_id) == 9000


async def test_request_is_charged_once(keys: ApiKeys) -> None:
    """The same request can't be charged a second time, however it ended."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=10))
    await keys.post(await keys.charge(key_id=key_id, request_id="a", units=1000))
    with pytest.raises(sqlite3.IntegrityError, match="exists"):
        await keys.charge(key_id=key_id, request_id="a", units=1000)
    assert await keys.available_units(key_id) == 9000


async def test_price_is_held_then_posted_or_voided(keys: ApiKeys, path: Path) -> None:
    """A request's price is set aside while it is worked on, and moves only when there is a picture."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=10))
    charges = [await keys.charge(key_id=key_id, request_id=name, units=1000) for name in "abc"]
    assert (states(path), await keys.available_units(key_id)) == ({"pending": 3}, 7000)
    await keys.post(charges[0])
    await keys.refund(charges[1])
    assert (states(path), await keys.available_units(key_id)) == (
        {"pending": 1, "posted": 1, "voided": 1},
        8000,
    )
    assert faults(path) == []


async def test_picture_after_the_refund_is_free(keys: ApiKeys, clock: HandClock) -> None:
    """A charge that was refunded as an orphan is not posted afterwards, and nothing breaks."""
    key_id = await keys.authenticate(await keys.add("bot", credits_given=10))
    charge = await keys.charge(key_id=key_id, request_id="slow", units=1000)
    clock.time += ORPHANED_AFTER_S + 1
    await keys.refund_orphans()
    await keys.post(charge)
    assert await keys.available_units(key_id) == 10_000


async def test_killed_server_leaves_a_consistent_ledger(path: Path, clock: HandClock) -> None:
    """What a killed server held stays held for an hour, and is then refunded."""
    clock.time = time.time()
    async with open_keys(path, clock) as keys:
        await keys.add("bot", credits_given=10)
        assert await (await process(DIES, path)).wait() == -signal.SIGKILL
        assert (states(path), faults(path)) == ({"posted": 1, "pending": 1}, [])
        assert await keys.refund_orphans() == 0
        assert await keys.available_units(1) == 8000
    clock.time += 2 * ORPHANED_AFTER_S
    async with open_keys(path, clock) as keys:
        assert await keys.refund_orphans() == 1
        assert await keys.available_units(1) == 9000
    assert states(path) == {"posted": 1, "voided": 1}


async def test_two_processes_spend_one_budget_once(path: Path) -> None:
    """Two servers that race for a key's budget together charge exactly what it had."""
    async with open_keys(path) as keys:
        await keys.add("bot", credits_given=30)
    servers = [await process(SPENDS, name, path) for name in "ab"]
    assert [await line(server) for server in servers] == ["open", "open"]
    outputs = await asyncio.gather(*(server.communicate(b"go\n") for server in servers))
    posted = [int(out) for out, _ in outputs]
    async with open_keys(path) as keys:
        assert (sum(posted), await keys.available_units(1)) == (30, 0)
    assert states(path)["posted"] == 30
    assert states(path)["pending"] == 0


async def test_processes_may_make_the_file_together(path: Path) -> None:
    """Servers of several processes that start together on no file at all come up on one."""
    servers = [await process(SPENDS, name, path) for name in "abc"]
    assert [await line(server) for server in servers] == ["open"] * 3
    outputs = await asyncio.gather(*(server.communicate(b"go\n") for server in servers))
    assert [int(out) for out, _ in outputs] == [0, 0, 0]


async def test_transfers_can_not_be_changed(keys: ApiKeys, path: Path) -> None:
    """Nobody can change or delete a transfer, not even with SQL."""
    await keys.add("bot", credits_given=1)
    with closing(connect(path)) as database:
        for statement in ("UPDATE transfer SET amount = 5", "DELETE FROM transfer"):
            with pytest.raises(sqlite3.IntegrityError, match=r"final|never deleted"):
                database.execute(statement)
