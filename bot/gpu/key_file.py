"""The file that API keys are kept in: opened, made if missing, refused if it is something else.

It has the bot's whole schema, so that one migration of the ledger serves both and `ledger.reconcile`
finds the tables it looks at; those for Discord stay empty. Several servers may share one file.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from bot.clock import Clock, SystemClock
from bot.errors import OperatorError
from bot.gpu.api_keys import ApiKeys
from db import api_keys
from db.database import DatabaseUnusable, connect, open_file
from db.migrate import migrate

#: Other servers hold the lock only while they make the file, for well under a second.
_LOCKED_S_MAX: Final = 10.0
_LOCKED_WAIT_S: Final = 0.05


@asynccontextmanager
async def open_keys(path: Path, clock: Clock | None = None) -> AsyncIterator[ApiKeys]:
    """Open the file of keys at `path`; a missing one is made, readable by its owner alone.

    Several processes may have it open. Raises `OperatorError` if it can't be opened.
    """
    # Closing a file's last connection locks it for a moment. While this one stays open, no other process's
    # is the last, so the two that `open_file` makes are not locked out.
    with closing(await _connect_patiently(path)):
        async with open_file(path) as database:
            yield ApiKeys(database, clock or SystemClock())


async def _connect_patiently(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, with its tables made.

    Switching a new file to write-ahead logging ignores SQLite's busy timeout and fails at once while
    another process does the same, so a locked file is tried again for a while.
    """
    time_s = asyncio.get_running_loop().time
    until_s = time_s() + _LOCKED_S_MAX
    while True:
        try:
            return await asyncio.to_thread(_connect, path)
        except OSError as error:
            raise OperatorError(f"The file of keys {path} can't be opened.", detail=str(error)) from error
        except DatabaseUnusable as error:
            raise OperatorError(str(error)) from error
        except sqlite3.DatabaseError as error:
            if "locked" not in str(error):
                raise OperatorError(f"{path} is not a file of keys.", detail=str(error)) from error
            if time_s() > until_s:
                raise OperatorError(f"{path} is locked by another program.", detail=str(error)) from error
        await asyncio.sleep(_LOCKED_WAIT_S)


def _connect(path: Path) -> sqlite3.Connection:
    """Make the file and its tables if need be, and connect.

    Raises `OSError` for a file that can't be written, which SQLite would not explain.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("ab"):
        pass
    connection = connect(path)
    try:
        api_keys.claim_file(connection, path)
        migrate(connection, path)
        api_keys.create_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection
