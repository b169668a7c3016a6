"""Runs a child process of the bot so that coverage can save what it measured there.

Coverage saves when a process exits. The decoder child may not write files, and the bot kills
the painting child as soon as it has the last picture.
"""

import resource
import runpy
import sys
from typing import BinaryIO

import coverage

from bot.backends.painting import protocol
from bot.runtime import frames

_set_limit = resource.setrlimit
_write_frame = frames.write_frame


def _set_other_limit(kind: int, limits: tuple[int, int]) -> None:
    if kind != resource.RLIMIT_FSIZE:
        _set_limit(kind, limits)


def _write_after_saving(stream: BinaryIO, kind: bytes, payload: bytes = b"") -> None:
    measuring = coverage.Coverage.current()
    if kind == protocol.RESULT and measuring:
        measuring.save()
    _write_frame(stream, kind, payload)


def main() -> None:
    """Run the module named first, with the arguments after it."""
    module = sys.argv.pop(1)
    resource.setrlimit = _set_other_limit
    frames.write_frame = _write_after_saving
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
