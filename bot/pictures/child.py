"""What runs inside a child process: it opens untrusted pictures, one after another.

The parent (`bot.images`) sends a picture and gets a fresh JPEG back, or one
sentence that says why not. Whatever goes wrong here, however badly, costs this
process and nothing else: memory, CPU time, files and core dumps are bounded by
the kernel before the first picture is read.

A request is `REQUEST` and the picture's bytes; an answer is `ANSWER`, a JSON
note and the new picture's bytes. The first answer, unasked, says that the
child is ready. The end of stdin ends the process.
"""

from __future__ import annotations

import gc
import io
import json
import math
import re
import resource
import struct
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, Final

from PIL import GifImagePlugin, Image, ImageCms, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

#: A letter for what is wanted (`TO_FIT`, `TO_KEEP`) and the picture's length in bytes.
REQUEST: Final = struct.Struct(">cI")
#: The lengths of the JSON note and of the picture, in bytes.
ANSWER: Final = struct.Struct(">II")
TO_FIT: Final = b"f"
TO_KEEP: Final = b"k"

#: The widest and highest that a member's picture may be, multiplied.
PIXELS_MAX: Final = 50_000_000
#: The same for a backend's answer: four times the most that is ever asked for.
RESULT_PIXELS_MAX: Final = 4096 * 4096
SIDE_MIN: Final = 16
SIDE_MAX: Final = 2048
SIDE_STEP: Final = 16
#: Longer side over shorter: at 16 to 1, 2048 x 128 still holds `AREA_MIN`.
ASPECT_MAX: Final = 16
AREA_MIN: Final = 512 * 512
AREA_MAX: Final = 1024 * 1024
#: A progressive JPEG of an ordinary encoder has 6 to 18 scans; each costs a pass over the whole picture.
SCANS_MAX: Final = 64
ICC_BYTES_MAX: Final = 4 << 20
FILES_MAX: Final = 16

#: The accepted formats. Their decoders are imported here, before the first picture comes.
DECODERS: Final = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
INPUT_KINDS: Final = tuple(DECODERS)
RESULT_KINDS: Final = ("PNG", "JPEG", "WEBP")

NOT_A_PICTURE: Final = "That file is not a PNG, JPEG, GIF or WebP picture; please attach one of these."
DAMAGED: Final = (
    "That picture is damaged, cut off or of an unusual kind; "
    "please save it again as PNG or JPEG and attach that."
)

_MAGIC: Final = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<GIF>GIF8[79]a)|(?P<WEBP>RIFF.{4}WEBP)", re.DOTALL
)
#: Any JPEG marker but the restarts, which stand inside a scan's data as `FF 00` does.
_MARKER: Final = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_EXIF_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: What a picture may be while it is resized: these are what ICC profiles describe, too.
_PLAIN_MODES: Final = frozenset({"L", "RGB", "CMYK"})


