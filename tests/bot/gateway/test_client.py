"""The client: what it fetches, who handles presses, what it does before it closes."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot.actors import Person
from bot.errors import JobGone, OperatorError, UnusablePicture
from bot.gateway import client as module
from bot.gateway.buttons import JobButton, PersistentButton, ProposalButton
from bot.gateway.client import BUTTON_OPERATIONS, EXTENSIONS, Img2ImgBot
from db.operations import Operation
from tests.support.discord_wire import open_wire
from tests.support.live_bot import Brush, living
from tests.support.simulated_server import open_world


async def test_every_button_has_a_handler(tmp_path: Path) -> None:
    """With all extensions loaded, no button is without one; only `/img2img` has no button."""
    async with open_world(tmp_path) as world:
        assert world.bot._press_handlers.keys() == BUTTON_OPERATIONS == set(Operation) - {Operation.IMG2IMG}


@pytest.mark.parametrize(
    ("missing", "operations"), [("cogs.audit_log", "report"), ("cogs.quota", "confirm, withdraw")]
)
async def test_a_button_without_handler_fails_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, operations: str
) -> None:
    """A handler that was forgotten ends the start with its name, before any member presses the button."""
    monkeypatch.setattr(module, "EXTENSIONS", [name for name in EXTENSIONS if name != missing])
    async with open_wire() as wire:
        with pytest.raises(OperatorError, match=f"no handler for the buttons {operations}\\."):
            async with living(tmp_path, wire, backends=[Brush()]) as life:
                await asyncio.wait([life.running])
        assert wire.identified == []


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://cdn.discordapp.com/a.png",
        "https://cdn.discordapp.com.example.com/a.png",
        "https://cdn.discordapp.com@example.com/a.png",
        "file:///etc/passwd",
        "",
    ],
)
async def test_only_discord_is_fetched_from(url: str) -> None:
    """Whatever address a message names, the bot makes requests to Discord's own hosts alone."""
    with pytest.raises(UnusablePicture, match="isn't on Discord"):
        await Img2ImgBot().fetch(url)


class Presses:
    """A client whose presses are recorded: what went to the audit log, what to the handler."""

    def __init__(self) -> None:
        self.client = Img2ImgBot()
        self.recorded: list[Any] = []
        self.handled: list[PersistentButton] = []
        app: Any = SimpleNamespace(audit_log=SimpleNamespace(record_press=self._record))
        self.client.app = app
        self.interaction: Any = SimpleNamespace(guild_id=1, user=SimpleNamespace(id=2))

    async def _record(self, operation: Operation, person: Person, *, job_id: int) -> None:
        self.recorded.append((operation, person, job_id))

    async def handle(self, _interaction: Any, button: PersistentButton) -> None:
        """Take a press."""
        self.handled.append(button)


async def test_the_press_of_a_jobs_button_is_recorded_and_handled() -> None:
    """Moderators can follow up who pressed what under whose picture."""
    presses = Presses()
    presses.client.on_press(Operation.REROLL, presses.handle)
    button = JobButton.make(Operation.REROLL, 7, label="Reroll")
    await presses.client.pressed(presses.interaction, button)
    assert presses.handled == [button]
    assert presses.recorded == [(Operation.REROLL, Person(1, 2), 7)]


async def test_the_press_of_a_proposals_button_is_not_taken_for_a_jobs() -> None:
    """A proposal's id is no job's; its confirmation is recorded as the action itself."""
    presses = Presses()
    presses.client.on_press(Operation.CONFIRM, presses.handle)
    await presses.client.pressed(
        presses.interaction, ProposalButton.make(Operation.CONFIRM, 7, label="Confirm")
    )
    assert len(presses.handled) == 1
    assert presses.recorded == []


@pytest.mark.parametrize("operation", [None, Operation.IMG2IMG])
async def test_an_operation_that_no_button_has_is_refused(operation: Operation | None) -> None:
    """A forged or forgotten operation is answered with a sentence and recorded nowhere."""
    presses = Presses()
    button = JobButton.make(Operation.REROLL, 7, label="x")
    button.operation = operation
    with pytest.raises(JobGone):
        await presses.client.pressed(presses.interaction, button)
    assert presses.recorded == []


async def test_shutdown_hooks_run_side_by_side_and_not_for_ever() -> None:
    """Before the client closes, each hook runs; one that takes too long is cancelled."""
    client, done = Img2ImgBot(), []

    async def quick() -> None:
        done.append("quick")

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("cancelled")

    await client.run_shutdown_hooks(1)
    for hook in (stuck, quick):
        client.add_shutdown_hook(hook)
    await client.run_shutdown_hooks(0.01)
    await asyncio.sleep(0)
    assert done == ["quick", "cancelled"]


def test_an_app_has_to_be_set_first() -> None:
    """Whoever forgets to give the client its app is reminded at once."""
    with pytest.raises(AssertionError, match="set the client's app"):
        _ = Img2ImgBot().app
