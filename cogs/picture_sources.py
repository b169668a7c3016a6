"""Pictures that people point at: an attachment of a command, or whatever a message shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import discord

from bot.errors import UnusablePicture
from bot.jobs.inputs import Source


def from_attachment(attachment: discord.Attachment) -> Source:
    """Return the attachment as a source; what Discord says of it is bounded later."""
    return Source(attachment.url, attachment.size, attachment.width, attachment.height)


def from_message(message: discord.Message) -> Source:
    """Return the first picture that a message shows, wherever it stands.

    Raises `UnusablePicture` if there is none.
    """
    source = next(_pictures(message), None)
    if source is None:
        raise UnusablePicture("There is no picture in that message; please choose one that shows a picture.")
    return source


def _pictures(message: discord.Message) -> Iterator[Source]:
    for attachment in message.attachments:
        if (attachment.content_type or "image/").startswith("image/"):
            yield from_attachment(attachment)
    # A message of components lists no attachments: its pictures stand in galleries and thumbnails.
    for component in message.components:
        yield from _in_component(component)
    for embed in message.embeds:
        for media in (embed.image, embed.thumbnail):
            if media.proxy_url or media.url:
                yield Source(str(media.proxy_url or media.url), None, media.width, media.height)


def _in_component(component: Any) -> Iterator[Source]:
    if isinstance(component, discord.MediaGalleryComponent):
        for item in component.items:
            yield _from_media(item.media)
    elif isinstance(component, discord.ThumbnailComponent):
        yield _from_media(component.media)
    for child in getattr(component, "children", ()):
        yield from _in_component(child)
    if accessory := getattr(component, "accessory", None):
        yield from _in_component(accessory)


def _from_media(media: discord.UnfurledMediaItem) -> Source:
    return Source(str(media.url or media.proxy_url), None, media.width, media.height)
