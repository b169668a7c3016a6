"""Would the tests notice? Each of these bugs is planted in a copy of the sources, and each must be caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEDGER = "tests/db/test_ledger.py"
CREDITS = "tests/bot/credits/test_service.py"
CRASHES = "tests/faults/test_crash_points.py"
POWER = "tests/faults/test_power_cuts.py"
SQL = "db/migrations/0001_initial.sql"


@dataclass(frozen=True, slots=True)
class Bug:
    """A text of a file, what stands there instead, and the tests that have to notice."""

    name: str
    path: str
    text: str
    instead: str
    tests: tuple[str, ...]


BUGS = (
    Bug("a hold that is never let go", SQL, "- NEW.charged, held = held - NEW.amount", "- NEW.charged", (LEDGER,)),
    Bug("more arrives than left", SQL, "posted = posted + NEW.charged", "posted = posted + NEW.amount", (LEDGER,)),
    Bug("settled twice", SQL, "WHERE OLD.state <> 'pending';", "WHERE 0;", (LEDGER,)),
    Bug("overdrawn", SQL, "posted - held >= 0)", "1)", (LEDGER,)),
    Bug("a voided hold that stays", SQL, "SET held = held - NEW.amount WHERE id = NEW.src;\nEND;\n\nCREATE TRIGGER transfer_stays", "SET held = held WHERE id = NEW.src;\nEND;\n\nCREATE TRIGGER transfer_stays", (LEDGER,)),
    Bug("failures are not refunded", "bot/credits/service.py", "            ledger.void(tx, transfer_id=transfer.id, now=self._clock.now())", "            del transfer", (CRASHES,)),
    Bug("pictures are free", "bot/jobs/service.py", "        self._credits.hold(\n            tx,", "        0 and self._credits.hold(\n            tx,", (CRASHES,)),
    Bug("all of the hold is taken", "bot/credits/service.py", "part = min(transfer.amount, charged)", "part = transfer.amount", (CREDITS,)),
    Bug("the allowance comes back with each change", "bot/credits/service.py", "        if member.day != day:\n", "        if True:\n", (CREDITS,)),
    Bug("a picture that is paid but not kept", "bot/jobs/dispatcher.py", "digest = await self._store.put(normal.data)", "digest = __import__('hashlib').sha256(normal.data).hexdigest()", (CRASHES,)),
    Bug("marked delivered before it is posted", "cogs/delivery.py", "            if not await self._post_in_results_channel(view, pictures):\n                await self._messages.deliver(view, result_layout(view, self._router), pictures)\n            await self._jobs.delivered(job_id)", "            await self._jobs.delivered(job_id)\n            if not await self._post_in_results_channel(view, pictures):\n                await self._messages.deliver(view, result_layout(view, self._router), pictures)", (CRASHES,)),
    Bug("posted twice after a crash", "cogs/card_messages.py", "                nonce=view.job.id,", "                ", (CRASHES,)),
    Bug("called without a word on disk", "bot/jobs/dispatcher.py", "        job = await self._claim(job_id, lane)", "        job = (await self._db.read(lambda tx: jobs.get(tx, job_id)))", (CRASHES,)),
    Bug("a crash forgets what ran", "db/jobs.py", "WHERE state IN ('queued', 'sending', 'rendered') ORDER", "WHERE state IN ('queued', 'rendered') ORDER", (CRASHES,)),
    Bug("a crash forgets what was not posted", "db/jobs.py", "WHERE state IN ('queued', 'sending', 'rendered') ORDER", "WHERE state IN ('queued', 'sending') ORDER", (CRASHES,)),
    Bug("an end that nobody is told of", "bot/jobs/dispatcher.py", "rows.ended_last(tx, within_s=TOLD_AGAIN_S)", "[]", (CRASHES,)),
    Bug("commits that are not synced", "db/database.py", '"synchronous = FULL"', '"synchronous = NORMAL"', (POWER,)),
)  # fmt: skip


def _planted(folder: Path, bug: Bug) -> None:
    """Copy the sources to `folder` and plant the bug there."""
    for name in ("bot", "cogs", "db", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / bug.path
    text = path.read_text()
    assert text.count(bug.text) == 1, f"{bug.name}: its place has changed"
    path.write_text(text.replace(bug.text, bug.instead))


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(tmp_path: Path, bug: Bug) -> None:
    """Whoever breaks this promise by a slip is told by a test."""
    _planted(tmp_path, bug)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n0",
        "-m",
        "not nightly",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, *bug.tests], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-3_000:] + done.stderr[-1_000:]
