"""Where a job's card can be reached: by its interaction's token, by its message, or anew in its channel.

Edits, never follow-ups: a request that Discord got twice can't show twice.
"""

from __future__ import annotations

import io
import logging
from typing import Any, Final, cast

import discord
from discord import ui

from bot.errors import BotError
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import NO_MENTIONS, TROUBLE, is_gone
from bot.jobs.service import JobView
from db.jobs import Job

log = logging.getLogger(__name__)

#: A token that is about to expire would die on the way.
TOKEN_MARGIN_S: Final = 20.0


class NowhereToPost(BotError):
    """There is no message or channel left to post the pictures in."""


class Mailbox:
    """Reaches the cards of jobs on Discord."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot

    async def edit(
        self, view: JobView, layout: ui.LayoutView, files: list[discord.File] | None = None
    ) -> None:
        """Show `layout` (with `files`, which it names) in the job's message.

        Raises `NowhereToPost` if it can't be reached, `discord.HTTPException` for what may pass.
        """
        job = view.job
        attachments = files or []
        if webhook := self._webhook(job):
            try:
                await webhook.edit_message(
                    # "@original" is Discord's own name for the answer, where its id was not learnt.
                    job.message_id or cast("int", "@original"),
                    view=layout,
                    attachments=attachments,
                    allowed_mentions=NO_MENTIONS,
                )
            except discord.HTTPException as error:
                if not is_gone(error):
                    raise _final(error) from error
            else:
                return
        await self._edit_by_bot(job, layout, attachments)

    async def _edit_by_bot(self, job: Job, layout: ui.LayoutView, attachments: list[discord.File]) -> None:
        if job.message_id is None or job.private or job.results_channel_id is not None:
            raise NowhereToPost
        channel = self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        for file in attachments:
            file.reset(seek=True)
        try:
            await channel.get_partial_message(job.message_id).edit(
                view=layout, attachments=attachments, allowed_mentions=NO_MENTIONS
            )
        except discord.HTTPException as error:
            raise _final(error) from error

    async def deliver(self, view: JobView, layout: ui.LayoutView, pictures: list[bytes]) -> None:
        """Post the pictures: into the job's message, else as a new one, to the member alone if private.

        Raises `NowhereToPost` if that is forbidden, `discord.HTTPException` for what may pass.
        """
        job = view.job
        try:
            await self.edit(view, layout, files_of(view, pictures))
        except NowhereToPost:
            if job.message_id is not None and not job.private and job.results_channel_id is None:
                raise
            await self._send_anew(job, layout, files_of(view, pictures))

    async def post(
        self, view: JobView, layout: ui.LayoutView, pictures: list[bytes], *, channel_id: int
    ) -> discord.Message:
        """Post the pictures as a new message in another channel of the server. Raises as `deliver`."""
        channel = self._bot.get_partial_messageable(channel_id, guild_id=view.job.guild_id)
        try:
            # The nonce keeps a second try within minutes from showing twice.
            return await channel.send(
                view=layout,
                files=files_of(view, pictures),
                nonce=view.job.id,
                allowed_mentions=NO_MENTIONS,
            )
        except discord.HTTPException as error:
            raise _final(error) from error

    async def _send_anew(self, job: Job, layout: ui.LayoutView, files: list[discord.File]) -> None:
        try:
            place = await self._place(job)
            # The nonce keeps a second try within minutes from showing twice.
            await place.send(view=layout, files=files, nonce=job.id, allowed_mentions=NO_MENTIONS)
        except discord.HTTPException as error:
            raise _final(error) from error

    async def _place(self, job: Job) -> discord.abc.Messageable:
        if job.private and job.age_restricted:
            raise NowhereToPost(detail="a direct message is not age-restricted")
        if job.private:
            return await (await self._bot.fetch_user(job.user_id)).create_dm()
        return self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)

    async def withdraw(self, view: JobView, sentence: str) -> bool:
        """Remove the job's card and tell only its requester why; False if the token is dead."""
        webhook = self._webhook(view.job)
        if webhook is None:
            return False
        try:
            await webhook.send(sentence, ephemeral=True, allowed_mentions=NO_MENTIONS)
            await webhook.delete_message(view.job.message_id or cast("int", "@original"))
        except TROUBLE as error:
            log.info("The card of job %d could not be withdrawn: %s", view.job.id, error)
            return False
        return True

    def _webhook(self, job: Job) -> discord.Webhook | None:
        alive = (job.token_expires_at or 0.0) - TOKEN_MARGIN_S > self._bot.app.clock.now()
        if job.token is None or not alive or self._bot.application_id is None:
            return None
        webhook = discord.Webhook.partial(self._bot.application_id, job.token, client=self._bot)
        # What it is: without it the library lets it send nothing private.
        webhook.type = discord.WebhookType.application
        return webhook


def files_of(view: JobView, pictures: list[bytes]) -> list[discord.File]:
    """Return new files of the job's pictures, named as `filenames_of` says."""
    names = filenames_of(view)
    return [discord.File(io.BytesIO(data), name) for name, data in zip(names, pictures, strict=True)]


def filenames_of(view: JobView) -> list[str]:
    """Return a name for each of the job's pictures: the job and the seed that made it."""
    return [f"img2img-{view.job.id}-{result.seed}.jpg" for result in view.results]


def _final(error: discord.HTTPException) -> Any:
    """Return what to raise: trouble that may pass as it is, anything else as `NowhereToPost`."""
    passing = error.status == 429 or error.status >= 500  # noqa: PLR2004 - HTTP
    return error if passing else NowhereToPost(detail=str(error))
