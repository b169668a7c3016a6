"""Double entry with holds: accounts and transfers (TigerBeetle's two-phase transfer).

Every function takes the connection of a running unit (see `Database.write`) and is
one step of that unit's transaction. Credits are whole numbers.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from typing import Literal

AccountKind = Literal["mint", "user", "allowance", "provider"]


class InsufficientCredits(Exception):
    """The source account has less available than the transfer needs."""


class AccountFrozen(Exception):
    """One of the two accounts is frozen."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account: `posted` is what is in it, `held` the part of it set aside for pending transfers."""

    id: int
    kind: str
    guild_id: int
    user_id: int
    posted: int
    held: int
    frozen: bool

    @property
    def available(self) -> int:
        """Credits that can be spent now."""
        return self.posted - self.held


@dataclass(frozen=True, slots=True)
class NewTransfer:
    """A transfer of `amount` credits from account `src` to account `dst`, to be made.

    `id` is the idempotency key; `now` is in seconds since 1970.
    """

    id: str
    src: int
    dst: int
    amount: int
    actor_id: int
    reason: str
    now: float
    job_id: int | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer as stored; `charged` is what was posted of its amount."""

    id: str
    src: int
    dst: int
    amount: int
    charged: int | None
    state: str
    job_id: int | None
    actor_id: int
    reason: str
    created_at: float
    settled_at: float | None


def get_or_create_account(
    tx: sqlite3.Connection, *, kind: AccountKind, guild_id: int = 0, user_id: int = 0
) -> Account:
    """Return the account, created empty if there is none yet."""
    key = (kind, guild_id, user_id)
    row = _find(tx, key)
    if row is None:
        tx.execute("INSERT INTO account (kind, guild_id, user_id) VALUES (?, ?, ?)", key)
        row = _find(tx, key)
    assert row is not None  # noqa: S101 - just inserted
    return _account(row)


def peek_account(tx: sqlite3.Connection, *, kind: AccountKind, guild_id: int, user_id: int) -> Account:
    """Return the account without creating it; one that does not exist reads as empty, with id 0."""
    row = _find(tx, (kind, guild_id, user_id))
    return _account(row) if row else Account(0, kind, guild_id, user_id, 0, 0, frozen=False)


def _find(tx: sqlite3.Connection, key: tuple[str, int, int]) -> sqlite3.Row | None:
    row: sqlite3.Row | None = tx.execute(
        "SELECT * FROM account WHERE (kind, guild_id, user_id) = (?, ?, ?)", key
    ).fetchone()
    return row


def _account(row: sqlite3.Row) -> Account:
    return Account(**{**dict(row), "frozen": bool(row["frozen"])})


def set_frozen(tx: sqlite3.Connection, *, account_id: int, frozen: bool) -> None:
    """Freeze an account, so that nothing more goes in or out, or unfreeze it."""
    tx.execute("UPDATE account SET frozen = ? WHERE id = ?", (int(frozen), account_id))


def hold(tx: sqlite3.Connection, transfer: NewTransfer) -> None:
    """Reserve the transfer's amount in its source account until it is posted or voided.

    Raises `InsufficientCredits` or `AccountFrozen`, and `sqlite3.IntegrityError` for an id that exists.
    """
    try:
        tx.execute(
            "INSERT INTO transfer (id, src, dst, amount, state, job_id, actor_id, reason, created_at)"
            " VALUES (:id, :src, :dst, :amount, 'pending', :job_id, :actor_id, :reason, :now)",
            asdict(transfer),
        )
    except sqlite3.IntegrityError as error:
        if "enough_credits" in str(error):
            raise InsufficientCredits from error
        if "frozen" in str(error):
            raise AccountFrozen from error
        raise


def post(tx: sqlite3.Connection, *, transfer_id: str, charged: int, now: float) -> None:
    """Move `charged` (1 to the amount held) and release the rest. Final."""
    _settle(tx, transfer_id, "posted", charged, now)


def void(tx: sqlite3.Connection, *, transfer_id: str, now: float) -> None:
    """Release the whole hold. Final."""
    _settle(tx, transfer_id, "voided", None, now)


def _settle(tx: sqlite3.Connection, transfer_id: str, state: str, charged: int | None, now: float) -> None:
    changed = tx.execute(
        "UPDATE transfer SET state = ?, charged = ?, settled_at = ? WHERE id = ?",
        (state, charged, now, transfer_id),
    ).rowcount
    if changed != 1:
        raise LookupError(f"no transfer {transfer_id}")


def move(tx: sqlite3.Connection, transfer: NewTransfer) -> None:
    """Hold and post in one step. Raises as `hold`."""
    hold(tx, transfer)
    post(tx, transfer_id=transfer.id, charged=transfer.amount, now=transfer.now)


def transfers_of_job(tx: sqlite3.Connection, job_id: int) -> list[Transfer]:
    """Return a job's transfers in the order they were made: allowance first, then balance."""
    rows = tx.execute("SELECT * FROM transfer WHERE job_id = ? ORDER BY rowid", (job_id,))
    return [Transfer(**dict(row)) for row in rows]


