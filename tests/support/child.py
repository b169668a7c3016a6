"""A child process for tests: each frame's kind says what it does next. It ends with its stdin."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from bot.runtime.frames import read_frame, write_frame

ECHO: Final = b"e"
ENVIRONMENT: Final = b"v"
FLOOD: Final = b"f"
FAIL: Final = b"x"
SLEEP: Final = b"s"


def main() -> None:
    """Serve frames until stdin ends."""
    out = sys.stdout.buffer
    kinds = dict.fromkeys((ECHO, ENVIRONMENT, FLOOD, FAIL, SLEEP), 64 << 20)
    while True:
        try:
            kind, payload = read_frame(sys.stdin.buffer, kinds)
        except EOFError:
            return
        if kind == ECHO:
            write_frame(out, ECHO, payload)
        elif kind == ENVIRONMENT:
            write_frame(out, ENVIRONMENT, "\n".join(os.environ).encode())
        elif kind == FAIL:
            sys.exit(payload.decode())
        while kind == FLOOD:
            out.write(bytes(1 << 16))
        while kind == SLEEP:
            time.sleep(60)


if __name__ == "__main__":
    main()
