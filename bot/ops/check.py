"""`img2img-bot check`: is everything ready to run?"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bot.app import make_backend
from bot.clock import SystemClock
from bot.errors import BotError
from bot.logs import one_line
from bot.settings import BackendName, Settings
from db import ledger
from db.database import DatabaseUnusable
from db.opening import open_database


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: whether it passed, and a line that says so or says what to do."""

    good: bool
    sentence: str


async def check_everything(settings: Settings) -> list[Finding]:
    """Check the settings, the database, the ledger and each backend in use."""
    findings = [_token(settings)]
    findings += [finding async for finding in _database(settings)]
    findings += [await _backend(settings, name) for name in settings.backends_in_use]
    return findings


def _token(settings: Settings) -> Finding:
    if settings.discord_token is None:
        return Finding(False, "IMG2IMG_DISCORD_TOKEN is empty; set it to your bot's token from Discord.")
    return Finding(True, "The settings are complete, and a Discord token is set.")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    try:
        async with open_database(settings.data_dir) as db:
            yield Finding(True, f"The database in {settings.data_dir} can be used.")
            faults = await db.read(ledger.reconcile)
            for fault in faults:
                yield Finding(False, f"{fault} Restore the newest backup that `check` accepts.")
            if not faults:
                yield Finding(True, "The ledger is consistent.")
    except DatabaseUnusable as error:
        yield Finding(False, str(error))
    except (OSError, sqlite3.Error) as error:
        yield Finding(False, f"The database in {settings.data_dir} can't be used ({error}).")


async def _backend(settings: Settings, name: BackendName) -> Finding:
    try:
        backend = make_backend(name, settings, SystemClock())
    except BotError as error:
        return Finding(False, f"{name}: {error}")
    try:
        return Finding(True, await backend.check())
    except BotError as error:
        return Finding(False, f"{backend.capabilities.label}: {one_line(error.detail or str(error))}")
    finally:
        await backend.aclose()
