"""What members do with jobs: submit, reroll, vary, cancel and delete, on the real parts without Discord."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.actors import ChannelContext, Permission, Person
from bot.errors import AlreadyAsked, JobGone, LimitReached, NotAllowed, Paused, PromptBlocked, UnusablePicture
from bot.events import InputRefused, JobCancelled, JobQueued
from bot.jobs.inputs import PictureSource
from bot.jobs.service import VARIATION_STRENGTHS, PauseReason
from bot.pictures.sizes import INPUT_BYTES_MAX
from db import guilds, ledger
from db.guilds import BlockedText
from db.jobs import Job
from db.operations import Operation
from tests.support.live_bot import BRUSH, Brush, eventually
from tests.support.workshop import (
    ALICE,
    BOB,
    MODERATOR,
    SOURCE,
    Workshop,
    open_workshop,
    some_params,
)

OTHER_SERVER = Person(2, ALICE.user_id, permissions=frozenset(Permission))
NSFW = ChannelContext(age_restricted=True)


@pytest.fixture
def brush() -> Brush:
    """Return a backend that works at once."""
    return Brush()


@pytest.fixture
async def shop(tmp_path: Path, brush: Brush) -> AsyncIterator[Workshop]:
    """Yield a workshop; at the end its ledger must be consistent."""
    async with open_workshop(tmp_path, backends=[brush]) as opened:
        yield opened
        assert await opened.app.db.read(ledger.reconcile) == []


async def _running(shop: Workshop, brush: Brush, who: Person = ALICE) -> Job:
    """Let a member's job run until the brush's gate opens."""
    brush.gate = brush.gate or asyncio.Event()
    job = await shop.submit(who)
    await shop.reaches(job.id, "sending")
    return job


async def _waiting(shop: Workshop, brush: Brush) -> Job:
    """Let the member's third job wait behind two that run."""
    for _ in range(2):
        await _running(shop, brush)
    return await shop.submit()


async def _set(shop: Workshop, **settings: int) -> None:
    for name, value in settings.items():
        await shop.app.db.write(
            lambda tx, n=name, v=value: guilds.change_setting(tx, guild_id=1, name=n, value=v)  # type: ignore[misc]  # defaults bind them
        )


async def test_an_accepted_job_is_stored_and_its_credits_are_held(shop: Workshop, brush: Brush) -> None:
    """Once a request is accepted, the job is on disk and its price is set aside."""
    brush.gate = asyncio.Event()
    request = shop.request()
    job = await shop.app.jobs.submit(request, some_params(), SOURCE)
    assert (job.id, job.operation, job.price) == (request.id, Operation.IMG2IMG, 2)
    stored = await shop.job(job.id)
    assert (stored.source_url, stored.params_json) == (SOURCE.url, some_params().model_dump_json())
    wallet = await shop.app.credits.wallet(ALICE)
    assert (wallet.available, wallet.on_hold) == (38, 2)
    assert shop.announced(JobQueued) == [JobQueued(job.id, is_new=True)]


async def test_an_unknown_size_is_held_as_the_largest_and_charged_as_what_it_is(shop: Workshop) -> None:
    """Where Discord does not say how large a picture is, a member pays for what it turns out to be."""
    job = await shop.submit(source=PictureSource(SOURCE.url))
    assert job.price == 4
    await shop.idle()
    assert (await shop.job(job.id)).charged == 2
    assert await shop.available() == 38