class Refused(Exception):
    """A picture that is not taken: a sentence for whoever sent it, details for the log."""

    def __init__(self, sentence: str, *, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail


def kind_of(data: bytes) -> str | None:
    """Return the format that the first bytes of `data` promise, of `INPUT_KINDS`, or None."""
    match = _MAGIC.match(data)
    return match.lastgroup if match else None


def scan_count(data: bytes) -> int:
    """Return how many scans the JPEG in `data` has, counting no further than just over `SCANS_MAX`.

    Segments are stepped over by their lengths and the end marker ends the walk, as in
    libjpeg: thumbnails, and films that phones append, hold markers that are no scans.
    """
    count, position = 0, 2
    while count <= SCANS_MAX and (match := _MARKER.search(data, position)):
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            break
        count += marker == _SOS
        if marker not in {_SOI, _TEM}:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return count


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height in pixels that a WebP's header declares, or None if it is no header.

    The decoder reserves memory for the whole canvas as it opens, so its size is
    looked up before that (RFC 9649, sections 2.5 to 2.7).
    """
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """Return the size in pixels that a picture of `width` by `height` pixels is brought to.

    Its area is brought to `AREA_MAX` or less and to about `AREA_MIN` or more, no side
    exceeds `SIDE_MAX`, and each is about the nearest multiple of `SIDE_STEP`. A size that
    comes out stays as it is when it goes in, so that a result used again is not resampled.
    """
    area = width * height
    # Rounding both sides may have cost a picture made here 7 % of the least area.
    area_min = AREA_MIN * 0.93 if width % SIDE_STEP == height % SIDE_STEP == 0 else AREA_MIN
    scale = 1.0 if area_min <= area <= AREA_MAX else math.sqrt(min(max(area, AREA_MIN), AREA_MAX) / area)
    scale = min(scale, SIDE_MAX / max(width, height))
    across, down = _stepped(width * scale), _stepped(height * scale)
    while across * down > AREA_MAX:
        across, down = (across - SIDE_STEP, down) if across > down else (across, down - SIDE_STEP)
    return across, down


def _stepped(side: float) -> int:
    return max(SIDE_MIN, math.floor(side / SIDE_STEP + 0.5) * SIDE_STEP)


def _check_size(width: int, height: int, *, pixels_max: int) -> None:
    size = f"That picture is {width:,} × {height:,} pixels"
    if width * height > pixels_max:
        raise Refused(f"{size}; please attach one of at most {pixels_max // 1_000_000} megapixels.")
    if min(width, height) < SIDE_MIN:
        raise Refused(f"{size}; please attach one with at least {SIDE_MIN} pixels on each side.")


def _check_aspect(width: int, height: int) -> None:
    if max(width, height) > ASPECT_MAX * min(width, height):
        raise Refused(
            f"That picture is {width:,} × {height:,} pixels; please crop it so that "
            f"its longer side is at most {ASPECT_MAX} times the shorter one."
        )


def _check_scans(data: bytes) -> None:
    # A count of all such bytes can only be too high, and is a hundred times faster than the walk.
    if data.count(b"\xff\xda") > SCANS_MAX and scan_count(data) > SCANS_MAX:
        raise Refused(
            f"That JPEG is stored in more than {SCANS_MAX} passes; please save it again as an ordinary JPEG "
            "or PNG and attach that."
        )


def _opened(data: bytes, *, kinds: tuple[str, ...], pixels_max: int) -> Image.Image:
    kind = kind_of(data)
    if kind not in kinds:
        raise Refused(NOT_A_PICTURE, detail=f"begins with {data[:16]!r}")
    if kind == "JPEG":
        _check_scans(data)
    if kind == "WEBP" and (size := webp_size(data)):
        _check_size(*size, pixels_max=pixels_max)
    image = Image.open(io.BytesIO(data), formats=[kind])
    _check_size(*image.size, pixels_max=pixels_max)
    if kind == "PNG":
        _mend_transparency(image, bits=data[24])
    return image


def _mend_transparency(image: Image.Image, *, bits: int) -> None:
    """Bring a PNG's one transparent colour from the file's `bits` a channel to the 8 that are decoded to."""
    colour = image.info.get("transparency")
    if image.mode in {"L", "I;16"} and isinstance(colour, int):
        most = (1 << bits) - 1
        image.info["transparency"] = math.floor((colour & most) * 255 / most + 0.5)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(channel >> (bits - 8) & 0xFF for channel in colour)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block may raise anything; the picture is fine without it
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the 16-bit grey `image` with 8 bits; Pillow's own conversion clips all above 255 to white."""
    return image.point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _flattened(image: Image.Image) -> Image.Image:
    """Return `image` as L, RGB or CMYK, with what shows through painted white."""
    image.load()  # before the canvas: decoding is when the most memory is needed
    if image.mode == "I;16":
        image = _eight_bits(image)
    grey = image.mode in {"1", "L", "LA"}
    if not image.has_transparency_data:
        return image if image.mode in _PLAIN_MODES else image.convert("L" if grey else "RGB")
    canvas = Image.new("L" if grey else "RGB", image.size, "white")
    if image.mode not in {"LA", "RGBA"}:
        image = image.convert("LA" if grey else "RGBA")
    canvas.paste(image, mask=image)
    return canvas


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return `image` at `size` pixels, its edges cropped by what is needed to stretch nothing."""
    if image.size == size:
        return image
    width, height = image.size
    across, down = min(width, height * size[0] / size[1]), min(height, width * size[1] / size[0])
    left, top = (width - across) / 2, (height - down) / 2
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + across, top + down))


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return `image` as RGB, by its ICC `profile` where that is of use."""
    if profile and len(profile) <= ICC_BYTES_MAX:
        # A profile that is broken, or for other colours than these, is an error of ImageCms.
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


def fit(data: bytes) -> Image.Image:
    """Return a member's picture as backends get it: upright, opaque, sRGB, of `fitted_size`.

    Raises:
        Refused: it is no picture, or one beyond the bounds.
    """
    image = _opened(data, kinds=INPUT_KINDS, pixels_max=PIXELS_MAX)
    _check_aspect(*image.size)
    size = fitted_size(*image.size)
    # A JPEG may leave out what is thrown away anyway; twice the size keeps the edges crisp.
    image.draft(None, (2 * size[0], 2 * size[1]))
    return _finished(image, size)


def keep(data: bytes) -> Image.Image:
    """Return a backend's picture as it is stored and shown: upright, opaque, sRGB, at its own size.

    Raises:
        Refused: it is no picture, or one beyond the bounds.
    """
    image = _opened(data, kinds=RESULT_KINDS, pixels_max=RESULT_PIXELS_MAX)
    return _finished(image, image.size)


def _finished(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # Colours and turns come last, when the picture is small; EXIF comes after decoding: PNG may end with it.
    resized = _resized(_flattened(image), size)
    upright = _in_srgb(resized, image.info.get("icc_profile"))
    turn = _turn_of(image)
    return upright if turn is None else upright.transpose(turn)


def encoded(image: Image.Image) -> bytes:
    """Return the RGB `image` as a JPEG of quality 95, colours at full resolution, without metadata."""
    image.info = {}
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def answer(wanted: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the note and the picture that answer a request for `wanted` of the picture in `data`."""
    jobs: dict[bytes, Callable[[bytes], Image.Image]] = {TO_FIT: fit, TO_KEEP: keep}
    try:
        image = jobs[wanted](data)
        return {"width": image.width, "height": image.height}, encoded(image)
    except Refused as refused:
        return {"refused": str(refused), "detail": refused.detail}, b""
    except MemoryError:
        raise  # the process ends: what is left of its memory is no place to open the next one in
    except Exception as error:  # noqa: BLE001 - decoders raise anything at all on damaged pictures
        return {"refused": DAMAGED, "detail": ascii(error)[:300]}, b""


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _lock_down(memory_bytes_max: int) -> None:
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # every size is checked here, in words that a member understands
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, FILES_MAX)
    _limit(resource.RLIMIT_AS, memory_bytes_max)


def _allow_cpu(cpu_s_max: int) -> None:
    """Let the kernel end this process after `cpu_s_max` more seconds of CPU time, rounded up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(usage.ru_utime + usage.ru_stime) + cpu_s_max
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def _send(stream: BinaryIO, note: dict[str, Any], picture: bytes) -> None:
    text = json.dumps(note).encode()
    stream.write(ANSWER.pack(len(text), len(picture)) + text + picture)
    stream.flush()


def serve(requests: BinaryIO, answers: BinaryIO, *, cpu_s_max: int) -> None:
    """Answer one request after another until `requests` ends, each with `cpu_s_max` seconds of CPU time."""
    gc.freeze()
    _send(answers, {"ready": list(DECODERS)}, b"")
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        wanted, length = REQUEST.unpack(header)
        data = requests.read(length)
        if len(data) < length:
            break
        _allow_cpu(cpu_s_max)
        _send(answers, *answer(wanted, data))
        del data
        gc.collect()


def main() -> None:
    """Serve stdin to stdout within the limits given: CPU seconds a picture, bytes of memory."""
    cpu_s_max, memory_bytes_max = (int(argument) for argument in sys.argv[1:])
    _lock_down(memory_bytes_max)
    serve(sys.stdin.buffer, sys.stdout.buffer, cpu_s_max=cpu_s_max)


if __name__ == "__main__":
    main()
