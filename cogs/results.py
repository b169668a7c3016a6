"""Cards on Discord: keeps each job's card true while it waits and runs, and delivers its pictures.

Delivery is an outbox: a rendered job is posted, then marked delivered, so that a
crash in between posts again into the same message.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import discord
from discord import ui
from discord.ext import commands

from bot.backends.base import Progress
from bot.errors import BotError
from bot.events import (
    BotStopping,
    Event,
    InputRefused,
    JobCancelled,
    JobFailed,
    JobProgressed,
    JobQueued,
    JobRendered,
    JobStarted,
    QueuePaused,
    QueueResumed,
)
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import NO_MENTIONS, TROUBLE
from bot.jobs.service import JobView
from cogs import cards
from cogs.card_messages import Mailbox, NowhereToPost, filenames_of
from db.database import DatabaseBrokenError
from db.jobs import Job

log = logging.getLogger(__name__)

EDIT_GAP_S: Final = 2.5
#: From the first answer to the first edit: long enough to be read, short enough to feel alive.
FIRST_GAP_S: Final = 1.0
#: Answering takes a moment after the job is accepted; it may even be done before.
POSTING_S_MAX: Final = 5.0
PLACES_GAP_S: Final = 5.0
PLACES_AT_ONCE_MAX: Final = 20
DELIVERIES_AT_ONCE_MAX: Final = 16
#: Waits between tries to deliver; after the last the next start tries again.
DELIVERY_WAITS_S: Final = (2.0, 15.0, 60.0)


@dataclass(slots=True)
class LiveCard:
    """One card that still changes: what it should show, and what it shows."""

    job_id: int
    posted: asyncio.Event = field(default_factory=asyncio.Event)
    editing: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: cards.Face | None = None
    shown: cards.Face | None = None
    can_cancel: bool = False
    preview: bytes | None = None
    edited_at: float = 0.0
    updater: asyncio.Task[None] | None = None
    closed: bool = False


class Results(commands.Cog):
    """Listens to what happens to jobs and shows it."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._app = bot.app
        self._mailbox = Mailbox(bot)
        self._cards: dict[int, LiveCard] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: asyncio.Task[None] | None = None
        self._delivering = asyncio.Semaphore(DELIVERIES_AT_ONCE_MAX)
        self._stopping = False
        bot.before_close(self._finish)
        self._unsubscribe = bot.app.events.subscribe(self._heard)

    async def cog_unload(self) -> None:
        """Listen no more; what is not shown yet is shown at the next start."""
        self._unsubscribe()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------ a new job's card

    async def post(self, interaction: discord.Interaction[Any], job: Job) -> None:
        """Answer the interaction with the job's card; from now on it is kept true."""
        card = self._cards.setdefault(job.id, LiveCard(job.id))
        try:
            view = await self._app.jobs.view(job.id, guild_id=job.guild_id)
            card.shown = card.wanted or self._waiting(job.id)
            card.edited_at = self._now() - EDIT_GAP_S + FIRST_GAP_S
            answer = await interaction.response.send_message(
                view=_layout(view, card.shown),
                # Where pictures go to a channel of their own, others stay calm.
                ephemeral=job.private or job.results_channel_id is not None,
                allowed_mentions=NO_MENTIONS,
            )
            if answer.message_id is not None:
                await self._remember(job, answer.message_id)
        finally:
            card.posted.set()

    async def _remember(self, job: Job, message_id: int) -> None:
        try:
            await self._app.jobs.shown_at(job.id, message_id=message_id, channel_id=job.channel_id)
        except DatabaseBrokenError as error:
            # The job stands; while its token lives, the card is found without the message's id.
            log.warning("The card of job %d is not on record: %s", job.id, error)

    # -------------------------------------------------------------- what is heard

    def _heard(self, event: Event) -> None:  # noqa: C901 - one case an event
        match event:
            case JobQueued(job_id, is_new):
                self._queued(job_id, is_new=is_new)
            case JobStarted(job_id, can_cancel, job_s):
                self._cards.setdefault(job_id, LiveCard(job_id)).can_cancel = can_cancel
                self._want(job_id, cards.Running(can_cancel, wait_s=job_s))
                self._places_moved()
            case JobProgressed(job_id, progress):
                self._progressed(job_id, progress)
            case JobRendered(job_id):
                self._spawn(self._deliver(job_id))
            case InputRefused(job_id, sentence):
                self._spawn(self._refuse(job_id, sentence))
            case JobFailed(job_id) | JobCancelled(job_id):
                self._spawn(self._show_end(job_id))
                self._places_moved()
            case BotStopping(job_ids):
                self._stopping = True
                for job_id in job_ids:
                    self._spawn(self._hold(job_id))
            case QueuePaused() | QueueResumed():
                self._places_moved()
            case _:
                pass

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("A card could not be kept true", exc_info=error)

    # ------------------------------------------------------------ while it changes

    def _queued(self, job_id: int, *, is_new: bool) -> None:
        card = self._cards.setdefault(job_id, LiveCard(job_id))
        if not is_new:
            card.posted.set()
            self._want(job_id, self._waiting(job_id))
        self._places_moved()

    def _want(self, job_id: int, face: cards.Face) -> None:
        """Let the card show `face` soon: edits are spaced and only the newest is sent."""
        card = self._cards.get(job_id)
        if card is None or card.closed or self._stopping or face == card.shown:
            return
        card.wanted = face
        if card.updater is None:
            card.updater = asyncio.create_task(self._update(card))
            self._tasks.add(card.updater)
            card.updater.add_done_callback(self._ended)

    async def _update(self, card: LiveCard) -> None:
        try:
            await card.posted.wait()
            while not card.closed and card.wanted is not None and card.wanted != card.shown:
                await self._app.clock.sleep(max(0.0, card.edited_at + EDIT_GAP_S - self._now()))
                await self._show(card, card.wanted)
        finally:
            card.updater = None

    async def _show(self, card: LiveCard, face: cards.Face) -> None:
        async with card.editing:
            view = None if card.closed else await self._app.jobs.find(card.job_id)
            if view is None or card.closed:
                return
            card.shown, card.edited_at = face, self._now()
            try:
                await self._mailbox.edit(view, _layout(view, face), _files(face))
            except (*TROUBLE, NowhereToPost) as error:
                log.info("The card of job %d could not be edited: %s", card.job_id, error)

    async def _hold(self, job_id: int) -> None:
        """Tell on a card that its job goes on after the restart."""
        if card := self._cards.get(job_id):
            await card.posted.wait()
            await self._show(card, cards.Held())

    async def _finish(self) -> None:
        """Wait until all that has ended is delivered, and all that waits says why."""
        while busy := self._tasks - {self._places, *(card.updater for card in self._cards.values())}:
            await asyncio.wait(busy)

    def _progressed(self, job_id: int, progress: Progress) -> None:
        if card := self._cards.get(job_id):
            # Backends send a preview now and then; until the next one the last one stays.
            card.preview = progress.preview or card.preview
            running = cards.Running(card.can_cancel, progress.step, progress.steps, preview=card.preview)
            self._want(job_id, running)

    def _places_moved(self) -> None:
        if self._places is None:
            self._places = asyncio.create_task(self._refresh_places())
            self._tasks.add(self._places)
            self._places.add_done_callback(self._ended)

    async def _refresh_places(self) -> None:
        """Let waiting cards show their new places, those nearest the front first."""
        try:
            await self._app.clock.sleep(PLACES_GAP_S)
        finally:
            self._places = None
        moved = 0
        for job_id in self._app.dispatcher.order():
            card = self._cards.get(job_id)
            if card is None or not isinstance(card.shown, cards.Waiting):
                continue
            face = self._waiting(job_id)
            if (face.place, face.is_paused) != (card.shown.place, card.shown.is_paused):
                self._want(job_id, face)
                moved += 1
            if moved >= PLACES_AT_ONCE_MAX:
                self._places_moved()
                return

    def _waiting(self, job_id: int) -> cards.Waiting:
        standing = self._app.dispatcher.standing(job_id)
        return cards.Waiting(standing.place or 1, standing.wait_s, standing.is_paused)

    def _now(self) -> float:
        return self._app.clock.now()

    # ---------------------------------------------------------------- when it ends

    async def _close(self, job_id: int) -> None:
        """Let no further edit of progress come after what follows."""
        card = self._cards.get(job_id)
        if card is None:
            return
        card.closed = True
        try:
            await asyncio.wait_for(card.posted.wait(), POSTING_S_MAX)
        except TimeoutError:
            log.info("The card of job %d was never posted", job_id)
        async with card.editing:
            # Nobody else edits now: the updater sleeps, or waits for this lock.
            if card.updater:
                card.updater.cancel()
            self._cards.pop(job_id, None)

    async def _show_end(self, job_id: int) -> None:
        await self._close(job_id)
        for wait_s in (0.0, *DELIVERY_WAITS_S):
            if wait_s:
                await self._app.clock.sleep(wait_s)
            if await self._try_end(job_id):
                return

    async def _try_end(self, job_id: int) -> bool:
        """Edit the card of a job that made no picture; False if another try is due."""
        view = await self._app.jobs.find(job_id)
        if view is None:
            return True
        layout = cards.failed_card(view) if view.job.state == "failed" else cards.cancelled_card(view)
        try:
            await self._mailbox.edit(view, layout)
        except NowhereToPost as error:
            log.info("The end of job %d can be shown nowhere: %s", job_id, error)
        except TROUBLE as error:
            log.warning("The end of job %d could not be shown yet: %s", job_id, error)
            return False
        return True

    async def _refuse(self, job_id: int, sentence: str) -> None:
        await self._close(job_id)
        self._places_moved()
        view = await self._app.jobs.find(job_id)
        if view is not None and not await self._mailbox.withdraw(view, f"{sentence} It cost you nothing."):
            await self._show_end(job_id)

    async def _deliver(self, job_id: int) -> None:
        await self._close(job_id)
        async with self._delivering:
            for wait_s in (0.0, *DELIVERY_WAITS_S):
                if wait_s:
                    await self._app.clock.sleep(wait_s)
                if await self._try_delivery(job_id):
                    return
        log.error("Job %d is not delivered; the next start tries again", job_id)

    async def _try_delivery(self, job_id: int) -> bool:
        """Post the pictures; False if Discord had trouble and another try is due."""
        view = await self._app.jobs.find(job_id)
        if view is None or view.job.state != "rendered":
            return True
        try:
            files = await self.files(view)
            if not await self._delivered_elsewhere(view, files):
                await self._mailbox.deliver(view, self.result_layout(view), files)
            await self._app.jobs.delivered(job_id)
        except (*TROUBLE, DatabaseBrokenError) as error:
            log.warning("Job %d could not be posted yet, or not marked so: %s", job_id, error)
            return False
        except BotError as error:
            log.warning("Job %d stays in the history: %s", job_id, error)
            await self._app.jobs.undeliverable(job_id)
        return True

    async def _delivered_elsewhere(self, view: JobView, files: list[bytes]) -> bool:
        """Post the pictures where their server wants them all; False if that can't be done."""
        channel_id = view.job.results_channel_id
        if channel_id is None:
            return False
        if view.job.channel_id == channel_id:
            return True  # posted before a crash
        try:
            message = await self._mailbox.post(view, self.result_layout(view), files, channel_id=channel_id)
        except NowhereToPost as error:
            log.warning("Job %d can't go to the channel for results: %s", view.job.id, error.detail)
            return False
        await self._app.jobs.shown_at(view.job.id, message_id=message.id, channel_id=channel_id)
        try:
            await self._mailbox.edit(view, cards.moved_card(view, message.jump_url))
        except (*TROUBLE, NowhereToPost) as error:
            log.info("The card of job %d could not point to its picture: %s", view.job.id, error)
        return True

    # --------------------------------------------------------- a finished job's card

    def result_layout(self, view: JobView) -> ui.LayoutView:
        """Return a new result card of the job."""
        return cards.result_card(view, self._maker(view), filenames_of(view))

    async def files(self, view: JobView) -> list[bytes]:
        """Return the job's pictures, in order. Raises `JobGone` when they are not kept any more."""
        return [await self._app.store.get(result.hash) for result in view.results]

    def _maker(self, view: JobView) -> cards.Maker:
        for lane in self._app.router.lanes:
            if lane.backend.name == view.job.backend:
                return cards.Maker(lane.backend.capabilities.label, lane.backend.capabilities.uses_model)
        return cards.Maker(view.job.backend or "a program", uses_model=view.job.backend != "painter")


def _files(face: cards.Face) -> list[discord.File]:
    preview = face.preview if isinstance(face, cards.Running) else None
    return [discord.File(io.BytesIO(preview), cards.PREVIEW_NAME)] if preview else []


def _layout(view: JobView, face: cards.Face) -> ui.LayoutView:
    if isinstance(face, cards.Held):
        return cards.held_card(view)
    if isinstance(face, cards.Waiting):
        return cards.waiting_card(view, face)
    return cards.running_card(view, face)


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Results(bot))
