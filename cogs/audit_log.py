"""Mirrors each server's audit log to its log channel, and lets members report pictures to it.

The log is in the database, and each server's cursor says how far its channel has come: after a
crash, or where the channel could not be reached, mirroring continues from there.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any, Final

import discord
from discord import ui
from discord.ext import commands

from bot.errors import BotError
from bot.events import AuditLogGrew, Event, JobCancelled, JobFailed, JobQueued, JobRendered
from bot.gateway.buttons import OPERATIONS, JobButton
from bot.gateway.client import Img2ImgBot
from bot.gateway.escaping import plain
from bot.gateway.interactions import NO_MENTIONS, reply
from bot.gateway.modals import GuardedModal
from bot.jobs.records import params_of
from bot.moderation.audit_log import AuditLog, LogItem
from bot.text import credits_text
from cogs.actors import guild_id_of, person_of
from cogs.cards import BUTTON_LABELS, OPERATION_NAMES
from cogs.changes import TEXT_CHARS_MAX, record_text
from db.audit_log import LogCursor
from db.jobs import Job
from db.operations import Operation

log = logging.getLogger(__name__)

GAP_S: Final = 2.0  # lets what happens together share a message
PROMPT_CHARS_LOGGED: Final = 400  # four entries or more fit into one message
WHY_CHARS_MAX: Final = 300  # enough for what is wrong with a picture; it is shown on one line
MODAL_TIMEOUT_S: Final = 900  # as long as its token lives
_ABOUT_JOBS: Final = (JobQueued, JobRendered, JobFailed, JobCancelled)


class LogChannels(commands.Cog):
    """Posts to log channels what happened in their servers."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._app = bot.app
        self._log = bot.app.audit_log
        self._guilds: set[int] = set()
        self._round: asyncio.Task[None] | None = None
        self._again = False
        self._unsubscribe = bot.app.events.subscribe(self._on_event)
        bot.on_press(Operation.REPORT, self._report)

    async def cog_load(self) -> None:
        """Look up which servers have a log channel."""
        self._guilds = await self._log.guilds_with_log_channel()

    async def cog_unload(self) -> None:
        """Stop; the next start mirrors the rest."""
        self._unsubscribe()
        if self._round:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Catch up on what happened before a restart."""
        self._wake()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, AuditLogGrew) or (self._guilds and isinstance(event, _ABOUT_JOBS)):
            self._wake()

    def _wake(self) -> None:
        self._again = True
        if self._round is None:
            self._round = asyncio.create_task(self._mirror_all(), name="mirror to the log channels")

    async def _mirror_all(self) -> None:
        try:
            while self._again:
                self._again = False
                self._guilds = await self._log.guilds_with_log_channel()
                if self._guilds:
                    await self._app.clock.sleep(GAP_S)
                for cursor in await self._log.pending_cursors():
                    await self._mirror(cursor)
        finally:
            self._round = None

    async def _mirror(self, cursor: LogCursor) -> None:
        items = await self._log.items_after(cursor)
        channel = self._bot.get_partial_messageable(cursor.channel_id, guild_id=cursor.guild_id)
        try:
            for last, text, files in await self._posts(items):
                # The nonce keeps a second try within minutes from showing twice.
                await channel.send(text, files=files, nonce=last, allowed_mentions=NO_MENTIONS)
                await self._log.advance_cursor(cursor.guild_id, last)
        except (discord.HTTPException, OSError) as error:
            log.warning("Posting to the log channel of server %d failed: %s", cursor.guild_id, error)
            return
        self._again = self._again or bool(items)

    async def _posts(self, items: list[LogItem]) -> list[tuple[int, str, list[discord.File]]]:
        """Return each message's last entry id, text and files; lines without files share one."""
        posts: list[tuple[int, str, list[discord.File]]] = []
        for item in items:
            line, files = line_of(item), await self._files(item)
            has_room = posts and not posts[-1][2] and len(posts[-1][1]) + len(line) < TEXT_CHARS_MAX
            if has_room and not files:
                posts[-1] = (item.entry.id, f"{posts[-1][1]}\n{line}", [])
            else:
                posts.append((item.entry.id, line, files))
        return posts

    async def _files(self, item: LogItem) -> list[discord.File]:
        """Return the source and pictures of a job that was rendered or reported, as far as still stored."""
        job = item.job
        if job is None or item.entry.kind not in {"rendered", "reported"}:
            return []
        named = [("source", job.input_hash), *((f"result-{r.sample + 1}", r.hash) for r in item.results)]
        files = []
        for name, digest in named:
            try:
                data = await self._app.store.get(digest or "")
            except BotError:
                continue  # gone, or the disk can't be read: the line says what happened all the same
            filename = f"{name}-{job.id}.jpg"
            files.append(discord.File(io.BytesIO(data), filename, spoiler=job.age_restricted))
        return files

    async def _report(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._app.job_records.view(button.job_id, guild_id=guild_id_of(interaction))
        await interaction.response.send_modal(_ReportModal(self._log, button.job_id))


class _ReportModal(GuardedModal):
    """Asks what is wrong with a picture."""

    def __init__(self, audit_log: AuditLog, job_id: int) -> None:
        super().__init__(title="Report this picture", timeout=MODAL_TIMEOUT_S)
        self._log = audit_log
        self._job_id = job_id
        self.why: ui.TextInput[Any] = ui.TextInput(
            style=discord.TextStyle.paragraph, max_length=WHY_CHARS_MAX
        )
        about = "Your report goes to this server's moderators."
        self.add_item(ui.Label(text="What's wrong with it?", description=about, component=self.why))

    async def submit(self, interaction: discord.Interaction[Any]) -> None:
        """Log the report; the log channel shows it in a moment."""
        await self._log.report(self.why.value, person_of(interaction), job_id=self._job_id)
        await reply(interaction, "Thanks! Your report was sent to the moderators.")


def line_of(item: LogItem) -> str:
    """Return the line that a log channel shows for an entry."""
    when = f"<t:{int(item.entry.at)}:T>"
    if item.record is not None:
        return f"🛠️ {when} {record_text(item.record)}"
    assert item.job is not None  # noqa: S101 - what is no moderation action is about a job
    return f"{when} {_job_line(item, item.job)}"


def _job_line(item: LogItem, job: Job) -> str:
    who, owner = f"<@{item.entry.user_id}>", f"<@{job.user_id}>"
    note = plain(item.entry.note, WHY_CHARS_MAX)
    button = BUTTON_LABELS.get(OPERATIONS.get(item.entry.note, Operation.IMG2IMG), note)
    what = OPERATION_NAMES[job.operation] or "Picture"
    hidden = " (private)" if job.private else ""
    lines = {
        "asked": f"🖼️ {what}{hidden} requested by {who} in <#{job.channel_id}>: {_prompt(job)} · job {job.id}",
        "rendered": f"✅ Made for {who}, {credits_text(job.charged or 0)}: {_link(job)} · {_prompt(job)}",
        "failed": f"⚠️ Job {job.id} by {who} failed: {plain(job.failure or '', WHY_CHARS_MAX)}",
        "cancelled": f"🚫 Job {job.id} by {who} was cancelled",
        "pressed": f"👆 {who} pressed **{button}** on {_link(job)} by {owner}",
        "reported": f"🚩 {who} reported {_link(job)} by {owner}: “{note}” · {_prompt(job)}",
        "deleted": f"🗑️ {who} deleted {_link(job)} by {owner} · {_prompt(job)}",
    }
    return lines[item.entry.kind]


def _link(job: Job) -> str:
    if job.message_id is None or job.private:
        return f"job {job.id}"
    return f"[job {job.id}](https://discord.com/channels/{job.guild_id}/{job.channel_id}/{job.message_id})"


def _prompt(job: Job) -> str:
    return f"“{plain(params_of(job).prompt, PROMPT_CHARS_LOGGED)}”"


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(LogChannels(bot))
