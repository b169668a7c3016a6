"""The architecture, held: who may import whom, where SQL and Discord live, how large things may grow."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.settings import Settings

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for folder in ("bot", "cogs", "db") for path in (ROOT / folder).rglob("*.py"))

#: Besides the cogs, these know Discord's library.
KNOW_DISCORD = ("cogs/", "bot/gateway/", "bot/demo/")
METHODS_MAX = 18
LINES_MAX = 600


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _imports(path: Path) -> set[str]:
    """Return every module that is imported, and every name out of one."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _reaches(path: Path, *packages: str) -> list[str]:
    return sorted(name for name in _imports(path) for p in packages if name == p or name.startswith(f"{p}."))


in_cogs = pytest.mark.parametrize("path", [p for p in MODULES if _name(p).startswith("cogs/")], ids=_name)
every_module = pytest.mark.parametrize("path", MODULES, ids=_name)


@every_module
def test_imports_run_one_way(path: Path) -> None:
    """Cogs import the bot, the bot imports the database, and nothing looks back."""
    name = _name(path)
    if name.startswith("db/"):
        assert _reaches(path, "bot", "cogs") == []
    if name.startswith("bot/"):
        assert _reaches(path, "cogs") == []
    if name.startswith("bot/backends/"):
        assert _reaches(path, "db", "bot.gateway", "bot.jobs") == []


@every_module
def test_discord_is_known_in_few_folders(path: Path) -> None:
    """A change of Discord's library is met in the cogs, the gateway and the demo alone."""
    if not _name(path).startswith(KNOW_DISCORD):
        assert _reaches(path, "discord") == []
    if not _name(path).startswith("bot/demo/"):
        assert _reaches(path, "simcord") == []


def _statements(path: Path) -> Iterator[str]:
    """Yield the texts of a module that begin as SQL statements do."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = " ".join(node.value.split())
            if re.match(r"(SELECT|INSERT|UPDATE|DELETE|PRAGMA|CREATE|ALTER|DROP|WITH) [a-zA-Z(*]+ ?\S", text):
                yield text


@every_module
def test_sql_is_written_in_the_database_package(path: Path) -> None:
    """Whoever changes a table finds every statement about it in `db/`."""
    if not _name(path).startswith("db/"):
        assert list(_statements(path)) == []


@in_cogs
def test_cogs_open_no_transactions(path: Path) -> None:
    """A cog calls one method of a service: it neither reaches for the database nor for its functions."""
    tree = _tree(path)
    reached = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "db"]
    assert reached == []
    functions = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "db"
        for alias in node.names
        # Types may be named; modules and functions are for the services.
        if not re.fullmatch(r"([A-Z][a-z]+)+", alias.name)
    ]
    assert functions == []


@every_module
def test_files_and_classes_stay_small(path: Path) -> None:
    """Nothing grows past what can be read in one sitting."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    assert re.findall(r"^ *# ?-{8,}.*$", text, re.MULTILINE) == []  # two parts are two files
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= METHODS_MAX, node.name


def test_class_names_are_unique() -> None:
    """One class, one name: whoever reads a name knows which class is meant."""
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(_name(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_setting_is_in_the_example() -> None:
    """An operator finds each setting in .env.example, with what it does."""
    example = (ROOT / ".env.example").read_text("utf-8")
    missing = [f for f in Settings.model_fields if f"IMG2IMG_{f.upper()}=" not in example]
    assert missing == []


def test_versions_agree() -> None:
    """The changelog speaks of the version that is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


#: All of the project that the GPU server may import, besides its own package.
GPU_SERVER_IMPORTS = {
    "bot.clock",
    "bot.errors",
    "bot.params",
    "bot.runtime.background",
    "db.api_keys",
    "db.database",
    "db.ledger",
    "db.migrate",
}


@pytest.mark.parametrize("path", [p for p in MODULES if _name(p).startswith("bot/gpu/")], ids=_name)
def test_gpu_server_needs_few_modules(path: Path) -> None:
    """The GPU server can run without the bot: it needs neither Discord nor the bot's services."""
    project = {_name(module).removesuffix(".py").replace("/", ".") for module in MODULES}
    others = {name for name in _imports(path) & project if not name.startswith("bot.gpu.")}
    assert others <= GPU_SERVER_IMPORTS
