"""What every test run needs."""

import os
import subprocess
from collections.abc import Mapping
from typing import Any

#: It may write no files, so coverage could not save what it measured.
_UNMEASURED = "bot.pictures.child"


def pytest_configure() -> None:
    """Where coverage is measured, let child processes be measured too.

    The bot and the tests give children an environment of their own, without the variable by
    which coverage starts in them.
    """
    init = subprocess.Popen.__init__

    def measured(
        self: "subprocess.Popen[Any]",
        args: Any,
        *rest: Any,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        if (
            env is not None
            and _UNMEASURED not in args
            and (config := os.environ.get("COVERAGE_PROCESS_CONFIG"))
        ):
            env = {**env, "COVERAGE_PROCESS_CONFIG": config}
        init(self, args, *rest, env=env, **options)

    subprocess.Popen.__init__ = measured  # type: ignore[method-assign, assignment]
