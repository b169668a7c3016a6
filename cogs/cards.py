"""What a job looks like: takes a job and how far it is, returns a layout. No I/O here.

Every card is a Components V2 layout from its first message on: Discord lets no edit turn one
back into plain text. Each call returns a new layout, with dynamic buttons only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import discord
from discord import ui

from bot.gateway.buttons import JobButton
from bot.gateway.escaping import one_line, plain
from bot.jobs.records import JobView
from bot.params import DEFAULT_NEGATIVE_PROMPT
from bot.text import counted, credits_text, duration_text, ordinal
from db.operations import Operation

PROMPT_CHARS_SHOWN: Final = 300  # a few lines on a phone, so that the buttons stay in view
ALT_CHARS_MAX: Final = 256  # as discord.py documents it
PREVIEW_NAME: Final = "preview.jpg"
PREVIEW_ALT: Final = "Preview of the picture in progress"
FAILURE_CHARS_SHOWN: Final = 500  # longer than any sentence of the bot's own
BAR_CELLS: Final = 12  # fits on one line of a phone

WAITING_COLOUR: Final = 0x80848E
RUNNING_COLOUR: Final = 0x5865F2
DONE_COLOUR: Final = 0x248046
FAILED_COLOUR: Final = 0xDA373C

PAUSED: Final = (
    "The bot has run out of credits at the image service, and its operator has been notified."
    " Your picture will be made as soon as they're topped up."
    " You won't be charged until then, and you can cancel."
)

OPERATION_NAMES: Final = {
    Operation.IMG2IMG: "",
    Operation.REROLL: "Reroll",
    Operation.VARY_SUBTLE: "Subtle variation",
    Operation.VARY_STRONG: "Strong variation",
}
BUTTON_LABELS: Final = {
    Operation.REROLL: "Reroll",
    Operation.VARY_SUBTLE: "Vary (subtle)",
    Operation.VARY_STRONG: "Vary (strong)",
    Operation.CANCEL: "Cancel",
    Operation.DELETE: "Delete",
    Operation.REPORT: "Report",
    Operation.SHOW: "Show",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """The job is at `position` in the queue (1 is next), its picture expected in `wait_s` seconds.

    `is_paused` means that it waits until the operator has credits again.
    """

    position: int
    wait_s: float
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """The job runs: `step` of `steps`, or `steps` 0 where the backend reports none.

    `preview` is a small JPEG of the picture in progress, where the backend sends one.
    """

    can_cancel: bool
    step: int = 0
    steps: int = 0
    wait_s: float = 0
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The bot is stopping: the job goes on after the restart."""


Face = Waiting | Running | Held


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made a picture: a backend's label, and whether it is a model."""

    label: str
    uses_model: bool


def live_card(view: JobView, face: Face) -> ui.LayoutView:
    """Return the card of a job that has not ended."""
    if isinstance(face, Held):
        return held_card(view)
    if isinstance(face, Waiting):
        return waiting_card(view, face)
    return running_card(view, face)


def waiting_card(view: JobView, face: Waiting) -> ui.LayoutView:
    """Return the card of a job in the queue: its position, the wait, the price, Cancel."""
    position = "Next in line" if face.position == 1 else f"{ordinal(face.position)} in line"
    head = f"### ⏳ {position} · {duration_text(face.wait_s)}"
    if face.is_paused:
        head = f"### ⏸️ {position}\n{PAUSED}"
    return _card(WAITING_COLOUR, _asked(view, head), _facts(view, _price(view)), _row(_cancel_button(view)))


def running_card(view: JobView, face: Running) -> ui.LayoutView:
    """Return the card of a running job: a progress bar where its backend reports steps."""
    if face.steps:
        head = f"### 🎨 Step {face.step} of {face.steps}\n{_bar(face.step, face.steps)}"
    else:
        head = f"### 🎨 Making your picture · {duration_text(face.wait_s)}"
    cancel = [_row(_cancel_button(view))] if face.can_cancel else []
    preview = [_gallery(PREVIEW_ALT, [PREVIEW_NAME])] if face.preview else []
    return _card(RUNNING_COLOUR, *preview, _asked(view, head), _facts(view, _price(view)), *cancel)


def held_card(view: JobView) -> ui.LayoutView:
    """Return the card of a job that goes on after a restart."""
    head = "### 💤 The bot is restarting\nYour picture will appear here once it's back."
    return _card(WAITING_COLOUR, ui.TextDisplay(f"{head}\n{_asked(view)}\n-# {_by(view)}"))


def result_card(view: JobView, maker: Maker, filenames: list[str]) -> ui.LayoutView:
    """Return the card of a finished job; `filenames` are those of the files sent along, in order."""
    alt = one_line(f"Picture made from the prompt: {view.params.prompt}", ALT_CHARS_MAX)
    facts = _facts(view, _settings(view), f"-# {_paid(view)}", f"-# {_made_by(maker)}")
    return _card(DONE_COLOUR, _gallery(alt, filenames), _asked(view), facts, *_result_rows(view))


def failed_card(view: JobView) -> ui.LayoutView:
    """Return the card of a job that made no picture, with the reason; it can be tried again."""
    failure = plain(view.job.failure or "", FAILURE_CHARS_SHOWN)
    head = ui.TextDisplay[Any](f"### ⚠️ No picture this time\n{failure}")
    again = _row(JobButton.make(Operation.REROLL, view.job.id, label="Try again", emoji="🔄"))
    rows = [again] if view.job.input_hash else []
    return _card(FAILED_COLOUR, head, _asked(view), _facts(view, f"-# {_by(view)}"), *rows)


