"""The GPU server as a child process, when it can't start; with the engine see tests/bot/gpu."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.backends.gpu_process import GpuProcess, free_port
from bot.clock import SystemClock
from bot.errors import BackendDown


async def test_a_server_that_dies_at_once_is_not_restarted_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that can't start takes the backend out of use, and the next call does not load it again."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    process = GpuProcess(
        model="no-such-model", port=free_port(), keys_path=tmp_path / "keys.sqlite3", clock=SystemClock()
    )
    with pytest.raises(BackendDown) as first:
        await process.up()
    assert "ended while starting" in first.value.detail
    with pytest.raises(BackendDown) as second:
        await process.up()
    assert "s after its start" in second.value.detail
    await process.aclose()
    await process.aclose()
