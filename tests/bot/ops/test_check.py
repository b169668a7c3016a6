"""`img2img-bot check`: one line per finding, and whether it is good."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.backends.painter import Painter
from bot.errors import BackendDown
from bot.ops.check import Finding, check_everything
from bot.settings import bare_settings
from db import ledger
from db.database import connect
from db.opening import open_database
from tests.support.provider import API_KEY, answer, error, running_provider


async def _check(folder: Path, **settings: Any) -> list[Finding]:
    settings.setdefault("discord_token", SecretStr("token"))
    settings.setdefault("backends", ("painter",))
    return await check_everything(bare_settings(data_dir=folder, **settings))


async def test_a_working_installation_is_all_good(tmp_path: Path) -> None:
    """If everything is in place, every finding is good; the backend really makes a picture."""
    findings = await _check(tmp_path)
    assert [finding.good for finding in findings] == [True] * 4


async def test_a_missing_token_is_reported(tmp_path: Path) -> None:
    """An operator without a token sees which variable to set."""
    findings = await _check(tmp_path, discord_token=None)
    wrong = [finding.sentence for finding in findings if not finding.good]
    assert wrong == ["IMG2IMG_DISCORD_TOKEN is empty; set it to your bot's token from Discord."]


async def test_an_inconsistent_ledger_is_found(tmp_path: Path) -> None:
    """An inconsistent ledger is found before members spend credits."""
    async with open_database(tmp_path):
        pass
    connection = connect(tmp_path / "bot.sqlite3")
    connection.execute("INSERT INTO account (kind, guild_id, user_id) VALUES ('user', 1, 2)")
    connection.execute("UPDATE account SET posted = 5")
    connection.close()
    findings = await _check(tmp_path)
    assert any(not finding.good and "not to zero" in finding.sentence for finding in findings)


async def test_a_running_bot_is_reported(tmp_path: Path) -> None:
    """Checking while a bot runs reports that instead of disturbing it."""
    async with open_database(tmp_path):
        findings = await _check(tmp_path)
    assert any(not finding.good and "Another bot is running" in finding.sentence for finding in findings)


async def test_the_hosted_services_balance_is_reported(tmp_path: Path) -> None:
    """An operator sees that the key works and how many credits are left."""
    async with running_provider() as provider:
        provider.will(answer(200, b'{"credits": 12.5}', {"content-type": "application/json"}))
        findings = await _check(
            tmp_path, backends=("segmind",), segmind_api_key=SecretStr(API_KEY), segmind_base_url=provider.url
        )
        assert "12.5" in findings[-1].sentence


async def test_a_refused_key_is_reported(tmp_path: Path) -> None:
    """`check` finds a wrong key before the first member does."""
    async with running_provider() as provider:
        provider.will(error(401))
        findings = await _check(
            tmp_path, backends=("segmind",), segmind_api_key=SecretStr(API_KEY), segmind_base_url=provider.url
        )
        assert not findings[-1].good
        assert API_KEY not in findings[-1].sentence


async def test_an_unusable_key_is_a_finding(tmp_path: Path) -> None:
    """A key that can't be one is reported beside everything else, not instead of it."""
    findings = await _check(tmp_path, backends=("segmind", "painter"), segmind_api_key=SecretStr("SG_ 1"))
    assert [finding.good for finding in findings] == [True, True, True, False, True]
    assert "copy it again" in findings[3].sentence


async def test_each_finding_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failing backend printed can't be taken for further findings."""

    async def fail(_painter: Painter) -> str:
        raise BackendDown(detail="it ended with 1:\nok    All is well.")

    monkeypatch.setattr(Painter, "check", fail)
    findings = await _check(tmp_path)
    assert findings[-1] == Finding(False, r"Painter: it ended with 1:\nok    All is well.")


async def test_a_damaged_page_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that shows only while the ledger is read is reported, not a traceback."""

    def damaged(_tx: sqlite3.Connection) -> list[str]:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(ledger, "reconcile", damaged)
    findings = await _check(tmp_path)
    assert [finding.sentence for finding in findings if not finding.good] == [
        f"The database in {tmp_path} can't be used (database disk image is malformed)."
    ]