def cancelled_card(view: JobView) -> ui.LayoutView:
    """Return the card of a job that was cancelled."""
    head = "### 🚫 Cancelled\nYou weren't charged."
    return _card(WAITING_COLOUR, _asked(view, head), _facts(view, f"-# {_by(view)}"))


def moved_card(view: JobView, address: str) -> ui.LayoutView:
    """Return the card of a job whose picture is shown elsewhere."""
    head = f"### ✅ [Your picture is here]({address})"
    return _card(DONE_COLOUR, _asked(view, head), _facts(view, f"-# {_paid(view)}"))


def _card(colour: int, *items: ui.Item[Any]) -> ui.LayoutView:
    layout = ui.LayoutView(timeout=None)
    layout.add_item(ui.Container(*items, accent_colour=colour))
    return layout


def _gallery(alt: str, filenames: list[str]) -> ui.MediaGallery[Any]:
    return ui.MediaGallery(
        *(discord.MediaGalleryItem(f"attachment://{name}", description=alt) for name in filenames)
    )


def _row(*buttons: JobButton) -> ui.ActionRow[Any]:
    return ui.ActionRow(*buttons)


def _cancel_button(view: JobView) -> JobButton:
    label = BUTTON_LABELS[Operation.CANCEL]
    return JobButton.make(Operation.CANCEL, view.job.id, label=label, style=discord.ButtonStyle.danger)


def _result_rows(view: JobView) -> list[ui.Item[Any]]:
    def button(operation: Operation, emoji: str, sample: int | None = None) -> JobButton:
        label = BUTTON_LABELS[operation]
        return JobButton.make(operation, view.job.id, sample=sample, label=label, emoji=emoji)

    variations = {Operation.VARY_SUBTLE: "✨", Operation.VARY_STRONG: "🌀"}
    reroll, delete = button(Operation.REROLL, "🔄"), button(Operation.DELETE, "🗑️")
    report = button(Operation.REPORT, "🚩")
    if len(view.results) == 1:
        sample = view.results[0].sample
        vary = (button(operation, emoji, sample) for operation, emoji in variations.items())
        return [_row(reroll, *vary, delete, report)]
    rows: list[ui.Item[Any]] = []
    for operation, emoji in variations.items():
        question = f"{emoji} **{BUTTON_LABELS[operation]}**: which picture?"
        rows += [ui.TextDisplay(question), _row(*_one_each(view, operation))]
    return [*rows, _row(reroll, delete, report)]


def _one_each(view: JobView, operation: Operation) -> list[JobButton]:
    """Return a button for each picture, with its number from 1."""
    return [
        JobButton.make(operation, view.job.id, sample=result.sample, label=str(number))
        for number, result in enumerate(view.results, start=1)
    ]


def _asked(view: JobView, head: str = "") -> ui.TextDisplay[Any]:
    """Return the prompt as a quotation, last in its text: in some clients it would go on to what follows."""
    return ui.TextDisplay(f"{head}\n> {plain(view.params.prompt, PROMPT_CHARS_SHOWN)}".lstrip())


def _facts(view: JobView, *lines: str) -> ui.TextDisplay[Any]:
    negative = view.params.negative_prompt
    if negative not in ("", DEFAULT_NEGATIVE_PROMPT):
        lines = (f"-# Negative prompt: {plain(negative, PROMPT_CHARS_SHOWN // 2)}", *lines)
    return ui.TextDisplay("\n".join(lines))


def _price(view: JobView) -> str:
    return f"-# {_by(view)} · up to {credits_text(view.job.price)}"


def _settings(view: JobView) -> str:
    params = view.params
    seeds = ", ".join(f"`{result.seed}`" for result in view.results)
    numbers = (
        f"Strength **{params.strength:g}** · {counted(params.num_inference_steps, 'step')}"
        f" · guidance {params.guidance_scale:g} · seed {seeds}"
    )
    return f"{numbers}\n-# Sampler {plain(params.sampler, 40)} · scheduler {plain(params.scheduler, 40)}"


def _by(view: JobView) -> str:
    name = OPERATION_NAMES[view.job.operation]
    who = f"by <@{view.job.user_id}>"
    if not name:
        return f"Requested {who}"
    return f"{name}{_parent_link(view)} {who}"


def _parent_link(view: JobView) -> str:
    parent = view.parent
    if parent is None or parent.message_id is None or parent.private:
        return ""
    address = f"https://discord.com/channels/{parent.guild_id}/{parent.channel_id}/{parent.message_id}"
    return f" of [this picture]({address})"


def _paid(view: JobView) -> str:
    paid = f"{_by(view)} · {credits_text(view.job.charged or 0)}"
    missing = view.params.samples - len(view.results)
    return f"{paid} · {missing} of {view.params.samples} pictures failed, at no cost" if missing else paid


def _made_by(maker: Maker) -> str:
    if maker.uses_model:
        return f"AI-generated with {maker.label}"
    return f"Painted by a program ({maker.label}), not AI"


def _bar(step: int, steps: int) -> str:
    filled = round(BAR_CELLS * step / steps)
    return f"`{'█' * filled}{'░' * (BAR_CELLS - filled)}` {round(100 * step / steps)} %"
