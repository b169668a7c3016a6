"""`/calm …`, reports, the log channel and "Delete picture"."""

from pathlib import Path
from typing import Any

import discord
import pytest
import simcord

from tests.support.simulated_server import Sketcher, World, a_picture, open_world, said, texts


async def _calm(world: World, command: str, **options: Any) -> str:
    answer = await world.moderator.slash(world.channel, f"calm {command}", **options)
    assert answer.ephemeral
    return str(said(answer).content)


def _said(channel: Any) -> str:
    return "\n".join(message.content for message in channel.history())


async def _logged(world: World) -> Any:
    log = world.guild.create_text_channel("log")
    assert f"Log channel: none → **{log.mention}**" in await _calm(world, "options", log=log)
    await world.env.advance_time(3)
    return log


async def test_private_by_default(tmp_path: Path) -> None:
    """Where moderators say so, pictures are seen by their requester alone unless asked otherwise."""
    async with open_world(tmp_path) as world:
        await _calm(world, "options", private=True)
        assert (await world.img2img()).ephemeral
        assert not (await world.img2img(private=False)).ephemeral


async def test_results_go_to_their_channel(tmp_path: Path) -> None:
    """Pictures asked for anywhere are posted in one channel; the card, seen by one, points there."""
    async with open_world(tmp_path) as world:
        results = world.guild.create_text_channel("results")
        await _calm(world, "options", results=results)
        answer = await world.img2img()
        assert world.seen_by_all() is None
        (shown,) = results.history()
        assert len(shown.attachments) == 1
        assert f"/{results.id}/{shown.id}" in texts(said(answer))
        await world.alice.click(shown, label="Reroll")
        assert len(results.history()) == 2
        assert await world.ledger_faults() == []


async def test_a_blocked_word_is_refused_by_name(tmp_path: Path) -> None:
    """A prompt with a blocked word is refused, costs nothing, and is free again when unblocked."""
    async with open_world(tmp_path) as world:
        await world.img2img(prompt="a gory scene")
        card = world.card
        assert card is not None
        await _calm(world, "block", text="Gory")
        for refused in (await world.img2img(prompt="GORY"), await world.alice.click(card, label="Reroll")):
            assert "blocked “gory” in prompts" in said(refused).content
        assert await world.available() == 38
        assert "“gory”" in await _calm(world, "show")
        await _calm(world, "unblock", text="gory")
        assert said(await world.img2img(prompt="GORY")).attachments


async def test_a_runaway_pattern_is_no_danger(tmp_path: Path) -> None:
    """The worst pattern a moderator can write is matched at once; a broken one is refused."""
    async with open_world(tmp_path) as world:
        await _calm(world, "block", text="(a*)*b", kind="pattern")
        assert said(await world.img2img(prompt="a" * 1000)).attachments
        assert "please add the `)`" in await _calm(world, "block", text="(a", kind="pattern")


@pytest.mark.parametrize("text", ["\x00gory", "go\x00ry", "go\ud800ry"])
async def test_a_text_with_control_characters_is_refused(tmp_path: Path, text: str) -> None:
    """Blocking what the database can't store is refused with a sentence, and so is unblocking it."""
    async with open_world(tmp_path) as world:
        for kind in ("word", "pattern"):
            assert "has a control character" in await _calm(world, "block", text=text, kind=kind)
        assert "That text isn't blocked here" in await _calm(world, "unblock", text=text)


async def test_age_restricted_pictures_stay_there(tmp_path: Path) -> None:
    """What was made among adults is neither shown nor gone on from elsewhere; the filter is looser."""
    async with open_world(tmp_path) as world:
        adults = world.guild.create_text_channel("adults")
        channel = world.bot.get_channel(adults.id)
        assert isinstance(channel, discord.TextChannel)
        channel.nsfw = True  # the simulator knows no age restriction
        await _calm(world, "block", text="nude", adult_ok=True)
        picture = ("in.png", a_picture())
        made = await world.alice.slash(adults, "img2img", image=picture, prompt="a nude")
        assert said(made).attachments
        assert "blocked" in said(await world.img2img(prompt="a nude")).content
        history = await world.alice.slash(world.channel, "history")
        refused = await world.alice.click(said(history).message, label="Show")
        assert "age-restricted channel" in said(refused).content


