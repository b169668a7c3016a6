"""Cards stay within Discord's limits, whatever is on them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from discord import ui

from bot.jobs.records import JobView
from bot.params import Img2ImgParams
from cogs import cards
from db.jobs import Job, Result
from db.operations import Operation
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.job_views import a_view

NASTY = "@everyone <@&123456789012345678> # **x** [a](https://b.example) <#1> `c` \u202e\x00 😀 ||s|| " * 20


def _view(
    *, samples: int = 1, operation: Operation = Operation.IMG2IMG, prompt: str = "a harbour"
) -> JobView:
    params = Img2ImgParams(
        prompt=prompt[:1000], negative_prompt=prompt[:1000], seed=2**32 - 1, samples=samples
    )
    job = Job(
        id=2**63 - 1,
        guild_id=1,
        user_id=2**63 - 1,
        channel_id=3,
        operation=operation,
        params_json=params.model_dump_json(),
        created_at=0,
        input_hash="a" * 64,
        message_id=5,
        price=400,
        charged=400,
        failure="It failed. You weren't charged; please try again.",
    )
    results = tuple(Result(job.id, n, 2**32 - 1, "b" * 64, 64, 64) for n in range(samples))
    return JobView(job, params, results, job)


LAYOUTS: dict[str, Callable[[JobView], ui.LayoutView]] = {
    "waiting": lambda view: cards.waiting_card(view, cards.Waiting(12_345, 9_000)),
    "running": lambda view: cards.running_card(view, cards.Running(True, 99, 100)),
    "result": lambda view: cards.result_card(
        view, cards.Maker("A maker", uses_model=True), [f"{n}.jpg" for n in range(len(view.results))]
    ),
    "failed": cards.failed_card,
    "cancelled": cards.cancelled_card,
}


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_card_fits(name: str, samples: int) -> None:
    """However long the prompt and however many pictures, Discord accepts the card."""
    layout: ui.LayoutView = LAYOUTS[name](
        _view(samples=samples, operation=Operation.VARY_STRONG, prompt=NASTY)
    )
    assert layout.content_length() <= 4000
    assert layout.total_children_count <= 40
    for item in layout.walk_children():
        if isinstance(item, ui.DynamicItem):
            assert len(item.custom_id) <= 100


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_nothing_of_a_prompt_acts(name: str) -> None:
    """A prompt neither pings, formats, links nor reverses text on any card."""
    items = LAYOUTS[name](_view(prompt=NASTY)).walk_children()
    shown = "\n".join(item.content for item in items if isinstance(item, ui.TextDisplay))
    assert "@everyone" not in shown
    assert "<@&" not in shown
    assert "\u202e" not in shown
    assert "](https://b" not in shown
    assert "\\*\\*x\\*\\*" in shown


@pytest.mark.parametrize("name", [*LAYOUTS, "moved"])
def test_no_text_of_a_job_acts(name: str) -> None:
    """Prompt, negative prompt, sampler and failure are text on every card, each on its own line."""
    for text in HOSTILE_TEXTS:
        view = a_view(failure=text)
        params = view.params.model_copy(update={"prompt": text, "negative_prompt": text, "sampler": text})
        view = replace(view, params=params)
        layouts: dict[str, Any] = {
            **LAYOUTS,
            "moved": lambda view: cards.moved_card(view, "https://discord.com/channels/1"),
        }
        items = layouts[name](view).walk_children()
        assert acting_in("\n".join(item.content for item in items if isinstance(item, ui.TextDisplay))) == []


def test_the_alternative_text_of_a_picture_is_one_line() -> None:
    """Screen readers read it as it is: nothing of it is markup, but it stays on one line and in order."""
    for text in HOSTILE_TEXTS:
        view = a_view()
        view = replace(view, params=view.params.model_copy(update={"prompt": text}))
        layout = cards.result_card(view, cards.Maker("A maker", uses_model=True), ["1.jpg"])
        (gallery,) = [item for item in layout.walk_children() if isinstance(item, ui.MediaGallery)]
        assert (gallery.items[0].description or "").isprintable()


def test_only_dynamic_buttons_are_used() -> None:
    """Buttons outlive restarts, and no finished card unregisters those of others."""
    layout = LAYOUTS["result"](_view(samples=4))
    buttons = [item for item in layout.walk_children() if isinstance(item, ui.Button)]
    assert buttons == []
    assert layout.timeout is None
