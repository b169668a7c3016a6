"""Jobs and their results: rows as frozen objects, and every change of a job's state.

Functions take the connection of a running unit (see `Database.write`). A change of
state returns whether it happened: False means that the job was no longer where the
caller believed, and nothing was changed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Final, Literal

from db.operations import Operation

Cancellable = Literal["queued", "sending"]
State = Literal["queued", "sending", "rendered", "delivered", "undeliverable", "failed", "cancelled"]

ATTEMPTS_MAX: Final = 2  # one retry: each costs the operator a picture that may have been made already
#: SQLite's integers end here, Discord's ids far before: what is beyond was forged.
ID_END: Final = 2**63


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as stored.

    Times are seconds since 1970. `params_json` is the options' JSON (see `Img2ImgParams`), `source_url` or
    `source_hash` where the input comes from, `input_hash` the normalised input in the
    picture store (None until it is there), `price` the most it may cost and `charged`
    what it did cost. `token` is the interaction's, good until `token_expires_at`.
    `age_restricted`: it was requested in an age-restricted channel; `results_channel_id` is where
    its server wants pictures, if not where they are requested.
    """

    id: int
    guild_id: int
    user_id: int
    channel_id: int
    operation: Operation
    params_json: str
    created_at: float
    message_id: int | None = None
    token: str | None = None
    token_expires_at: float | None = None
    private: bool = False
    state: State = "queued"
    attempt: int = 0
    parent_id: int | None = None
    parent_sample: int | None = None
    source_url: str | None = None
    source_hash: str | None = None
    input_hash: str | None = None
    input_pixels: int | None = None
    price: int = 0
    charged: int | None = None
    day: int = 0
    backend: str | None = None
    failure: str | None = None
    started_at: float | None = None
    rendered_at: float | None = None
    ended_at: float | None = None
    deleted_at: float | None = None
    age_restricted: bool = False
    results_channel_id: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One picture of a job: its index in the request, its seed, its hash in the picture store."""

    job_id: int
    sample: int
    seed: int
    hash: str
    width: int
    height: int


_COLUMNS = tuple(field.name for field in fields(Job))
_INSERT = f"INSERT INTO job ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"  # noqa: S608 - column names only


def insert(tx: sqlite3.Connection, job: Job) -> None:
    """Store a new job. Raises `sqlite3.IntegrityError` if there is one of this id."""
    tx.execute(_INSERT, {name: getattr(job, name) for name in _COLUMNS})


def get(tx: sqlite3.Connection, job_id: int) -> Job | None:
    """Return the job, or None."""
    row = tx.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
    return _job(row) if row else None


def _job(row: sqlite3.Row) -> Job:
    flags = {name: bool(row[name]) for name in ("private", "age_restricted")}
    return Job(**{**dict(row), **flags, "operation": Operation(row["operation"])})


def id_of_message(tx: sqlite3.Connection, *, guild_id: int, message_id: int) -> int | None:
    """Return the id of the job that this message shows, None if it shows none."""
    row = tx.execute(
        "SELECT id FROM job WHERE (guild_id, message_id) = (?, ?)", (guild_id, message_id)
    ).fetchone()
    return row[0] if row else None


def results(tx: sqlite3.Connection, job_id: int) -> tuple[Result, ...]:
    """Return a job's pictures in the order of the samples."""
    rows = tx.execute("SELECT * FROM result WHERE job_id = ? ORDER BY sample", (job_id,))
    return tuple(Result(**dict(row)) for row in rows)


def list_unfinished(tx: sqlite3.Connection) -> list[Job]:
    """Return every job that has not ended, oldest first: what a start resumes."""
    rows = tx.execute(
        "SELECT * FROM job WHERE state IN ('queued', 'sending', 'rendered') ORDER BY created_at, id"
    )
    return [_job(row) for row in rows]


def recently_ended(tx: sqlite3.Connection, *, within_s: float) -> list[Job]:
    """Return the jobs that ended without a picture in the last `within_s` before the newest end.

    After a restart, those are the ends that a crash may have kept from being shown.
    """
    rows = tx.execute(
        "SELECT * FROM job WHERE state IN ('failed', 'cancelled')"
        " AND ended_at >= (SELECT max(ended_at) FROM job) - ? ORDER BY ended_at, id",
        (within_s,),
    )
    return [_job(row) for row in rows]


def list_for_member(tx: sqlite3.Connection, *, guild_id: int, user_id: int, limit: int) -> list[Job]:
    """Return a member's latest jobs that have a picture which was not deleted, newest first."""
    rows = tx.execute(
        "SELECT * FROM job WHERE guild_id = ? AND user_id = ? AND deleted_at IS NULL"
        " AND state IN ('rendered', 'delivered', 'undeliverable') ORDER BY created_at DESC LIMIT ?",
        (guild_id, user_id, limit),
    )
    return [_job(row) for row in rows]


def hashes_to_keep(tx: sqlite3.Connection, *, since: float) -> set[str]:
    """Return the hashes of all pictures that belong to unfinished jobs or ones made after `since`."""
    rows = tx.execute(
        """
        WITH kept AS (SELECT id, input_hash, source_hash FROM job
            WHERE state IN ('queued', 'sending', 'rendered') OR (created_at >= ?1 AND deleted_at IS NULL))
        SELECT input_hash FROM kept UNION SELECT source_hash FROM kept
        UNION SELECT hash FROM result WHERE job_id IN (SELECT id FROM kept)
        """,
        (since,),
    )
    return {row[0] for row in rows if row[0]}