async def test_the_log_channel_follows_jobs_acts_and_presses(tmp_path: Path) -> None:
    """Source, prompt, result, presses and acts are mirrored, in order, with who and why."""
    async with open_world(tmp_path) as world:
        await world.img2img(prompt="before the log")
        log = await _logged(world)
        await world.img2img(prompt="a lighthouse")
        card = world.card
        assert card is not None
        await world.bob.click(card, label="Reroll")
        await world.moderator.slash(
            world.channel, "quota grant", member=world.bob, amount=5, reason="a prize"
        )
        await world.env.advance_time(10)
        said = _said(log)
        assert "before the log" not in said
        assert said.index("requested by") < said.index("Made for") < said.index("pressed **Reroll**")
        assert "“a lighthouse”" in said
        assert "“a prize”" in said
        assert world.bob.mention in said
        (made,) = [message for message in log.history() if message.attachments]
        assert [attachment.filename.split("-")[0] for attachment in made.attachments] == ["source", "result"]


async def test_the_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    """What happened while the log channel could not be reached is mirrored later, once."""
    async with open_world(tmp_path) as world:
        log = await _logged(world)
        world.env.inject_error("POST", f"/channels/{log.id}/messages", status=503, times=100)
        await world.img2img(prompt="a lighthouse")
        await world.env.advance_time(10)
        assert "lighthouse" not in _said(log)
        world.calm()
        await world.crash_and_restart()
        await world.env.advance_time(10)
        assert _said(log).count("Made for") == 1


async def test_a_report_reaches_the_log(tmp_path: Path) -> None:
    """Any member can report a picture, once; without a log channel they are sent to a moderator."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        card = world.card
        assert card is not None
        assert "no log channel" in await _report(world, card)
        log = await _logged(world)
        assert "sent to the moderators" in await _report(world, card)
        assert "already reported this picture" in await _report(world, card)
        await world.env.advance_time(10)
        assert f"🚩 {world.bob.mention} reported" in _said(log)
        assert "“it is me”" in _said(log)


async def _report(world: World, card: discord.Message) -> str:
    shown = await world.bob.click(card, label="Report")
    assert shown.modal is not None
    (field,) = [c["component"]["custom_id"] for c in shown.modal["components"]]
    answer: simcord.InteractionResult = await world.bob.submit_modal(shown, {field: "it is me"})
    assert answer.ephemeral
    assert answer.response is not None
    return said(answer).content


async def test_moderators_take_pictures_away_by_message(tmp_path: Path) -> None:
    """A moderator removes any picture with a message command; another member can't."""
    async with open_world(tmp_path, backends=[Sketcher()]) as world:
        await world.img2img()
        card = world.card
        assert card is not None
        root = next(c for c in await world.bot.tree.fetch_commands() if c.name == "Delete picture")
        world.guild.set_command_permissions(root.id, {world.bob: True})
        refused = await world.bob.context_menu(world.channel, "Delete picture", card)
        assert "Only the member who asked" in said(refused).content
        await world.moderator.context_menu(world.channel, "Delete picture", card)
        assert card.id not in [message.id for message in world.channel.history()]
        history = await world.alice.slash(world.channel, "history")
        assert "Nothing here yet" in texts(said(history))


async def test_a_channel_out_of_reach_is_not_taken(tmp_path: Path) -> None:
    """A log channel in which the bot may not post is refused, with the permission it needs."""
    async with open_world(tmp_path) as world:
        me = world.guild.me
        assert me is not None
        silent = world.guild.create_text_channel(
            "silent", overwrites={me: discord.PermissionOverwrite(send_messages=False)}
        )
        assert "Send Messages" in await _calm(world, "options", log=silent)


@pytest.mark.parametrize("clear", ["log", "results"])
async def test_an_option_can_be_taken_back(tmp_path: Path, clear: str) -> None:
    """What a moderator set can be given up."""
    async with open_world(tmp_path) as world:
        options: dict[str, Any] = {clear: world.guild.create_text_channel("x")}
        await _calm(world, "options", **options)
        assert "→ **none**" in await _calm(world, "options", clear=clear)
