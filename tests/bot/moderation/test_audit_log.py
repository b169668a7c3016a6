"""The audit log: presses, deletions and reports, and what a log channel lacks of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.actors import Actor, Permission, Person
from bot.errors import JobGone, NotAllowed
from bot.events import AuditLogGrew
from bot.moderation.actions import SetOptions, StopServer
from bot.moderation.audit_log import ITEMS_AT_ONCE_MAX, LogItem
from db.operations import Operation
from tests.support.workshop import ALICE, BOB, Workshop, open_workshop

FORGED_IDS = (0, 12_345, 2**63 - 1, 2**63, 10**20)
LOG_CHANNEL_ID = 50


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    """Yield a workshop."""
    async with open_workshop(tmp_path) as opened:
        yield opened


def _moderator(shop: Workshop, guild_id: int = 1) -> Actor:
    person = Person(guild_id, 99, permissions=frozenset({Permission.MANAGE_SERVER}))
    return Actor(shop.request().id, person)


async def _open_channel(shop: Workshop) -> None:
    await shop.app.moderation.perform(
        _moderator(shop), SetOptions(settings={"log_channel_id": LOG_CHANNEL_ID})
    )


async def _pending(shop: Workshop) -> list[LogItem]:
    """Return what the log channel lacks, and post it there."""
    items: list[LogItem] = []
    for cursor in await shop.app.audit_log.pending_cursors():
        assert (cursor.guild_id, cursor.channel_id) == (1, LOG_CHANNEL_ID)
        items += await shop.app.audit_log.items_after(cursor)
        await shop.app.audit_log.advance_cursor(1, items[-1].entry.id)
    return items


async def test_a_press_is_logged_with_the_job_that_it_is_about(shop: Workshop) -> None:
    """Whoever follows up a press finds who pressed what, and the job with its pictures."""
    job = await shop.made()
    await _open_channel(shop)
    await _pending(shop)
    await shop.app.audit_log.record_press(Operation.REROLL, BOB, job_id=job.id)
    (item,) = await _pending(shop)
    assert (item.entry.kind, item.entry.note, item.entry.user_id) == ("pressed", "reroll", BOB.user_id)
    assert (item.job, item.record, len(item.results)) == (job, None, 1)


async def test_a_deletion_is_logged_after_the_job_was_deleted(shop: Workshop) -> None:
    """A deleted picture can still be followed up."""
    job = await shop.made()
    await _open_channel(shop)
    await _pending(shop)
    await shop.app.jobs.delete(ALICE, job.id)
    await shop.app.audit_log.record_deletion(ALICE, job_id=job.id)
    (item,) = await _pending(shop)
    assert item.entry.kind == "deleted"
    assert item.job is not None
    assert item.job.id == job.id


async def test_an_action_is_logged_with_its_record(shop: Workshop) -> None:
    """The log channel shows what a moderator did, first of all that it was opened."""
    await _open_channel(shop)
    (item,) = await _pending(shop)
    assert item.record is not None
    assert (item.record.action, item.job, item.results) == ("option", None, ())


@pytest.mark.parametrize("forged_id", FORGED_IDS)
async def test_a_forged_id_is_logged_nowhere(shop: Workshop, forged_id: int) -> None:
    """An id that no job has leaves no entry and wakes nobody; a report of it is answered."""
    await _open_channel(shop)
    await _pending(shop)
    shop.events.clear()
    await shop.app.audit_log.record_press(Operation.CANCEL, BOB, job_id=forged_id)
    await shop.app.audit_log.record_deletion(BOB, job_id=forged_id)
    with pytest.raises(JobGone):
        await shop.app.audit_log.report("gory", BOB, job_id=forged_id)
    assert (await _pending(shop), shop.events) == ([], [])


async def test_another_servers_job_is_logged_nowhere(shop: Workshop) -> None:
    """Nobody writes into the log of a server that they act in about a job of another."""
    job = await shop.made()
    option = SetOptions(settings={"log_channel_id": LOG_CHANNEL_ID})
    await shop.app.moderation.perform(_moderator(shop, guild_id=2), option)
    stranger = Person(2, ALICE.user_id)
    await shop.app.audit_log.record_press(Operation.SHOW, stranger, job_id=job.id)
    with pytest.raises(JobGone):
        await shop.app.audit_log.report("gory", stranger, job_id=job.id)
    (cursor,) = await shop.app.audit_log.pending_cursors()
    (item,) = await shop.app.audit_log.items_after(cursor)
    assert item.entry.kind == "action"


async def test_a_member_reports_a_picture_once(shop: Workshop) -> None:
    """A second report by the same member is refused; another member's counts."""
    job = await shop.made()
    await _open_channel(shop)
    await _pending(shop)
    shop.events.clear()
    await shop.app.audit_log.report("gory", BOB, job_id=job.id)
    for _ in range(2):
        with pytest.raises(NotAllowed, match="already reported"):
            await shop.app.audit_log.report("still gory", BOB, job_id=job.id)
    await shop.app.audit_log.report("gory too", ALICE, job_id=job.id)
    found = [(item.entry.kind, item.entry.user_id, item.entry.note) for item in await _pending(shop)]
    assert found == [("reported", BOB.user_id, "gory"), ("reported", ALICE.user_id, "gory too")]
    assert shop.events == [AuditLogGrew(1), AuditLogGrew(1)]


async def test_a_report_needs_a_channel_that_shows_it(shop: Workshop) -> None:
    """Where no moderator would see it, a report is refused, and may be made once there is a channel."""
    job = await shop.made()
    with pytest.raises(NotAllowed, match="no log channel"):
        await shop.app.audit_log.report("gory", BOB, job_id=job.id)
    await _open_channel(shop)
    await shop.app.audit_log.report("gory", BOB, job_id=job.id)


async def test_a_channel_far_behind_catches_up_in_parts(shop: Workshop) -> None:
    """A few entries at a time, oldest first, so that no other channel waits for long."""
    job = await shop.made()
    await _open_channel(shop)
    assert await shop.app.audit_log.guilds_with_log_channel() == {1}
    for _ in range(ITEMS_AT_ONCE_MAX + 4):
        await shop.app.audit_log.record_press(Operation.SHOW, ALICE, job_id=job.id)
    parts = [await _pending(shop) for _ in range(3)]
    assert [len(part) for part in parts] == [ITEMS_AT_ONCE_MAX, 5, 0]
    ids = [item.entry.id for part in parts for item in part]
    assert ids == sorted(set(ids))


async def test_another_channel_starts_at_the_end(shop: Workshop) -> None:
    """A channel that is set again, or anew, is not flooded with what happened before."""
    job = await shop.made()
    for _ in range(3):
        await shop.app.audit_log.record_press(Operation.SHOW, ALICE, job_id=job.id)
    await shop.app.moderation.perform(_moderator(shop), StopServer(stopped=True))
    await _open_channel(shop)
    assert len(await _pending(shop)) == 1
