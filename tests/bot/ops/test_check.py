"""`img2img-bot check`: a sentence for each thing, and whether it is good."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bot.ops.check import Finding, check_everything
from bot.settings import bare_settings
from db.database import connect
from db.opening import open_database
from tests.support.provider import API_KEY, answer, error, running_provider


async def _check(folder: Path, **settings: Any) -> list[Finding]:
    settings.setdefault("discord_token", SecretStr("token"))
    settings.setdefault("backends", ("painter",))
    return await check_everything(bare_settings(data_dir=folder, **settings))


async def test_a_sound_installation_is_all_good(tmp_path: Path) -> None:
    """With everything in place every finding is good, the backend tried for real."""
    findings = await _check(tmp_path)
    assert [finding.good for finding in findings] == [True] * 4


async def test_a_missing_token_is_said(tmp_path: Path) -> None:
    """An operator without a token reads which variable to set."""
    findings = await _check(tmp_path, discord_token=None)
    wrong = [finding.sentence for finding in findings if not finding.good]
    assert wrong == ["IMG2IMG_DISCORD_TOKEN is empty; set it to your bot's token from Discord."]


async def test_a_cooked_book_is_found(tmp_path: Path) -> None:
    """Books that don't add up are found before members spend on them."""
    async with open_database(tmp_path):
        pass
    books = connect(tmp_path / "bot.sqlite3")
    books.execute("INSERT INTO account (kind, guild_id, user_id) VALUES ('user', 1, 2)")
    books.execute("UPDATE account SET posted = 5")
    books.close()
    findings = await _check(tmp_path)
    assert any(not finding.good and "do not sum to zero" in finding.sentence for finding in findings)


async def test_a_running_bot_is_noticed(tmp_path: Path) -> None:
    """Checking beside a running bot says so instead of disturbing it."""
    async with open_database(tmp_path):
        findings = await _check(tmp_path)
    assert any(not finding.good and "Another bot is running" in finding.sentence for finding in findings)


async def test_the_hosted_services_balance_is_told(tmp_path: Path) -> None:
    """An operator sees that the key works and what is left on it."""
    async with running_provider() as provider:
        provider.will(answer(200, b'{"credits": 12.5}', {"content-type": "application/json"}))
        findings = await _check(
            tmp_path, backends=("segmind",), segmind_api_key=SecretStr(API_KEY), segmind_base_url=provider.url
        )
        assert "12.5" in findings[-1].sentence


async def test_a_refused_key_is_said(tmp_path: Path) -> None:
    """A wrong key is found by `check`, not by the first member."""
    async with running_provider() as provider:
        provider.will(error(401))
        findings = await _check(
            tmp_path, backends=("segmind",), segmind_api_key=SecretStr(API_KEY), segmind_base_url=provider.url
        )
        assert not findings[-1].good
        assert API_KEY not in findings[-1].sentence
