"""Sends a job's card to Discord: through its interaction's token, by its message, or as a new message.

Cards are edited, not followed up: a request that Discord gets twice can't show twice.
"""

from __future__ import annotations

import io
import logging
from typing import Final, cast

import discord
from discord import ui

from bot.clock import Clock
from bot.errors import BotError
from bot.gateway.client import Img2ImgBot
from bot.gateway.escaping import plain
from bot.gateway.interactions import NO_MENTIONS, TROUBLE, is_gone
from bot.jobs.records import JobView
from db.jobs import Job

log = logging.getLogger(__name__)

TOKEN_MARGIN_S: Final = 20.0  # a token nearer its expiry may expire while the request is on its way
SENTENCE_CHARS_MAX: Final = 900  # escaped, it may be twice as long, and Discord takes 2,000
_THROTTLED: Final = 429
_SERVER_ERROR: Final = 500


class NowhereToPost(BotError):
    """There is no message or channel left to post the pictures in."""


class JobMessages:
    """Edits, posts and removes the messages that show jobs."""

    def __init__(self, bot: Img2ImgBot, clock: Clock) -> None:
        self._bot = bot
        self._clock = clock

    async def edit(
        self, view: JobView, layout: ui.LayoutView, files: list[discord.File] | None = None
    ) -> None:
        """Show `layout` (with `files`, which it names) in the job's message.

        Raises `NowhereToPost` if it can't be reached, one of `TROUBLE` where a later try may work.
        """
        job = view.job
        attachments = files or []
        if webhook := self._webhook(job):
            try:
                await webhook.edit_message(
                    _message_id(job), view=layout, attachments=attachments, allowed_mentions=NO_MENTIONS
                )
            except discord.HTTPException as error:
                if not is_gone(error):
                    raise _passing_or_final(error) from error
            else:
                return
        await self._edit_without_token(job, layout, attachments)

    async def _edit_without_token(
        self, job: Job, layout: ui.LayoutView, attachments: list[discord.File]
    ) -> None:
        if job.message_id is None or _is_seen_by_one(job):
            raise NowhereToPost
        channel = self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        for file in attachments:
            file.reset(seek=True)  # The try with the token may have read them.
        try:
            await channel.get_partial_message(job.message_id).edit(
                view=layout, attachments=attachments, allowed_mentions=NO_MENTIONS
            )
        except discord.HTTPException as error:
            raise _passing_or_final(error) from error

    async def deliver(self, view: JobView, layout: ui.LayoutView, pictures: list[bytes]) -> None:
        """Post the pictures: into the job's message, else as a new one, to the member alone if private.

        Raises as `edit` does.
        """
        job = view.job
        try:
            await self.edit(view, layout, files_of(view, pictures))
        except NowhereToPost:
            # Somebody removed a message that everyone saw: it is not posted again.
            if job.message_id is not None and not _is_seen_by_one(job):
                raise
            await self._send(await self._recipient(job), view, layout, pictures)

    async def post_elsewhere(
        self, view: JobView, layout: ui.LayoutView, pictures: list[bytes], *, channel_id: int
    ) -> discord.Message:
        """Post the pictures as a new message in another channel of the server. Raises as `edit` does."""
        channel = self._bot.get_partial_messageable(channel_id, guild_id=view.job.guild_id)
        return await self._send(channel, view, layout, pictures)

    async def _send(
        self,
        recipient: discord.abc.Messageable,
        view: JobView,
        layout: ui.LayoutView,
        pictures: list[bytes],
    ) -> discord.Message:
        try:
            return await recipient.send(
                view=layout,
                files=files_of(view, pictures),
                nonce=view.job.id,  # keeps a second try within minutes from showing twice
                allowed_mentions=NO_MENTIONS,
            )
        except discord.HTTPException as error:
            raise _passing_or_final(error) from error

    async def _recipient(self, job: Job) -> discord.abc.Messageable:
        if job.private and job.age_restricted:
            raise NowhereToPost(detail="a direct message is not age-restricted")
        if not job.private:
            return self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        try:
            return await (await self._bot.fetch_user(job.user_id)).create_dm()
        except discord.HTTPException as error:
            raise _passing_or_final(error) from error

    async def withdraw(self, view: JobView, sentence: str) -> bool:
        """Remove the job's card and send only its requester `sentence`; False if the token has expired."""
        webhook = self._webhook(view.job)
        if webhook is None:
            return False
        try:
            # A decoder child may have been taken over by the picture, and its sentence made up.
            await webhook.send(
                plain(sentence, SENTENCE_CHARS_MAX), ephemeral=True, allowed_mentions=NO_MENTIONS
            )
            await webhook.delete_message(_message_id(view.job))
        except TROUBLE as error:
            log.info("The card of job %d could not be withdrawn: %s", view.job.id, error)
            return False
        return True

    def _webhook(self, job: Job) -> discord.Webhook | None:
        """Return the webhook behind the interaction's token; None once the token has expired."""
        is_valid = (job.token_expires_at or 0.0) - TOKEN_MARGIN_S > self._clock.now()
        if job.token is None or not is_valid or self._bot.application_id is None:
            return None
        webhook = discord.Webhook.partial(self._bot.application_id, job.token, client=self._bot)
        # `partial` leaves the type unset, and the library sends private messages for this type only.
        webhook.type = discord.WebhookType.application
        return webhook


def _message_id(job: Job) -> int:
    """Return the id of the job's message, or Discord's own name for an interaction's answer."""
    return job.message_id or cast("int", "@original")


def _is_seen_by_one(job: Job) -> bool:
    """Return whether the job's card is ephemeral, so that only its token reaches it."""
    return job.private or job.results_channel_id is not None


def files_of(view: JobView, pictures: list[bytes]) -> list[discord.File]:
    """Return new files of the job's pictures, named as `filenames_of` says."""
    names = filenames_of(view)
    return [discord.File(io.BytesIO(data), name) for name, data in zip(names, pictures, strict=True)]


def filenames_of(view: JobView) -> list[str]:
    """Return a name for each of the job's pictures: the job and the seed that made it."""
    return [f"img2img-{view.job.id}-{result.seed}.jpg" for result in view.results]


def _passing_or_final(error: discord.HTTPException) -> Exception:
    """Return what to raise: an error that may pass as it is, any other as `NowhereToPost`."""
    is_passing = error.status == _THROTTLED or error.status >= _SERVER_ERROR
    return error if is_passing else NowhereToPost(detail=str(error))
