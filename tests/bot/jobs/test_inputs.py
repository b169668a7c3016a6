"""A job's input: what is fetched, what it becomes, and in which words it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import BotError, LimitReached, UnusablePicture
from bot.events import InputRefused, JobRendered
from bot.jobs import inputs
from bot.jobs.inputs import FETCHES_AT_ONCE_MAX, check_size, is_normal_size, normal_pixels
from bot.pictures.sizes import AREA_MAX, INPUT_BYTES_MAX, SIDE_MAX
from db.jobs import Job
from tests.support import pictures
from tests.support.clock import HandClock
from tests.support.live_bot import eventually
from tests.support.workshop import ALICE, PICTURE, SOURCE, Workshop, open_workshop

Fetch = Callable[[str], Awaitable[bytes]]


@pytest.mark.parametrize(
    ("width", "height", "pixels"),
    [
        (1024, 1024, AREA_MAX),
        (4096, 4096, AREA_MAX),
        (512, 768, 512 * 768),
        (96, 64, 624 * 416),
        (None, 64, AREA_MAX),
        (64, None, AREA_MAX),
        (0, 64, AREA_MAX),
        (-64, -64, AREA_MAX),
    ],
)
def test_a_size_is_known_or_taken_as_the_largest(width: int | None, height: int | None, pixels: int) -> None:
    """What Discord says of a picture gives its price; where it says nothing, the price is the highest."""
    assert normal_pixels(width, height) == pixels


@pytest.mark.parametrize(
    ("width", "height", "is_normal"),
    [(512, 512, True), (16, SIDE_MAX, True), (513, 512, False), (512, 8, False), (512, SIDE_MAX + 16, False)],
)
def test_a_result_is_used_as_it_is_where_its_size_allows(width: int, height: int, is_normal: bool) -> None:
    """A picture whose sides are on the model's grid is not resampled when it becomes an input."""
    assert is_normal_size(width, height) is is_normal


def test_a_file_is_refused_by_its_size_alone() -> None:
    """Nothing empty or too large is fetched; a size that is not known is found out later."""
    for size_bytes in (None, 1, INPUT_BYTES_MAX):
        check_size(size_bytes)
    with pytest.raises(UnusablePicture, match="empty"):
        check_size(0)
    with pytest.raises(UnusablePicture, match="larger than 25 MB"):
        check_size(INPUT_BYTES_MAX + 1)


async def test_an_input_is_stored_with_its_true_size(tmp_path: Path) -> None:
    """Backends get the member's picture brought to size, whatever Discord said about it."""
    async with open_workshop(tmp_path) as shop:
        job = await shop.submit(source=replace(SOURCE, width=4000, height=4000))
        await shop.idle()
        stored = await shop.job(job.id)
        assert (stored.input_pixels, stored.charged) == (624 * 416, 2)
        assert stored.input_hash is not None
        assert pictures.opened(await shop.app.store.get(stored.input_hash)).size == (624, 416)


async def test_a_variation_takes_its_input_from_the_store(tmp_path: Path) -> None:
    """A job whose source is a stored picture fetches nothing."""

    async def no_fetch(url: str) -> bytes:
        raise AssertionError(url)

    async with open_workshop(tmp_path, fetch=no_fetch) as shop:
        digest = await shop.app.store.put(PICTURE)
        job = replace(await _stored_job(shop), source_hash=digest, source_url=None)
        shop.app.dispatcher._inputs.begin(job, on_refused=_no_refusal)
        await shop.app.dispatcher._inputs.ready(job.id)
        assert (await shop.job(job.id)).input_pixels == 624 * 416


async def _stored_job(shop: Workshop) -> Job:
    """Return a job that is stored as queued and starts nowhere."""
    shop.app.dispatcher._draining = True
    job = await shop.submit()
    await shop.app.dispatcher._inputs.aclose()
    return job


def _no_refusal(job_id: int, error: BotError) -> None:
    raise AssertionError(f"{job_id}: {error}")


def _fails(error: BaseException) -> Fetch:
    async def fetch(_url: str) -> bytes:
        raise error

    return fetch


