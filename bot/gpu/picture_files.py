"""Pictures as files: fetched or decoded from a request, encoded as JPEG for the answer."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final

import httpx
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from bot.errors import UnusablePicture
from bot.gpu.sd3_architecture import PATCH_PX

#: The contract's largest picture.
SIDE_PX_MAX: Final = 2048
#: What the largest picture takes without compression, with transparency.
FILE_BYTES_MAX: Final = 4 * SIDE_PX_MAX**2
#: For connecting and for each read; the limit on the whole body bounds the whole download.
FETCH_TIMEOUT_S: Final = 20.0

#: The contract's three, and WebP.
_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
#: A result may become the next input, so it should lose nothing visible.
_JPEG_QUALITY: Final = 95
#: A preview has an eighth of the size and is shown for seconds.
_PREVIEW_QUALITY: Final = 70


async def read_image(image: str, hosts_allowed: frozenset[str]) -> bytes:
    """Return the picture file behind `image`: base64, a data URI, or an https address.

    Only addresses on `hosts_allowed` are fetched, and no redirects followed: a client must not reach into
    the operator's network through this server. Raises `UnusablePicture`.
    """
    if image.startswith(("https://", "http://")):
        return await _fetch(image, hosts_allowed)
    if image.startswith("data:"):
        kind, found, image = image.partition(";base64,")
        if not found or not kind.startswith("data:image/"):
            raise UnusablePicture("image: a data URI must hold a picture in base64.")
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusablePicture("image: this is neither base64 nor an address.") from error


async def _fetch(url: str, hosts_allowed: frozenset[str]) -> bytes:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UnusablePicture("image: this is not a valid address.") from error
    if address.scheme != "https" or address.host not in hosts_allowed or address.userinfo:
        raise UnusablePicture("image: this server does not fetch from that address; send base64.")
    try:
        # trust_env off: a proxy from the environment would fetch in this server's place.
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, trust_env=False) as client:
            return await _download(client, address)
    except httpx.HTTPError as error:
        raise UnusablePicture("image: the address can't be read.", detail=str(error)) from error


async def _download(client: httpx.AsyncClient, address: httpx.URL) -> bytes:
    data = bytearray()
    async with client.stream("GET", address) as response:
        if response.status_code != httpx.codes.OK:
            raise UnusablePicture(f"image: the address answered {response.status_code}.")
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > FILE_BYTES_MAX:
                raise UnusablePicture("image: the file at that address is too large.")
    return bytes(data)


def decode(data: bytes) -> Tensor:
    """Return the picture in a file, as bytes [height, width, 3].

    The first frame, turned as its EXIF says, on white where it is transparent, cropped around its middle
    to multiples of 16. The size is checked before a pixel is decoded. Raises `UnusablePicture`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image)
            pixels = np.asarray(_crop(_flatten(ImageOps.exif_transpose(image))))
    except UnusablePicture:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds on damaged files
        raise UnusablePicture(
            "image: this can't be read as PNG, JPEG, GIF or WebP.", detail=repr(error)
        ) from error
    # A copy, since torch must not share memory that numpy has as read-only.
    return torch.from_numpy(pixels.copy())


def _check_size(image: Image.Image) -> None:
    if max(image.size) > SIDE_PX_MAX:
        raise UnusablePicture(f"image: at most {SIDE_PX_MAX} x {SIDE_PX_MAX} pixels.")
    if min(image.size) < PATCH_PX:
        raise UnusablePicture(f"image: at least {PATCH_PX} x {PATCH_PX} pixels.")


def _flatten(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, on white where it is transparent."""
    if image.mode.startswith("I;16"):
        # Pillow would clip all values above 255, which is nearly all of them.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _crop(image: Image.Image) -> Image.Image:
    width, height = (side - side % PATCH_PX for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def jpeg(picture: Tensor, *, quality: int = _JPEG_QUALITY) -> bytes:
    """Return a picture, bytes [height, width, 3], as a JPEG file with colours in full resolution."""
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def preview_base64(picture: Tensor) -> str:
    """Return a preview, bytes [h, w, 3], as a JPEG file in base64."""
    return to_base64(jpeg(picture, quality=_PREVIEW_QUALITY))


def to_base64(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")
