"""Listens to what happens to jobs and has it shown: progress on live cards, the end by delivery."""

from __future__ import annotations

from discord.ext import commands

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
from bot.runtime.background import BackgroundTasks
from cogs.card_messages import JobMessages
from cogs.delivery import Delivery
from cogs.live_cards import LiveCards


class Results(commands.Cog):
    """Hands each event of a job to whatever shows it."""

    def __init__(self, bot: Img2ImgBot, live_cards: LiveCards, delivery: Delivery) -> None:
        self._live_cards = live_cards
        self._delivery = delivery
        self._tasks = BackgroundTasks()
        bot.add_shutdown_hook(self._tasks.wait)
        self._unsubscribe = bot.app.events.subscribe(self._on_event)

    @property
    def is_idle(self) -> bool:
        """Whether everything that has happened is shown, queue positions aside."""
        return not self._tasks and self._live_cards.is_idle

    async def cog_unload(self) -> None:
        """Stop listening; what is not shown yet is shown at the next start."""
        self._unsubscribe()
        await self._tasks.cancel()
        await self._live_cards.aclose()

    def _on_event(self, event: Event) -> None:  # noqa: C901 - one case an event
        match event:
            case JobQueued(job_id, is_new):
                self._live_cards.queued(job_id, is_new=is_new)
            case JobStarted(job_id, can_cancel, job_s):
                self._live_cards.started(job_id, can_cancel=can_cancel, wait_s=job_s)
            case JobProgressed(job_id, progress):
                self._live_cards.progressed(job_id, progress)
            case JobRendered(job_id):
                self._tasks.spawn(self._delivery.deliver(job_id), name=f"delivery of job {job_id}")
            case InputRefused(job_id, sentence):
                self._tasks.spawn(self._delivery.withdraw(job_id, sentence), name=f"refusal of job {job_id}")
                self._live_cards.positions_changed()
            case JobFailed(job_id) | JobCancelled(job_id):
                self._tasks.spawn(self._delivery.show_end(job_id), name=f"end of job {job_id}")
                self._live_cards.positions_changed()
            case BotStopping(job_ids):
                self._live_cards.stop()
                for job_id in job_ids:
                    self._tasks.spawn(self._live_cards.hold(job_id), name=f"notice on job {job_id}")
            case QueuePaused() | QueueResumed():
                self._live_cards.positions_changed()
            case _:
                pass


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog and give the client its job cards."""
    app = bot.app
    messages = JobMessages(bot, app.clock)
    live_cards = LiveCards(
        records=app.job_records, dispatcher=app.dispatcher, messages=messages, clock=app.clock
    )
    delivery = Delivery(
        records=app.job_records,
        live_cards=live_cards,
        messages=messages,
        router=app.router,
        store=app.store,
        clock=app.clock,
    )
    bot.job_cards = live_cards
    await bot.add_cog(Results(bot, live_cards, delivery))