async def test_a_repeated_interaction_is_one_job(shop: Workshop) -> None:
    """A request that Discord delivers twice at the same moment is accepted and paid once."""
    request = shop.request()
    outcomes = await asyncio.gather(
        *(shop.app.jobs.submit(request, some_params(), SOURCE) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Job, AlreadyAsked, AlreadyAsked]
    await shop.idle()
    assert await shop.available() == 38


@pytest.mark.parametrize("size_bytes", [0, INPUT_BYTES_MAX + 1])
async def test_a_file_that_can_not_be_used_is_refused_at_once(shop: Workshop, size_bytes: int) -> None:
    """A file that is empty or too large is not fetched, and nothing is held for it."""
    with pytest.raises(UnusablePicture):
        await shop.submit(source=replace(SOURCE, size_bytes=size_bytes))
    assert (await shop.available(), shop.events) == (40, [])


async def test_a_picture_beyond_the_servers_size_is_refused_once_it_is_known(shop: Workshop) -> None:
    """A size that Discord states is checked at once, an unknown one when the picture was opened."""
    await _set(shop, pixels_max=1_000)
    with pytest.raises(LimitReached, match="smaller one"):
        await shop.submit()
    await shop.submit(source=PictureSource(SOURCE.url))
    await eventually(lambda: shop.announced(InputRefused))
    assert "smaller one" in shop.announced(InputRefused)[0].sentence
    assert await shop.available() == 40


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        (BlockedText("word", "gory", adult_ok=True), "gory"),
        (BlockedText("pattern", "go+ry", adult_ok=True), None),
    ],
)
async def test_a_blocked_prompt_is_refused_with_its_word(
    shop: Workshop, entry: BlockedText, word: str | None
) -> None:
    """The member is shown the word, but not a pattern; an age-restricted channel may let it through."""
    await shop.app.db.write(lambda tx: guilds.save_blocked_text(tx, guild_id=1, entry=entry))
    with pytest.raises(PromptBlocked) as refused:
        await shop.submit(prompt="a gory scene")
    assert refused.value.word == word
    await shop.app.jobs.submit(shop.request(where=NSFW), some_params(prompt="a gory scene"), SOURCE)
    await shop.idle()


@pytest.mark.parametrize("reason", list(PauseReason))
async def test_a_pause_refuses_new_jobs_with_its_reason(shop: Workshop, reason: PauseReason) -> None:
    """While jobs are paused, submit, reroll and vary are refused in the words of the reason, at no cost."""
    job = await shop.made()
    shop.app.jobs.pause(reason)
    assert shop.app.jobs.pause_reason is reason
    for refused in (
        shop.submit(),
        shop.app.jobs.reroll(shop.request(), job.id),
        shop.app.jobs.vary(shop.request(), job.id, sample=0, operation=Operation.VARY_SUBTLE),
    ):
        with pytest.raises(Paused) as caught:
            await refused
        assert str(caught.value) == reason.value
    assert await shop.available() == 38
    shop.app.jobs.resume(reason)
    await shop.made()


@pytest.mark.parametrize("first", list(PauseReason))
async def test_reasons_to_pause_are_independent(shop: Workshop, first: PauseReason) -> None:
    """Jobs stay paused until the last reason is gone, in whatever order the reasons came and went."""
    (second,) = set(PauseReason) - {first}
    service = shop.app.jobs
    for reason in (first, second, first):  # pausing twice needs no second resume
        service.pause(reason)
    service.resume(first)
    assert service.pause_reason is second
    service.resume(first)
    assert service.pause_reason is second
    service.resume(second)
    assert service.pause_reason is None


async def test_a_reroll_changes_the_seed_alone(shop: Workshop) -> None:
    """A reroll has the parent's options and input, and another seed."""
    parent = await shop.made(num_inference_steps=7, strength=0.5)
    job = await shop.app.jobs.reroll(shop.request(), parent.id)
    view = await shop.app.job_records.view(job.id, guild_id=1)
    assert view.params.with_seed(5) == some_params(num_inference_steps=7, strength=0.5)
    assert (job.operation, job.parent_id) == (Operation.REROLL, parent.id)
    assert (job.input_hash, job.input_pixels) == (parent.input_hash, parent.input_pixels)


@pytest.mark.parametrize("operation", list(VARIATION_STRENGTHS))
async def test_a_variation_starts_from_one_result(shop: Workshop, operation: Operation) -> None:
    """Picture n of a job becomes the input of one new picture, at the operation's strength."""
    parent = await shop.made(samples=2)
    job = await shop.app.jobs.vary(shop.request(), parent.id, sample=1, operation=operation)
    view = await shop.app.job_records.view(job.id, guild_id=1)
    assert (view.params.samples, view.params.strength) == (1, VARIATION_STRENGTHS[operation])
    assert (job.operation, job.parent_id, job.parent_sample) == (operation, parent.id, 1)
    result = (await shop.app.job_records.view(parent.id, guild_id=1)).results[1]
    assert job.source_hash == job.input_hash == result.hash
    await shop.idle()
    assert (await shop.job(job.id)).state == "rendered"


