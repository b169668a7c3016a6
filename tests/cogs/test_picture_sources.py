"""Which picture "Use in img2img" takes from a message, on discord.py's own classes and in the simulator."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import discord
import pytest
import simcord

from bot.errors import UnusablePicture
from cogs.picture_sources import from_attachment, from_message
from tests.support.simulated_server import Sketcher, World, a_picture, open_world, said, texts

CDN = "https://cdn.discordapp.com/a.png"
PROXY = "https://images-ext-1.discordapp.net/external/x/a.png"
ELSEWHERE = "https://example.com/a.png"
TEXT = {"type": 10, "content": "words"}
BUTTON = {"type": 2, "style": 2, "label": "x", "custom_id": "x"}


def _message(**parts: Any) -> discord.Message:
    """Return the message that the library makes of a payload from Discord."""
    data: Any = {
        "id": "1",
        "type": 0,
        "content": "",
        "author": {"id": "2", "username": "somebody", "discriminator": "0", "avatar": None},
        "attachments": [],
        "embeds": [],
        "components": [],
        "mentions": [],
        "mention_roles": [],
        "timestamp": "2026-01-01T00:00:00+00:00",
        "edited_timestamp": None,
        **parts,
    }
    return discord.Message(state=Mock(), channel=Mock(), data=data)


def _attachment(**parts: Any) -> dict[str, Any]:
    return {"id": "3", "filename": "a.png", "size": 5, "url": CDN, "proxy_url": CDN, **parts}


def _upload(**parts: Any) -> dict[str, Any]:
    return {"url": CDN, "proxy_url": PROXY, "attachment_id": "3", "width": 8, "height": 6, **parts}


def _gallery(*media: dict[str, Any]) -> dict[str, Any]:
    return {"type": 12, "items": [{"media": one} for one in media]}


def _thumbnail(media: dict[str, Any]) -> dict[str, Any]:
    return {"type": 11, "media": media}


@pytest.mark.parametrize("content_type", ["image/png", "image/webp", None])
def test_an_attachment_is_taken(content_type: str | None) -> None:
    """An attached picture is taken with its sizes, even if Discord does not know its type."""
    attachment = _attachment(content_type=content_type, width=8, height=6)
    source = from_message(_message(attachments=[attachment]))
    assert (source.url, source.size_bytes, source.width, source.height) == (CDN, 5, 8, 6)


def test_an_attachment_without_sizes_is_taken() -> None:
    """A command's attachment may come without width and height; they are found out later."""
    source = from_attachment(discord.Attachment(data=_attachment(), state=Mock()))  # type: ignore[arg-type]  # a payload
    assert (source.url, source.width, source.height) == (CDN, None, None)


def test_other_files_are_passed_over() -> None:
    """Of a video, a text and a picture, the picture is taken."""
    video = _attachment(content_type="video/mp4", url="https://cdn.discordapp.com/v.mp4")
    text = _attachment(content_type="text/plain; charset=utf-8", url="https://cdn.discordapp.com/t.txt")
    message = _message(attachments=[video, text, _attachment(content_type="image/gif")])
    assert from_message(message).url == CDN


@pytest.mark.parametrize("part", ["image", "thumbnail"])
def test_an_embeds_picture_is_taken_from_discords_proxy(part: str) -> None:
    """An embed's image or thumbnail is on somebody else's server; Discord's copy of it is taken."""
    embed = {"type": "rich", part: {"url": ELSEWHERE, "proxy_url": PROXY, "width": 8, "height": 6}}
    source = from_message(_message(embeds=[embed]))
    assert (source.url, source.size_bytes, source.width, source.height) == (PROXY, None, 8, 6)


def test_an_embed_without_proxy_gives_its_own_address() -> None:
    """Where Discord names no copy, the embed's address is all there is."""
    assert from_message(_message(embeds=[{"type": "rich", "image": {"url": CDN}}])).url == CDN


def test_an_embeds_image_comes_before_its_thumbnail() -> None:
    """The large picture of an embed is what people mean."""
    embed = {"type": "rich", "thumbnail": {"url": ELSEWHERE, "proxy_url": PROXY}, "image": {"url": CDN}}
    assert from_message(_message(embeds=[embed])).url == CDN


