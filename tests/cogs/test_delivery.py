"""The outbox: every end of a job is shown, however often Discord has to be asked, and marked only then."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import discord
import pytest

from bot.backends.router import Router
from bot.errors import JobGone
from bot.jobs.records import JobView
from cogs.card_messages import NowhereToPost
from cogs.delivery import AT_ONCE_MAX, WAITS_S, Delivery, result_layout
from db.database import CommitFailed
from tests.support.clock import HandClock, settle
from tests.support.job_views import a_view
from tests.support.simulated_server import Sketcher


class Stage:
    """A delivery with everything around it faked; `happened` is what it asked for, in order."""

    def __init__(self, view: JobView | None = None) -> None:
        self.job: JobView | None = view or a_view()
        self.happened: list[str] = []
        self.errors: dict[str, list[Exception]] = {}
        self.gate: asyncio.Event | None = None
        self.clock = HandClock()
        self.router = Router([Sketcher()])
        self.delivery = Delivery(
            records=cast("Any", self),
            live_cards=cast("Any", self),
            messages=cast("Any", self),
            router=self.router,
            store=cast("Any", self),
            clock=self.clock,
        )

    async def _do(self, what: str) -> None:
        self.happened.append(what)
        if self.gate is not None and what == "posted":
            await self.gate.wait()
        if errors := self.errors.get(what):
            raise errors.pop(0)

    async def find(self, job_id: int) -> JobView | None:
        """Stand in for the jobs."""
        del job_id
        return self.job

    async def mark_delivered(self, job_id: int) -> None:
        """Stand in for the jobs."""
        await self._do(f"marked delivered {job_id}")

    async def mark_undeliverable(self, job_id: int) -> None:
        """Stand in for the jobs."""
        await self._do(f"marked undeliverable {job_id}")

    async def record_message(self, job_id: int, *, message_id: int, channel_id: int) -> None:
        """Stand in for the jobs."""
        await self._do(f"stored {job_id} at {channel_id}/{message_id}")

    async def close(self, job_id: int) -> None:
        """Stand in for the live cards."""
        await self._do(f"closed {job_id}")

    async def get(self, digest: str) -> bytes:
        """Stand in for the picture store."""
        await self._do("read a picture")
        return digest.encode()

    async def deliver(self, view: JobView, layout: discord.ui.LayoutView, pictures: list[bytes]) -> None:
        """Stand in for the messages."""
        assert view.job.id
        assert pictures == [result.hash.encode() for result in view.results]
        assert "Reroll" in _labels(layout)
        await self._do("posted")

    async def post_elsewhere(
        self, _view: JobView, _layout: discord.ui.LayoutView, _pictures: list[bytes], *, channel_id: int
    ) -> Any:
        """Stand in for the messages."""
        await self._do(f"posted in {channel_id}")
        return SimpleNamespace(id=99, jump_url="https://discord.com/channels/1/8/99")

    async def edit(self, _view: JobView, layout: discord.ui.LayoutView) -> None:
        """Stand in for the messages."""
        await self._do(f"showed {_heading(layout)}")

    async def withdraw(self, _view: JobView, sentence: str) -> bool:
        """Stand in for the messages."""
        await self._do(f"withdrew: {sentence}")
        return "expired" not in self.errors


def _texts(layout: discord.ui.LayoutView) -> list[str]:
    return [item.content for item in layout.walk_children() if isinstance(item, discord.ui.TextDisplay)]


def _heading(layout: discord.ui.LayoutView) -> str:
    return _texts(layout)[0].split("\n")[0].strip("# ")


def _labels(layout: discord.ui.LayoutView) -> list[str | None]:
    buttons = [item for item in layout.walk_children() if isinstance(item, discord.ui.DynamicItem)]
    return [button.item.label for button in buttons]


async def test_the_card_is_closed_then_posted_then_marked() -> None:
    """Progress never comes after the picture, and a crash before the mark posts again."""
    stage = Stage()
    await stage.delivery.deliver(7)
    assert stage.happened == ["closed 7", "read a picture", "posted", "marked delivered 7"]


@pytest.mark.parametrize("state", ["delivered", "failed", "cancelled", None])
async def test_what_is_not_rendered_is_not_posted(state: str | None) -> None:
    """A second announcement of a job that is delivered already posts nothing."""
    stage = Stage(a_view(state=state))
    if state is None:
        stage.job = None
    await stage.delivery.deliver(7)
    assert stage.happened == ["closed 7"]


@pytest.mark.parametrize("errors", range(1, len(WAITS_S) + 1))
async def test_a_delivery_is_tried_again(errors: int) -> None:
    """After each failure it waits longer, and marks the job once it is posted."""
    stage = Stage()
    began = stage.clock.now()
    stage.errors["posted"] = [OSError("unreachable")] * errors
    await stage.delivery.deliver(7)
    assert stage.happened.count("posted") == errors + 1
    assert stage.happened[-1] == "marked delivered 7"
    assert stage.clock.now() - began == sum(WAITS_S[:errors])


async def test_after_the_last_try_the_next_start_delivers(caplog: pytest.LogCaptureFixture) -> None:
    """A job that could not be posted stays rendered, and the log says so."""
    stage = Stage()
    stage.errors["posted"] = [OSError("unreachable")] * 10
    await stage.delivery.deliver(7)
    assert stage.happened.count("posted") == len(WAITS_S) + 1
    assert not any("marked" in what for what in stage.happened)
    assert "Job 7 was not delivered; the next start will try again" in caplog.text


async def test_a_mark_that_can_not_be_written_is_tried_again() -> None:
    """With a full disk, the edit is repeated until the mark is written: it shows the same once more."""
    stage = Stage()
    stage.errors["marked delivered 7"] = [CommitFailed("full")]
    await stage.delivery.deliver(7)
    assert stage.happened.count("posted") == stage.happened.count("marked delivered 7") == 2


@pytest.mark.parametrize(("what", "error"), [("posted", NowhereToPost()), ("read a picture", JobGone())])
async def test_what_can_not_be_delivered_stays_in_the_history(what: str, error: Exception) -> None:
    """Where there is nowhere to post, or nothing to post any more, no try is repeated."""
    stage = Stage()
    stage.errors[what] = [error]
    await stage.delivery.deliver(7)
    assert stage.happened[-1] == "marked undeliverable 7"
    assert stage.happened.count(what) == 1


async def test_only_so_many_are_delivered_at_once() -> None:
    """After an outage, not every waiting picture is in memory at the same moment."""
    stage = Stage()
    stage.gate = asyncio.Event()
    deliveries = [asyncio.create_task(stage.delivery.deliver(n)) for n in range(AT_ONCE_MAX + 5)]
    await settle()
    assert stage.happened.count("read a picture") == AT_ONCE_MAX
    stage.gate.set()
    await asyncio.gather(*deliveries)
    assert stage.happened.count("posted") == AT_ONCE_MAX + 5


async def test_a_results_channel_gets_the_pictures_and_the_card_links_there() -> None:
    """Where results have a channel, the picture is posted there, stored as shown there, and linked to."""
    stage = Stage(a_view(results_channel_id=8))
    await stage.delivery.deliver(7)
    assert stage.happened[2:] == [
        "posted in 8",
        "stored 7 at 8/99",
        "showed ✅ [Your picture is here](https://discord.com/channels/1/8/99)",
        "marked delivered 7",
    ]


async def test_a_link_that_can_not_be_shown_keeps_no_delivery_open() -> None:
    """The card that should link may be gone; the picture is posted all the same."""
    stage = Stage(a_view(results_channel_id=8))
    stage.errors["showed ✅ [Your picture is here](https://discord.com/channels/1/8/99)"] = [NowhereToPost()]
    await stage.delivery.deliver(7)
    assert stage.happened[-1] == "marked delivered 7"


async def test_a_results_channel_that_is_closed_sends_the_picture_to_the_card() -> None:
    """A channel that the bot may not post in any more costs nobody the picture."""
    stage = Stage(a_view(results_channel_id=8))
    stage.errors["posted in 8"] = [NowhereToPost(detail="forbidden")]
    await stage.delivery.deliver(7)
    assert stage.happened[2:] == ["posted in 8", "posted", "marked delivered 7"]


async def test_after_a_crash_nothing_is_posted_twice_in_a_results_channel() -> None:
    """A job that is stored as shown in the results channel is only marked."""
    stage = Stage(a_view(channel_id=8, results_channel_id=8))
    await stage.delivery.deliver(7)
    assert stage.happened == ["closed 7", "read a picture", "marked delivered 7"]


@pytest.mark.parametrize(
    ("changes", "heading"),
    [
        ({"state": "failed", "failure": "It broke."}, "⚠️ No picture this time"),
        ({"state": "cancelled"}, "🚫 Cancelled"),
    ],
)
async def test_an_end_without_picture_is_shown(changes: dict[str, Any], heading: str) -> None:
    """The card says how the job ended, after a second try if Discord had trouble."""
    stage = Stage(a_view(**changes))
    stage.errors[f"showed {heading}"] = [OSError("unreachable")]
    await stage.delivery.show_end(7)
    assert stage.happened == ["closed 7", f"showed {heading}", f"showed {heading}"]


async def test_an_end_that_can_be_shown_nowhere_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """A card that is gone is looked for once; one that Discord won't edit is given up after the last try."""
    stage = Stage(a_view(state="cancelled"))
    stage.errors["showed 🚫 Cancelled"] = [NowhereToPost()]
    await stage.delivery.show_end(7)
    assert stage.happened.count("showed 🚫 Cancelled") == 1
    stage.errors["showed 🚫 Cancelled"] = [OSError("unreachable")] * 10
    await stage.delivery.show_end(7)
    assert "The end of job 7 could not be shown" in caplog.text
    stage.job = None
    stage.happened.clear()
    await stage.delivery.show_end(7)
    assert stage.happened == ["closed 7"]


