"""Cards that change while their jobs wait and run: only the newest state is sent, and edits are spaced."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import discord

from bot.backends.base import Progress
from bot.clock import Clock
from bot.gateway.interactions import NO_MENTIONS, TROUBLE
from bot.jobs.dispatcher import Dispatcher
from bot.jobs.records import JobRecords
from bot.runtime.background import BackgroundTasks
from cogs import cards
from cogs.card_messages import JobMessages, NowhereToPost
from cogs.cards import Face
from db.database import CommitFailed
from db.jobs import Job

log = logging.getLogger(__name__)

EDIT_GAP_S: Final = 2.5  # Discord allows 5 edits per 5 s per channel, which other cards use as well
#: From the answer to the first edit: long enough to be read, short enough to feel alive.
FIRST_GAP_S: Final = 1.0
POSTING_S_MAX: Final = 5.0  # Discord takes an interaction's answer for 3 s: later than this, none will come
POSITIONS_GAP_S: Final = 5.0  # every start moves everyone behind it: several moves become one edit
POSITIONS_AT_ONCE_MAX: Final = 20  # leaves room for pictures in Discord's limits; the rest is next round's


class LiveCard:
    """One card: shows the newest face that was wanted, edits at least `EDIT_GAP_S` seconds apart.

    `edit` shows a face on Discord; the tasks that wait to call it run in `tasks`.
    """

    def __init__(
        self, edit: Callable[[Face], Awaitable[None]], *, clock: Clock, tasks: BackgroundTasks
    ) -> None:
        self._edit = edit
        self._clock = clock
        self._tasks = tasks
        self._posted = asyncio.Event()
        self._editing = asyncio.Lock()
        self._wanted: Face | None = None
        self._shown: Face | None = None
        self._edited_at = 0.0
        self._updater: asyncio.Task[None] | None = None
        self._closed = False
        self._can_cancel = False
        self._preview: bytes | None = None

    @property
    def face(self) -> Face | None:
        """The newest face, shown already or about to be; None before there is any."""
        return self._wanted or self._shown

    def begin(self, default: Face) -> Face:
        """Return the face for the first message: what is wanted already, or else `default`."""
        self._shown = self._wanted or default
        self._edited_at = self._clock.now() - EDIT_GAP_S + FIRST_GAP_S
        return self._shown

    def mark_posted(self) -> None:
        """Let edits begin: the first message is out, or its sending has failed."""
        self._posted.set()

    def want(self, face: Face) -> None:
        """Show `face` soon, unless a newer one comes before it."""
        if self._closed:
            return
        self._wanted = face
        if self._updater is None and face != self._shown:
            self._updater = self._tasks.spawn(self._update(), name="edit of a card")

    def start(self, *, can_cancel: bool, wait_s: float) -> None:
        """Show soon that the job runs, usually for `wait_s` seconds."""
        self._can_cancel = can_cancel
        self.want(cards.Running(can_cancel, wait_s=wait_s))

    def advance(self, progress: Progress) -> None:
        """Show soon how far the job is."""
        # Not every step comes with a preview; the last one stays until then.
        self._preview = progress.preview or self._preview
        self.want(cards.Running(self._can_cancel, progress.step, progress.steps, preview=self._preview))

    async def show_now(self, face: Face) -> None:
        """Show `face` as soon as the first message is out, however recent the last edit."""
        await self.wait_until_posted()
        self._wanted = face
        await self._show()

    async def wait_until_posted(self) -> bool:
        """Wait for the first message, at most `POSTING_S_MAX` seconds; return whether it is out."""
        if not self._posted.is_set():
            waits = [
                asyncio.ensure_future(self._posted.wait()),
                asyncio.ensure_future(self._clock.sleep(POSTING_S_MAX)),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return self._posted.is_set()

    async def close(self) -> bool:
        """Make no further edit, and wait for one under way; return whether the first message is out."""
        self._closed = True
        is_posted = await self.wait_until_posted()
        async with self._editing:
            # Holding the lock, we know that the updater is asleep and not in the middle of an edit.
            if self._updater:
                self._updater.cancel()
        return is_posted

    async def _update(self) -> None:
        try:
            await self._posted.wait()
            while not self._closed and self._wanted != self._shown:
                await self._clock.sleep(max(0.0, self._edited_at + EDIT_GAP_S - self._clock.now()))
                await self._show()
        finally:
            self._updater = None

    async def _show(self) -> None:
        async with self._editing:
            face = self._wanted
            if self._closed or face is None or face == self._shown:
                return
            self._shown, self._edited_at = face, self._clock.now()
            await self._edit(face)


class LiveCards:
    """The cards of all jobs that wait or run."""

    def __init__(
        self, *, records: JobRecords, dispatcher: Dispatcher, messages: JobMessages, clock: Clock
    ) -> None:
        self._records = records
        self._dispatcher = dispatcher
        self._messages = messages
        self._clock = clock
        self._cards: dict[int, LiveCard] = {}
        self._edits = BackgroundTasks()
        self._refreshes = BackgroundTasks()
        self._stopping = False

    @property
    def is_idle(self) -> bool:
        """Whether every card shows its newest state, queue positions aside."""
        return not self._edits

    async def aclose(self) -> None:
        """Make no further edit."""
        await self._refreshes.cancel()
        await self._edits.cancel()

    async def post(self, interaction: discord.Interaction[Any], job: Job) -> None:
        """Answer the interaction with the new job's card, which is kept up to date from then on."""
        card = self._card(job.id)
        try:
            view = await self._records.view(job.id, guild_id=job.guild_id)
            answer = await interaction.response.send_message(
                view=cards.live_card(view, card.begin(self._waiting(job.id))),
                # Where results have a channel of their own, other channels are kept free of cards.
                ephemeral=job.private or job.results_channel_id is not None,
                allowed_mentions=NO_MENTIONS,
            )
            if answer.message_id is not None:
                await self._store_message_id(job, answer.message_id)
        finally:
            card.mark_posted()

    async def _store_message_id(self, job: Job, message_id: int) -> None:
        try:
            await self._records.record_message(job.id, message_id=message_id, channel_id=job.channel_id)
        except CommitFailed as error:
            # The job goes on: until its token expires, the card can be edited without the message's id.
            log.warning("The message of job %d was not stored: %s", job.id, error)

    def queued(self, job_id: int, *, is_new: bool) -> None:
        """Follow a job that waits: a new one, whose card `post` will send, or one with a card already."""
        card = self._card(job_id)
        if not is_new and not self._stopping:
            card.mark_posted()
            card.want(self._waiting(job_id))
        self.positions_changed()

    def started(self, job_id: int, *, can_cancel: bool, wait_s: float) -> None:
        """Show that a job runs."""
        if not self._stopping:
            self._card(job_id).start(can_cancel=can_cancel, wait_s=wait_s)
        self.positions_changed()

    def progressed(self, job_id: int, progress: Progress) -> None:
        """Show how far a job is."""
        if (card := self._cards.get(job_id)) and not self._stopping:
            card.advance(progress)

    def positions_changed(self) -> None:
        """Refresh the positions on waiting cards soon."""
        if not self._refreshes and not self._stopping:
            self._refreshes.spawn(self._refresh_positions(), name="refresh of queue positions")

    def stop(self) -> None:
        """Show no more progress: the bot is stopping, and the time left is for pictures and `hold`."""
        self._stopping = True

    async def hold(self, job_id: int) -> None:
        """Show that the job goes on after a restart."""
        if card := self._cards.get(job_id):
            await card.show_now(cards.Held())

    async def close(self, job_id: int) -> None:
        """Make no further edit, so that what is shown of the job's end stays."""
        if card := self._cards.get(job_id):
            if not await card.close():
                log.info("The card of job %d was never posted", job_id)
            self._cards.pop(job_id, None)

    def _card(self, job_id: int) -> LiveCard:
        if job_id not in self._cards:
            edit = partial(self._edit, job_id)
            self._cards[job_id] = LiveCard(edit, clock=self._clock, tasks=self._edits)
        return self._cards[job_id]

    async def _edit(self, job_id: int, face: Face) -> None:
        view = await self._records.find(job_id)
        if view is None:
            return
        try:
            await self._messages.edit(view, cards.live_card(view, face), _preview_files(face))
        except (*TROUBLE, NowhereToPost) as error:
            log.info("The card of job %d could not be edited: %s", job_id, error)

    def _waiting(self, job_id: int) -> cards.Waiting:
        status = self._dispatcher.queue_status(job_id)
        return cards.Waiting(status.position or 1, status.wait_s, status.is_paused)

    async def _refresh_positions(self) -> None:
        are_more_left = True
        while are_more_left:
            await self._clock.sleep(POSITIONS_GAP_S)
            are_more_left = self._refresh_some()

    def _refresh_some(self) -> bool:
        """Refresh cards nearest the front first; return whether some are left for the next round."""
        moved = 0
        for job_id in self._dispatcher.waiting_jobs():
            card = self._cards.get(job_id)
            before, now = card and card.face, self._waiting(job_id)
            if card is None or not isinstance(before, cards.Waiting):
                continue
            # A changed wait alone is no reason for an edit: it changes all the time.
            if (now.position, now.is_paused) != (before.position, before.is_paused):
                card.want(now)
                moved += 1
            if moved == POSITIONS_AT_ONCE_MAX:
                return True
        return False


def _preview_files(face: Face) -> list[discord.File]:
    preview = face.preview if isinstance(face, cards.Running) else None
    return [discord.File(io.BytesIO(preview), cards.PREVIEW_NAME)] if preview else []
