"""Changes as data: what is stored in an audit record is what is read from it."""

from __future__ import annotations

import pytest

from bot.moderation.changes import Change, Changes, from_json, to_json


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (Change("balance", 0, 10, 2**63 - 1),),
        (Change("steps_max", None, 10), Change("slow_s", 60, None)),
        (Change("private", 0, 1),),
        (Change("blocked_text", None, "blocked", 'quotes " and \\ and 猫'),),
    ],
)
def test_changes_survive_being_stored(changes: Changes) -> None:
    """Every value and subject is read back as it was, in order."""
    assert from_json(to_json(changes)) == changes


def test_flags_are_equal_to_numbers_when_they_are_read() -> None:
    """True and 1 are the same flag, before storing and after."""
    assert from_json(to_json((Change("private", before=False, after=True),))) == (Change("private", 0, 1),)


@pytest.mark.parametrize("text", [None, "", "[]"])
def test_records_of_version_0_1_have_no_changes(text: str | None) -> None:
    """A record from before changes were data has none: its words are in its detail."""
    assert from_json(text) == ()
