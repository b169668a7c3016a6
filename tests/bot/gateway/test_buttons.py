"""Buttons: their custom ids, those of earlier versions, and whatever else is pressed."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest
from discord import ui

from bot.actors import Person
from bot.errors import JobGone
from bot.gateway.buttons import JobButton, PersistentButton, ProposalButton
from bot.gateway.client import BUTTON_OPERATIONS
from bot.jobs.service import VARIATION_STRENGTHS
from db.operations import Operation
from tests.support.discord_wire import ALICE_ID, GUILD_ID, open_wire
from tests.support.live_bot import Brush, living
from tests.support.simulated_server import a_picture

KINDS: list[type[PersistentButton]] = [JobButton, ProposalButton]


async def _pressed(custom_id: str) -> PersistentButton | None:
    """Return the button that a press of this custom id makes, as the library does it."""
    found = [kind for kind in KINDS if kind.__discord_ui_compiled_template__.fullmatch(custom_id)]
    assert len(found) <= 1, "two classes would answer"
    if not found:
        return None
    match = found[0].__discord_ui_compiled_template__.fullmatch(custom_id)
    item: ui.Button[Any] = ui.Button(custom_id=custom_id)
    interaction: Any = None
    assert match is not None
    return await found[0].from_custom_id(interaction, item, match)


@pytest.mark.parametrize("sample", [None, 0, 3])
@pytest.mark.parametrize("operation", sorted(BUTTON_OPERATIONS))
async def test_a_button_comes_back_as_it_was_made(operation: Operation, sample: int | None) -> None:
    """Whatever the process knew of it is gone: all there is comes out of the custom id."""
    kind = ProposalButton if operation in (Operation.CONFIRM, Operation.WITHDRAW) else JobButton
    made = kind.make(operation, 2**63 - 1, label="x", sample=sample)
    assert len(made.custom_id) <= 100
    button = await _pressed(made.custom_id)
    assert type(button) is kind
    assert (button.operation, button.subject_id, button.sample) == (operation, 2**63 - 1, sample)


@pytest.mark.parametrize(
    ("custom_id", "operation", "subject_id", "sample"),
    [
        ("i2i:subtle:12:0", Operation.VARY_SUBTLE, 12, 0),
        ("i2i:strong:12:3", Operation.VARY_STRONG, 12, 3),
        ("i2i:reroll:12", Operation.REROLL, 12, None),
        ("i2i:show:12", Operation.SHOW, 12, None),
        ("i2i:confirm:12", Operation.CONFIRM, 12, None),
        ("i2i:explode:12", None, 12, None),
    ],
)
async def test_custom_ids_of_earlier_versions(
    custom_id: str, operation: Operation | None, subject_id: int, sample: int | None
) -> None:
    """Buttons under old pictures mean what they meant; an operation that never was is None."""
    button = await _pressed(custom_id)
    assert button is not None
    assert (button.operation, button.subject_id, button.sample) == (operation, subject_id, sample)


@pytest.mark.parametrize(
    "custom_id", ["", "i2i:", "i2i:reroll", "i2i:reroll:", "i2i:reroll:x", "i2i:reroll:1:4", "i2i:ReRoll:1"]
)
async def test_other_custom_ids_are_not_ours(custom_id: str) -> None:
    """What has another form is no button of this bot."""
    assert await _pressed(custom_id) is None


async def test_an_error_of_a_press_is_explained() -> None:
    """Whoever pressed gets one private sentence; the library would only log the error."""
    answers: list[tuple[str, bool]] = []

    async def send_message(text: str, *, ephemeral: bool, allowed_mentions: Any) -> None:
        del allowed_mentions
        answers.append((text, ephemeral))

    async def pressed(_interaction: Any, _button: Any) -> None:
        raise JobGone

    interaction: Any = SimpleNamespace(
        client=SimpleNamespace(pressed=pressed),
        response=SimpleNamespace(is_done=lambda: False, send_message=send_message),
    )
    await JobButton.make(Operation.REROLL, 1, label="Reroll").callback(interaction)
    assert answers == [(str(JobGone()), True)]


@pytest.mark.parametrize(
    ("custom_id", "operation", "strength"),
    [
        ("i2i:subtle:{job}:0", Operation.VARY_SUBTLE, VARIATION_STRENGTHS[Operation.VARY_SUBTLE]),
        ("i2i:strong:{job}:0", Operation.VARY_STRONG, VARIATION_STRENGTHS[Operation.VARY_STRONG]),
        ("i2i:vary_strong:{job}:0", Operation.VARY_STRONG, VARIATION_STRENGTHS[Operation.VARY_STRONG]),
    ],
)
async def test_an_old_button_still_makes_its_variation(
    tmp_path: Path, custom_id: str, operation: Operation, strength: float
) -> None:
    """Pressed under a picture of an earlier version, a button makes what it says."""
    async with open_wire() as wire, living(tmp_path, wire, backends=[Brush()]) as life:
        await wire.until(lambda: wire.online)
        event = await wire.slash(image=a_picture((64, 64)), prompt="a harbour")
        await wire.until(lambda: any(m.files for m in wire.messages.values()))
        await life.settled()
        await wire.press(custom_id.format(job=event["id"]))
        await wire.until(lambda: sum(bool(m.files) for m in wire.messages.values()) == 2)
        await life.settled()
        newest, _ = await life.app.job_records.history(Person(GUILD_ID, ALICE_ID))
        assert (newest.job.operation, newest.params.strength) == (operation, strength)
        assert newest.job.parent_id == int(event["id"])


def test_the_format_is_documented() -> None:
    """The base class says what a custom id looks like, and its template agrees."""
    template = PersistentButton.__discord_ui_compiled_template__
    assert re.fullmatch(template, "i2i:operation:7:2")
    assert "i2i:operation:subject_id:sample" in (PersistentButton.__doc__ or "")
    assert isinstance(JobButton.make(Operation.SHOW, 1, label="x").item, discord.ui.Button)
