"""Changes and limits in words: data of the services in, lines of text out. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from bot.credits.limits import RuleSource, Ruling
from bot.gateway.escaping import plain
from bot.moderation.changes import Change, Value, from_json
from bot.text import SETTING_LABELS, exact_duration_text, megapixels_text
from db.audit_records import AuditRecord

TEXT_CHARS_MAX: Final = 1_900  # Discord allows 2,000 a message; the rest is for the lines around
REASON_CHARS_LISTED: Final = 60  # keeps a record on two lines of a phone
DETAIL_CHARS_LISTED: Final = 200  # as much again for what it changed
CHANGES_LISTED: Final = 15  # a reset for everyone may change hundreds of members

#: What each kind of action is called, those of earlier versions included.
ACTION_LABELS: Final = {
    "set": "allowance",
    "server": "limits",
    "option": "options",
    "stop": "server stop",
    "text": "blocklist",
    "untext": "blocklist",
}
_FLAGS: Final = frozenset(
    {"giving", "frozen", "private", "member_blocked", "member_frozen", "role_opens_bot"}
)
_CHANNEL_RULES: Final = {None: "default", False: "not allowed", True: "allowed"}


def changes_text(changes: Iterable[Change]) -> str:
    """Return one line for each change, the first `CHANGES_LISTED` of them."""
    lines = [f"- {_label(c)}: {_value(c, c.before)} → **{_value(c, c.after)}**" for c in changes]
    more = len(lines) - CHANGES_LISTED
    return "\n".join([*lines[:CHANGES_LISTED], *([f"… and {more:,} more"] if more > 0 else [])])


def changes_line(changes: Iterable[Change], *, escape: Callable[[str, int], str] = plain) -> str:
    """Return the changes on one line, texts in them escaped by `escape`."""
    return "; ".join(f"{_label(c, escape)}: {_value(c, c.before)} → {_value(c, c.after)}" for c in changes)


def _label(change: Change, escape: Callable[[str, int], str] = plain) -> str:
    subject = change.subject
    labels = {
        "member_allowance": f"Daily allowance of <@{subject}>",
        "own_allowance": f"Own daily allowance of <@{subject}>",
        "balance": f"Balance of <@{subject}>",
        "allowance_left": f"Daily credits left for <@{subject}>",
        "member_blocked": f"<@{subject}> blocked",
        "member_frozen": f"Credits of <@{subject}> frozen",
        "role_allowance": f"Daily allowance of <@&{subject}>",
        "role_opens_bot": f"Bot restricted to <@&{subject}>",
        "channel_rule": f"<#{subject}>",
        "blocked_text": f"“{escape(str(subject), TEXT_CHARS_MAX)}” in prompts",
    }
    return labels.get(change.field) or setting_label(change.field)


def setting_label(name: str) -> str:
    """Return a server setting's name, to begin a line with."""
    label = SETTING_LABELS[name]
    return label[0].upper() + label[1:]


def _value(change: Change, value: Value) -> str:
    if change.field == "channel_rule":
        return _CHANNEL_RULES[value if value is None else bool(value)]
    if change.field == "blocked_text":
        return "allowed" if value is None else str(value)
    if change.field in {"role_allowance", "own_allowance"} and value is None:
        return "none"
    return setting_value(change.field, value)


def setting_value(name: str, value: Value) -> str:
    """Return a server setting's value, or another amount or flag, as a person would say it."""
    if name in _FLAGS:
        return "yes" if value else "no"
    if name.endswith("channel_id"):
        return "none" if value is None else f"<#{value}>"
    if value is None:
        return "bot default"
    if name == "pixels_max":
        return megapixels_text(int(value))
    if name == "slow_s":
        return exact_duration_text(int(value)) if value else "off"
    return f"{int(value):,}"


def limit_text(name: str, ruling: Ruling) -> str:
    """Return a limit in force with where it comes from: "**10** (set by this server)"."""
    if ruling.amount is None:
        return "**off**" if name == "slow_s" else "**no limit**"
    whose = "set by this server" if ruling.source is RuleSource.SERVER else "bot maximum"
    return f"**{setting_value(name, ruling.amount)}** ({whose})"


def allowance_source_text(ruling: Ruling) -> str:
    """Return which rule gave a member their daily allowance."""
    if ruling.lowered is not None:
        return f"the operator's maximum, instead of {allowance_source_text(ruling.lowered)}"
    role = f"the role <@&{ruling.role_id}>"
    sources = {
        RuleSource.MEMBER: "this member's own allowance",
        RuleSource.ROLE: role,
        RuleSource.BEST_ROLE: f"{role}, the best of this member's roles",
        RuleSource.SERVER: "this server's default",
    }
    return sources.get(ruling.source, "bot default")


def records_text(records: Iterable[AuditRecord]) -> str:
    """Return the records, one a line: when, who, what, whom, from what to what, why."""
    lines = [f"- <t:{int(record.at)}:f> {record_text(record)}" for record in records]
    return within(lines) if lines else "No moderation actions here yet."


def record_text(record: AuditRecord) -> str:
    """Return one record without its time."""
    reason = f" · “{plain(record.reason, REASON_CHARS_LISTED)}”" if record.reason else ""
    label = ACTION_LABELS.get(record.action, record.action)
    return f"<@{record.actor_id}> · **{label}** · {_changed(record)}{reason}"


def _changed(record: AuditRecord) -> str:
    if changes := from_json(record.changes_json):
        return changes_line(changes[:CHANGES_LISTED])
    # Only changes name whom they are about.
    is_member = record.target_id is not None and record.action not in {"role", "channel"}
    target = f"<@{record.target_id}>: " if is_member else ""
    amounts = "" if record.before is None else f"{record.before:,} → {record.after:,}"
    return f"{target}{amounts or plain(record.detail, DETAIL_CHARS_LISTED) or 'no change'}"


def within(parts: Iterable[str], *, separator: str = "\n", chars_max: int = TEXT_CHARS_MAX) -> str:
    """Return as many whole parts as fit into a message; an ellipsis shows that some are missing."""
    shown: list[str] = []
    chars = 0
    for part in parts:
        chars += len(part) + len(separator)
        if chars > chars_max:
            return separator.join([*shown, "…"])
        shown.append(part)
    return separator.join(shown)