async def test_jobs_made_from_a_private_or_restricted_picture_are_too(shop: Workshop) -> None:
    """Nobody makes a private or age-restricted picture public by rerolling it."""
    request = replace(shop.request(where=NSFW), private=True)
    parent = await shop.app.jobs.submit(request, some_params(), SOURCE)
    await shop.idle()
    job = await shop.app.jobs.reroll(shop.request(where=NSFW), parent.id)
    assert (job.private, job.age_restricted) == (True, True)
    with pytest.raises(NotAllowed, match="age-restricted"):
        await shop.app.jobs.reroll(shop.request(), parent.id)


@pytest.mark.parametrize("who", [BOB, MODERATOR])
async def test_only_its_member_goes_on_from_a_picture(shop: Workshop, who: Person) -> None:
    """Neither another member nor a moderator spends credits on somebody's private input."""
    parent = await shop.made()
    for refused in (
        shop.app.jobs.reroll(shop.request(who), parent.id),
        shop.app.jobs.vary(shop.request(who), parent.id, sample=0, operation=Operation.VARY_STRONG),
    ):
        with pytest.raises(NotAllowed, match="Only the member who asked"):
            await refused


async def test_nothing_is_made_from_what_is_not_there(shop: Workshop, brush: Brush) -> None:
    """A reroll without a stored input, a variation of a missing sample, or of a deleted job, is refused."""
    parent = await shop.made()
    vary = shop.app.jobs.vary
    with pytest.raises(JobGone):
        await vary(shop.request(), parent.id, sample=1, operation=Operation.VARY_SUBTLE)
    waiting = await _waiting(shop, brush)
    await shop.app.db.write(
        lambda tx: tx.execute("UPDATE job SET input_hash = NULL WHERE id = ?", (waiting.id,))
    )
    with pytest.raises(JobGone):
        await shop.app.jobs.reroll(shop.request(), waiting.id)
    await shop.app.jobs.delete(ALICE, parent.id)
    for refused in (
        shop.app.jobs.reroll(shop.request(), parent.id),
        vary(shop.request(), parent.id, sample=0, operation=Operation.VARY_SUBTLE),
    ):
        with pytest.raises(JobGone):
            await refused


@pytest.mark.parametrize(
    ("asked", "server", "private"), [(None, 1, True), (None, 0, False), (False, 1, False), (True, 0, True)]
)
async def test_a_member_may_override_what_is_private_by_default(
    shop: Workshop, asked: bool | None, server: int, private: bool
) -> None:
    """The server's setting counts only where the member chose nothing."""
    await _set(shop, private=server)
    job = await shop.app.jobs.submit(replace(shop.request(), private=asked), some_params(), SOURCE)
    assert job.private is private


async def test_public_pictures_go_to_the_results_channel(shop: Workshop) -> None:
    """Private and age-restricted pictures stay where they were asked for, as do those asked for there."""
    await _set(shop, results_channel_id=50)
    requests = [
        shop.request(),
        replace(shop.request(), private=True),
        shop.request(where=NSFW),
        replace(shop.request(), channel_id=50),
    ]
    jobs = [await shop.app.jobs.submit(request, some_params(), SOURCE) for request in requests]
    assert [job.results_channel_id for job in jobs] == [50, None, None, None]


async def test_cancelling_a_waiting_job_is_free_and_may_be_repeated(shop: Workshop, brush: Brush) -> None:
    """A member who presses Cancel again is answered as the first time, and one end is announced."""
    job = await _waiting(shop, brush)
    before = await shop.available()
    for _ in range(3):
        await shop.app.jobs.cancel(ALICE, job.id)
    assert (await shop.job(job.id)).state == "cancelled"
    assert await shop.available() == before + job.price
    assert shop.announced(JobCancelled) == [JobCancelled(job.id)]


async def test_cancelling_at_the_same_moment_succeeds_every_time(shop: Workshop, brush: Brush) -> None:
    """However fast a member or a moderator presses, nobody reads "too late" of a job that is cancelled."""
    job = await _waiting(shop, brush)
    await asyncio.gather(*(shop.app.jobs.cancel(who, job.id) for who in (ALICE, ALICE, MODERATOR)))
    assert (await shop.job(job.id)).state == "cancelled"
    assert shop.announced(JobCancelled) == [JobCancelled(job.id)]


