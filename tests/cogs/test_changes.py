"""Changes, limits and audit records in words."""

from typing import Any

import pytest

from bot.credits.limits import RuleSource, Ruling
from bot.moderation.changes import Change, to_json
from bot.text import SETTING_LABELS
from cogs.changes import (
    CHANGES_LISTED,
    TEXT_CHARS_MAX,
    allowance_source_text,
    changes_line,
    changes_text,
    limit_text,
    record_text,
    records_text,
    setting_value,
    within,
)
from db.audit_records import AuditRecord
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in

CHANGES: list[tuple[Change, str]] = [
    (Change("member_allowance", 40, 100, 5), "Daily allowance of <@5>: 40 → **100**"),
    (Change("own_allowance", None, 100, 5), "Own daily allowance of <@5>: none → **100**"),
    (Change("balance", 0, 5000, 5), "Balance of <@5>: 0 → **5,000**"),
    (Change("allowance_left", 38, 40, 5), "Daily credits left for <@5>: 38 → **40**"),
    (Change("member_blocked", False, True, 5), "<@5> blocked: no → **yes**"),
    (Change("member_frozen", 1, 0, 5), "Credits of <@5> frozen: yes → **no**"),
    (Change("role_allowance", None, 9, 6), "Daily allowance of <@&6>: none → **9**"),
    (Change("role_opens_bot", 0, 1, 6), "Bot restricted to <@&6>: no → **yes**"),
    (Change("channel_rule", None, 0, 7), "<#7>: default → **not allowed**"),
    (Change("channel_rule", 0, 1, 7), "<#7>: not allowed → **allowed**"),
    (Change("blocked_text", None, "blocked", "go_ry"), "“go\\_ry” in prompts: allowed → **blocked**"),
    (Change("frozen", 0, 1), "Server stopped: no → **yes**"),
    (Change("daily_cap", None, 100), "Daily server cap: bot default → **100**"),
    (Change("pixels_max", None, 1024 * 1024), "Maximum size: bot default → **1 megapixel**"),
    (Change("slow_s", None, 90), "Slow mode: bot default → **1 min 30 s**"),
    (Change("slow_s", 90, 0), "Slow mode: 1 min 30 s → **off**"),
    (Change("log_channel_id", None, 8), "Log channel: none → **<#8>**"),
    (Change("private", 0, 1), "Private by default: no → **yes**"),
]


@pytest.mark.parametrize(("change", "line"), CHANGES, ids=[line for _, line in CHANGES])
def test_a_change_is_what_it_is_called_before_and_after(change: Change, line: str) -> None:
    """Each kind of change is one line that a moderator reads without knowing the code."""
    assert changes_text([change]) == f"- {line}"
    assert changes_line([change]) == line.replace("**", "")


@pytest.mark.parametrize("name", list(SETTING_LABELS))
def test_every_setting_has_a_value_in_words(name: str) -> None:
    """No setting shows how Python writes it."""
    for value in (None, 0, 1, 300_000):
        assert setting_value(name, value) not in {"None", "True", "False", ""}


@pytest.mark.parametrize(("more", "last"), [(0, None), (1, "… and 1 more"), (2, "… and 2 more")])
def test_many_changes_are_counted(more: int, last: str | None) -> None:
    """A reset for everyone lists the first of them and says how many more there are."""
    changes = [Change("allowance_left", 1, 2, n) for n in range(CHANGES_LISTED + more)]
    lines = changes_text(changes).splitlines()
    assert len(lines) == CHANGES_LISTED + bool(more)
    if last:
        assert lines[-1] == last


@pytest.mark.parametrize(
    ("ruling", "text"),
    [
        (Ruling(40, RuleSource.BOT_DEFAULT), "bot default"),
        (Ruling(40, RuleSource.SERVER), "this server's default"),
        (Ruling(40, RuleSource.MEMBER), "this member's own allowance"),
        (Ruling(40, RuleSource.ROLE, 6), "the role <@&6>"),
        (Ruling(40, RuleSource.BEST_ROLE, 6), "the role <@&6>, the best of this member's roles"),
        (
            Ruling(30, RuleSource.CEILING, lowered=Ruling(40, RuleSource.SERVER)),
            "the operator's maximum, instead of this server's default",
        ),
    ],
)
def test_the_rule_behind_an_allowance_is_named(ruling: Ruling, text: str) -> None:
    """A moderator finds where to change it."""
    assert allowance_source_text(ruling) == text


