"""Tables for spreadsheets (CSV): rows in, a file out. No I/O here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import discord

from bot.gateway.escaping import one_line
from bot.moderation.changes import from_json
from cogs.changes import changes_line
from db.audit_records import AuditRecord
from db.ledger import Account

#: What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@")
_EXACT_DIGITS: Final = 15  # spreadsheets round longer numbers
_CELL_CHARS_MAX: Final = 32_767  # Excel cuts longer cells


def records_csv(records: Iterable[AuditRecord]) -> discord.File:
    """Return the audit records as a table, newest first; times in UTC."""
    header = ("time", "actor", "target", "action", "before", "after", "detail", "reason")
    rows = (
        (_time(r.at), r.actor_id, r.target_id, r.action, r.before, r.after, _detail(r), r.reason)
        for r in records
    )
    return _table("audit.csv", header, rows)


def _detail(record: AuditRecord) -> str:
    return record.detail or changes_line(from_json(record.changes_json), escape=one_line)


def accounts_csv(accounts: Iterable[Account]) -> discord.File:
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
    """Return one line that no spreadsheet takes for a formula, nor an id for a number to round."""
    text = "" if value is None else one_line(str(value), _CELL_CHARS_MAX)
    is_id = isinstance(value, int) and len(text) > _EXACT_DIGITS
    return f"'{text}" if is_id or text.startswith(_FORMULA) else text


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