async def test_cancelling_a_running_job_stops_its_call_once(shop: Workshop, brush: Brush) -> None:
    """Where the backend can be stopped, a running job is cancelled at no cost, however often asked."""
    job = await _running(shop, brush)
    await eventually(lambda: brush.calls)
    for _ in range(3):
        await shop.app.jobs.cancel(ALICE, job.id)
        await asyncio.sleep(0)
    await shop.reaches(job.id, "cancelled")
    await shop.app.jobs.cancel(ALICE, job.id)
    await shop.idle()
    assert await shop.available() == 40
    assert shop.announced(JobCancelled) == [JobCancelled(job.id)]


async def test_a_call_that_can_not_be_stopped_is_too_late_to_cancel(tmp_path: Path) -> None:
    """Where a call costs the operator anyway, the member gets the picture that they pay for."""
    brush = Brush(gate=asyncio.Event(), capabilities=replace(BRUSH, can_cancel=False))
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        job = await shop.submit()
        await eventually(lambda: brush.calls)
        for _ in range(2):
            with pytest.raises(NotAllowed, match="too late to cancel"):
                await shop.app.jobs.cancel(ALICE, job.id)
        assert brush.gate is not None
        brush.gate.set()
        await shop.idle()
        assert (await shop.job(job.id)).state == "rendered"


async def test_a_job_that_ended_otherwise_is_too_late_to_cancel(shop: Workshop, brush: Brush) -> None:
    """Neither a picture that is there nor a failure turns into a cancellation."""
    made = await shop.made()
    brush.errors.append(RuntimeError("no"))
    failed = await shop.made()
    for job in (made, failed):
        with pytest.raises(NotAllowed, match="too late"):
            await shop.app.jobs.cancel(ALICE, job.id)
        assert await shop.job(job.id) == job
    assert [made.state, failed.state] == ["rendered", "failed"]


@pytest.mark.parametrize("what", ["cancel", "delete"])
async def test_strangers_may_not_and_moderators_may(shop: Workshop, brush: Brush, what: str) -> None:
    """A job is its member's and that of whoever may manage messages; managing the server is not enough."""
    change = getattr(shop.app.jobs, what)
    job = await _waiting(shop, brush)
    manager = Person(1, 98, permissions=frozenset({Permission.MANAGE_SERVER}))
    for stranger in (BOB, manager):
        with pytest.raises(NotAllowed, match=f"Only the member who asked for this picture can {what} it"):
            await change(stranger, job.id)
    assert await shop.job(job.id) == replace(job, input_hash=(await shop.job(job.id)).input_hash)
    await change(MODERATOR, job.id)


@pytest.mark.parametrize("what", ["cancel", "delete"])
@pytest.mark.parametrize("forged_id", [0, 1, 2**63 - 1, 2**63, 10**20])
async def test_an_id_without_a_job_is_gone(shop: Workshop, what: str, forged_id: int) -> None:
    """Whoever forges a button's id reads that there is no such picture."""
    with pytest.raises(JobGone):
        await getattr(shop.app.jobs, what)(MODERATOR, forged_id)


@pytest.mark.parametrize("what", ["cancel", "delete"])
async def test_another_servers_job_is_gone(shop: Workshop, brush: Brush, what: str) -> None:
    """Rights in one server, even its member's own, reach no job of another."""
    job = await _waiting(shop, brush)
    with pytest.raises(JobGone):
        await getattr(shop.app.jobs, what)(OTHER_SERVER, job.id)


@pytest.mark.parametrize("what", ["cancel", "delete"])
async def test_a_deleted_job_is_gone(shop: Workshop, what: str) -> None:
    """What was deleted can be neither cancelled nor deleted again."""
    job = await shop.made()
    await shop.app.jobs.delete(ALICE, job.id)
    with pytest.raises(JobGone):
        await getattr(shop.app.jobs, what)(ALICE, job.id)


async def test_a_deleted_job_leaves_the_history_and_stays_paid(shop: Workshop) -> None:
    """Deleting a picture removes it from what its member sees, and gives no credits back."""
    kept, deleted = await shop.made(), await shop.made()
    await shop.app.jobs.delete(ALICE, deleted.id)
    assert [view.job.id for view in await shop.app.job_records.history(ALICE)] == [kept.id]
    assert await shop.available() == 36