async def test_a_refused_picture_is_answered_to_its_requester_alone() -> None:
    """The card goes, and the sentence says that nothing was charged."""
    stage = Stage(a_view(state="failed"))
    await stage.delivery.withdraw(7, "That file can't be used as a picture.")
    assert stage.happened == [
        "closed 7",
        "withdrew: That file can't be used as a picture. You weren't charged.",
    ]


async def test_a_refusal_that_can_not_be_private_is_shown_on_the_card() -> None:
    """Once the token has expired, the card itself says what was wrong."""
    stage = Stage(a_view(state="failed", failure="That file can't be used."))
    stage.errors["expired"] = []
    await stage.delivery.withdraw(7, "That file can't be used.")
    assert stage.happened[-1] == "showed ⚠️ No picture this time"
    stage.job = None
    stage.happened.clear()
    await stage.delivery.withdraw(7, "That file can't be used.")
    assert stage.happened == ["closed 7"]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("sketcher", "Painted by a program (Sketcher)"),
        ("painter", "Painted by a program (painter)"),
        ("segmind", "AI-generated with segmind"),
    ],
)
def test_a_card_names_its_maker_though_the_backend_is_gone(backend: str, words: str) -> None:
    """A backend that the operator took out of the settings is still named under its pictures."""
    layout = result_layout(a_view(backend=backend), Router([Sketcher()]))
    assert words in "\n".join(_texts(layout))


def test_failed_samples_are_counted() -> None:
    """Where some of several pictures failed, the card says how many, and that they cost nothing."""
    layout = result_layout(a_view(samples=4, pictures=3), Router([Sketcher()]))
    assert "1 of 4 pictures failed, at no cost" in "\n".join(_texts(layout))
