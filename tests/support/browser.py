"""A visitor of the demo's page, in headless Chromium."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

__all__ = ["Visitor", "open_chromium", "pictures", "visit"]

#: Generous, as a slow machine paints slowly; no test asserts how fast it was.
TIMEOUT_MS: Final = 60_000
DESKTOP: Final = (1280, 900)
PHONE: Final = (390, 844)
#: The browser itself sends nothing over the network.
BROWSER_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
_READ_IMAGE: Final = """async image => {
  const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}"""

expect.set_options(timeout=TIMEOUT_MS)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; skip where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=list(BROWSER_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, url: str, *, is_phone: bool = False) -> Iterator[Visitor]:
    """Open the page at `url` as `member`, on a desktop or on a phone."""
    width, height = PHONE if is_phone else DESKTOP
    context = browser.new_context(
        viewport={"width": width, "height": height},
        is_mobile=is_phone,
        has_touch=is_phone,
        device_scale_factor=2 if is_phone else 1,
    )
    context.set_default_timeout(TIMEOUT_MS)
    try:
        page = context.new_page()
        page.goto(url)
        yield Visitor(page)
    finally:
        context.close()


class Visitor:
    """Does what a person does on the page, and sees what they see."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.messages = page.locator("article.channel-message")
        self._chip = page.locator(".command-chip")
        self._offers = page.locator(".command-popup").get_by_role("option")
        expect(self.messages.first).to_be_visible()

    def view_as(self, name: str) -> None:
        """Switch to another member, and wait until the page shows their view."""
        (member_id,) = self.page.get_by_label("Viewing as").select_option(label=name)
        expect(self.messages.last).to_have_attribute("data-media-reuse-scope", re.compile(member_id))

    def ask(
        self, command: str, *, file: Path | None = None, member: str | None = None, **options: str
    ) -> Locator:
        """Type a command, select it, fill it in and send it; return the message that answers."""
        newest = self._newest_id()
        self._pick(command)
        if file is not None:
            self.page.locator(".command-file-input").set_input_files(file)
        if member is not None:
            self._fill("member", member)
            self._offers.filter(has_text=member).click()
        for name, value in options.items():
            self._fill(name, value)
        self.page.get_by_role("button", name="Send").click()
        expect(self._chip).to_have_count(0)
        return self._answer(newest)

    def _pick(self, command: str) -> None:
        self.page.locator("#channel-composer-input").press_sequentially(f"/{command}")
        title = self.page.locator("strong", has_text=re.compile(f"^/{re.escape(command)}$"))
        self._offers.filter(has=title).click()
        expect(self._chip).to_be_visible()

    def _fill(self, name: str, value: str) -> None:
        field = self.page.locator(f'.command-option-input[data-option="{name}"]')
        if not field.count():
            self.page.locator(".command-ghost").click()
            self._offers.filter(has_text=re.compile(rf"^{name}\b")).click()
        field.fill(value)

    def press(self, message: Locator, label: str) -> None:
        """Press a button of a message."""
        words = self.page.locator(".button-label", has_text=re.compile(f"^{re.escape(label)}$"))
        message.locator("button.component-button").filter(has=words).click()

    def press_for_answer(self, message: Locator, label: str) -> Locator:
        """Press a button of a message and return the new message that answers."""
        newest = self._newest_id()
        self.press(message, label)
        return self._answer(newest)

    def _newest_id(self) -> str:
        return self.messages.last.get_attribute("data-message-id") or ""

    def _answer(self, newest: str) -> Locator:
        expect(self.messages.last).not_to_have_attribute("data-message-id", newest)
        return self.page.locator(f'article[data-message-id="{self._newest_id()}"]')


def pictures(message: Locator) -> list[bytes]:
    """Return the bytes of a message's pictures as the page shows them."""
    shown = message.locator("img.gallery-image").all()
    for image in shown:
        expect(image).to_have_attribute("src", re.compile("^blob:"))
    return [base64.b64decode(image.evaluate(_READ_IMAGE)) for image in shown]
