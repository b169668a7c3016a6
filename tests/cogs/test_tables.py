"""Tables for spreadsheets."""

import csv
import io
from pathlib import Path
from typing import Any

import discord
import pytest

from cogs.tables import accounts_csv, records_csv, safe_cell
from db.audit_records import AuditRecord
from db.ledger import Account
from tests.support.hostile_texts import HOSTILE_TEXTS
from tests.support.moderators import calm, quota
from tests.support.simulated_server import open_world, said


async def test_an_export_is_safe_in_a_spreadsheet(tmp_path: Path) -> None:
    """A reason that looks like a formula is only text in the table, and ids keep their digits."""
    async with open_world(tmp_path) as world:
        await quota(world, "grant", member=world.bob, amount=5, reason="=HYPERLINK(1)")
        answer = await world.moderator.slash(world.channel, "quota export", what="actions")
        table = (await said(answer).attachments[0].read()).decode()
        assert "'=HYPERLINK(1)" in table
        assert f"'{world.bob.id}" in table
        credits_table = await world.moderator.slash(world.channel, "quota export")
        assert "user,5,0,no" in (await said(credits_table).attachments[0].read()).decode()


def _rows(file: discord.File) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.fp.read().decode())))


def _record(**changes: Any) -> AuditRecord:
    given: dict[str, Any] = {
        "interaction_id": 1,
        "guild_id": 2,
        "actor_id": 900000000000000001,
        "target_id": 900000000000000002,
        "action": "grant",
        "before": None,
        "after": None,
        "reason": "",
        "at": 0.0,
        **changes,
    }
    return AuditRecord(**given)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'=1"),
        ("\r\n=1", "'=1"),
        ("\x00=1", "'=1"),
        ("\u202e=1", "'=1"),
        ("a\nb", "a b"),
        ("plain", "plain"),
        (None, ""),
        (0, "0"),
        (5, "5"),
        (-5, "'-5"),
        (900000000000000001, "'900000000000000001"),
    ],
)
def test_a_cell_is_no_formula_and_keeps_its_digits(value: object, cell: str) -> None:
    """What a spreadsheet would calculate or round is marked as text, also behind what it would skip."""
    assert safe_cell(value) == cell


def test_a_table_repeats_texts_on_one_line_without_escapes() -> None:
    """A table is for reading and searching: no backslashes, line breaks or reversed text in it."""
    rows = _rows(records_csv([_record(reason=text, detail=text) for text in HOSTILE_TEXTS]))
    assert len(rows) == len(HOSTILE_TEXTS)
    for row in rows:
        for cell in (row["reason"], row["detail"]):
            assert cell.isprintable()
            assert "\\" not in cell
            assert not cell.startswith(("=", "+", "-", "@"))


def test_a_table_describes_changes_and_what_older_versions_wrote() -> None:
    """Today's records list their changes, those of version 0.1 keep their words."""
    changes = '[["balance", 0, 5, 900000000000000002]]'
    new, old = _rows(records_csv([_record(changes_json=changes), _record(detail="The most steps: 5")]))
    assert new["detail"] == "Balance of <@900000000000000002>: 0 → 5"
    assert old["detail"] == "The most steps: 5"
    assert new["time"] == "1970-01-01 00:00:00"


@pytest.mark.parametrize("frozen", [True, False])
def test_accounts_are_a_table_too(frozen: bool) -> None:
    """One row an account, with what is on hold."""
    account = Account(
        id=1, kind="user", guild_id=2, user_id=900000000000000001, posted=5, held=2, frozen=frozen
    )
    (row,) = _rows(accounts_csv([account]))
    assert row == {
        "member": "'900000000000000001",
        "account": "user",
        "credits": "5",
        "on hold": "2",
        "frozen": "yes" if frozen else "no",
    }


async def test_a_blocked_word_is_exported_as_it_is(tmp_path: Path) -> None:
    """The table has what was blocked, letter by letter."""
    async with open_world(tmp_path) as world:
        await calm(world, "block", text="b_a*d")
        answer = await world.moderator.slash(world.channel, "quota export", what="actions")
        table = (await said(answer).attachments[0].read()).decode()
        assert "“b_a*d” in prompts: allowed → blocked" in table
