"""Real pictures for tests, made with Pillow or byte by byte: every format, and every kind of trouble."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from typing import Any, Final

from PIL import Image, ImageCms, ImageDraw

RED: Final = (255, 0, 0)
GREEN: Final = (0, 255, 0)
BLUE: Final = (0, 0, 255)
YELLOW: Final = (255, 255, 0)
WHITE: Final = (255, 255, 255)

#: EXIF's tag for how a picture is to be turned (CIPA DC-008, table 4).
ORIENTATION: Final = 0x0112
SVG: Final = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>'


def quarters(width: int = 96, height: int = 64) -> Image.Image:
    """Return an RGB picture of four coloured quarters, so that any turn or flip shows."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def disc(width: int, height: int) -> Image.Image:
    """Return a white RGB picture with a black disc in the middle, half as high as the shorter side."""
    image = Image.new("RGB", (width, height), WHITE)
    radius = min(width, height) // 4
    ImageDraw.Draw(image).circle((width / 2, height / 2), radius, fill="black")
    return image


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Return an RGB picture of random pixels, which no encoder makes small."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return `image` encoded by Pillow as `kind`, with Pillow's own save options."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    """Return the picture in `data`, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def corners(image: Image.Image) -> list[tuple[int, int, int]]:
    """Return the colours near the four corners, reading order, each channel rounded to 0 or 255."""
    places = [(x, y) for y in (5, image.height - 6) for x in (5, image.width - 6)]
    near = [pixel(image, place) for place in places]
    return [(255 * (red > 127), 255 * (green > 127), 255 * (blue > 127)) for red, green, blue in near]


def pixel(image: Image.Image, place: tuple[int, int]) -> tuple[int, int, int]:
    """Return one pixel of `image` as red, green, blue."""
    red, green, blue = image.convert("RGB").crop((*place, place[0] + 1, place[1] + 1)).tobytes()
    return red, green, blue


def middle(image: Image.Image) -> tuple[int, int, int]:
    """Return the pixel in the middle of `image` as red, green, blue."""
    return pixel(image, (image.width // 2, image.height // 2))


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    """Return `quarters()` with EXIF telling `orientation`, which may be any 16-bit number."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(quarters(), kind, exif=exif.tobytes())


def with_metadata(*, profile: bytes | None = None) -> bytes:
    """Return a JPEG that tells where and by whom it was taken: EXIF with GPS, XMP, a comment."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "a description", "an artist"
    exif.get_ifd(0x8825)[1] = "N"
    return encoded(
        quarters(), exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", comment=b"a comment", icc_profile=profile
    )


def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """Return an ICC profile whose red primary is sRGB's blue and the other way round."""
    return srgb_profile().replace(b"rXYZ", b"?").replace(b"bXYZ", b"rXYZ").replace(b"?", b"bXYZ")


