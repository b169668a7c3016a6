"""Money bugs, planted one at a time into a copy of the program: the tests of money must catch each."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUGS = sorted((HERE / "bugs").glob("*.patch"))
#: Quick ones first: the run ends at the first failure.
MONEY_TESTS = (
    "tests/db/test_ledger.py",
    "tests/bot/credits/test_limits.py",
    "tests/bot/credits/test_service.py",
    "tests/bot/credits/test_any_order.py",
)

#: A caught bug need not be told in its shortest form, which takes minutes to find.
WITHOUT_SHRINKING = """
from hypothesis import Phase, settings

settings.register_profile("bugs", phases=[Phase.explicit, Phase.generate])
settings.load_profile("bugs")
"""

pytestmark = pytest.mark.nightly


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)


def _copy(folder: Path) -> None:
    for name in ("bot", "db", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "bugs"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "conftest.py").write_text(WITHOUT_SHRINKING)


def _money_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ("-x", "-q", "-n0", "-p", "no:cacheprovider", *MONEY_TESTS)
    return _run(folder, sys.executable, "-m", "pytest", *options)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.stem)
def test_the_suite_catches_it(tmp_path: Path, bug: Path) -> None:
    """A slip that would cost a member or the operator money does not get past the tests."""
    _copy(tmp_path)
    planted = _run(tmp_path, "git", "apply", str(bug))
    assert planted.returncode == 0, planted.stderr
    run = _money_tests(tmp_path)
    assert run.returncode == 1, run.stdout  # tests ran and failed; 2 would be a copy that does not run


def test_the_copy_passes_without_a_bug(tmp_path: Path) -> None:
    """What is caught is the bug, not the copying."""
    _copy(tmp_path)
    run = _money_tests(tmp_path)
    assert run.returncode == 0, run.stdout


def test_there_are_enough_bugs() -> None:
    """At least ten different bugs are kept."""
    assert len(BUGS) >= 10
