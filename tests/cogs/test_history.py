"""`/history`: a member's pictures again."""

from dataclasses import replace
from pathlib import Path

import pytest
from discord import ui

from cogs.history import history_card
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.job_views import a_view
from tests.support.simulated_server import open_world, said, texts


async def test_history_shows_a_picture_again(tmp_path: Path) -> None:
    """A member finds their pictures again, in private; nobody else can open them."""
    async with open_world(tmp_path) as world:
        await world.img2img(prompt="a lighthouse")
        answer = await world.alice.slash(world.channel, "history")
        assert "a lighthouse" in texts(said(answer))
        shown = await world.alice.click(said(answer).message, label="Show")
        assert shown.ephemeral
        assert len(said(shown).attachments) == 1
        theirs = await world.bob.slash(world.channel, "history")
        assert "Nothing here yet" in texts(said(theirs))


def _text(card: ui.LayoutView) -> str:
    return "\n".join(item.content for item in card.walk_children() if isinstance(item, ui.TextDisplay))


def test_no_pictures_yet_says_how_to_make_one() -> None:
    """An empty history is no empty card."""
    assert "/img2img" in _text(history_card([]))


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_a_prompt_in_the_history_is_only_text(text: str) -> None:
    """Nothing of a prompt acts in the list, and it keeps to its line."""
    view = a_view()
    card = history_card([replace(view, params=view.params.model_copy(update={"prompt": text}))])
    assert acting_in(_text(card)) == []
    assert _text(card).count("\n") == 2


def test_a_full_history_fits() -> None:
    """Ten pictures with long prompts stay within Discord's limits."""
    view = a_view(samples=4)
    long = replace(view, params=view.params.model_copy(update={"prompt": "*" * 1000}))
    card = history_card([long] * 10)
    assert card.content_length() <= 4000
    assert card.total_children_count <= 40


async def test_a_deleted_picture_can_not_be_opened(tmp_path: Path) -> None:
    """The button of an old list says that the picture is gone."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        card = world.card
        listed = await world.alice.slash(world.channel, "history")
        await world.alice.click(card, label="Delete")
        gone = await world.alice.click(said(listed).message, label="Show")
        assert "no longer stored" in said(gone).content
