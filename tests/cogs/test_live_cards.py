"""Live cards: edits are coalesced and spaced, and nothing comes after the end."""

import asyncio
import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import discord
import pytest

from bot.backends.base import Progress
from bot.runtime.background import BackgroundTasks
from cogs.card_messages import NowhereToPost
from cogs.cards import Face, Held, Running, Waiting
from cogs.live_cards import (
    EDIT_GAP_S,
    FIRST_GAP_S,
    POSITIONS_AT_ONCE_MAX,
    POSITIONS_GAP_S,
    POSTING_S_MAX,
    LiveCard,
    LiveCards,
)
from db.database import CommitFailed
from tests.support.clock import SteppedClock, settle
from tests.support.job_views import a_view
from tests.support.simulated_server import Sketcher, a_picture, open_world, texts

FIRST, SECOND, THIRD = (Waiting(position, 10.0) for position in (3, 2, 1))


class Screen:
    """A card on Discord: records what it is edited to and when, in seconds since the test began."""

    def __init__(self, clock: SteppedClock) -> None:
        self.clock = clock
        self.began = clock.now()
        self.edits: list[tuple[float, Face]] = []
        self.gate: asyncio.Event | None = None
        self.errors: list[Exception] = []

    async def edit(self, face: Face) -> None:
        """Take an edit, once the gate is open; fail as planned."""
        self.edits.append((self.clock.now() - self.began, face))
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)

    @property
    def faces(self) -> list[Face]:
        """What the card was edited to, in order."""
        return [face for _, face in self.edits]