def set_message(tx: sqlite3.Connection, *, job_id: int, message_id: int, channel_id: int) -> None:
    """Store which message shows the job."""
    tx.execute("UPDATE job SET message_id = ?, channel_id = ? WHERE id = ?", (message_id, channel_id, job_id))


def set_input(tx: sqlite3.Connection, *, job_id: int, input_hash: str, pixels: int) -> bool:
    """Store the normalised input of a job that still waits."""
    return _changed(
        tx,
        "UPDATE job SET input_hash = ?, input_pixels = ? WHERE id = ? AND state = 'queued'",
        (input_hash, pixels, job_id),
    )


def mark_deleted(tx: sqlite3.Connection, *, job_id: int, now: float) -> None:
    """Remove the job's pictures from the history; retention removes them from disk."""
    tx.execute("UPDATE job SET deleted_at = ? WHERE id = ?", (now, job_id))


def mark_sending(tx: sqlite3.Connection, *, job_id: int, backend: str, now: float) -> bool:
    """Go from queued to sending: from here on the provider may have been called."""
    return _changed(
        tx,
        "UPDATE job SET state = 'sending', attempt = attempt + 1, backend = ?, started_at = ?"
        " WHERE id = ? AND state = 'queued' AND attempt < ?",
        (backend, now, job_id, ATTEMPTS_MAX),
    )


def mark_queued_again(tx: sqlite3.Connection, *, job_id: int) -> bool:
    """Go back from sending to queued, while an attempt is left."""
    return _changed(
        tx,
        "UPDATE job SET state = 'queued' WHERE id = ? AND state = 'sending' AND attempt < ?",
        (job_id, ATTEMPTS_MAX),
    )


def mark_rendered(
    tx: sqlite3.Connection, *, job_id: int, pictures: tuple[Result, ...], charged: int, now: float
) -> bool:
    """Go from sending to rendered. The pictures must be on disk and the transfers settled."""
    tx.executemany(
        "INSERT INTO result (job_id, sample, seed, hash, width, height) VALUES (?, ?, ?, ?, ?, ?)",
        [(p.job_id, p.sample, p.seed, p.hash, p.width, p.height) for p in pictures],
    )
    return _changed(
        tx,
        "UPDATE job SET state = 'rendered', charged = ?, rendered_at = ? WHERE id = ? AND state = 'sending'",
        (charged, now, job_id),
    )


def mark_failed(tx: sqlite3.Connection, *, job_id: int, failure: str, now: float) -> bool:
    """End a job that made no picture, with the sentence its requester is shown."""
    return _changed(
        tx,
        "UPDATE job SET state = 'failed', failure = ?, ended_at = ?"
        " WHERE id = ? AND state IN ('queued', 'sending')",
        (failure, now, job_id),
    )


def mark_cancelled(tx: sqlite3.Connection, *, job_id: int, from_state: Cancellable, now: float) -> bool:
    """End a job that its requester no longer wants, if it is still in `from_state`."""
    return _changed(
        tx,
        "UPDATE job SET state = 'cancelled', ended_at = ? WHERE id = ? AND state = ?",
        (now, job_id, from_state),
    )


def mark_delivered(tx: sqlite3.Connection, *, job_id: int, now: float) -> bool:
    """Go to delivered: the picture was posted."""
    return _changed(
        tx,
        "UPDATE job SET state = 'delivered', ended_at = ?"
        " WHERE id = ? AND state IN ('rendered', 'undeliverable')",
        (now, job_id),
    )


def mark_undeliverable(tx: sqlite3.Connection, *, job_id: int, now: float) -> bool:
    """Go from rendered to undeliverable: there is nowhere to post it, so it stays in the history."""
    return _changed(
        tx,
        "UPDATE job SET state = 'undeliverable', ended_at = ? WHERE id = ? AND state = 'rendered'",
        (now, job_id),
    )


def _changed(tx: sqlite3.Connection, sql: str, values: tuple[object, ...]) -> bool:
    return tx.execute(sql, values).rowcount == 1


def count_open(tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> int:
    """Return how many of the member's jobs wait or run in the server."""
    row = tx.execute(
        "SELECT count(*) FROM job WHERE (guild_id, user_id) = (?, ?) AND state IN ('queued', 'sending')",
        (guild_id, user_id),
    ).fetchone()
    return int(row[0])


def count_all(tx: sqlite3.Connection) -> int:
    """Return how many jobs are stored."""
    return int(tx.execute("SELECT count(*) FROM job").fetchone()[0])


def last_accepted_at(tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> float | None:
    """Return when the member's last job that was neither cancelled nor failed was accepted."""
    row = tx.execute(
        "SELECT max(created_at) FROM job WHERE (guild_id, user_id) = (?, ?)"
        " AND state NOT IN ('failed', 'cancelled')",
        (guild_id, user_id),
    ).fetchone()
    at: float | None = row[0]
    return at


def top_spenders(
    tx: sqlite3.Connection, *, guild_id: int, since: float, limit: int
) -> list[tuple[int, int, int]]:
    """Return (member, credits, jobs) of those who paid most for pictures since then, most first."""
    rows = tx.execute(
        "SELECT user_id, sum(charged), count(*) FROM job WHERE guild_id = ? AND created_at >= ?"
        " AND charged > 0 GROUP BY user_id ORDER BY 2 DESC, 1 LIMIT ?",
        (guild_id, since, limit),
    )
    return [(row[0], row[1], row[2]) for row in rows]
