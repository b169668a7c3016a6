"""`/calm …` and "Delete picture"."""

import re
from pathlib import Path
from typing import Any

import discord
import pytest

from cogs.settings import options_text
from db.guilds import BlockedText, GuildSettings
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.moderators import calm
from tests.support.simulated_server import Sketcher, a_picture, open_world, said, texts


async def test_private_by_default(tmp_path: Path) -> None:
    """Where moderators say so, pictures are seen by their requester alone unless asked otherwise."""
    async with open_world(tmp_path) as world:
        await calm(world, "options", private=True)
        assert (await world.img2img()).ephemeral
        assert not (await world.img2img(private=False)).ephemeral


async def test_results_go_to_their_channel(tmp_path: Path) -> None:
    """Pictures asked for anywhere are posted in one channel; the card, seen by one, points there."""
    async with open_world(tmp_path) as world:
        results = world.guild.create_text_channel("results")
        await calm(world, "options", results=results)
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
        await calm(world, "block", text="Gory")
        for refused in (await world.img2img(prompt="GORY"), await world.alice.click(card, label="Reroll")):
            assert "blocked “gory” in prompts" in said(refused).content
        assert await world.available() == 38
        assert "“gory”" in await calm(world, "show")
        await calm(world, "unblock", text="gory")
        assert said(await world.img2img(prompt="GORY")).attachments


async def test_a_runaway_pattern_is_no_danger(tmp_path: Path) -> None:
    """The worst pattern a moderator can write is matched at once; a broken one is refused."""
    async with open_world(tmp_path) as world:
        await calm(world, "block", text="(a*)*b", kind="pattern")
        assert said(await world.img2img(prompt="a" * 1000)).attachments
        assert "please add the `)`" in await calm(world, "block", text="(a", kind="pattern")


@pytest.mark.parametrize("text", ["\x00gory", "go\x00ry", "go\ud800ry"])
async def test_a_text_with_control_characters_is_refused(tmp_path: Path, text: str) -> None:
    """Blocking what the database can't store is refused with a sentence, and so is unblocking it."""
    async with open_world(tmp_path) as world:
        for kind in ("word", "pattern"):
            assert "has a control character" in await calm(world, "block", text=text, kind=kind)
        assert "That text isn't blocked here" in await calm(world, "unblock", text=text)


async def test_age_restricted_pictures_stay_there(tmp_path: Path) -> None:
    """What was made among adults is neither shown nor gone on from elsewhere; the filter is looser."""
    async with open_world(tmp_path) as world:
        adults = world.guild.create_text_channel("adults")
        channel = world.bot.get_channel(adults.id)
        assert isinstance(channel, discord.TextChannel)
        channel.nsfw = True  # the simulator knows no age restriction
        await calm(world, "block", text="nude", adult_ok=True)
        picture = ("in.png", a_picture())
        made = await world.alice.slash(adults, "img2img", image=picture, prompt="a nude")
        assert said(made).attachments
        assert "blocked" in said(await world.img2img(prompt="a nude")).content
        history = await world.alice.slash(world.channel, "history")
        refused = await world.alice.click(said(history).message, label="Show")
        assert "age-restricted channel" in said(refused).content


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


async def test_two_moderators_delete_the_same_picture(tmp_path: Path) -> None:
    """Whoever is second reads that it is deleted, or no longer stored; nothing breaks."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        card = world.card
        with world.burst():
            answers = [
                await world.moderator.context_menu(world.channel, "Delete picture", card) for _ in range(2)
            ]
        await world.env.settle()
        assert world.seen_by_all() is None
        for answer in answers:
            assert re.search("Picture deleted|no longer stored", said(answer).content)


async def test_a_message_without_picture_is_no_picture(tmp_path: Path) -> None:
    """Deleting somebody's text is not what the command is for, and the sentence says so."""
    async with open_world(tmp_path) as world:
        message = await world.bob.send(world.channel, "hello")
        answer = await world.moderator.context_menu(world.channel, "Delete picture", message)
        assert "doesn't show one of the bot's pictures" in said(answer).content


def test_a_long_blocklist_is_cut_between_entries() -> None:
    """/calm show fits into one message, and no entry is cut in the middle of its escapes."""
    blocked = [BlockedText("word", f"{n:03}" + "_" * 90, n % 2 == 0) for n in range(40)]
    text = options_text(GuildSettings(), blocked)
    assert len(text) <= 2000
    assert text.endswith("…")
    assert text.count("“") == text.count("”")
    assert "allowed in age-restricted channels" in text


async def test_a_channel_out_of_reach_is_not_taken(tmp_path: Path) -> None:
    """A log channel in which the bot may not post is refused, with the permission it needs."""
    async with open_world(tmp_path) as world:
        me = world.guild.me
        assert me is not None
        silent = world.guild.create_text_channel(
            "silent", overwrites={me: discord.PermissionOverwrite(send_messages=False)}
        )
        assert "Send Messages" in await calm(world, "options", log=silent)


@pytest.mark.parametrize("clear", ["log", "results"])
async def test_an_option_can_be_taken_back(tmp_path: Path, clear: str) -> None:
    """What a moderator set can be given up."""
    async with open_world(tmp_path) as world:
        options: dict[str, Any] = {clear: world.guild.create_text_channel("x")}
        await calm(world, "options", **options)
        assert "→ **none**" in await calm(world, "options", clear=clear)


async def test_blocked_texts_never_act(tmp_path: Path) -> None:
    """What moderators block is text wherever it is repeated: answers, lists, refusals, suggestions."""
    async with open_world(tmp_path) as world:
        shown = []
        for text in HOSTILE_TEXTS[:-1]:
            shown += [await calm(world, "block", text=text, kind=kind) for kind in ("word", "pattern")]
            shown.append(said(await world.img2img(prompt=f"a {text} b")).content)
        shown += [await calm(world, "show"), await calm(world, "unblock", text=HOSTILE_TEXTS[0])]
        assert acting_in("\n".join(shown)) == []
        offered = await world.moderator.autocomplete(world.channel, "calm unblock", "text", "")
        assert all(choice["name"].isprintable() for choice in offered)


@pytest.mark.parametrize("text", ["[z-a](https://evil.example)", "**EVIL**", "(?<`EVIL`", "(?P=**EVIL**"])
async def test_a_pattern_that_can_not_be_used_is_explained_as_text(tmp_path: Path, text: str) -> None:
    """The part that is wrong is named, and doesn't act."""
    async with open_world(tmp_path) as world:
        answer = await calm(world, "block", text=text, kind="pattern")
        assert "please" in answer
        assert "EVIL*" not in re.sub("`[^`]*`", "", answer)
        assert "](" not in re.sub("`[^`]*`", "", answer)
