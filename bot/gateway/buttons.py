"""Buttons that keep working after a restart: all they carry is an operation and the id of what it acts on."""

from __future__ import annotations

import re
from typing import Any, Final, Self

import discord
from discord import ui

from bot.gateway.interactions import explain
from db.operations import Operation

OPERATIONS: Final = {
    **{str(operation): operation for operation in Operation},
    # What an earlier version called the variations: its buttons are still under old pictures.
    "subtle": Operation.VARY_SUBTLE,
    "strong": Operation.VARY_STRONG,
}


def _template(operation: str) -> str:
    return rf"i2i:(?P<operation>{operation}):(?P<subject_id>[0-9]{{1,20}})(?::(?P<sample>[0-3]))?"


class PersistentButton(ui.DynamicItem[ui.Button[Any]], template=_template("[a-z_]{1,20}")):
    """A button with the custom id `i2i:operation:subject_id`, or `i2i:operation:subject_id:sample`.

    What it does and for whom is read from the database at each press, since a custom
    id can be forged. `operation` is None where the id names none that exists.
    """

    def __init__(
        self,
        button: ui.Button[Any],
        *,
        operation: Operation | None,
        subject_id: int,
        sample: int | None = None,
    ) -> None:
        super().__init__(button)
        self.operation = operation
        self.subject_id = subject_id
        self.sample = sample

    @classmethod
    def make(
        cls,
        operation: Operation,
        subject_id: int,
        *,
        label: str,
        sample: int | None = None,
        emoji: str | None = None,
        style: discord.ButtonStyle = discord.ButtonStyle.secondary,
    ) -> Self:
        """Return a button that asks for `operation`, of several pictures on number `sample` (from 0)."""
        suffix = "" if sample is None else f":{sample}"
        custom_id = f"i2i:{operation}:{subject_id}{suffix}"
        button: ui.Button[Any] = ui.Button(label=label, emoji=emoji, style=style, custom_id=custom_id)
        return cls(button, operation=operation, subject_id=subject_id, sample=sample)

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction, item: ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Rebuild the button that was pressed. Raises nothing: the library would answer nobody."""
        assert isinstance(item, ui.Button)  # noqa: S101 - the library matched a button's id
        sample = match["sample"]
        return cls(
            item,
            operation=OPERATIONS.get(match["operation"]),
            subject_id=int(match["subject_id"]),
            sample=None if sample is None else int(sample),
        )

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Hand the press to the client; answer whatever goes wrong."""
        try:
            await interaction.client.pressed(interaction, self)
        except Exception as error:  # noqa: BLE001 - the library would only log it
            await explain(interaction, error)


class ProposalButton(PersistentButton, template=_template("confirm|withdraw")):
    """Confirms or withdraws what a moderator proposed."""

    @property
    def proposal_id(self) -> int:
        """The id of the interaction that proposed it."""
        return self.subject_id


# The library calls every class whose template matches, so that no id may match both.
class JobButton(PersistentButton, template=_template("(?!(?:confirm|withdraw):)[a-z_]{1,20}")):
    """Acts on a job."""

    @property
    def job_id(self) -> int:
        """The job's id."""
        return self.subject_id
