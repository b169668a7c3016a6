"""Shows how jobs end: posts the pictures, or says why there are none.

Delivery is an outbox: a rendered job is posted, then marked delivered, so that a
crash in between posts again into the same message.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from discord import ui

from bot.backends.router import Router
from bot.clock import Clock
from bot.errors import BotError
from bot.gateway.interactions import TROUBLE
from bot.jobs.records import JobRecords, JobView
from bot.pictures.store import PictureStore
from bot.runtime.retry import retry
from cogs import cards
from cogs.card_messages import JobMessages, NowhereToPost, filenames_of
from cogs.live_cards import LiveCards
from db.database import CommitFailed

log = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 16  # each delivery holds its pictures in memory, and a restart may start many
#: For a blip, a rate limit, a short outage; then the next start tries again.
WAITS_S: Final = (2.0, 15.0, 60.0)


class Delivery:
    """Shows the end of each job in its card, however often Discord has to be asked."""

    def __init__(
        self,
        *,
        records: JobRecords,
        live_cards: LiveCards,
        messages: JobMessages,
        router: Router,
        store: PictureStore,
        clock: Clock,
    ) -> None:
        self._records = records
        self._live_cards = live_cards
        self._messages = messages
        self._router = router
        self._store = store
        self._clock = clock
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def deliver(self, job_id: int) -> None:
        """Post the job's pictures and mark it delivered."""
        await self._live_cards.close(job_id)
        async with self._at_once:
            is_done = await retry(self._clock, WAITS_S, lambda: self._try_delivery(job_id))
        if not is_done:
            log.error("Job %d was not delivered; the next start will try again", job_id)

    async def show_end(self, job_id: int) -> None:
        """Show on the card that the job failed or was cancelled."""
        await self._live_cards.close(job_id)
        if not await retry(self._clock, WAITS_S, lambda: self._try_end(job_id)):
            log.error("The end of job %d could not be shown; its card keeps its last state", job_id)

    async def withdraw(self, job_id: int, sentence: str) -> None:
        """Remove the card of a job whose picture was refused, and answer only its requester why."""
        await self._live_cards.close(job_id)
        view = await self._records.find(job_id)
        if view is not None and not await self._messages.withdraw(view, f"{sentence} You weren't charged."):
            await self.show_end(job_id)

    async def _try_end(self, job_id: int) -> bool:
        """Edit the card of a job that made no picture; False if another try is due."""
        view = await self._records.find(job_id)
        if view is None:
            return True
        layout = cards.failed_card(view) if view.job.state == "failed" else cards.cancelled_card(view)
        try:
            await self._messages.edit(view, layout)
        except NowhereToPost as error:
            log.info("The end of job %d can't be shown anywhere: %s", job_id, error)
        except TROUBLE as error:
            log.warning("The end of job %d could not be shown yet: %s", job_id, error)
            return False
        return True

    async def _try_delivery(self, job_id: int) -> bool:
        """Post the pictures; False if another try is due."""
        view = await self._records.find(job_id)
        if view is None or view.job.state != "rendered":
            return True
        try:
            pictures = await pictures_of(view, self._store)
            if not await self._post_in_results_channel(view, pictures):
                await self._messages.deliver(view, result_layout(view, self._router), pictures)
            await self._records.mark_delivered(job_id)
        except (*TROUBLE, CommitFailed) as error:
            log.warning("Job %d could not be posted or marked delivered yet: %s", job_id, error)
            return False
        except BotError as error:
            log.warning("Job %d can't be delivered and stays in its member's history: %s", job_id, error)
            await self._records.mark_undeliverable(job_id)
        return True

    async def _post_in_results_channel(self, view: JobView, pictures: list[bytes]) -> bool:
        """Post the pictures in the server's results channel; False if there is none that can be used."""
        job = view.job
        if job.results_channel_id is None:
            return False
        if job.channel_id == job.results_channel_id:
            return True  # A crash came between posting and marking: the job is stored as shown there.
        try:
            message = await self._messages.post_elsewhere(
                view, result_layout(view, self._router), pictures, channel_id=job.results_channel_id
            )
        except NowhereToPost as error:
            log.warning("Job %d can't go to the results channel: %s", job.id, error.detail)
            return False
        await self._records.record_message(job.id, message_id=message.id, channel_id=job.results_channel_id)
        try:
            await self._messages.edit(view, cards.moved_card(view, message.jump_url))
        except (*TROUBLE, NowhereToPost) as error:
            log.info("The card of job %d could not link to its picture: %s", job.id, error)
        return True


def result_layout(view: JobView, router: Router) -> ui.LayoutView:
    """Return a new result card of a finished job."""
    return cards.result_card(view, _maker(view, router), filenames_of(view))


async def pictures_of(view: JobView, store: PictureStore) -> list[bytes]:
    """Return the job's pictures, in order. Raises `JobGone` when they are no longer stored."""
    return [await store.get(result.hash) for result in view.results]


def _maker(view: JobView, router: Router) -> cards.Maker:
    if slot := router.find(view.job.backend):
        return cards.Maker(slot.backend.capabilities.label, slot.backend.capabilities.uses_model)
    # The backend was taken out of the settings since: all but the painter use a model.
    return cards.Maker(view.job.backend or "a program", uses_model=view.job.backend != "painter")
