"""Idempotency keys, and forgetting what has outlived its retention.

The functions run inside the caller's transaction; `now` is seconds since the epoch.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this package only; values are bound.
from __future__ import annotations

import sqlite3

from .rows import KeyRow, Purged
from .schema import UNDELIVERED_SQL

KEY_LIFE_S = 86400.0
"""How long a key is remembered."""

# Still somebody's duty: undelivered, or landed in a session that may yet prove or lose it.
_IN_USE = (
    f"({UNDELIVERED_SQL} OR (state = 'landed' AND final = 0 AND session_id IN"
    " (SELECT id FROM sessions WHERE ended_at IS NULL)))"
)


def find_key(conn: sqlite3.Connection, caller: str, key: str, now: float) -> KeyRow | None:
    """Return what `key` of `caller` stands for, or None when it is new or older than 24 h."""
    found = conn.execute(
        "SELECT caller, key, recipient, body_sha256, message_id, created_at FROM keys"
        " WHERE caller = ? AND key = ? AND created_at > ?",
        (caller, key, now - KEY_LIFE_S),
    ).fetchone()
    if found is None:
        return None
    return KeyRow(
        caller=found[0],
        key=found[1],
        to=found[2],
        body_sha256=found[3],
        message_id=found[4],
        created_at=found[5],
    )


def remember_key(  # noqa: PLR0913, PLR0917 - one row, column by column
    conn: sqlite3.Connection,
    caller: str,
    key: str,
    to: str,
    body_sha256: str,
    message_id: str,
    now: float,
) -> None:
    """Let `key` of `caller` stand for a message for 24 h; belongs into the accept's transaction.

    Raises sqlite3.IntegrityError when the key stands for something already.
    """
    conn.execute(
        "DELETE FROM keys WHERE caller = ? AND key = ? AND created_at <= ?",
        (caller, key, now - KEY_LIFE_S),
    )
    conn.execute(
        "INSERT INTO keys (caller, key, recipient, body_sha256, message_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (caller, key, to, body_sha256, message_id, now),
    )


def purge(
    conn: sqlite3.Connection, now: float, body_retention_s: float, metadata_retention_s: float
) -> Purged:
    """Forget bodies, and later whole messages, ended sessions and deaths, by their age.

    Age counts from acceptance, end and death. Undelivered messages stay whole whatever their age,
    and so do landed ones while their session lives.
    """
    old = now - metadata_retention_s
    messages = conn.execute(
        f"DELETE FROM messages WHERE accepted_at <= ? AND NOT {_IN_USE}", (old,)
    ).rowcount
    bodies = conn.execute(
        "UPDATE messages SET body = '', attachments = '[]', purged = 1"
        f" WHERE accepted_at <= ? AND purged = 0 AND NOT {_IN_USE}",
        (now - body_retention_s,),
    ).rowcount
    keys = conn.execute("DELETE FROM keys WHERE created_at <= ?", (now - KEY_LIFE_S,)).rowcount
    sessions = conn.execute("DELETE FROM sessions WHERE ended_at <= ?", (old,)).rowcount
    deaths = conn.execute("DELETE FROM deaths WHERE at <= ?", (old,)).rowcount
    conn.execute("DELETE FROM postmortems WHERE at <= ?", (old,))
    return Purged(bodies=bodies, messages=messages, keys=keys, sessions=sessions, deaths=deaths)
