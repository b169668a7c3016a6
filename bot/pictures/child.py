"""What runs inside a child process: it opens untrusted pictures, one after another.

The parent (`bot.pictures.pool`) sends a picture and gets a fresh JPEG back, or one
sentence that says why not (`bot.pictures.protocol`). Whatever goes wrong here, however
badly, costs this process and nothing else: memory, CPU time, files and core dumps are
bounded by the kernel before the first picture is read. The end of stdin ends the process.
"""

from __future__ import annotations

import gc
import io
import math
import resource
import sys
import warnings
from contextlib import suppress
from typing import BinaryIO, Final

# The decoders register themselves, and are loaded before the first picture comes.
from PIL import GifImagePlugin, Image, ImageCms, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

from bot.pictures import protocol
from bot.pictures.headers import SCANS_MAX, has_too_many_scans, kind_of, webp_size
from bot.pictures.protocol import NOT_A_PICTURE, Refused
from bot.pictures.sizes import ASPECT_MAX, PIXELS_MAX, RESULT_PIXELS_MAX, SIDE_MIN, fitted_size
from bot.runtime.frames import read_frame, write_frame

ICC_BYTES_MAX: Final = 4 << 20  # a larger profile costs more time than its colours are worth
FILES_MAX: Final = 16  # stdin, stdout, stderr, and what Python itself may have to open

INPUT_KINDS: Final = ("PNG", "JPEG", "GIF", "WEBP")
RESULT_KINDS: Final = ("PNG", "JPEG", "WEBP")

DAMAGED: Final = (
    "That picture is damaged, incomplete or of an unusual kind; "
    "please save it again as PNG or JPEG and attach that."
)

_EXIF_ORIENTATION: Final = 0x0112
_TRANSPOSES: Final = {
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


def _open(data: bytes, *, kinds: tuple[str, ...], pixels_max: int) -> Image.Image:
    kind = kind_of(data)
    if kind not in kinds:
        raise Refused(NOT_A_PICTURE, detail=f"begins with {data[:16]!r}")
    if kind == "JPEG" and has_too_many_scans(data):
        raise Refused(
            f"That JPEG is stored in more than {SCANS_MAX} passes; please save it again as an ordinary JPEG "
            "or PNG and attach that."
        )
    if kind == "WEBP" and (size := webp_size(data)):
        _check_size(*size, pixels_max=pixels_max)
    image = Image.open(io.BytesIO(data), formats=[kind])
    _check_size(*image.size, pixels_max=pixels_max)
    if kind == "PNG":
        _rescale_transparency(image, bits=data[24])
    return image


def _rescale_transparency(image: Image.Image, *, bits: int) -> None:
    """Bring a PNG's one transparent colour from the file's `bits` a channel to the 8 that are decoded to."""
    colour = image.info.get("transparency")
    if image.mode in {"L", "I;16"} and isinstance(colour, int):
        most = (1 << bits) - 1
        image.info["transparency"] = math.floor((colour & most) * 255 / most + 0.5)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(channel >> (bits - 8) & 0xFF for channel in colour)


def _orientation_of(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TRANSPOSES.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block may raise anything; the picture is fine without it
        return None


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the 16-bit grey `image` with 8 bits; Pillow's own conversion clips all above 255 to white."""
    return image.point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _flatten(image: Image.Image) -> Image.Image:
    """Return `image` as L, RGB or CMYK, with what shows through painted white."""
    image.load()  # before the canvas: decoding is when the most memory is needed
    if image.mode == "I;16":
        image = _to_eight_bits(image)
    grey = image.mode in {"1", "L", "LA"}
    if not image.has_transparency_data:
        return image if image.mode in _PLAIN_MODES else image.convert("L" if grey else "RGB")
    canvas = Image.new("L" if grey else "RGB", image.size, "white")
    if image.mode not in {"LA", "RGBA"}:
        image = image.convert("LA" if grey else "RGBA")
    canvas.paste(image, mask=image)
    return canvas


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return `image` at `size` pixels, its edges cropped by what is needed to stretch nothing."""
    if image.size == size:
        return image
    width, height = image.size
    across, down = min(width, height * size[0] / size[1]), min(height, width * size[1] / size[0])
    left, top = (width - across) / 2, (height - down) / 2
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + across, top + down))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return `image` as RGB, by its ICC `profile` where that can be used."""
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
    image = _open(data, kinds=INPUT_KINDS, pixels_max=PIXELS_MAX)
    _check_aspect(*image.size)
    size = fitted_size(*image.size)
    # A JPEG may leave out what is thrown away anyway; twice the size keeps the edges crisp.
    image.draft(None, (2 * size[0], 2 * size[1]))
    return _normalise(image, size)


def keep(data: bytes) -> Image.Image:
    """Return a backend's picture as it is stored and shown: upright, opaque, sRGB, at its own size.

    Raises:
        Refused: it is no picture, or one beyond the bounds.
    """
    image = _open(data, kinds=RESULT_KINDS, pixels_max=RESULT_PIXELS_MAX)
    return _normalise(image, image.size)


def _normalise(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # Colours and orientation come last, when the picture is small; a PNG's EXIF may stand after its pixels.
    srgb = _to_srgb(_resize(_flatten(image), size), image.info.get("icc_profile"))
    transpose = _orientation_of(image)
    return srgb if transpose is None else srgb.transpose(transpose)


def encode(image: Image.Image) -> bytes:
    """Return the RGB `image` as a JPEG of quality 95, colours at full resolution, without metadata."""
    image.info = {}
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def answer(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Return the kind and payload that answer a request of `kind` with the picture in `data`."""
    try:
        image = (fit if kind == protocol.TO_FIT else keep)(data)
        return protocol.PICTURE, protocol.SIZE.pack(*image.size) + encode(image)
    except Refused as refused:
        return protocol.REFUSED, f"{refused}\n{refused.detail}".encode()
    except MemoryError:
        raise  # the process ends: what is left of its memory is no place to open the next picture in
    except Exception as error:  # noqa: BLE001 - decoders raise anything at all on damaged pictures
        return protocol.REFUSED, f"{DAMAGED}\n{ascii(error)[:300]}".encode()


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


def serve(requests: BinaryIO, answers: BinaryIO, *, cpu_s_max: int) -> None:
    """Answer one request after another until `requests` ends, each with `cpu_s_max` seconds of CPU time."""
    gc.freeze()  # what the imports made stays: collections between pictures need not look at it again
    write_frame(answers, protocol.READY)
    with suppress(EOFError):
        while True:
            kind, data = read_frame(requests, protocol.REQUEST_BYTES_MAX)
            _allow_cpu(cpu_s_max)
            write_frame(answers, *answer(kind, data))
            del data
            gc.collect()  # decoded pictures are large, and cycles would keep them


def main() -> None:
    """Serve stdin to stdout within the limits given: CPU seconds a picture, bytes of memory."""
    cpu_s_max, memory_bytes_max = (int(argument) for argument in sys.argv[1:])
    _lock_down(memory_bytes_max)
    serve(sys.stdin.buffer, sys.stdout.buffer, cpu_s_max=cpu_s_max)


if __name__ == "__main__":
    main()
