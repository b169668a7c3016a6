"""Pictures as files: fetched, decoded, refused."""

from __future__ import annotations

import io

import httpx
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from hypothesis import given  # noqa: E402  after the skip
from hypothesis import strategies as st  # noqa: E402  after the skip
from PIL import Image  # noqa: E402  after the skip

from bot.errors import UnusablePicture  # noqa: E402  after the skip
from bot.gpu.picture_files import FILE_BYTES_MAX, _download, decode  # noqa: E402  after the skip

ADDRESS = httpx.URL("https://pictures.example/cat.png")


def client_of(response: httpx.Response) -> httpx.AsyncClient:
    """Return a client whose network answers with `response`."""
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response))


async def test_picture_is_fetched_whole() -> None:
    """The bytes at an allowed address are returned whole."""
    async with client_of(httpx.Response(200, content=b"picture")) as client:
        assert await _download(client, ADDRESS) == b"picture"


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(404), "404"),
        (httpx.Response(302, headers={"location": "http://127.0.0.1/"}), "302"),
        (httpx.Response(200, content=b"x" * (FILE_BYTES_MAX + 1)), "too large"),
    ],
)
async def test_other_answers_are_refused(response: httpx.Response, said: str) -> None:
    """An error, a redirect and a file too large are refused; a redirect is never followed."""
    async with client_of(response) as client:
        with pytest.raises(UnusablePicture, match=said):
            await _download(client, ADDRESS)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    """Any bytes sent as a picture are refused in one sentence, without a crash."""
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBP"):
        with pytest.raises(UnusablePicture):
            decode(start + data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    """Black and white, palettes, transparency and print colours all become three bytes a pixel."""
    file = io.BytesIO()
    Image.new(mode, (40, 36)).save(file, "JPEG" if mode == "CMYK" else "PNG")
    picture = decode(file.getvalue())
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == torch.uint8


def test_sixteen_bits_keep_their_brightness() -> None:
    """A grey of sixteen bits becomes the same grey in eight."""
    file = io.BytesIO()
    Image.new("I;16", (32, 32), 128 * 256).save(file, "PNG")
    assert decode(file.getvalue())[5, 5].tolist() == [128, 128, 128]


def test_first_frame_of_an_animation_is_used() -> None:
    """An animated GIF gives its first frame."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert decode(file.getvalue())[5, 5].tolist() == [255, 0, 0]
