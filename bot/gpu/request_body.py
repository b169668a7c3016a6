"""A request's body: reading it, checking it, and what it costs."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from torch import Tensor

from bot.errors import InvalidOption
from bot.gpu import picture_files
from bot.gpu.api_keys import UNITS_PER_CREDIT
from bot.gpu.samplers import model_calls
from bot.params import SEED_MAX, Img2ImgParams

#: The seed that the hosted API takes when none is given.
CONTRACT_SEED: Final = 698845
#: The largest picture file in base64, which adds a third, and room for the prompts.
BODY_BYTES_MAX: Final = 24 * 2**20
#: A full body within a minute takes an upload of 3.4 Mbit/s.
BODY_TIMEOUT_S: Final = 60.0

#: Bounds the memory of bodies that arrive: 192 MiB.
_BODIES_AT_ONCE: Final = 8
_NOT_ACCEPTABLE: Final = 406
#: One credit buys 20 steps of the default sampler, which calls the model once a step, at 1024 x 1024.
_CALLS_PER_CREDIT: Final = 20
_PX_PER_CREDIT: Final = 1024 * 1024


class Body(Img2ImgParams):
    """The JSON of a request: the bot's own options, the picture, and the form of the answer."""

    seed: int = Field(default=CONTRACT_SEED, ge=0, le=SEED_MAX)
    image: str = Field(min_length=1)
    base64: bool = True

    def params(self) -> Img2ImgParams:
        """Return the options alone."""
        return Img2ImgParams.model_validate(self.model_dump(exclude={"image", "base64"}))


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A checked request: its options, its picture, bytes [height, width, 3], and the form of its answer."""

    params: Img2ImgParams
    picture: Tensor
    as_json: bool

    @property
    def units(self) -> int:
        """Return the price in thousandths of a credit: by model calls and pixels, one thousandth at least."""
        pixels = int(self.picture.shape[0] * self.picture.shape[1])
        calls = model_calls(self.params.sampler, self.params.num_inference_steps)
        work = self.params.samples * calls * pixels
        return max(1, math.ceil(work * UNITS_PER_CREDIT / (_CALLS_PER_CREDIT * _PX_PER_CREDIT)))


class BodyReader:
    """Reads requests, a few at a time. `image_hosts` are those that pictures may be fetched from."""

    def __init__(self, image_hosts: frozenset[str]) -> None:
        self._image_hosts = image_hosts
        self._slots = asyncio.Semaphore(_BODIES_AT_ONCE)

    async def read(self, request: Request) -> GenerationRequest:
        """Return a request, checked and decoded. Raises `InvalidOption`, `UnusablePicture` or a 406."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(_NOT_ACCEPTABLE, "The content type must be application/json.")
        async with self._slots:
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    body = parse(await _receive(request))
                    data = await picture_files.read_image(body.image, self._image_hosts)
            except TimeoutError as error:
                raise InvalidOption("The body took too long to arrive.") from error
            picture = await asyncio.to_thread(picture_files.decode, data)
        return GenerationRequest(body.params(), picture, body.base64)


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


async def _receive(request: Request) -> bytes:
    """Return the raw body. Raises `InvalidOption` as soon as it is too long."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise InvalidOption(f"The body is longer than {BODY_BYTES_MAX // 2**20} MiB.")
    return bytes(data)
