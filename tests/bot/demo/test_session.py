"""The demo as a person meets it: the real command, its page in a browser, every picture really painted."""

from __future__ import annotations

import io
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from PIL import Image, ImageChops, ImageStat

pytest.importorskip("simcord", reason="the demo's extra is not installed")

from playwright.sync_api import Browser, Locator, expect

from tests.support.browser import PHONE, Visitor, open_chromium, pictures, visit

pytestmark = pytest.mark.xdist_group("demo")

ROOT: Final = Path(__file__).parents[3]
ENDED: Final = re.compile("Reroll|Try again|Cancelled")
LAYOUT_SIDE: Final = 24
WAIT_END_S: Final = 60


@dataclass(frozen=True)
class RunningDemo:
    """A demo started in a terminal, and what it printed there."""

    url: str
    sample: Path
    process: subprocess.Popen[str]

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_END_S)


@contextmanager
def running_demo() -> Iterator[RunningDemo]:
    """Start the command without the developer's own settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("IMG2IMG_")}
    command = [sys.executable, "-m", "bot", "demo", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _announced(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def _announced(process: subprocess.Popen[str]) -> RunningDemo:
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if "Ctrl-C" in line:
            break
    url = re.search(r"http://\S+", printed)
    sample = re.search(r"/\S+\.jpg", printed)
    assert url, printed
    assert sample, printed
    return RunningDemo(url[0], Path(sample[0]), process)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with open_chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def demo() -> Iterator[RunningDemo]:
    """A demo; each test leaves it without running jobs."""
    with running_demo() as running:
        yield running


@pytest.fixture
def visitor(browser: Browser, demo: RunningDemo) -> Iterator[Visitor]:
    """A visitor who has just opened the page on a desktop."""
    with visit(browser, demo.url) as opened:
        yield opened


@pytest.fixture
def small(demo: RunningDemo, tmp_path: Path) -> Path:
    """A small picture, which is painted quickly."""
    path = tmp_path / "small.png"
    Image.open(demo.sample).resize((320, 213)).save(path)
    return path


def test_the_sample_can_be_saved_from_the_page(visitor: Visitor, demo: RunningDemo) -> None:
    """The welcome message says what to do and contains the sample, so nobody has to look for its path."""
    welcome = visitor.messages.first
    expect(welcome).to_contain_text("/img2img")
    welcome.locator("img.attachment-image").hover()
    with visitor.page.expect_download() as saving:
        welcome.get_by_role("button", name="Download sample.jpg").click()
    assert Path(saving.value.path()).read_bytes() == demo.sample.read_bytes()


def test_a_member_without_allowance_is_refused_in_private(visitor: Visitor, small: Path) -> None:
    """A member whose allowance is 0 is refused with a sentence that nobody else sees."""
    visitor.view_as("moderator")
    outcome = visitor.ask("quota set", member="second-member", allowance="0")
    expect(outcome).to_contain_text("100 → 0")

    visitor.view_as("second-member")
    refusal = visitor.ask("img2img", file=small, prompt="ink")
    expect(refusal).to_contain_text("Only you can see this")
    expect(refusal).to_contain_text(re.compile(r"you have 0.* Please ask a moderator"))
    expect(visitor.page.locator("#action-status")).to_have_text("Action completed")

    visitor.view_as("member")
    expect(refusal).to_have_count(0)


def test_members_see_what_they_can_spend(visitor: Visitor) -> None:
    """/credits show privately reports what a member can spend and when their allowance renews."""
    card = visitor.ask("credits show")
    expect(card).to_contain_text("Only you can see this")
    expect(card).to_contain_text(re.compile(r"Daily allowance: \d+ of \d+ left, renews in \d+"))


def test_a_member_watches_the_picture_being_painted(visitor: Visitor, demo: RunningDemo) -> None:
    """After /img2img a card appears at once, its steps count up, and then it shows the painted picture."""
    card = visitor.ask("img2img", file=demo.sample, prompt="an oil painting of a cat at dusk")
    expect(card).to_contain_text("an oil painting of a cat at dusk")
    expect(card).to_contain_text("Requested by @member")

    steps = _steps_seen(card)
    assert len(steps) >= 2
    assert steps == sorted(steps)

    (painted,) = pictures(card)
    _assert_painted(painted, demo.sample.read_bytes())
    expect(card).to_contain_text("Painted by a program")
    expect(_button(card, "Reroll")).to_be_in_viewport()


def test_every_press_makes_another_picture(visitor: Visitor, small: Path) -> None:
    """Two rerolls and both variations each give a different picture with a different seed."""
    first = visitor.ask("img2img", file=small, prompt="ink", steps="4")
    _finished(first)
    labels = ["Reroll", "Reroll", "Vary (subtle)", "Vary (strong)"]
    cards = [first, *(visitor.press_for_answer(first, label) for label in labels)]
    for card, name in zip(cards[1:], ["Reroll", "Reroll", "Subtle", "Strong"], strict=True):
        _finished(card)
        expect(card).to_contain_text(name)

    made = [pictures(card)[0] for card in cards]
    assert len({_seed(card) for card in cards}) == len(cards)
    assert len(set(made)) == len(made)
    for picture in made:
        _assert_painted(picture, small.read_bytes())


def test_four_samples_are_four_pictures(visitor: Visitor, small: Path) -> None:
    """Four samples are four different pictures, and each can be varied."""
    card = visitor.ask("img2img", file=small, prompt="watercolour", steps="2", samples="4")
    _finished(card)
    expect(card.locator("img.gallery-image")).to_have_count(4)
    assert len(set(pictures(card))) == 4
    expect(_button(card, "4")).to_have_count(2)


def test_cancelling_costs_nothing(visitor: Visitor, small: Path) -> None:
    """The button cancels waiting and running jobs alike; neither is charged."""
    visitor.view_as("moderator")
    visitor.ask("quota grant", member="moderator", amount="100")
    before = _can_spend(visitor)
    cards = [visitor.ask("img2img", file=small, prompt="ink", steps="100") for _ in range(3)]
    expect(cards[2]).to_contain_text("in line")
    for card in reversed(cards):
        visitor.press(card, "Cancel")
        expect(card).to_contain_text("Cancelled")
        expect(card).to_contain_text("You weren't charged.")
    assert _can_spend(visitor) == before


def test_a_phone_shows_whole_cards(browser: Browser, demo: RunningDemo, small: Path) -> None:
    """On a phone the newest card is in view and nothing of it is cut off."""
    with visit(browser, demo.url, is_phone=True) as visitor:
        card = visitor.ask("img2img", file=small, prompt="charcoal", steps="2")
        _finished(card)
        expect(_button(card, "Delete")).to_be_in_viewport(ratio=1)
        width = PHONE[0]
        assert visitor.page.locator("html").evaluate("page => page.scrollWidth") <= width
        for part in card.locator("button.component-button, img, .text-display").all():
            box = part.bounding_box()
            assert box is not None
            assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_the_page_can_end_the_demo(browser: Browser) -> None:
    """Ending the session on the page ends the command, too."""
    with running_demo() as demo, visit(browser, demo.url) as visitor:
        visitor.page.get_by_text("More", exact=True).click()
        visitor.page.get_by_role("button", name="End preview session").click()
        assert demo.process.wait(WAIT_END_S) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_demo_leaves_nothing_behind(number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM ends the demo at once and removes its folder."""
    with running_demo() as demo:
        assert demo.sample.exists()
        assert demo.end(number) == 0
        assert not demo.sample.parent.exists()