@pytest.mark.parametrize(
    "component",
    [
        _gallery(_upload()),
        _thumbnail(_upload()),
        {"type": 13, "file": _upload(content_type="image/png"), "name": "a.png", "size": 5},
        {"type": 9, "components": [TEXT], "accessory": _thumbnail(_upload())},
        {"type": 17, "components": [TEXT, {"type": 14, "spacing": 1, "divider": True}, _gallery(_upload())]},
        {
            "type": 17,
            "components": [{"type": 9, "components": [TEXT], "accessory": _thumbnail(_upload())}],
        },
    ],
    ids=["gallery", "thumbnail", "file", "section", "container", "section in a container"],
)
def test_a_picture_in_components_is_taken(component: dict[str, Any]) -> None:
    """Messages of components show pictures in many places; each is found, with its sizes."""
    source = from_message(_message(flags=1 << 15, components=[TEXT, component]))
    assert (source.url, source.width, source.height) == (CDN, 8, 6)


def test_a_gallerys_video_is_passed_over() -> None:
    """A gallery may begin with a video; its first picture is taken."""
    video = _upload(url="https://cdn.discordapp.com/v.mp4", content_type="video/mp4")
    assert from_message(_message(components=[_gallery(video, _upload())])).url == CDN


def test_a_gallerys_picture_from_elsewhere_is_taken_from_discords_proxy() -> None:
    """A gallery may show a picture that nobody uploaded; only Discord's copy of it can be fetched."""
    media = {"url": ELSEWHERE, "proxy_url": PROXY}
    assert from_message(_message(components=[_gallery(media)])).url == PROXY


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"content": f"look at {CDN}"},
        {"embeds": [{"type": "rich", "title": "words"}]},
        {"components": [{"type": 17, "components": [TEXT]}]},
        {"components": [{"type": 1, "components": [BUTTON]}]},
        {"components": [{"type": 9, "components": [TEXT], "accessory": BUTTON}]},
        {"attachments": [_attachment(content_type="audio/ogg")]},
    ],
    ids=["nothing", "a bare address", "embed of words", "container of words", "button", "section", "audio"],
)
def test_a_message_without_picture_is_refused(parts: dict[str, Any]) -> None:
    """Where there is no picture, a sentence says what to choose instead."""
    with pytest.raises(UnusablePicture, match="no picture in that message"):
        from_message(_message(**parts))


async def _use(world: World, message: discord.Message) -> simcord.InteractionResult:
    shown = await world.alice.context_menu(world.channel, "Use in img2img", message)
    assert shown.modal is not None
    fields = [c["component"]["custom_id"] for c in shown.modal["components"]]
    return await world.alice.submit_modal(shown, {fields[0]: "a lighthouse", fields[1]: ["0.5"]})


async def test_a_messages_attachment_becomes_the_input(tmp_path: Path) -> None:
    """On any message with a picture, a member is asked for prompt and strength and gets a new picture."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await _use(world, await world.bob.send(world.channel, "look", attachments=[("cat.png", a_picture())]))
        assert sketcher.calls[0][0].strength == 0.5
        assert "seed" in texts(world.card)


async def test_the_bots_own_card_can_be_used(tmp_path: Path) -> None:
    """The bot's own results can be used again, though they are no plain attachments."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img()
        await _use(world, world.card)
        assert len(sketcher.calls) == 2


async def test_an_embed_can_be_used(tmp_path: Path) -> None:
    """A picture that a bot shows in an embed becomes the input, too."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        upload = await world.bob.send(world.channel, "look", attachments=[("cat.png", a_picture())])
        channel = world.bot.get_channel(world.channel.id)
        assert isinstance(channel, discord.TextChannel)
        embed = discord.Embed(title="A cat").set_image(url=upload.attachments[0].url)
        await _use(world, await channel.send(embed=embed))
        assert len(sketcher.calls) == 1


async def test_a_picture_that_is_not_on_discord_is_refused(tmp_path: Path) -> None:
    """An embed may name any address; the bot fetches none but Discord's and says what to do instead."""
    async with open_world(tmp_path) as world:
        channel = world.bot.get_channel(world.channel.id)
        assert isinstance(channel, discord.TextChannel)
        answer = await _use(world, await channel.send(embed=discord.Embed().set_image(url=ELSEWHERE)))
        assert any("That picture isn't on Discord" in note.content for note in answer.followups)
        assert await world.available() == 40


async def test_without_picture_the_member_is_asked_to_choose_another_message(tmp_path: Path) -> None:
    """On a message without picture the member reads what to choose instead."""
    async with open_world(tmp_path) as world:
        message = await world.bob.send(world.channel, "no picture here")
        refused = await world.alice.context_menu(world.channel, "Use in img2img", message)
        assert refused.ephemeral
        assert "no picture in that message" in said(refused).content
