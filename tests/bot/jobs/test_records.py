"""Looking jobs up: who may see or use which, and where they are shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.actors import ChannelContext, Person
from bot.errors import JobGone, NotAllowed
from bot.jobs.records import HISTORY_MAX, params_of
from tests.support.live_bot import Brush
from tests.support.workshop import ALICE, BOB, MODERATOR, SOURCE, Workshop, open_workshop, some_params

HERE = ChannelContext()
NSFW = ChannelContext(age_restricted=True)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    """Yield a workshop."""
    async with open_workshop(tmp_path) as opened:
        yield opened


async def test_a_job_comes_with_its_options_pictures_and_parent(shop: Workshop) -> None:
    """What a card shows of a job is found in one look-up."""
    parent = await shop.made(samples=2)
    child = await shop.app.jobs.reroll(shop.request(), parent.id)
    await shop.idle()
    view = await shop.app.job_records.view(child.id, guild_id=1)
    assert params_of(view.job) == view.params
    assert (view.params.samples, len(view.results)) == (2, 2)
    assert view.parent == parent
    assert (await shop.app.job_records.view(parent.id, guild_id=1)).parent is None


async def test_a_job_is_viewed_in_its_own_server_until_it_is_deleted(shop: Workshop) -> None:
    """Another server's job is gone for whoever asks; a deleted one too, but not for its own delivery."""
    records, job = shop.app.job_records, await shop.made()
    assert (await records.view(job.id, guild_id=1)).job == job
    with pytest.raises(JobGone):
        await records.view(job.id, guild_id=2)
    await shop.app.jobs.delete(ALICE, job.id)
    with pytest.raises(JobGone):
        await records.view(job.id, guild_id=1)
    assert await records.find(job.id) is not None


@pytest.mark.parametrize("forged_id", [0, 12_345, 2**63 - 1, 2**63, 10**20])
async def test_an_id_without_a_job_finds_nothing(shop: Workshop, forged_id: int) -> None:
    """An id that was forged, even beyond what SQLite can store, is no error."""
    assert await shop.app.job_records.find(forged_id) is None
    with pytest.raises(JobGone):
        await shop.app.job_records.view(forged_id, guild_id=1)


async def test_only_its_member_opens_a_job(shop: Workshop) -> None:
    """A picture is continued or shown again by whoever asked for it, in its server."""
    records, job = shop.app.job_records, await shop.made()
    assert (await records.open_for(ALICE, HERE, job.id)).job == job
    for other in (BOB, MODERATOR):
        with pytest.raises(NotAllowed, match="Only the member who asked"):
            await records.open_for(other, HERE, job.id)
    with pytest.raises(JobGone):
        await records.open_for(Person(2, ALICE.user_id), HERE, job.id)


async def test_an_age_restricted_picture_is_opened_where_that_is_allowed(shop: Workshop) -> None:
    """What was made in an age-restricted channel is shown in no other kind of channel."""
    job = await shop.app.jobs.submit(shop.request(where=NSFW), some_params(), SOURCE)
    await shop.idle()
    with pytest.raises(NotAllowed, match="made in an age-restricted channel; please continue in one"):
        await shop.app.job_records.open_for(ALICE, HERE, job.id)
    assert (await shop.app.job_records.open_for(ALICE, NSFW, job.id)).job.id == job.id


async def test_the_history_is_as_long_as_a_card_has_room(tmp_path: Path) -> None:
    """A member sees their latest pictures with all that belongs to them, and nobody else's."""
    async with open_workshop(tmp_path, daily_allowance=1000) as shop:
        jobs = [await shop.made() for _ in range(HISTORY_MAX + 1)]
        await shop.made(BOB)
        history = await shop.app.job_records.history(ALICE)
        assert len(history) == HISTORY_MAX
        assert jobs[-1] in [view.job for view in history]
        assert {len(view.results) for view in history} == {1}
        assert await shop.app.job_records.history(Person(2, ALICE.user_id)) == []


async def test_a_message_leads_to_the_job_that_it_shows(shop: Workshop) -> None:
    """A moderator's command on a message finds the job; in another server it finds none."""
    records, job = shop.app.job_records, await shop.made()
    await records.record_message(job.id, message_id=50, channel_id=4)
    assert await records.id_of_message(50, guild_id=1) == job.id
    assert await records.id_of_message(50, guild_id=2) is None
    assert await records.id_of_message(51, guild_id=1) is None
    stored = await shop.job(job.id)
    assert (stored.message_id, stored.channel_id) == (50, 4)


async def test_a_picture_that_could_not_be_posted_may_still_be_delivered(shop: Workshop) -> None:
    """What had nowhere to go counts as delivered once its member was shown it from the history."""
    records, job = shop.app.job_records, await shop.made()
    await records.mark_undeliverable(job.id)
    assert (await shop.job(job.id)).state == "undeliverable"
    await records.mark_delivered(job.id)
    assert (await shop.job(job.id)).state == "delivered"
    await records.mark_undeliverable(job.id)
    assert (await shop.job(job.id)).state == "delivered"


async def test_a_job_that_is_not_made_yet_can_not_be_delivered(tmp_path: Path) -> None:
    """Marking a job that waits or runs changes nothing."""
    async with open_workshop(tmp_path, backends=[Brush(gate=asyncio.Event())]) as shop:
        job = await shop.submit()
        await shop.reaches(job.id, "sending")
        await shop.app.job_records.mark_delivered(job.id)
        await shop.app.job_records.mark_undeliverable(job.id)
        assert (await shop.job(job.id)).state == "sending"