def _gives(data: bytes) -> Fetch:
    async def fetch(_url: str) -> bytes:
        return data

    return fetch


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        (_fails(UnusablePicture("That is no address of Discord's.")), "no address of Discord's"),
        (_fails(BotError("Pictures can't be opened just now.")), "can't be opened just now"),
        (_fails(ConnectionResetError("no")), "couldn't be downloaded; please attach it again"),
        (_fails(RuntimeError("a bug")), "couldn't be downloaded; please attach it again"),
        (_fails(TimeoutError()), "Discord took too long"),
        (_gives(b""), "That file is empty"),
        (_gives(b"x" * (INPUT_BYTES_MAX + 1)), "larger than 25 MB"),
        (_gives(b"a song"), "not a PNG, JPEG, GIF or WebP"),
    ],
    ids=["unusable", "no child", "network", "bug", "slow", "empty", "large", "song"],
)
async def test_an_input_that_can_not_be_used_is_refused_in_a_sentence(
    tmp_path: Path, fetch: Fetch, words: str
) -> None:
    """Whatever is wrong with a picture, its member alone reads one sentence, and pays nothing."""
    async with open_workshop(tmp_path, fetch=fetch) as shop:
        job = await shop.submit()
        await eventually(lambda: shop.announced(InputRefused))
        await shop.idle()
        (refusal,) = shop.announced(InputRefused)
        assert refusal.job_id == job.id
        assert words in refusal.sentence
        assert (await shop.job(job.id)).failure == refusal.sentence
        assert await shop.available() == 40


async def test_a_slow_discord_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that does not end is given up, and the member may try again."""
    monkeypatch.setattr(inputs, "FETCH_TIMEOUT_S", 0.01)

    async def fetch(_url: str) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with open_workshop(tmp_path, fetch=fetch) as shop:
        await shop.submit()
        await eventually(lambda: shop.announced(InputRefused))
        assert "took too long" in shop.announced(InputRefused)[0].sentence


async def test_a_few_downloads_run_at_once(tmp_path: Path) -> None:
    """However many members send pictures at the same moment, memory holds a few of them."""
    gate, running, most = asyncio.Event(), 0, 0

    async def fetch(_url: str) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return PICTURE

    bounds = FETCHES_AT_ONCE_MAX + 5
    async with open_workshop(tmp_path, fetch=fetch, member_waiting_max=bounds, daily_allowance=1000) as shop:
        for _ in range(FETCHES_AT_ONCE_MAX + 4):
            await shop.submit()
        await eventually(lambda: running == FETCHES_AT_ONCE_MAX)
        gate.set()
        await shop.idle()
        assert most == FETCHES_AT_ONCE_MAX
        assert len(shop.announced(JobRendered)) == FETCHES_AT_ONCE_MAX + 4


async def test_a_servers_size_counts_once_the_picture_is_open(tmp_path: Path) -> None:
    """A picture that is larger than Discord said is refused where the server allows no such size."""
    refusals: list[BotError] = []
    async with open_workshop(tmp_path) as shop:
        job = await _stored_job(shop)
        await shop.app.db.write(lambda tx: tx.execute("INSERT INTO guild (id, pixels_max) VALUES (1, 1000)"))
        prepare = shop.app.dispatcher._inputs
        prepare.begin(job, on_refused=lambda _id, error: refusals.append(error))
        await prepare.ready(job.id)
        await eventually(lambda: refusals)
        assert isinstance(refusals[0], LimitReached)
        assert (await shop.job(job.id)).input_hash is None


async def test_a_disk_that_refuses_delays_an_input(tmp_path: Path) -> None:
    """A job that was accepted before the disk filled up is made when there is room, not refused."""
    clock = HandClock()
    async with open_workshop(tmp_path, clock=clock) as shop:
        job = await _stored_job(shop)
        shop.disk.refusals = 5
        prepare, began = shop.app.dispatcher._inputs, clock.time
        prepare.begin(job, on_refused=_no_refusal)
        await prepare.ready(job.id)
        assert clock.time - began == 1 + 2 + 4 + 8 + 16
        assert (await shop.job(job.id)).input_hash is not None


async def test_closing_refuses_nothing(tmp_path: Path) -> None:
    """A job whose picture was being fetched at a stop is neither refused nor charged: it is resumed."""
    is_fetching = asyncio.Event()

    async def fetch(_url: str) -> bytes:
        is_fetching.set()
        await asyncio.Event().wait()
        return b""

    async with open_workshop(tmp_path, fetch=fetch) as shop:
        job = await shop.submit()
        await is_fetching.wait()
    async with open_workshop(tmp_path) as shop:
        assert (await shop.job(job.id)).state == "queued"
        await shop.app.dispatcher.recover()
        await shop.idle()
        assert (await shop.job(job.id)).state == "rendered"
        assert await shop.available(ALICE) == 38