class Bench:
    """A live card with its clock and its screen."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.screen = Screen(self.clock)
        self.tasks = BackgroundTasks()
        self.card = LiveCard(self.screen.edit, clock=self.clock, tasks=self.tasks)

    def post(self) -> None:
        """Send the first message, which shows `FIRST` unless something is wanted already."""
        self.card.begin(FIRST)
        self.card.mark_posted()


@pytest.fixture
def bench() -> Bench:
    """A card that is not posted yet."""
    return Bench()


async def test_the_first_message_needs_no_edit(bench: Bench) -> None:
    """A card that nothing happens to is sent once and left alone."""
    bench.post()
    await bench.clock.advance(60)
    assert bench.screen.edits == []
    assert bench.card.face == FIRST


async def test_the_first_message_shows_what_is_wanted_already(bench: Bench) -> None:
    """A job that starts before its card is sent is shown as running from the first message on."""
    bench.card.want(SECOND)
    assert bench.card.begin(FIRST) == SECOND
    bench.card.mark_posted()
    await bench.clock.advance(60)
    assert bench.screen.edits == []


async def test_nothing_is_edited_before_the_first_message(bench: Bench) -> None:
    """While the first message is on its way, edits wait for it, however long."""
    bench.card.begin(FIRST)
    bench.card.want(SECOND)
    await bench.clock.advance(60)
    assert bench.screen.edits == []
    bench.card.mark_posted()
    await bench.clock.advance(0)
    assert bench.screen.faces == [SECOND]


async def test_edits_are_coalesced(bench: Bench) -> None:
    """Of many changes at once, only the newest is sent, a moment after the first message."""
    bench.post()
    for step in range(1, 20):
        bench.card.want(Running(True, step, 20))
    await bench.clock.advance(60)
    assert bench.screen.edits == [(FIRST_GAP_S, Running(True, 19, 20))]


async def test_edits_are_spaced(bench: Bench) -> None:
    """However often the card changes, edits keep their distance, and the last change is shown."""
    bench.post()
    for step in range(1, 41):
        bench.card.want(Running(True, step, 40))
        await bench.clock.advance(0.25)
    await bench.clock.advance(60)
    times = [at for at, _ in bench.screen.edits]
    assert all(later - earlier >= EDIT_GAP_S for earlier, later in itertools.pairwise(times))
    assert 4 <= len(times) <= 5
    assert bench.screen.faces[-1] == Running(True, 40, 40)


async def test_a_change_that_is_taken_back_is_not_sent(bench: Bench) -> None:
    """What is shown already is not sent again, and an older wish does not come after it."""
    bench.post()
    bench.card.want(SECOND)
    bench.card.want(FIRST)
    await bench.clock.advance(60)
    assert bench.screen.edits == []


async def test_nothing_comes_after_close(bench: Bench) -> None:
    """An edit that waits for its turn is given up, and later ones are not even planned."""
    bench.post()
    bench.card.want(SECOND)
    assert await bench.card.close()
    bench.card.want(THIRD)
    await bench.card.show_now(Held())
    await bench.clock.advance(60)
    assert bench.screen.edits == []
    assert not bench.tasks


async def test_close_waits_for_an_edit_under_way(bench: Bench) -> None:
    """The end is shown after the last edit, never overtaken by it."""
    bench.screen.gate = asyncio.Event()
    bench.post()
    bench.card.want(SECOND)
    await bench.clock.advance(FIRST_GAP_S)
    closing = asyncio.create_task(bench.card.close())
    await bench.clock.advance(60)
    assert not closing.done()
    bench.screen.gate.set()
    assert await closing
    assert bench.screen.faces == [SECOND]


async def test_close_waits_for_the_first_message(bench: Bench) -> None:
    """A job may end while its card is still on its way; the end is shown after it."""
    closing = asyncio.create_task(bench.card.close())
    await bench.clock.advance(POSTING_S_MAX / 2)
    assert not closing.done()
    bench.post()
    assert await closing


async def test_a_card_that_is_never_posted_is_closed_all_the_same(bench: Bench) -> None:
    """When no answer got through, the end waits a few seconds and no longer."""
    bench.card.want(SECOND)
    closing = asyncio.create_task(bench.card.close())
    await bench.clock.advance(POSTING_S_MAX)
    assert not await closing
    assert bench.screen.edits == []
    await settle()
    assert not bench.tasks


async def test_a_notice_is_shown_at_once(bench: Bench) -> None:
    """A restart is announced however recent the last edit, and no edit follows it."""
    bench.post()
    bench.card.want(SECOND)
    await bench.card.show_now(Held())
    await bench.clock.advance(60)
    assert bench.screen.edits == [(0.0, Held())]


async def test_a_preview_stays_until_the_next(bench: Bench) -> None:
    """Steps without a preview of their own keep the last one; Cancel is offered where the start said so."""
    bench.post()
    bench.card.start(can_cancel=True, wait_s=9)
    await bench.clock.advance(EDIT_GAP_S)
    for progress in (Progress(1, 4), Progress(2, 4, b"two"), Progress(3, 4)):
        bench.card.advance(progress)
        await bench.clock.advance(EDIT_GAP_S)
    assert bench.screen.faces == [
        Running(True, wait_s=9),
        Running(True, 1, 4),
        Running(True, 2, 4, preview=b"two"),
        Running(True, 3, 4, preview=b"two"),
    ]


async def test_a_failed_edit_ends_nothing(bench: Bench) -> None:
    """An edit that breaks is not repeated, and the next change is shown all the same."""
    bench.screen.errors = [RuntimeError("a bug")]
    bench.post()
    for face in (SECOND, THIRD):
        bench.card.want(face)
        await bench.clock.advance(EDIT_GAP_S)
    assert bench.screen.faces == [SECOND, THIRD]


class Stage:
    """The cards of several jobs, with everything around them faked."""

    def __init__(self, *, waiting: int = 0) -> None:
        self.clock = SteppedClock()
        self.queue = [*range(1, waiting + 1)]
        self.wait_s = 10.0
        self.gone: set[int] = set()
        self.stored: list[tuple[int, int]] = []
        self.trouble: Exception | None = None
        self.sent: list[dict[str, Any]] = []
        self.edits: list[int] = []
        self.layouts: list[str] = []
        self.cards = LiveCards(
            records=cast("Any", self),
            dispatcher=cast("Any", self),
            messages=cast("Any", self),
            clock=self.clock,
        )
        for job_id in self.queue:
            self.cards.queued(job_id, is_new=False)

    def waiting_jobs(self) -> tuple[int, ...]:
        """Stand in for the dispatcher: the waiting jobs."""
        return tuple(self.queue)

    def queue_status(self, job_id: int) -> Any:
        """Stand in for the dispatcher: where a job is in the queue."""
        position = self.queue.index(job_id) + 1 if job_id in self.queue else None
        return SimpleNamespace(position=position, wait_s=self.wait_s, is_paused=False)

    async def view(self, job_id: int, *, guild_id: int) -> Any:
        """Stand in for the jobs."""
        del guild_id
        return a_view(job_id)

    async def find(self, job_id: int) -> Any:
        """Stand in for the jobs."""
        return None if job_id in self.gone else a_view(job_id)

    async def record_message(self, job_id: int, *, message_id: int, channel_id: int) -> None:
        """Stand in for the jobs: store a message's id, or fail."""
        del channel_id
        if self.trouble:
            raise self.trouble
        self.stored.append((job_id, message_id))

    async def edit(self, view: Any, layout: discord.ui.LayoutView, files: list[discord.File]) -> None:
        """Stand in for the messages."""
        if self.trouble:
            raise self.trouble
        self.edits.append(view.job.id)
        shown = [item.content for item in layout.walk_children() if isinstance(item, discord.ui.TextDisplay)]
        self.layouts.append("\n".join([*shown, *(file.filename for file in files)]))

    def interaction(self) -> Any:
        """Return one that is answered with message 99."""

        async def send_message(**options: Any) -> Any:
            if isinstance(self.trouble, OSError):
                raise self.trouble
            self.sent.append(options)
            return SimpleNamespace(message_id=99)

        return SimpleNamespace(response=SimpleNamespace(send_message=send_message))


