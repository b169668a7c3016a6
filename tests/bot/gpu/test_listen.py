"""Who may reach the server."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
pytest.importorskip("uvicorn", reason="needs the extra [gpu]")

from bot.errors import OperatorError
from bot.gpu.key_file import open_keys
from bot.gpu.listen import Address, require_keys_unless_loopback

EVERYWHERE = Address("0.0.0.0", 8420)  # noqa: S104  only named, never listened on


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("::", False),
        ("192.168.0.7", False),
        ("gpu.example", False),
        ("localhost.example", False),
    ],
)
def test_loopback_is_recognised(host: str, is_loopback: bool) -> None:
    """Only addresses of this very machine count as loopback; a name might be anything."""
    assert Address(host, 0).is_loopback is is_loopback


async def test_other_machines_need_a_key(tmp_path: Path) -> None:
    """A server that others can reach starts only once there is an active key."""
    keys_path = tmp_path / "keys.sqlite"
    with pytest.raises(OperatorError, match="keys add"):
        await require_keys_unless_loopback(keys_path, EVERYWHERE)
    async with open_keys(keys_path) as keys:
        await keys.add("bot", credits_given=1)
        await require_keys_unless_loopback(keys_path, EVERYWHERE)
        await keys.revoke("bot")
    with pytest.raises(OperatorError, match="keys add"):
        await require_keys_unless_loopback(keys_path, EVERYWHERE)


async def test_this_machine_needs_none(tmp_path: Path) -> None:
    """On loopback the server starts without a key, and no file of keys is made for the check."""
    await require_keys_unless_loopback(tmp_path / "keys.sqlite", Address("127.0.0.1", 0))
    assert not (tmp_path / "keys.sqlite").exists()
