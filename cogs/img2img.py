"""`/img2img`, "Use in img2img", and the buttons that go on from a picture."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Final

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.gateway.buttons import JobButton
from bot.gateway.client import Img2ImgBot
from bot.gateway.modals import GuardedModal
from bot.jobs.inputs import PictureSource
from bot.jobs.service import VARIATION_STRENGTHS
from bot.params import PROMPT_CHARS_MAX, Img2ImgParams
from cogs.actors import person_of, request_of
from cogs.bot_permissions import check_channel
from cogs.options import SAMPLER_OPTION, SCHEDULER_OPTION, FieldOption, help_of, params_from
from cogs.picture_sources import from_attachment, from_message
from db.operations import Operation

MODAL_TIMEOUT_S: Final = 900  # as long as its token lives
#: What a member picks from, in words; the values are strengths.
STRENGTHS: Final = {
    "0.2": "A touch: nearly the same picture",
    "0.35": "Subtle: same picture, new finish",
    "0.5": "Half and half",
    "0.7": "Strong: same layout, new picture",
    "0.85": "Very strong: only the idea stays",
    "1": "Everything new",
}


class Img2Img(commands.Cog):
    """Commands and buttons that ask for pictures."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._jobs = bot.app.jobs
        self._menu = app_commands.ContextMenu(name="Use in img2img", callback=self.use_message)
        self._menu.allowed_contexts = app_commands.AppCommandContext(guild=True)
        bot.on_press(Operation.REROLL, self._reroll)
        for variation in VARIATION_STRENGTHS:
            bot.on_press(variation, partial(self._vary, variation))
        bot.on_press(Operation.CANCEL, self._cancel)
        bot.on_press(Operation.DELETE, self._delete)

    async def cog_load(self) -> None:
        """Register the message command."""
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Remove the message command."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    @app_commands.command(name="img2img", description="Turn a picture into another.")
    @app_commands.describe(
        image="The picture to start from: PNG, JPEG, GIF or WebP.",
        private="Only you see the card and the picture.",
        **help_of(
            "prompt",
            "negative_prompt",
            "strength",
            "steps",
            "guidance",
            "seed",
            "samples",
            "sampler",
            "scheduler",
        ),
    )
    async def img2img(
        self,
        interaction: discord.Interaction[Any],
        image: discord.Attachment,
        prompt: app_commands.Transform[str, FieldOption("prompt")],
        negative_prompt: app_commands.Transform[str, FieldOption("negative_prompt")] | None = None,
        strength: app_commands.Transform[float, FieldOption("strength")] | None = None,
        steps: app_commands.Transform[int, FieldOption("steps")] | None = None,
        guidance: app_commands.Transform[float, FieldOption("guidance")] | None = None,
        seed: app_commands.Transform[int, FieldOption("seed")] | None = None,
        samples: app_commands.Transform[int, FieldOption("samples")] | None = None,
        sampler: app_commands.Transform[str, SAMPLER_OPTION] | None = None,
        scheduler: app_commands.Transform[str, SCHEDULER_OPTION] | None = None,
        private: bool | None = None,
    ) -> None:
        """Make a new picture from the attached one."""
        params = params_from(
            prompt=prompt,
            negative_prompt=negative_prompt,
            strength=strength,
            steps=steps,
            guidance=guidance,
            seed=seed,
            samples=samples,
            sampler=sampler,
            scheduler=scheduler,
        )
        await self.start(interaction, params, from_attachment(image), private=private)

    async def use_message(self, interaction: discord.Interaction[Any], message: discord.Message) -> None:
        """Ask for prompt and strength, then make a new picture from the one in the message."""
        check_channel(interaction)
        await interaction.response.send_modal(_AskModal(self, from_message(message)))

    async def start(
        self,
        interaction: discord.Interaction[Any],
        params: Img2ImgParams,
        source: PictureSource,
        *,
        private: bool | None = None,
    ) -> None:
        """Accept the request and answer with its card."""
        check_channel(interaction)
        job = await self._jobs.submit(request_of(interaction, private=private), params, source)
        await self._bot.job_cards.post(interaction, job)

    async def _reroll(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        check_channel(interaction)
        job = await self._jobs.reroll(request_of(interaction), button.job_id)
        await self._bot.job_cards.post(interaction, job)

    async def _vary(
        self, operation: Operation, interaction: discord.Interaction[Any], button: JobButton
    ) -> None:
        check_channel(interaction)
        job = await self._jobs.vary(
            request_of(interaction), button.job_id, sample=button.sample or 0, operation=operation
        )
        await self._bot.job_cards.post(interaction, job)

    async def _cancel(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._jobs.cancel(person_of(interaction), button.job_id)
        await interaction.response.defer()

    async def _delete(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._jobs.delete(person_of(interaction), button.job_id)
        await interaction.response.defer()
        with suppress(discord.NotFound):  # another press was faster
            await interaction.delete_original_response()


class _AskModal(GuardedModal):
    """Asks what to make of a message's picture."""

    def __init__(self, cog: Img2Img, source: PictureSource) -> None:
        super().__init__(title="Use in img2img", timeout=MODAL_TIMEOUT_S)
        self._cog = cog
        self._source = source
        self.prompt: ui.TextInput[Any] = ui.TextInput(
            style=discord.TextStyle.paragraph,
            max_length=PROMPT_CHARS_MAX,
            placeholder="a watercolour of a harbour at dawn",
        )
        default = f"{Img2ImgParams.model_fields['strength'].default:g}"
        self.strength: ui.Select[Any] = ui.Select(
            options=[
                discord.SelectOption(label=f"{value} · {words}", value=value, default=value == default)
                for value, words in STRENGTHS.items()
            ]
        )
        self.add_item(ui.Label(text="What should the new picture show?", component=self.prompt))
        self.add_item(ui.Label(text="Strength: how far from this picture?", component=self.strength))

    async def submit(self, interaction: discord.Interaction[Any]) -> None:
        """Start the job."""
        strength = float(self.strength.values[0]) if self.strength.values else None
        params = params_from(prompt=self.prompt.value, strength=strength)
        await self._cog.start(interaction, params, self._source)


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Img2Img(bot))
