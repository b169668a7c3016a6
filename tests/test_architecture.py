"""The house's plan, held: who may import whom, and what the project never says."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from bot.settings import Settings

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path for folder in ("bot", "cogs", "db") for path in (ROOT / folder).rglob("*.py"))

#: Discord is known to the cogs and to these alone.
KNOW_DISCORD = {
    "bot/gateway/buttons.py",
    "bot/gateway/client.py",
    "bot/gateway/interactions.py",
    "bot/gateway/modals.py",
    "bot/demo/session.py",
    "bot/demo/proxy.py",
    "bot/gateway/supervisor.py",
}


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _reaches(path: Path, *packages: str) -> list[str]:
    return sorted(
        name for name in _imports(path) if any(name == p or name.startswith(f"{p}.") for p in packages)
    )


@pytest.mark.parametrize("path", ROOMS, ids=_name)
def test_arrows_run_one_way(path: Path) -> None:
    """A newcomer can read downwards: cogs know the bot, the bot knows the database, never back."""
    name = _name(path)
    if name.startswith("db/"):
        assert _reaches(path, "bot", "cogs", "discord") == []
    if name.startswith("bot/"):
        assert _reaches(path, "cogs") == []
        if name not in KNOW_DISCORD:
            assert _reaches(path, "discord") == []
    if name.startswith("bot/backends/"):
        assert _reaches(path, "db", "discord", "bot.gateway", "bot.jobs") == []
    if name not in KNOW_DISCORD:
        assert _reaches(path, "simcord") == []


@pytest.mark.parametrize("path", [p for p in ROOMS if _name(p).startswith("cogs/")], ids=_name)
def test_cogs_hold_no_sql(path: Path) -> None:
    """What Discord shows and what the database stores are kept apart."""
    assert not re.search(r"\b(SELECT|INSERT|UPDATE|DELETE)\b .*\b(FROM|INTO|SET)\b", path.read_text("utf-8"))


@pytest.mark.parametrize("path", ROOMS, ids=_name)
def test_rooms_stay_small(path: Path) -> None:
    """No file grows past what can be read in one sitting."""
    assert len(path.read_text("utf-8").splitlines()) <= 600


def test_every_setting_is_in_the_example() -> None:
    """An operator finds each setting in .env.example, with what it does."""
    example = (ROOT / ".env.example").read_text("utf-8")
    missing = [f for f in Settings.model_fields if f"IMG2IMG_{f.upper()}=" not in example]
    assert missing == []


def test_versions_agree() -> None:
    """The changelog speaks of the version that is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
