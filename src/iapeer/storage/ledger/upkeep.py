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

PURGE_ROWS = 250
"""Most rows of one kind that one purge forgets: it holds up everybody who writes meanwhile.

Measured with 1,000,000 messages: 250 messages and 250 bodies take 65 ms, half of them the commit.
"""

PURGE_BYTES = 4 << 20
"""A purge begins no further message after bodies of so many characters: long ones cost more.

SQLite may be built to overwrite what it frees; measured: 25 to 60 ms for 4 bodies of 1 MiB.
"""

# Still somebody's duty: undelivered, or landed in a session that may yet prove or lose it.
_IN_USE = (
    f"({UNDELIVERED_SQL} OR (state = 'landed' AND final = 0 AND EXISTS"
    " (SELECT 1 FROM sessions WHERE id = messages.session_id AND ended_at IS NULL)))"
)
# Its index is named: a condition it can't serve then fails instead of reading everything.
_OLD_SQL = (
    "SELECT seq, length(body) FROM messages INDEXED BY messages_age"
    f" WHERE purged = ? AND accepted_at <= ? AND NOT {_IN_USE} ORDER BY accepted_at LIMIT ?"
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
    and so do landed ones while their session lives. The oldest go first, at most `PURGE_ROWS` of a
    kind: what is left is the next purge's, and one that forgot nothing has left nothing.
    """
    old = now - metadata_retention_s
    gone = _old_messages(conn, (1, 0), old)
    conn.executemany("DELETE FROM messages WHERE seq = ?", gone)
    bare = _old_messages(conn, (0,), now - body_retention_s)
    conn.executemany(
        "UPDATE messages SET body = '', attachments = '[]', purged = 1 WHERE seq = ?", bare
    )
    return Purged(
        bodies=len(bare),
        messages=len(gone),
        keys=_delete_old(conn, "keys", "caller, key", "created_at", now - KEY_LIFE_S),
        sessions=_delete_old(conn, "sessions", "id", "ended_at", old),
        deaths=_delete_old(conn, "deaths", "n", "at", old)
        + _delete_old(conn, "postmortems", "session_id", "at", old),
    )


def _old_messages(
    conn: sqlite3.Connection, purged: tuple[int, ...], until: float
) -> list[tuple[int]]:
    """Return the numbers of what is that old and nobody's duty, oldest first, as much as is due."""
    found: list[tuple[int]] = []
    size = 0
    for flag in purged:
        for seq, length in conn.execute(_OLD_SQL, (flag, until, PURGE_ROWS - len(found))):
            found.append((seq,))
            size += length
            if size >= PURGE_BYTES:
                return found
    return found


def _delete_old(conn: sqlite3.Connection, table: str, key: str, column: str, until: float) -> int:
    return conn.execute(
        f"DELETE FROM {table} WHERE ({key}) IN"
        f" (SELECT {key} FROM {table} WHERE {column} <= ? ORDER BY {column} LIMIT ?)",
        (until, PURGE_ROWS),
    ).rowcount
