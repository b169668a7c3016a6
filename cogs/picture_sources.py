"""Finds the picture that somebody points at: a command's attachment, or whatever a message shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import discord

from bot.errors import UnusablePicture
from bot.jobs.inputs import PictureSource


def from_attachment(attachment: discord.Attachment) -> PictureSource:
    """Return the attachment as a source; the size that Discord reports is checked later."""
    return PictureSource(attachment.url, attachment.size, attachment.width, attachment.height)


def from_message(message: discord.Message) -> PictureSource:
    """Return the first picture of a message: of its attachments, then its components, then its embeds.

    Raises `UnusablePicture` if there is none.
    """
    source = next(_pictures(message), None)
    if source is None:
        raise UnusablePicture("There is no picture in that message; please choose one that shows a picture.")
    return source


def _pictures(message: discord.Message) -> Iterator[PictureSource]:
    for attachment in message.attachments:
        if _may_be_picture(attachment.content_type):
            yield from_attachment(attachment)
    # A message of components lists no attachments: its pictures are in galleries, thumbnails and files.
    for component in message.components:
        yield from _in_component(component)
    for embed in message.embeds:
        for media in (embed.image, embed.thumbnail):
            if media.proxy_url or media.url:
                yield PictureSource(str(media.proxy_url or media.url), None, media.width, media.height)


def _in_component(component: Any) -> Iterator[PictureSource]:
    if isinstance(component, discord.MediaGalleryComponent):
        shown = [item.media for item in component.items]
    elif isinstance(component, (discord.ThumbnailComponent, discord.FileComponent)):
        shown = [component.media]
    else:
        shown = []
    yield from (_from_media(media) for media in shown if _may_be_picture(media.content_type))
    for child in getattr(component, "children", ()):
        yield from _in_component(child)
    if accessory := getattr(component, "accessory", None):
        yield from _in_component(accessory)


def _may_be_picture(content_type: str | None) -> bool:
    """Return whether to try a file: Discord doesn't always know the type, and decoding finds out."""
    return (content_type or "image/").startswith("image/")


def _from_media(media: discord.UnfurledMediaItem) -> PictureSource:
    # Only what was uploaded is at Discord's own address; for anything else, Discord has a proxy.
    is_upload = media.attachment_id is not None or not media.proxy_url
    return PictureSource(str(media.url if is_upload else media.proxy_url), None, media.width, media.height)
