"""Bodies, pictures and prices, without a server."""

from __future__ import annotations

import io

import httpx
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from hypothesis import given  # noqa: E402  after the skip
from hypothesis import strategies as st  # noqa: E402  after the skip
from PIL import Image  # noqa: E402  after the skip

from bot import errors  # noqa: E402  after the skip
from bot.errors import BotError, InvalidOption, UnusablePicture  # noqa: E402  after the skip
from bot.gpu.request_body import (  # noqa: E402  after the skip
    PICTURE_BYTES_MAX,
    Order,
    _bounded,
    decode,
    parse,
    status_of,
)
from bot.params import Img2ImgParams  # noqa: E402  after the skip

ADDRESS = httpx.URL("https://pictures.example/cat.png")


def client_of(response: httpx.Response) -> httpx.AsyncClient:
    """Return a client whose network answers with `response`."""
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response))


async def test_picture_is_fetched_whole() -> None:
    """What an allowed address gives is what is decoded."""
    async with client_of(httpx.Response(200, content=b"picture")) as client:
        assert await _bounded(client, ADDRESS) == b"picture"


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(404), "404"),
        (httpx.Response(302, headers={"location": "http://127.0.0.1/"}), "302"),
        (httpx.Response(200, content=b"x" * (PICTURE_BYTES_MAX + 1)), "too large"),
    ],
)
async def test_other_answers_are_refused(response: httpx.Response, said: str) -> None:
    """An error, a redirect and a file too large are refused; a redirect is never followed."""
    async with client_of(response) as client:
        with pytest.raises(UnusablePicture, match=said):
            await _bounded(client, ADDRESS)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    """Whatever is sent as a picture is decoded or refused in one sentence."""
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBP"):
        with pytest.raises(UnusablePicture):
            decode(start + data)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    """Whatever is sent as a body is read or refused in one sentence."""
    with pytest.raises(InvalidOption):
        parse(data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    """Black and white, palettes, transparency and print colours all become three bytes a pixel."""
    file = io.BytesIO()
    Image.new(mode, (40, 36)).save(file, "JPEG" if mode == "CMYK" else "PNG")
    picture = decode(file.getvalue())
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == torch.uint8


def test_sixteen_bits_keep_their_brightness() -> None:
    """A grey of sixteen bits stays that grey in eight."""
    file = io.BytesIO()
    Image.new("I;16", (32, 32), 128 * 256).save(file, "PNG")
    assert decode(file.getvalue())[5, 5].tolist() == [128, 128, 128]


def test_first_frame_of_an_animation_is_taken() -> None:
    """Of an animated GIF the first picture counts."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert decode(file.getvalue())[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("side", "steps", "samples", "sampler", "units"),
    [
        (1024, 20, 1, "dpmpp_2m", 1000),
        (1024, 20, 4, "dpmpp_2m", 4000),
        (2048, 20, 1, "dpmpp_2m", 4000),
        (1024, 40, 1, "euler", 2000),
        (1024, 20, 1, "heun", 2000),
        (1024, 1, 1, "dpm_adaptive", 1500),
        (16, 1, 1, "euler", 1),
    ],
)
def test_price_follows_the_work(side: int, steps: int, samples: int, sampler: str, units: int) -> None:
    """A usual picture costs one credit; more of anything costs more, and nothing is free."""
    params = Img2ImgParams.model_validate(
        {"prompt": "x", "seed": 1, "num_inference_steps": steps, "samples": samples, "sampler": sampler}
    )
    assert Order(params, torch.zeros(side, side, 3, dtype=torch.uint8), as_json=True).units == units


def test_every_error_has_a_status_of_the_contract() -> None:
    """Whatever goes wrong is answered with a status that the contract knows."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BotError)]
    assert {status_of(kind()) for kind in kinds} <= {400, 401, 404, 406, 429, 500, 503}