def _steps_seen(card: Locator) -> list[int]:
    """Return the steps that the card showed, in order, until the job ended; the page is never reloaded."""
    seen: list[int] = []
    while not ENDED.search(text := card.inner_text()):
        shown = re.search(r"Step (\d+) of 20", text)
        if shown and int(shown[1]) not in seen:
            seen.append(int(shown[1]))
        card.page.wait_for_timeout(100)
    return seen


def _finished(card: Locator) -> None:
    expect(card).to_contain_text(ENDED)
    expect(card).to_contain_text("Reroll")


def _button(card: Locator, label: str) -> Locator:
    return card.locator("button.component-button", has_text=label)


def _seed(card: Locator) -> str:
    found = re.search(r"seed (\d+)", card.inner_text())
    assert found
    return found[1]


def _can_spend(visitor: Visitor) -> str:
    card = visitor.ask("credits show")
    found = re.search(r"You can spend (\d+) credits", card.inner_text())
    assert found
    return found[1]


def _assert_painted(made: bytes, source: bytes) -> None:
    """Assert that the picture has the source's layout and other pixels."""
    picture = Image.open(io.BytesIO(made)).convert("RGB")
    original = Image.open(io.BytesIO(source)).convert("RGB").resize(picture.size)
    assert statistics.correlation(_layout(picture), _layout(original)) > 0.5
    difference = ImageStat.Stat(ImageChops.difference(picture, original)).mean
    assert statistics.mean(difference) > 8


def _layout(picture: Image.Image) -> list[int]:
    return list(picture.convert("L").resize((LAYOUT_SIDE, LAYOUT_SIDE)).tobytes())
