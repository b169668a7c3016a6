"""What a restart loses: nothing."""

import asyncio
from pathlib import Path

import pytest

from bot.errors import BackendFailed
from tests.support.simulated_server import Sketcher, World, open_world, said, texts


def _gate() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def _finished(world: World, *, spent: int) -> None:
    """Check that the one card shows a picture, one price was paid, and the ledger is consistent."""
    await world.env.settle()
    message = world.card
    assert message is not None
    assert len(message.attachments) == 1
    assert len(world.channel.history()) == 1
    assert await world.available() == 40 - spent
    assert await world.ledger_faults() == []


async def test_a_waiting_job_is_resumed(tmp_path: Path) -> None:
    """Restarted while a picture waits, the bot makes it and posts it in its card, for one price."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher], guild_running_max=1) as world:
        gate = sketcher.gate = _gate()
        await world.img2img(world.bob)
        await world.img2img()
        assert len(sketcher.calls) == 1
        sketcher.gate = None
        await world.crash_and_restart()
        await world.env.settle()
        assert [len(message.attachments) for message in world.channel.history()] == [1, 1]
        assert (await world.available(), await world.available(world.bob)) == (38, 38)
        assert await world.ledger_faults() == []
        gate.cancel()


async def test_a_running_job_is_made_once_more(tmp_path: Path) -> None:
    """Restarted while a picture is made, the bot makes it again at the operator's cost: one price is paid."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = _gate()
        await world.img2img()
        sketcher.gate = None
        await world.crash_and_restart()
        await _finished(world, spent=2)
        assert len(sketcher.calls) == 2
        gate.cancel()


async def test_a_job_that_keeps_crashing_the_bot_ends(tmp_path: Path) -> None:
    """A picture that was under way at two crashes is given up, and costs nothing."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = _gate()
        await world.img2img()
        await world.crash_and_restart()
        await world.env.settle()
        await world.crash_and_restart()
        await world.env.settle()
        assert len(sketcher.calls) == 2
        assert "restarted" in texts(world.card)
        assert await world.available() == 40
        gate.cancel()


async def test_a_finished_picture_is_still_posted(tmp_path: Path) -> None:
    """Cut off between finishing and posting, the bot posts the picture at its next start."""
    async with open_world(tmp_path) as world:
        world.env.inject_error("PATCH", "/webhooks/*/*/messages/*", status=503, times=100)
        await world.img2img()
        assert not world.card.attachments
        world.calm()
        await world.crash_and_restart()
        await _finished(world, spent=2)


async def test_an_end_that_was_not_shown_is_shown_after_the_restart(tmp_path: Path) -> None:
    """Cut off between failing and showing it, the bot says at its next start that the job failed."""
    async with open_world(tmp_path, backends=[Sketcher(errors=[BackendFailed()])]) as world:
        world.env.inject_error("PATCH", "/webhooks/*/*/messages/*", status=503, times=100)
        await world.img2img()
        assert "No picture this time" not in texts(world.card)
        world.calm()
        await world.crash_and_restart()
        await world.env.settle()
        assert "No picture this time" in texts(world.card)
        assert await world.available() == 40


@pytest.mark.parametrize("label", ["Reroll", "Vary (subtle)", "Vary (strong)"])
async def test_old_buttons_work_after_a_restart(tmp_path: Path, label: str) -> None:
    """Buttons under pictures of before the restart do what they say."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        old = world.card
        await world.crash_and_restart()
        await world.alice.click(old, label=label)
        assert len(world.channel.history()) == 2
        assert len(world.card.attachments) == 1


async def test_a_picture_comes_after_the_token_has_died(tmp_path: Path) -> None:
    """A job that waits longer than Discord's 15 minutes still gets its picture into its card."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = _gate()
        await world.img2img()
        await world.env.advance_time(20 * 60)
        gate.set_result(None)
        await _finished(world, spent=2)


async def test_a_private_picture_comes_after_the_token_has_died(tmp_path: Path) -> None:
    """A private picture that is late is sent to its member alone."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = _gate()
        await world.img2img(private=True)
        await world.env.advance_time(20 * 60)
        gate.set_result(None)
        await world.env.settle()
        assert world.seen_by_all() is None
        received = world.alice.user.dm_channel.last_message
        assert received is not None
        assert len(received.attachments) == 1


async def test_a_picture_with_nowhere_to_go_stays_in_the_history(tmp_path: Path) -> None:
    """When the card is gone, the picture that was paid for is found with /history."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = _gate()
        await world.img2img()
        await world.moderator.delete(world.card)
        gate.set_result(None)
        await world.env.settle()
        history = await world.alice.slash(world.channel, "history")
        shown = await world.alice.click(said(history).message, label="Show")
        assert len(said(shown).attachments) == 1
        assert await world.available() == 38


async def test_commands_are_sent_to_discord_only_when_they_change(tmp_path: Path) -> None:
    """Restarts do not eat up Discord's daily allowance of command updates."""
    async with open_world(tmp_path) as world:
        await world.crash_and_restart()
        syncs = [r for r in world.env.http_requests if r.method == "PUT" and r.path.endswith("/commands")]
        assert len(syncs) == 1
