"""Mirrors a server's trail to its log channel, and lets members report pictures to it.

An outbox: the trail is in the database, each server remembers how far its log channel has
seen it. After a crash, or where the channel could not be reached, the mirror goes on from there.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any, Final

import discord
from discord import ui
from discord.ext import commands

from bot.errors import JobGone
from bot.events import Event, JobCancelled, JobFailed, JobQueued, JobRendered, TrailGrew
from bot.gateway.buttons import JobButton
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import NO_MENTIONS, reply
from bot.gateway.modals import GuardedModal
from bot.moderation.audit import Told
from bot.params import Img2ImgParams
from bot.text import credits_text
from cogs.cards import OPERATION_NAMES
from cogs.listings import TEXT_CHARS_MAX, act_text
from cogs.permissions import server_of
from cogs.text import plain
from db.audit_log import Behind
from db.jobs import Job
from db.operations import Operation

log = logging.getLogger(__name__)

GAP_S: Final = 2.0
PROMPT_CHARS_LOGGED: Final = 400
WHY_CHARS_MAX: Final = 300
_ABOUT_JOBS: Final = (JobQueued, JobRendered, JobFailed, JobCancelled)


class AuditLog(commands.Cog):
    """Tells log channels what happened in their servers."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._app = bot.app
        self._guilds: set[int] = set()
        self._round: asyncio.Task[None] | None = None
        self._again = False
        self._unsubscribe = bot.app.events.subscribe(self._heard)
        bot.on_press(Operation.REPORT, self._report)

    async def cog_load(self) -> None:
        """Learn which servers want a log."""
        self._guilds = await self._app.trail.logged_guilds()

    async def cog_unload(self) -> None:
        """Stop; what was not mirrored yet is at the next start."""
        self._unsubscribe()
        if self._round:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Catch up on what happened before a restart."""
        self._wake()

    def _heard(self, event: Event) -> None:
        if isinstance(event, TrailGrew) or (self._guilds and isinstance(event, _ABOUT_JOBS)):
            self._wake()

    def _wake(self) -> None:
        self._again = True
        if self._round is None:
            self._round = asyncio.create_task(self._mirror_all(), name="mirror to the log channels")

    async def _mirror_all(self) -> None:
        try:
            while self._again:
                self._again = False
                self._guilds = await self._app.trail.logged_guilds()
                if self._guilds:
                    await self._app.clock.sleep(GAP_S)
                for server in await self._app.trail.behind():
                    await self._mirror(server)
        finally:
            self._round = None

    async def _mirror(self, server: Behind) -> None:
        told = await self._app.trail.next_for(server)
        channel = self._bot.get_partial_messageable(server.channel_id, guild_id=server.guild_id)
        try:
            for last, text, files in await self._posts(told):
                # The nonce keeps a second try within minutes from showing twice.
                await channel.send(text, files=files, nonce=last, allowed_mentions=NO_MENTIONS)
                await self._app.trail.mirrored(server.guild_id, last)
        except (discord.HTTPException, OSError) as error:
            log.warning("The log channel of server %d could not be told: %s", server.guild_id, error)
            return
        self._again = self._again or bool(told)

    async def _posts(self, told: list[Told]) -> list[tuple[int, str, list[discord.File]]]:
        """Return messages: the last entry in each, its text and its files; lines without files share one."""
        posts: list[tuple[int, str, list[discord.File]]] = []
        for one in told:
            line, files = line_of(one), await self._files(one)
            has_room = posts and not posts[-1][2] and len(posts[-1][1]) + len(line) < TEXT_CHARS_MAX
            if has_room and not files:
                posts[-1] = (one.entry.id, f"{posts[-1][1]}\n{line}", [])
            else:
                posts.append((one.entry.id, line, files))
        return posts

    async def _files(self, one: Told) -> list[discord.File]:
        """Return the source and the pictures of a job that was made or reported, as far as they are kept."""
        job = one.job
        if job is None or one.entry.kind not in {"rendered", "reported"}:
            return []
        named = [("source", job.input_hash), *((f"result-{r.sample + 1}", r.hash) for r in one.results)]
        files = []
        for name, digest in named:
            try:
                data = await self._app.store.get(digest or "")
            except (JobGone, OSError, ValueError):
                continue
            filename = f"{name}-{job.id}.jpg"
            files.append(discord.File(io.BytesIO(data), filename, spoiler=job.age_restricted))
        return files

    # -------------------------------------------------------------------- reporting

    async def _report(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        view = await self._app.jobs.view(button.job_id, guild_id=server_of(interaction))
        await interaction.response.send_modal(_ReportModal(self._bot, view.job.id))


class _ReportModal(GuardedModal):
    """Asks what is wrong with a picture."""

    def __init__(self, bot: Img2ImgBot, job_id: int) -> None:
        super().__init__(title="Report this picture", timeout=900)
        self._bot = bot
        self._job_id = job_id
        self.why: ui.TextInput[Any] = ui.TextInput(
            style=discord.TextStyle.paragraph, max_length=WHY_CHARS_MAX, placeholder="What is wrong with it?"
        )
        self.add_item(ui.Label(text="For the moderators of this server", component=self.why))

    async def submit(self, interaction: discord.Interaction[Any]) -> None:
        """Put the report on the trail; the log channel has it in a moment."""
        await self._bot.app.trail.report(
            self.why.value,
            guild_id=server_of(interaction),
            user_id=interaction.user.id,
            job_id=self._job_id,
        )
        await reply(interaction, "Thank you; the moderators have your report.")


def line_of(one: Told) -> str:
    """Return what a log channel is told of an entry."""
    when = f"<t:{int(one.entry.at)}:T>"
    if one.act is not None:
        return f"🛠️ {when} {act_text(one.act)}"
    assert one.job is not None  # noqa: S101 - what is no act is about a job
    return f"{when} {_job_line(one, one.job)}"


def _job_line(one: Told, job: Job) -> str:
    who, owner = f"<@{one.entry.user_id}>", f"<@{job.user_id}>"
    note = plain(one.entry.note, WHY_CHARS_MAX)
    what = OPERATION_NAMES[job.operation] or "Picture"
    hidden = " (private)" if job.private else ""
    lines = {
        "asked": f"🖼️ {what}{hidden} asked by {who} in <#{job.channel_id}>: {_prompt(job)} · job {job.id}",
        "rendered": f"✅ Made for {who}, {credits_text(job.charged or 0)}: {_link(job)} · {_prompt(job)}",
        "failed": f"⚠️ Job {job.id} of {who} made no picture: {plain(job.failure or '', WHY_CHARS_MAX)}",
        "cancelled": f"🚫 Job {job.id} of {who} was cancelled",
        "pressed": f"👆 {who} pressed **{note}** on {_link(job)} by {owner}",
        "reported": f"🚩 {who} reports {_link(job)} by {owner}: “{note}” · {_prompt(job)}",
        "deleted": f"🗑️ {who} took {_link(job)} by {owner} away · {_prompt(job)}",
    }
    return lines[one.entry.kind]


def _link(job: Job) -> str:
    if job.message_id is None or job.private:
        return f"job {job.id}"
    return f"[job {job.id}](https://discord.com/channels/{job.guild_id}/{job.channel_id}/{job.message_id})"


def _prompt(job: Job) -> str:
    return f"“{plain(Img2ImgParams.model_validate_json(job.request).prompt, PROMPT_CHARS_LOGGED)}”"


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(AuditLog(bot))
