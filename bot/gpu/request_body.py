"""The contract on the wire: bodies in, pictures out, and which status an error has."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field, ValidationError
from torch import Tensor

from bot.errors import (
    BotError,
    InvalidOption,
    JobGone,
    NotAllowed,
    NotEnoughCredits,
    Paused,
    QueueFull,
    UnusablePicture,
)
from bot.gpu.api_keys import UNITS_A_CREDIT
from bot.gpu.samplers import calls_of
from bot.gpu.sd3_architecture import PATCH_PX
from bot.params import SEED_MAX, Img2ImgParams

SLUG: Final = "sd3-med-img2img"
CONTRACT_SEED: Final = 698845
SIDE_PX_MAX: Final = 2048
BODY_BYTES_MAX: Final = 24 * 2**20
PICTURE_BYTES_MAX: Final = 16 * 2**20
FETCH_TIMEOUT_S: Final = 20.0

_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
_USUAL_CALLS: Final = 20
_USUAL_PX: Final = 1024 * 1024
_JPEG_QUALITY: Final = 95
_PREVIEW_QUALITY: Final = 70

_STATUSES: Final[dict[type[BotError], int]] = {
    InvalidOption: 400,
    UnusablePicture: 400,
    NotAllowed: 401,
    JobGone: 404,
    NotEnoughCredits: 406,
    QueueFull: 429,
    Paused: 503,
}


class Body(Img2ImgParams):
    """The body of a request: the bot's own options, the picture, and how to answer."""

    seed: int = Field(default=CONTRACT_SEED, ge=0, le=SEED_MAX)
    image: str = Field(min_length=1)
    base64: bool = True

    def params(self) -> Img2ImgParams:
        """Return the options alone."""
        return Img2ImgParams.model_validate(self.model_dump(exclude={"image", "base64"}))


@dataclass(frozen=True, slots=True)
class Order:
    """A request that can be made: its options, its picture, bytes [height, width, 3], its answer."""

    params: Img2ImgParams
    picture: Tensor
    as_json: bool

    @property
    def units(self) -> int:
        """Return the price in thousandths of a credit.

        A credit buys a picture of 1024 x 1024 for which the model is asked 20 times, as the default sampler
        does in 20 steps; others in proportion, a thousandth at least.
        """
        pixels = int(self.picture.shape[0] * self.picture.shape[1])
        calls = calls_of(self.params.sampler, self.params.num_inference_steps)
        work = self.params.samples * calls * pixels
        return max(1, math.ceil(work * UNITS_A_CREDIT / (_USUAL_CALLS * _USUAL_PX)))


def status_of(error: BotError) -> int:
    """Return the contract's status for an error; 500 for what is the server's own fault."""
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)


def parse(body: bytes) -> Body:
    """Return the body of a request. Raises `InvalidOption` that names the attribute."""
    try:
        parsed = Body.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidOption(f"{where}: {first['msg']}.") from error
    if parsed.samples > 1 and not parsed.base64:
        raise InvalidOption("samples: several pictures come as JSON only; set base64 to true.")
    return parsed


async def picture_bytes(image: str, hosts_allowed: frozenset[str]) -> bytes:
    """Return the encoded picture behind `image`: base64, a data URI, or an https address.

    Addresses are followed to `hosts_allowed` only, without redirects. Raises `UnusablePicture`.
    """
    if image.startswith(("https://", "http://")):
        return await _fetched(image, hosts_allowed)
    if image.startswith("data:"):
        kind, found, image = image.partition(";base64,")
        if not found or not kind.startswith("data:image/"):
            raise UnusablePicture("image: a data URI must hold a picture in base64.")
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusablePicture("image: this is neither base64 nor an address.") from error


async def _fetched(url: str, hosts_allowed: frozenset[str]) -> bytes:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UnusablePicture("image: this is no address.") from error
    if address.scheme != "https" or address.host not in hosts_allowed or address.userinfo:
        raise UnusablePicture("image: this server takes pictures from no such address; send base64.")
    try:
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, trust_env=False) as client:
            return await _bounded(client, address)
    except httpx.HTTPError as error:
        raise UnusablePicture("image: the address can't be read.", detail=str(error)) from error


async def _bounded(client: httpx.AsyncClient, address: httpx.URL) -> bytes:
    data = bytearray()
    async with client.stream("GET", address) as response:
        if response.status_code != httpx.codes.OK:
            raise UnusablePicture(f"image: the address answered {response.status_code}.")
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > PICTURE_BYTES_MAX:
                raise UnusablePicture("image: the file behind the address is too large.")
    return bytes(data)


def decode(data: bytes) -> Tensor:
    """Return the picture, bytes [height, width, 3], of an encoded one.

    The first frame, turned as its EXIF says, on white where it is transparent, cropped around its middle
    to multiples of 16. The size is checked before a pixel is decoded. Raises `UnusablePicture`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image)
            pixels = np.asarray(_cropped(_flat(ImageOps.exif_transpose(image))))
    except UnusablePicture:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds on damaged files
        raise UnusablePicture(
            "image: this can't be read as PNG, JPEG, GIF or WebP.", detail=repr(error)
        ) from error
    return torch.from_numpy(pixels.copy())


def _check_size(image: Image.Image) -> None:
    if max(image.size) > SIDE_PX_MAX:
        raise UnusablePicture(f"image: at most {SIDE_PX_MAX} x {SIDE_PX_MAX} pixels.")
    if min(image.size) < PATCH_PX:
        raise UnusablePicture(f"image: at least {PATCH_PX} x {PATCH_PX} pixels.")


def _flat(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, on white where it is transparent."""
    if image.mode.startswith("I;16"):
        # Pillow would clip what is above 255, which is nearly everything.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _cropped(image: Image.Image) -> Image.Image:
    width, height = (side - side % PATCH_PX for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def jpeg(picture: Tensor, *, quality: int = _JPEG_QUALITY) -> bytes:
    """Return a picture [height, width, 3] of bytes as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def preview(picture: Tensor) -> str:
    """Return a small picture [h, w, 3] of bytes as a JPEG file in base64."""
    return text(jpeg(picture, quality=_PREVIEW_QUALITY))


def text(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def answer(pictures: Sequence[bytes]) -> dict[str, str | list[str]]:
    """Return the JSON answer: `image`, and `images` beside it where there are several."""
    coded = [text(picture) for picture in pictures]
    return {"image": coded[0], "images": coded} if len(coded) > 1 else {"image": coded[0]}
