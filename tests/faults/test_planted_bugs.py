"""Would the tests notice? Each bug in `bugs/` is planted in a copy of the sources, and its tests must fail.

A bug is a patch. Above its diff stand a sentence that says what it breaks, and a line
`Tests: path [path…]` with the test files that must notice, the quick ones first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUGS = sorted((Path(__file__).parent / "bugs").glob("*.patch"))
BUGS_MIN = 41
COPIED = ("bot", "cogs", "db", "tests")
#: Longer than the slowest list of tests takes on a busy machine.
RUN_S_MAX = 900

#: Finding a failure is enough here; shortening its example would take minutes.
WITHOUT_SHRINKING = """
from hypothesis import Phase, settings

settings.register_profile("bugs", phases=[Phase.explicit, Phase.generate])
settings.load_profile("bugs")
"""

each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.stem)
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")


def _tests_of(bug: Path) -> list[str]:
    """Return the test files that must notice the bug."""
    (line,) = (line for line in bug.read_text("utf-8").splitlines() if line.startswith("Tests: "))
    return line.split()[1:]


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Nothing of the outer run goes along: the copy imports its own sources, and git, which skips
    # what lies outside a repository around it, sees none.
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(folder),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S_MAX, check=False
    )


def _apply(folder: Path, bug: Path, *options: str) -> None:
    """Apply the patch to the sources in `folder`. Fails where they have changed under it."""
    done = _run(folder, "git", "apply", *options, str(bug))
    assert done.returncode == 0, f"{bug.name} does not apply any more; write it anew:\n{done.stderr}"


def _copy(folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "conftest.py").write_text(WITHOUT_SHRINKING)


def _run_tests(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return _run(folder, sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests)


def test_there_are_enough_bugs() -> None:
    """Whoever removes a bug adds another."""
    assert len(BUGS) >= BUGS_MIN


@needs_git
@each_bug
def test_a_bug_can_be_planted(bug: Path) -> None:
    """Whoever changes a line that a bug changes writes the bug anew."""
    _apply(ROOT, bug, "--check")
    tests = _tests_of(bug)
    assert tests
    assert [path for path in tests if not (ROOT / path).is_file()] == []


@pytest.mark.nightly
@pytest.mark.timeout(RUN_S_MAX + 60)
@needs_git
@each_bug
def test_a_planted_bug_is_caught(tmp_path: Path, bug: Path) -> None:
    """A slip that would cost a member or the operator something does not get past the tests."""
    _copy(tmp_path)
    _apply(tmp_path, bug)
    run = _run_tests(tmp_path, _tests_of(bug))
    # 1: tests ran and failed; from 2 on they did not run. A test that was too slow has noticed nothing.
    assert run.returncode == 1, run.stdout + run.stderr
    assert "from pytest-timeout" not in run.stdout, run.stdout


@pytest.mark.nightly
@pytest.mark.timeout(RUN_S_MAX + 60)
def test_the_copy_passes_without_a_bug(tmp_path: Path) -> None:
    """What is caught is the bug, not the copying."""
    _copy(tmp_path)
    run = _run_tests(tmp_path, list(dict.fromkeys(path for bug in BUGS for path in _tests_of(bug))))
    assert run.returncode == 0, run.stdout + run.stderr
