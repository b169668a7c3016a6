"""The command line of the GPU server."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from bot.gpu.cli import app

RUNNER = CliRunner()
HAS_EXTRA = all(find_spec(name) for name in ("torch", "diffusers", "uvicorn"))
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason="needs the extra [gpu]")


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    """Return the option that names a new file of keys."""
    return ["--keys", str(tmp_path / "keys.sqlite")]


def test_keys_are_added_listed_and_revoked(keys: list[str]) -> None:
    """A key is printed once when it is made; the list shows its name, credits and state, never the key."""
    added = RUNNER.invoke(app, ["keys", "add", "bot", "--credits", "12.5", *keys])
    key = added.stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{8}\.[\w-]{43}", key)
    listed = RUNNER.invoke(app, ["keys", "list", *keys]).stdout
    assert listed == "bot\t12.500 credits\tactive\n"
    assert RUNNER.invoke(app, ["keys", "revoke", "bot", *keys]).exit_code == 0
    assert "revoked" in RUNNER.invoke(app, ["keys", "list", *keys]).stdout


def test_name_that_is_taken_ends_with_a_sentence(keys: list[str]) -> None:
    """A second key of one name ends with status 1 and a sentence, not a trace."""
    RUNNER.invoke(app, ["keys", "add", "bot", "--credits", "1", *keys])
    again = RUNNER.invoke(app, ["keys", "add", "bot", "--credits", "1", *keys])
    assert again.exit_code == 1
    assert "taken" in again.stderr


@pytest.mark.skipif(HAS_EXTRA, reason="the extra [gpu] is installed")
def test_missing_packages_are_reported(keys: list[str]) -> None:
    """Without its packages the server says how to install them."""
    result = RUNNER.invoke(app, ["--tiny", *keys])
    assert result.exit_code == 1
    assert "img2img-bot[gpu]" in result.stderr


@needs_extra
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tiny", "--host", "gpu.example"], "keys add"),
        (["--tiny", "--t5", "maybe"], "--t5"),
        (["--tiny", "--memory", "9"], "--memory"),
        (["--device", "cpu", "--model", "not/here/at/all"], "--model"),
    ],
)
def test_wrong_options_end_with_a_sentence(keys: list[str], options: list[str], said: str) -> None:
    """Options that can't work end with status 1 and say what to do, before anything is loaded."""
    result = RUNNER.invoke(app, [*options, *keys])
    assert result.exit_code == 1
    assert said in result.stderr


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@needs_extra
def test_server_runs_until_a_signal(keys: list[str]) -> None:
    """`gpu --tiny` answers on its port, and ends cleanly on the signal that containers send."""
    port = free_port()
    code = "from bot.gpu.cli import app; app()"
    command = [sys.executable, "-c", code, "--tiny", "--port", str(port), *keys]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert answers(f"http://127.0.0.1:{port}/health", process)
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=30)
    assert "Traceback" not in logged
    assert process.returncode in {0, -signal.SIGTERM}


def answers(url: str, process: subprocess.Popen[str]) -> bool:
    """Wait until an address answers; return False if the process ends first."""
    while process.poll() is None:
        try:
            return httpx.get(url, trust_env=False).is_success
        except httpx.TransportError:
            time.sleep(0.1)
    return False
