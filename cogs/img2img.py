"""`/img2img`, "Use in img2img", and the buttons that go on from a picture."""

from __future__ import annotations

from typing import Any, Final

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.gateway.buttons import JobButton
from bot.gateway.client import Img2ImgBot
from bot.gateway.modals import GuardedModal
from bot.jobs.inputs import Source
from bot.jobs.service import Request, check_owner
from bot.params import PROMPT_CHARS_MAX, Img2ImgParams
from cogs.options import SAMPLER_OPTION, SCHEDULER_OPTION, FieldOption, help_of, params_from
from cogs.permissions import check_place, is_moderator, place_of, roles_of
from cogs.picture_sources import from_attachment, from_message
from db.operations import Operation

MODAL_TIMEOUT_S: Final = 900
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
        self._cards = bot.job_cards
        self._menu = app_commands.ContextMenu(name="Use in img2img", callback=self.use_message)
        self._menu.allowed_contexts = app_commands.AppCommandContext(guild=True)
        bot.on_press(Operation.REROLL, self._reroll)
        bot.on_press(Operation.VARY_SUBTLE, self._vary)
        bot.on_press(Operation.VARY_STRONG, self._vary)
        bot.on_press(Operation.CANCEL, self._cancel)
        bot.on_press(Operation.DELETE, self._delete)

    async def cog_load(self) -> None:
        """Register the message command."""
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Take the message command off."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    # ------------------------------------------------------------------ commands

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
        check_place(interaction)
        await interaction.response.send_modal(_AskModal(self, from_message(message)))

    async def start(
        self,
        interaction: discord.Interaction[Any],
        params: Img2ImgParams,
        source: Source,
        *,
        private: bool | None = None,
    ) -> None:
        """Accept the request and answer with its card."""
        check_place(interaction)
        job = await self._jobs.submit(_request(interaction, private=private), params, source)
        await self._cards.post(interaction, job)

    # ------------------------------------------------------------------- buttons

    async def _reroll(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._check_own(interaction, button)
        job = await self._jobs.reroll(_request(interaction), button.job_id)
        await self._cards.post(interaction, job)

    async def _vary(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._check_own(interaction, button)
        job = await self._jobs.vary(
            _request(interaction),
            button.job_id,
            sample=button.sample or 0,
            strong=button.operation is Operation.VARY_STRONG,
        )
        await self._cards.post(interaction, job)

    async def _check_own(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        check_place(interaction)
        view = await self._jobs.view(button.job_id, guild_id=interaction.guild_id or 0)
        check_owner(view.job, interaction.user.id)

    async def _cancel(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._jobs.cancel(
            button.job_id,
            guild_id=interaction.guild_id or 0,
            user_id=interaction.user.id,
            is_moderator=is_moderator(interaction),
        )
        await interaction.response.defer()

    async def _delete(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        await self._jobs.delete(
            button.job_id,
            guild_id=interaction.guild_id or 0,
            user_id=interaction.user.id,
            is_moderator=is_moderator(interaction),
        )
        await interaction.response.defer()
        await interaction.delete_original_response()


class _AskModal(GuardedModal):
    """Asks what to make of a message's picture."""

    def __init__(self, cog: Img2Img, source: Source) -> None:
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


def _request(interaction: discord.Interaction[Any], *, private: bool | None = None) -> Request:
    assert interaction.guild_id is not None  # noqa: S101 - check_place came before
    assert interaction.channel_id is not None  # noqa: S101 - likewise
    return Request(
        id=interaction.id,
        guild_id=interaction.guild_id,
        user_id=interaction.user.id,
        channel_id=interaction.channel_id,
        token=interaction.token,
        token_expires_at=interaction.expires_at.timestamp(),
        private=private,
        roles=roles_of(interaction.user),
        place=place_of(interaction),
    )


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Img2Img(bot))