@pytest.mark.parametrize(
    ("name", "ruling", "text"),
    [
        ("daily_cap", Ruling(None, RuleSource.NONE), "**no limit**"),
        ("slow_s", Ruling(None, RuleSource.NONE), "**off**"),
        ("daily_cap", Ruling(0, RuleSource.SERVER), "**0** (set by this server)"),
        ("steps_max", Ruling(100, RuleSource.CEILING), "**100** (bot maximum)"),
        ("slow_s", Ruling(60, RuleSource.SERVER), "**1 min** (set by this server)"),
    ],
)
def test_a_limit_says_who_set_it(name: str, ruling: Ruling, text: str) -> None:
    """Without a limit it says so, once."""
    assert limit_text(name, ruling) == text


def _record(**changes: Any) -> AuditRecord:
    given: dict[str, Any] = {
        "interaction_id": 1,
        "guild_id": 2,
        "actor_id": 9,
        "target_id": 5,
        "action": "grant",
        "before": None,
        "after": None,
        "reason": "",
        "at": 0.0,
        **changes,
    }
    return AuditRecord(**given)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"changes_json": to_json((Change("balance", 0, 5, 5),)), "before": 0, "reason": "a prize"},
            "<@9> · **grant** · Balance of <@5>: 0 → 5 · “a prize”",
        ),
        (
            {
                "action": "give",
                "changes_json": to_json((Change("balance", 9, 5, 9), Change("balance", 0, 4, 5))),
                "before": 9,
                "after": 5,
            },
            "<@9> · **give** · Balance of <@9>: 9 → 5; Balance of <@5>: 0 → 4",
        ),
        ({"changes_json": "[]", "action": "block"}, "<@9> · **block** · <@5>: no change"),
        ({"changes_json": "[]", "action": "stop", "target_id": None}, "<@9> · **server stop** · no change"),
        ({"changes_json": "[]", "action": "role"}, "<@9> · **role** · no change"),
        ({"before": 0, "after": 25, "reason": "a prize"}, "<@9> · **grant** · <@5>: 0 → 25 · “a prize”"),
        ({"detail": "The most steps: 5", "action": "option"}, "<@9> · **options** · <@5>: The most steps: 5"),
    ],
)  # fmt: skip
def test_a_record_says_who_did_what_to_whom(changes: dict[str, Any], line: str) -> None:
    """Records of this version list their changes; those of version 0.1 show what they have."""
    assert record_text(_record(**changes)) == line


def test_texts_in_records_never_act() -> None:
    """Reasons, blocked words and the words of version 0.1 are shown as text, on one line each."""
    for text in HOSTILE_TEXTS:
        change = to_json((Change("blocked_text", None, "blocked", text),))
        for record in (_record(reason=text, detail=text), _record(changes_json=change, reason=text)):
            shown = records_text([record])
            assert acting_in(shown) == []
            assert "\n" not in shown
        assert acting_in(changes_text([Change("blocked_text", None, "blocked", text)])) == []


def test_mentions_that_version_0_1_wrote_are_shown_as_text() -> None:
    """Nobody can tell the bot's own mentions in an old record from a moderator's."""
    assert record_text(_record(detail="<@5>: blocked")).endswith("<@5>: \\<@\u200b5\\>: blocked")


def test_no_records_say_so() -> None:
    """An empty list is a sentence."""
    assert records_text([]) == "No moderation actions here yet."


@pytest.mark.parametrize("parts", [0, 1, 2, 100])
def test_only_whole_parts_are_shown(parts: int) -> None:
    """What doesn't fit is left out, and an ellipsis says so."""
    text = within(["x" * 99] * parts)
    assert len(text) <= TEXT_CHARS_MAX + 1
    assert text.endswith("…") is (parts == 100)
    assert set(text.splitlines()) <= {"x" * 99, "…"}