def linear_grey_profile() -> bytes:
    """Return an ICC profile of linear grey, in which 128 is lighter than in sRGB (ICC.1:2001-04)."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"g\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv" + bytes(8),
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


# PNG, byte by byte (W3C PNG, third edition).

GREY_PNG: Final = 0
RGB_PNG: Final = 2


def chunk(name: bytes, data: bytes) -> bytes:
    """Return one PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, rows: list[bytes], *, colour: int = RGB_PNG, bits: int = 8, extra: bytes = b""
) -> bytes:
    """Return a PNG of the given rows of samples, with the chunks `extra` before its pixels."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def flat_png(value: bytes, *, colour: int, bits: int, extra: bytes = b"", side: int = 32) -> bytes:
    """Return a square PNG whose every pixel has the samples `value`, for 8 and 16 bits a sample."""
    return png(side, side, [value * side] * side, colour=colour, bits=bits, extra=extra)


def grey16_png(value: int, *, transparent: int | None = None) -> bytes:
    """Return a PNG of one 16-bit grey, and perhaps one grey that shows through."""
    extra = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    return flat_png(struct.pack(">H", value), colour=GREY_PNG, bits=16, extra=extra)


def grey2_png(*, transparent: int) -> bytes:
    """Return a PNG of four upright stripes, the 2-bit greys 0 to 3, of which one shows through."""
    rows = [b"\x00\x00\x55\x55\xaa\xaa\xff\xff"] * 32
    return png(32, 32, rows, colour=GREY_PNG, bits=2, extra=chunk(b"tRNS", struct.pack(">H", transparent)))


def dimension_bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """Return a PNG of a few bytes that declares `width` by `height` pixels."""
    return png(width, height, [])


def text_bomb(*, bytes_unpacked: int = 64 << 20) -> bytes:
    """Return a small PNG with a compressed text that unpacks to `bytes_unpacked` bytes."""
    return flat_png(bytes(3), colour=RGB_PNG, bits=8, extra=chunk(b"zTXt", b"a\0\0" + _zeros(bytes_unpacked)))


def profile_bomb(*, bytes_unpacked: int = 64 << 20) -> bytes:
    """Return a small PNG with a colour profile that unpacks to `bytes_unpacked` bytes."""
    return flat_png(bytes(3), colour=RGB_PNG, bits=8, extra=chunk(b"iCCP", b"a\0\0" + _zeros(bytes_unpacked)))


def slow_bomb(*, profiles: int = 8000) -> bytes:
    """Return a PNG with very many colour profiles, each just small enough to be unpacked: minutes of work."""
    return flat_png(
        bytes(3), colour=RGB_PNG, bits=8, extra=chunk(b"iCCP", b"a\0\0" + _zeros((1 << 20) - 1)) * profiles
    )


def _zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    packed = [packer.compress(block[: min(count - done, 1 << 20)]) for done in range(0, count, 1 << 20)]
    return b"".join(packed) + packer.flush()


def heavy_png(side: int = 7000) -> bytes:
    """Return a small PNG within all bounds that needs `side` squared times four bytes of memory."""
    rows = zlib.compress(bytes((1 + side * 3) * side), 1)
    head = struct.pack(">IIBBBBB", side, side, 8, RGB_PNG, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# JPEG


def scan_bomb(*, scans: int = 3000, side: int = 4096) -> bytes:
    """Return a progressive JPEG of `scans` passes over `side` squared pixels: small, and minutes of work."""
    data = encoded(Image.new("L", (side, side), 128), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def jpeg_declaring(width: int, height: int) -> bytes:
    """Return a small JPEG whose header declares `width` by `height` pixels."""
    data = encoded(quarters())
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + struct.pack(">HH", height, width) + data[size + 4 :]


def with_film(data: bytes, *, length: int = 1 << 20) -> bytes:
    """Return `data` with a film appended, as phones do it, in which there is much that looks like scans."""
    return data + b"ftypmp42" + random.Random(0).randbytes(length) + b"\xff\xda\x00\x02" * 50_000


def with_zip(data: bytes) -> bytes:
    """Return `data` with a ZIP archive appended, a file of two kinds at once."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "not a picture")
    return data + out.getvalue()


def segments(data: bytes) -> list[int]:
    """Return the markers of a JPEG up to its first scan, 0xE0 to 0xEF and 0xFE being metadata."""
    markers, position = [], 2
    while data[position + 1] != 0xDA:
        markers.append(data[position + 1])
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return markers


# Many frames, the first red.


def many_frames_gif(frames: int = 20_000) -> bytes:
    """Return a GIF of one red and then very many blue frames."""
    data = encoded(
        Image.new("RGB", (64, 64), RED),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (64, 64), BLUE)],
    )
    last = data.rindex(b"\x21\xf9\x04")
    return data[:last] + data[last:-1] * frames + data[-1:]


def many_frames_png(frames: int = 500) -> bytes:
    """Return an APNG of one red and then many blue frames."""
    return _animated("PNG", frames)


def many_frames_webp(frames: int = 20_000) -> bytes:
    """Return a WebP of one red and then very many blue frames."""
    data = _animated("WEBP", 1)
    last = data.rindex(b"ANMF")
    body = data[8:last] + data[last:] * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _animated(kind: str, frames: int) -> bytes:
    shades = (Image.new("RGB", (64, 64), (0, 0, 255 - index % 100)) for index in range(frames))
    return encoded(Image.new("RGB", (64, 64), RED), kind, save_all=True, append_images=list(shades))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return `data` damaged in one of the ways that files get damaged."""
    spoiled = bytearray(data)
    place = rng.randrange(len(spoiled))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 20)):
                spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        case 1:
            del spoiled[place:]
        case 2:
            del spoiled[place : place + rng.randint(1, 64)]
        case 3:
            spoiled[place:place] = rng.randbytes(rng.randint(1, 64))
        case _:
            # The headers, where sizes and lengths are.
            spoiled[rng.randrange(min(64, len(spoiled)))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(spoiled)


def is_near(colour: tuple[int, int, int], expected: tuple[int, int, int], *, by: int = 4) -> bool:
    """Return whether two colours are alike, as far as a JPEG keeps them."""
    return all(abs(one - other) <= by for one, other in zip(colour, expected, strict=True))