async def _posted(stage: Stage, job_id: int = 7, **changes: Any) -> None:
    stage.cards.queued(job_id, is_new=True)
    await stage.cards.post(stage.interaction(), a_view(job_id, **changes).job)


async def test_an_answer_is_stored_and_kept_up_to_date() -> None:
    """The answer's message is stored; what happens to the job is then shown in it."""
    stage = Stage()
    await _posted(stage)
    assert stage.stored == [(7, 99)]
    assert stage.sent[0]["ephemeral"] is False
    stage.cards.started(7, can_cancel=True, wait_s=9)
    stage.cards.progressed(7, Progress(2, 4, b"jpeg"))
    assert not stage.cards.is_idle
    await stage.clock.advance(FIRST_GAP_S)
    assert "Step 2 of 4" in stage.layouts[0]
    assert "preview.jpg" in stage.layouts[0]
    assert stage.cards.is_idle


@pytest.mark.parametrize("changes", [{"private": True}, {"results_channel_id": 8}])
async def test_a_card_that_concerns_one_member_is_seen_by_them_alone(changes: dict[str, Any]) -> None:
    """Private jobs, and jobs whose pictures go to a channel of their own, are answered in private."""
    stage = Stage()
    await _posted(stage, **changes)
    assert stage.sent[0]["ephemeral"] is True


