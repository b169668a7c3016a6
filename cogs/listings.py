"""Lists and tables of what was done and what members have: rows in, text or a file out. No I/O here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import discord

from bot.text import counted, credits_text
from cogs.text import plain
from db.ledger import Account, Entry
from db.members import Act

REASON_CHARS_LISTED: Final = 60
DETAIL_CHARS_LISTED: Final = 200
TEXT_CHARS_MAX: Final = 1_900
#: What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def acts_text(acts: Iterable[Act]) -> str:
    """Return the acts, one a line: when, who, what, whom, from what to what, why."""
    lines = [_act_line(act) for act in acts]
    return _within(lines) if lines else "Nothing is on record here yet."


def _act_line(act: Act) -> str:
    return f"<t:{int(act.at)}:f> {act_text(act)}"


def act_text(act: Act) -> str:
    """Return one act without its time."""
    reason = f" · “{plain(act.reason, REASON_CHARS_LISTED)}”" if act.reason else ""
    return f"<@{act.actor_id}> **{act.action}**{_target(act)}{_changed(act)}{reason}"


def _target(act: Act) -> str:
    is_member = act.target_id is not None and act.action not in {"role", "channel"}
    return f" <@{act.target_id}>" if is_member else ""


def _changed(act: Act) -> str:
    if act.before is not None:
        return f": {act.before:,} → {act.after:,}"
    return f": {act.detail[:DETAIL_CHARS_LISTED]}" if act.detail else ""


def board_text(board: list[tuple[int, int, int]], days: int) -> str:
    """Return who spent most, from (member, credits, pictures asked for)."""
    if not board:
        return f"Nobody has spent credits here in the last {days} days."
    lines = [
        f"{place}. <@{user_id}> · {credits_text(spent)} · {counted(jobs, 'job')}"
        for place, (user_id, spent, jobs) in enumerate(board, start=1)
    ]
    return _within([f"Most spent in the last {days} days:", *lines])


def statement_lines(entries: Iterable[Entry]) -> list[str]:
    """Return a member's transfers, one a line."""
    return [
        f"<t:{int(entry.at)}:R> **{entry.amount:+,}** · {plain(entry.reason, REASON_CHARS_LISTED)}"
        f"{' · on hold' if entry.state == 'pending' else ''}"
        for entry in entries
    ]


def _within(lines: list[str]) -> str:
    text = ""
    for line in lines:
        if len(text) + len(line) > TEXT_CHARS_MAX:
            return f"{text}…"
        text += f"{line}\n"
    return text


# ----------------------------------------------------------------------------- tables


def acts_csv(acts: Iterable[Act]) -> discord.File:
    """Return the acts as a table, newest first; times in UTC."""
    header = ("time", "actor", "target", "action", "before", "after", "detail", "reason")
    rows = (
        (_time(a.at), a.actor_id, a.target_id, a.action, a.before, a.after, a.detail, a.reason) for a in acts
    )
    return _table("acts.csv", header, rows)


def holdings_csv(accounts: Iterable[Account]) -> discord.File:
    """Return the members' accounts as a table."""
    header = ("member", "account", "credits", "on hold", "frozen")
    rows = ((a.user_id, a.kind, a.posted, a.held, "yes" if a.frozen else "no") for a in accounts)
    return _table("credits.csv", header, rows)


def _table(name: str, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> discord.File:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    return discord.File(io.BytesIO(out.getvalue().encode()), name)


def safe_cell(value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula, an id for a rounded number."""
    text = "" if value is None else str(value)
    is_id = isinstance(value, int) and len(text) > 15  # noqa: PLR2004 - digits that a spreadsheet keeps
    return f"'{text}" if is_id or text.startswith(_FORMULA) else text


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
