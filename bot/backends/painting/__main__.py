"""The painting child: one request in on stdin, progress and pictures out on stdout, then the end.

It ends at once when its stdin closes, so it can't outlive the bot.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from PIL import Image

from bot.backends.painting import protocol
from bot.backends.painting.easel import Easel
from bot.backends.painting.recipe import Recipe
from bot.pictures.sizes import SIDE_MAX
from bot.runtime.frames import read_frame, write_frame

PREVIEW_SIDE_MAX: Final = 256  # cards show previews small, and each is an upload to Discord
PREVIEWS_MAX: Final = 8  # a card is edited every few seconds at most, so more would not be seen
PREVIEW_QUALITY: Final = 75
RESULT_QUALITY: Final = 95  # results can be inputs again, and each generation would lose more
_NICENESS: Final = 5  # the bot answering people comes first
_Send = Callable[[bytes, bytes], None]


def end_with_stdin() -> None:
    """Wait for stdin to close, then end the process whatever it is doing."""
    while os.read(0, 1):
        pass
    os._exit(1)


def decode(data: bytes) -> Image.Image:
    """Return the input picture. Raises `ValueError` where it is larger than the bot ever sends."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if max(image.size) > SIDE_MAX:
            raise ValueError(f"{image.width} x {image.height} pixels")
        picture = image.convert("RGB")
    picture.info.clear()  # a comment in there would be written out again
    return picture


def encode(image: Image.Image, quality: int) -> bytes:
    """Return `image` as JPEG bytes without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def preview(easels: Sequence[Easel]) -> bytes:
    """Return a small JPEG of how far the pictures are, side by side where there are several."""
    columns = 1 if len(easels) == 1 else 2
    tiles = [easel.preview(PREVIEW_SIDE_MAX // columns) for easel in easels]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (width * columns, height * -(-len(tiles) // columns)), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    return encode(sheet, PREVIEW_QUALITY)


def paint(options: Mapping[str, Any], source: Image.Image, send: _Send) -> None:
    """Paint one picture for each of the options' seeds, layer by layer together, and send them."""
    steps, pace_s = options["num_inference_steps"], options["pace_s"]
    easels = [Easel(source, Recipe.read(options, seed)) for seed in options["seeds"]]
    every = -(-steps // PREVIEWS_MAX)
    for step in range(1, steps + 1):
        begun = time.monotonic()
        for easel in easels:
            easel.layer(step - 1)
        shown = preview(easels) if step % every == 0 and step < steps else b""
        time.sleep(max(0.0, begun + pace_s - time.monotonic()))
        send(protocol.PROGRESS, protocol.STEP.pack(step) + shown)
    for easel in easels:
        send(protocol.RESULT, encode(easel.picture(), RESULT_QUALITY))


def main() -> None:
    """Serve the one request."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the bot, which may still want the picture
    os.nice(_NICENESS)
    _, request = read_frame(sys.stdin.buffer, protocol.REQUEST_BYTES_MAX)
    options, _, image = request.partition(b"\n")
    threading.Thread(target=end_with_stdin, daemon=True).start()
    paint(
        json.loads(options),
        decode(image),
        lambda kind, payload: write_frame(sys.stdout.buffer, kind, payload),
    )


if __name__ == "__main__":
    main()