def is_pending(tx: sqlite3.Connection, transfer_id: str) -> bool:
    """Return whether the transfer is a hold that was neither posted nor voided."""
    query = "SELECT 1 FROM transfer WHERE id = ? AND state = 'pending'"
    return tx.execute(query, (transfer_id,)).fetchone() is not None


def pending_before(tx: sqlite3.Connection, at: float) -> list[str]:
    """Return the ids of the holds from before that time (seconds since 1970) that are still pending."""
    rows = tx.execute("SELECT id FROM transfer WHERE state = 'pending' AND created_at < ?", (at,))
    return [row["id"] for row in rows]


def reconcile(tx: sqlite3.Connection) -> list[str]:
    """Recompute the ledger from its transfers; return one sentence for each inconsistency."""
    faults = []
    total = tx.execute("SELECT coalesce(sum(posted), 0) FROM account").fetchone()[0]
    if total != 0:
        faults.append(f"The ledger sums to {total}, not to zero.")
    wrong = tx.execute(
        """
        SELECT a.id, a.kind, a.guild_id, a.user_id FROM account a WHERE a.posted <>
            (SELECT coalesce(sum(charged), 0) FROM transfer WHERE dst = a.id)
          - (SELECT coalesce(sum(charged), 0) FROM transfer WHERE src = a.id)
        OR a.held <> (SELECT coalesce(sum(amount), 0) FROM transfer WHERE src = a.id AND state = 'pending')
        """
    )
    faults += [
        f"Account {row['id']} ({row['kind']} of member {row['user_id']} in server {row['guild_id']})"
        " does not match its transfers."
        for row in wrong
    ]
    faults += _unsettled_jobs(tx)
    faults += _wrong_spending(tx)
    return faults


def _unsettled_jobs(tx: sqlite3.Connection) -> list[str]:
    rows = tx.execute(
        """
        SELECT DISTINCT j.id, j.state FROM job j JOIN transfer t ON t.job_id = j.id
        WHERE (j.state IN ('queued', 'sending')) <> (t.state = 'pending')
        """
    )
    return [f"Job {row['id']} is {row['state']}, but its hold does not match that." for row in rows]


def _wrong_spending(tx: sqlite3.Connection) -> list[str]:
    """Compare each day's count with the transfers it was counted from."""
    rows = tx.execute(
        """
        WITH paid AS (
            SELECT job.day AS day, job.guild_id AS guild_id, sum(coalesce(t.charged, t.amount)) AS amount
            FROM transfer t JOIN job ON job.id = t.job_id WHERE t.state <> 'voided' GROUP BY 1, 2),
        due AS (SELECT * FROM paid UNION ALL SELECT day, 0, sum(amount) FROM paid GROUP BY day)
        SELECT s.day, s.guild_id FROM spending s LEFT JOIN due USING (day, guild_id)
            WHERE s.amount <> coalesce(due.amount, 0)
        UNION SELECT due.day, due.guild_id FROM due LEFT JOIN spending s USING (day, guild_id)
            WHERE s.amount IS NULL
        """
    )
    return [f"Spending of server {row['guild_id']} on day {row['day']} was counted wrong." for row in rows]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A transfer as its owner sees it: `amount` above 0 came in, below 0 went out; a hold is `pending`."""

    kind: str
    amount: int
    state: str
    reason: str
    actor_id: int
    at: float


def member_entries(tx: sqlite3.Connection, *, guild_id: int, user_id: int, limit: int) -> list[LedgerEntry]:
    """Return the latest transfers from and to a member's two accounts, newest first, voided ones left out."""
    rows = tx.execute(
        """
        SELECT a.kind AS kind, t.state, t.reason, t.actor_id, t.created_at AS at,
            CASE WHEN t.dst = a.id THEN 1 ELSE -1 END * coalesce(t.charged, t.amount) AS amount
        FROM account a JOIN transfer t ON a.id IN (t.src, t.dst)
        WHERE (a.guild_id, a.user_id) = (?, ?) AND a.kind IN ('user', 'allowance') AND t.state <> 'voided'
        ORDER BY t.rowid DESC LIMIT ?
        """,
        (guild_id, user_id, limit),
    )
    names = ("kind", "amount", "state", "reason", "actor_id", "at")
    return [LedgerEntry(**{name: row[name] for name in names}) for row in rows]


def member_accounts(tx: sqlite3.Connection, guild_id: int) -> list[Account]:
    """Return the accounts of the server's members, by member."""
    rows = tx.execute(
        "SELECT * FROM account WHERE guild_id = ? AND kind IN ('user', 'allowance') ORDER BY user_id, kind",
        (guild_id,),
    )
    return [_account(row) for row in rows]