async def test_a_message_that_could_not_be_stored_is_still_edited(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk at that moment costs nobody the card."""
    stage = Stage()
    stage.trouble = CommitFailed("full")
    await _posted(stage)
    assert "was not stored" in caplog.text
    stage.trouble = None
    stage.cards.started(7, can_cancel=True, wait_s=9)
    await stage.clock.advance(FIRST_GAP_S)
    assert stage.edits == [7]


async def test_an_answer_that_fails_holds_nothing_up() -> None:
    """When the answer can't be sent, whoever waits for the first message goes on at once."""
    stage = Stage()
    stage.trouble = ConnectionResetError()
    with pytest.raises(ConnectionResetError):
        await _posted(stage)
    await asyncio.wait_for(stage.cards.close(7), 5)


@pytest.mark.parametrize("trouble", [NowhereToPost(), OSError("unreachable")])
async def test_an_edit_that_can_not_be_made_is_left_out(
    trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Progress that can't be shown is no error: the next edit may work."""
    caplog.set_level("INFO")
    stage = Stage(waiting=1)
    stage.trouble = trouble
    await stage.clock.advance(EDIT_GAP_S)
    assert "could not be edited" in caplog.text
    assert "failed" not in caplog.text


async def test_a_job_that_is_gone_is_not_edited() -> None:
    """A job that the database does not have any more has no card to edit."""
    stage = Stage(waiting=1)
    stage.gone = {1}
    await stage.clock.advance(60)
    assert stage.edits == []
    assert stage.cards.is_idle


async def test_positions_are_refreshed_together() -> None:
    """Several moves within a few seconds become one edit of each card that moved."""
    stage = Stage(waiting=3)
    await stage.clock.advance(POSITIONS_GAP_S)
    stage.edits.clear()
    for job_id in (1, 2):
        stage.queue.remove(job_id)
        stage.cards.started(job_id, can_cancel=True, wait_s=9)
        await stage.clock.advance(1)
    await stage.clock.advance(60)
    assert [job_id for job_id in stage.edits if job_id == 3] == [3]
    assert "Next in line" in stage.layouts[-1]


async def test_a_changed_wait_alone_is_not_shown() -> None:
    """Estimates change all the time; only a new position is worth an edit."""
    stage = Stage(waiting=2)
    await stage.clock.advance(60)
    stage.edits.clear()
    stage.wait_s = 500.0
    stage.cards.positions_changed()
    await stage.clock.advance(60)
    assert stage.edits == []


async def test_those_nearest_the_front_are_refreshed_first() -> None:
    """With many waiting, a round edits so many cards and no more; the next round takes the rest."""
    stage = Stage(waiting=POSITIONS_AT_ONCE_MAX + 3)
    await stage.clock.advance(60)
    stage.edits.clear()
    stage.queue.pop(0)
    stage.cards.positions_changed()
    await stage.clock.advance(POSITIONS_GAP_S)
    assert sorted(stage.edits) == stage.queue[:POSITIONS_AT_ONCE_MAX]
    await stage.clock.advance(POSITIONS_GAP_S)
    assert sorted(stage.edits) == stage.queue


async def test_a_stop_is_announced_and_ends_progress() -> None:
    """Once the bot stops, waiting cards say so, and neither progress nor positions are shown any more."""
    stage = Stage(waiting=2)
    await stage.clock.advance(60)
    stage.edits.clear()
    stage.cards.stop()
    await stage.cards.hold(2)
    await stage.cards.hold(404)
    stage.cards.progressed(1, Progress(1, 2))
    stage.cards.started(1, can_cancel=True, wait_s=9)
    stage.cards.positions_changed()
    await stage.clock.advance(60)
    assert stage.edits == [2]
    assert "Your picture will appear here once it's back." in stage.layouts[-1]


async def test_closing_the_cards_ends_their_tasks() -> None:
    """With the client, everything that waits to be edited ends."""
    stage = Stage(waiting=3)
    await stage.clock.advance(1)
    stage.edits.clear()
    stage.cards.started(1, can_cancel=True, wait_s=9)
    assert not stage.cards.is_idle
    await stage.cards.aclose()
    await stage.clock.advance(60)
    assert stage.edits == []
    assert stage.cards.is_idle


def _seeds(message: discord.Message) -> list[str]:
    return re.findall(r"`(\d+)`", texts(message))


async def _pictures(message: discord.Message) -> list[bytes]:
    return [await attachment.read() for attachment in message.attachments]


async def test_waiting_then_progress_then_the_picture(tmp_path: Path) -> None:
    """A member sees their position, then the steps, then the picture, all in one message."""
    sketcher = Sketcher(steps=0)
    async with open_world(tmp_path, backends=[sketcher], member_running_max=1) as world:
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img()
        await world.img2img()
        waiting = world.card
        assert "Next in line" in texts(waiting)
        sketcher.steps = 7
        sketcher.gate.set_result(None)
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.env.settle()
        await world.env.advance_time(5)
        assert "Step 7 of 20" in texts(world.card)
        sketcher.gate.set_result(None)
        await world.env.settle()
        assert world.card.id == waiting.id
        assert len(_seeds(world.card)) == 1


async def test_the_picture_is_seen_as_it_grows(tmp_path: Path) -> None:
    """Where a backend sends previews, the card shows the newest one until the picture takes its place."""
    sketcher = Sketcher(steps=3, preview=a_picture((64, 64), "JPEG"))
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img()
        await world.env.advance_time(5)
        assert await _pictures(world.card) == [sketcher.preview]
        gate.set_result(None)
        await world.env.settle()
        (picture,) = await _pictures(world.card)
        assert picture != sketcher.preview


async def test_progress_is_edited_at_most_every_few_seconds(tmp_path: Path) -> None:
    """A hundred steps a second do not become a hundred requests to Discord."""
    sketcher = Sketcher(steps=100)
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img(steps=100)
        edits = [entry for entry in world.env.http_requests if entry.method == "PATCH"]
        assert len(edits) <= 2
