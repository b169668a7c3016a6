"""What every test run needs."""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_CHILDREN = ("bot.pictures.child", "bot.backends.painting")
#: The tests that are about children. Every simulated server starts a child too, and measuring
#: each of them would take minutes and show nothing new.
_MEASURED_IN = (
    "tests/bot/backends/",
    "tests/bot/ops/",
    "tests/bot/pictures/",
    "tests/bot/runtime/",
    "tests/bot/test_main.py",
    "tests/faults/test_process_signals.py",
)


def pytest_configure() -> None:
    """Where coverage is measured, measure child processes too.

    The bot and the tests give children an environment of their own, without the variable that
    starts coverage in them.
    """
    init: Any = subprocess.Popen.__init__

    def measured(
        self: Any, args: Any, *rest: Any, env: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        config = os.environ.get("COVERAGE_PROCESS_CONFIG")
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        if config and env is not None and test.startswith(_MEASURED_IN):
            env = {**env, "COVERAGE_PROCESS_CONFIG": config}
            args = [*_measurable(args)]
        init(self, args, *rest, env=env, **options)

    subprocess.Popen.__init__ = measured  # type: ignore[assignment, method-assign]


def _measurable(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument in _CHILDREN:
            yield "tests.support.measured_child"
        yield argument
