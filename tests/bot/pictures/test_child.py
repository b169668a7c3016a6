"""What the decoder child makes of pictures, asked through the pool as the bot asks it."""

from __future__ import annotations

import random
from contextlib import aclosing, suppress

import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from bot.errors import UnusablePicture
from bot.pictures.headers import scan_count
from bot.pictures.pool import PicturePool
from bot.pictures.sizes import INPUT_BYTES_MAX
from tests.support import pictures
from tests.support.pictures import BLUE, GREEN, RED, WHITE, YELLOW, encoded, is_near, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUARTERS = [RED, GREEN, BLUE, YELLOW]
KINDS = ["JPEG", "PNG", "GIF", "WEBP"]
HTML = b"<!doctype html><html><body>Bad gateway</body></html>"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_picture_comes_out_as_an_upright_jpeg(pool: PicturePool, kind: str) -> None:
    """A PNG, JPEG, GIF or WebP comes out as an RGB JPEG with the same picture on it."""
    normal = await pool.normalise(encoded(pictures.quarters(), kind))
    image = opened(normal.data)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (normal.width, normal.height))
    assert pictures.corners(image) == QUARTERS


async def test_a_picture_of_the_right_size_keeps_it(pool: PicturePool) -> None:
    """A picture whose sides and area are fine already is not resampled."""
    noise = pictures.noise(640, 512)
    normal = await pool.normalise(encoded(noise, "PNG"))
    assert (normal.width, normal.height) == (640, 512)
    expected = opened(encoded(noise, quality=95, subsampling=0))
    assert opened(normal.data).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((4000, 3000), (1184, 880)),
        ((3000, 4000), (880, 1184)),
        ((1024, 1024), (1024, 1024)),
        ((16, 16), (512, 512)),
        ((100, 50), (720, 368)),
        ((3000, 300), (2048, 208)),
        ((640, 40), (2048, 128)),
    ],
)
async def test_pictures_are_brought_to_a_size_that_models_know(
    pool: PicturePool, size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    """Large pictures shrink to about a megapixel, small ones grow to a quarter, none is over 2048 wide."""
    normal = await pool.normalise(encoded(pictures.quarters(*size), "PNG"))
    assert (normal.width, normal.height) == fitted
    assert opened(normal.data).size == fitted


async def test_nothing_is_stretched(pool: PicturePool) -> None:
    """A disc stays as wide as it is high, whatever the sides are rounded to."""
    normal = await pool.normalise(encoded(pictures.disc(1420, 100), "PNG"))
    grey = ImageOps.invert(opened(normal.data).convert("L")).point(lambda value: 255 * (value > 127))
    left, top, right, bottom = grey.getbbox() or (0, 0, 0, 0)
    assert abs((right - left) - (bottom - top)) <= 1
    assert bottom - top > 50


@pytest.mark.parametrize("orientation", [*range(10), 99, 65_535])
async def test_pictures_are_turned_the_way_their_camera_was_held(pool: PicturePool, orientation: int) -> None:
    """EXIF orientations 1 to 8 are applied, any other number is ignored."""
    data = pictures.turned(orientation)
    normal = await pool.normalise(data)
    expected = ImageOps.exif_transpose(opened(data)) if 1 <= orientation <= 8 else opened(data)
    assert pictures.corners(opened(normal.data)) == pictures.corners(expected)
    assert (normal.width > normal.height) == (expected.width > expected.height)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
async def test_pictures_other_than_jpegs_are_turned_too(pool: PicturePool, kind: str) -> None:
    """EXIF orientation 6 turns a PNG or a WebP as it turns a JPEG."""
    normal = await pool.normalise(pictures.turned(6, kind))
    assert pictures.corners(opened(normal.data)) == [BLUE, RED, YELLOW, GREEN]


async def test_broken_exif_is_ignored(pool: PicturePool) -> None:
    """A picture whose EXIF is nonsense is taken as it lies."""
    normal = await pool.normalise(encoded(pictures.quarters(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1"))
    assert pictures.corners(opened(normal.data)) == QUARTERS


def _half_clear(mode: str) -> Image.Image:
    image = Image.new(mode, (64, 64), (0,) * len(mode))
    image.paste((200,) * (len(mode) - 1) + (255,), (0, 0, 64, 32))
    return image


@pytest.mark.parametrize(
    ("data", "above", "below"),
    [
        pytest.param(encoded(_half_clear("RGBA"), "PNG"), (200,) * 3, WHITE, id="rgba png"),
        pytest.param(encoded(_half_clear("LA"), "PNG"), (200,) * 3, WHITE, id="la png"),
        pytest.param(encoded(_half_clear("RGBA"), "WEBP", lossless=True), (200,) * 3, WHITE, id="webp"),
        pytest.param(
            encoded(pictures.quarters(64, 64).quantize(4), "GIF", transparency=1), None, WHITE, id="gif"
        ),
        pytest.param(
            encoded(_half_clear("RGBA").quantize(2), "PNG"), (200,) * 3, WHITE, id="palette with alpha"
        ),
        pytest.param(pictures.grey16_png(1000, transparent=1000), WHITE, WHITE, id="16-bit grey with a key"),
        pytest.param(encoded(Image.new("L", (64, 64), 7), "PNG", transparency=7), WHITE, WHITE, id="key"),
    ],
)
async def test_what_shows_through_becomes_white(
    pool: PicturePool, data: bytes, above: tuple[int, int, int] | None, below: tuple[int, int, int]
) -> None:
    """Transparent parts of a picture come out white, not black, and the rest keeps its colour."""
    image = opened((await pool.normalise(data)).data)
    seen = [pictures.pixel(image, (image.width // 2, y)) for y in (5, image.height - 6)]
    if above is None:
        assert WHITE in pictures.corners(image)
        return
    assert is_near(seen[0], above)
    assert is_near(seen[1], below)


async def test_half_clear_pixels_are_mixed_with_white(pool: PicturePool) -> None:
    """A half transparent black comes out grey."""
    normal = await pool.normalise(encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 128)), "PNG"))
    assert is_near(pictures.middle(opened(normal.data)), (127, 127, 127))


async def test_one_clear_grey_of_a_shallow_png_becomes_white(pool: PicturePool) -> None:
    """Of four 2-bit greys the transparent one comes out white and the others stay."""
    image = opened((await pool.normalise(pictures.grey2_png(transparent=1))).data)
    stripes = [pictures.pixel(image, (image.width * part // 8, 99)) for part in (1, 3, 5, 7)]
    assert all(is_near(seen, (grey,) * 3) for seen, grey in zip(stripes, (0, 255, 170, 255), strict=True))


@pytest.mark.parametrize("value", [0, 255, 1000, 32_768, 65_535])
async def test_16_bit_greys_keep_their_brightness(pool: PicturePool, value: int) -> None:
    """A 16-bit grey PNG keeps its greys; it does not come out white."""
    normal = await pool.normalise(pictures.grey16_png(value))
    assert is_near(pictures.middle(opened(normal.data)), (round(value / 257),) * 3, by=1)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        pytest.param(
            pictures.flat_png(b"\xc8\x00\x64\x00\x32\x00", colour=pictures.RGB_PNG, bits=16),
            (200, 100, 50),
            id="16-bit rgb",
        ),
        pytest.param(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), quality=95), RED, id="cmyk"),
        pytest.param(encoded(Image.new("CMYK", (64, 64), (0, 0, 0, 255)), quality=95), (0, 0, 0), id="black"),
        pytest.param(encoded(Image.new("L", (64, 64), 90)), (90, 90, 90), id="grey jpeg"),
        pytest.param(encoded(Image.new("1", (64, 64), 1), "PNG"), WHITE, id="one bit"),
        pytest.param(encoded(pictures.quarters().crop((0, 0, 32, 32)).quantize(4), "PNG"), RED, id="palette"),
    ],
)
async def test_every_way_to_store_colours_gives_the_right_ones(
    pool: PicturePool, data: bytes, colour: tuple[int, int, int]
) -> None:
    """Deep, inverted CMYK, grey and indexed pictures come out in the colours that viewers show."""
    assert is_near(pictures.middle(opened((await pool.normalise(data)).data)), colour)


async def test_colour_profiles_are_applied(pool: PicturePool) -> None:
    """A red of a profile in which red is blue comes out blue."""
    data = encoded(Image.new("RGB", (64, 64), RED), "PNG", icc_profile=pictures.swapped_profile())
    assert is_near(pictures.middle(opened((await pool.normalise(data)).data)), BLUE)


@pytest.mark.parametrize("mode", ["L", "LA"])
async def test_grey_profiles_are_applied(pool: PicturePool, mode: str) -> None:
    """A linear grey comes out as light as a viewer shows it, with or without transparency."""
    grey = Image.new(mode, (64, 64), 128 if mode == "L" else (128, 255))
    data = encoded(grey, "PNG", icc_profile=pictures.linear_grey_profile())
    assert is_near(pictures.middle(opened((await pool.normalise(data)).data)), (188, 188, 188))


@pytest.mark.parametrize(
    "profile",
    [b"nonsense", pictures.linear_grey_profile(), pictures.srgb_profile()[:300], bytes(60_000)],
    ids=["nonsense", "of another colour space", "cut off", "zeros"],
)
async def test_useless_colour_profiles_are_ignored(pool: PicturePool, profile: bytes) -> None:
    """A picture with a profile that can't be used is taken as sRGB."""
    normal = await pool.normalise(encoded(pictures.quarters(), icc_profile=profile))
    assert pictures.corners(opened(normal.data)) == QUARTERS


@pytest.mark.parametrize("profile", [None, pictures.srgb_profile()], ids=["plain", "with a profile"])
@pytest.mark.parametrize("way", ["normalise", "accept_result"])
async def test_no_metadata_leaves_with_a_picture(pool: PicturePool, way: str, profile: bytes | None) -> None:
    """Place, author, comment and profile of the original are gone, and colours are stored in full."""
    ways = {"normalise": pool.normalise, "accept_result": pool.accept_result}
    normal = await ways[way](pictures.with_metadata(profile=profile))
    assert [one for one in pictures.segments(normal.data) if one > 0xE0] == []
    image = opened(normal.data)
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert JpegImagePlugin.get_sampling(image) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_picture_always_gives_the_same_bytes(pool: PicturePool, kind: str) -> None:
    """Two children, one of them new, make the same bytes of the same picture."""
    data = encoded(pictures.noise(700, 500), kind)
    async with aclosing(PicturePool(children=1)) as another:
        assert (await pool.normalise(data)).data == (await another.normalise(data)).data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(pictures.many_frames_gif(), id="gif"),
        pytest.param(pictures.many_frames_png(), id="apng"),
        pytest.param(pictures.many_frames_webp(), id="webp"),
    ],
)
async def test_of_thousands_of_frames_the_first_counts(pool: PicturePool, data: bytes) -> None:
    """An animation gives its first frame, however many follow."""
    image = opened((await pool.normalise(data)).data)
    assert is_near(pictures.middle(image), RED)


async def test_a_zip_behind_a_picture_is_left_behind(pool: PicturePool) -> None:
    """A JPEG with an archive appended is a usable picture, and the archive does not come along."""
    normal = await pool.normalise(pictures.with_zip(encoded(pictures.quarters())))
    assert pictures.corners(opened(normal.data)) == QUARTERS
    assert b"PK\x03\x04" not in normal.data
    assert b"readme.txt" not in normal.data


async def test_a_film_behind_a_picture_counts_for_nothing(pool: PicturePool) -> None:
    """A phone's JPEG with a film appended is usable, though the film is full of what looks like scans."""
    data = pictures.with_film(encoded(pictures.quarters()))
    assert data.count(b"\xff\xda") > 64
    assert pictures.corners(opened((await pool.normalise(data)).data)) == QUARTERS


async def test_an_ordinary_progressive_jpeg_is_taken(pool: PicturePool) -> None:
    """A progressive JPEG as encoders write it, restart markers and all, has few scans and is usable."""
    data = encoded(pictures.noise(640, 480), progressive=True, restart_marker_blocks=3)
    assert 6 <= scan_count(data) <= 18
    assert (await pool.normalise(data)).width == 640


REFUSED = [
    pytest.param(b"", "is empty", id="no bytes"),
    pytest.param(bytes(INPUT_BYTES_MAX + 1), "25.1 MB; please attach a picture of at most 25 MB", id="bytes"),
    pytest.param(b"just a text named picture.png", "not a PNG, JPEG, GIF or WebP", id="text"),
    pytest.param(pictures.SVG, "not a PNG, JPEG, GIF or WebP", id="svg"),
    pytest.param(HTML, "not a PNG, JPEG, GIF or WebP", id="html"),
    pytest.param(encoded(pictures.quarters(), "BMP"), "not a PNG, JPEG, GIF or WebP", id="bmp"),
    pytest.param(encoded(pictures.quarters(), "TIFF"), "not a PNG, JPEG, GIF or WebP", id="tiff"),
    pytest.param(
        pictures.dimension_bomb(),
        "20,000 × 20,000 pixels; please attach one of at most 50 megapixels",
        id="png of 400 megapixels",
    ),
    pytest.param(
        b"GIF89a" + b"\xff" * 4 + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\1\0\0;", "at most 50 mega", id="gif"
    ),
    pytest.param(
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0" * 4 + b"\x0f\x27\0" * 2,
        "10,000 × 10,000",
        id="webp",
    ),
    pytest.param(pictures.jpeg_declaring(8000, 7000), "8,000 × 7,000", id="jpeg"),
    pytest.param(encoded(Image.new("L", (15, 400)), "PNG"), "at least 16 pixels on each side", id="tiny"),
    pytest.param(encoded(Image.new("L", (1700, 100)), "PNG"), "at most 16 times the shorter", id="ribbon"),
    pytest.param(pictures.scan_bomb(), "more than 64 passes", id="3,000 scans"),
    pytest.param(pictures.text_bomb(), "damaged, incomplete", id="text bomb"),
    pytest.param(pictures.profile_bomb(), "damaged, incomplete", id="profile bomb"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED)
async def test_unusable_pictures_are_refused_in_one_sentence(
    pool: PicturePool, data: bytes, words: str
) -> None:
    """Whatever can't be used is refused with one sentence that says what to attach instead."""
    with pytest.raises(UnusablePicture) as refusal:
        await pool.normalise(data)
    sentence = str(refusal.value)
    assert words in sentence
    assert "please" in sentence
    assert sentence.endswith(".")
    assert ". " not in sentence


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_pictures_cut_off_are_refused(pool: PicturePool, kind: str, part: float) -> None:
    """A picture of which only a part arrived is refused, wherever it was cut."""
    data = encoded(pictures.noise(200, 150), kind)
    with pytest.raises(UnusablePicture, match="damaged, incomplete"):
        await pool.normalise(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", KINDS)
async def test_damage_is_opened_or_refused(pool: PicturePool, kind: str) -> None:
    """A damaged picture is either opened all the same or refused; nothing else ever happens."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    whole = encoded(pictures.noise(48, 40, seed=seed), kind)
    for _ in range(50):
        data = pictures.mutated(whole, rng)
        with suppress(UnusablePicture):
            normal = await pool.normalise(data)
            assert opened(normal.data).size == (normal.width, normal.height)
