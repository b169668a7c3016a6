"""The command line as an operator types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _bot(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "bot", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    """An operator who asks for help sees what there is."""
    helped = _bot(tmp_path, "--help")
    assert helped.returncode == 0
    assert all(command in helped.stdout for command in ("run", "demo", "check"))


def test_run_without_token_is_one_sentence(tmp_path: Path) -> None:
    """Starting without a token says which variable to set, with exit code 2 and no traceback."""
    refused = _bot(tmp_path, "run")
    assert refused.returncode == 2
    assert refused.stderr.startswith("IMG2IMG_DISCORD_TOKEN is empty")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("variables", "code"), [({}, 1), ({"IMG2IMG_DISCORD_TOKEN": "x" * 60}, 0)])
def test_check_answers_with_its_exit_code(tmp_path: Path, variables: dict[str, str], code: int) -> None:
    """A script can tell from the exit code whether all is in place."""
    checked = _bot(tmp_path, "check", **variables)
    assert checked.returncode == code, checked.stdout + checked.stderr
    assert ("WRONG" in checked.stdout) == bool(code)


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    """A typing error in a setting is named, not shown as a traceback."""
    refused = _bot(tmp_path, "check", IMG2IMG_RETENTION_DAYS="soon")
    assert refused.returncode == 2
    assert "IMG2IMG_RETENTION_DAYS" in refused.stderr
    assert "Traceback" not in refused.stderr
