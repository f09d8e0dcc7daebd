"""Marks of an identity (stopped, armed, fresh-next, ...) and the deaths of its sessions.

The functions run inside the caller's transaction; `now` is seconds since the epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from .rows import DeathRow, MarkRow


def set_mark(  # noqa: PLR0913, PLR0917 - one row, column by column
    conn: sqlite3.Connection, uid: str, runtime: str, mark: str, now: float, value: str = ""
) -> None:
    """Set a mark; one that is set already gets the new time and value."""
    conn.execute(
        "INSERT INTO marks (uid, runtime, mark, set_at, value) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (uid, runtime, mark) DO UPDATE"
        " SET set_at = excluded.set_at, value = excluded.value",
        (uid, runtime, mark, now, value),
    )


def clear_mark(conn: sqlite3.Connection, uid: str, runtime: str, mark: str) -> bool:
    """Take a mark away; return whether it was set."""
    changed = conn.execute(
        "DELETE FROM marks WHERE uid = ? AND runtime = ? AND mark = ?", (uid, runtime, mark)
    ).rowcount
    return changed > 0


def has_mark(conn: sqlite3.Connection, uid: str, runtime: str, mark: str) -> bool:
    """Tell whether a mark is set."""
    found = conn.execute(
        "SELECT 1 FROM marks WHERE uid = ? AND runtime = ? AND mark = ?", (uid, runtime, mark)
    ).fetchone()
    return found is not None


def marks_of(conn: sqlite3.Connection, uid: str, runtime: str | None = None) -> list[MarkRow]:
    """Return the marks of an identity, or of a peer's every runtime, by runtime and name."""
    found = conn.execute(
        "SELECT uid, runtime, mark, set_at, value FROM marks"
        " WHERE uid = :uid AND (:runtime IS NULL OR runtime = :runtime) ORDER BY runtime, mark",
        {"uid": uid, "runtime": runtime},
    )
    return [MarkRow(uid=u, runtime=r, mark=m, set_at=t, value=v) for u, r, m, t, v in found]


def marks_named(conn: sqlite3.Connection, mark: str) -> list[MarkRow]:
    """Return every identity's mark of that name, by peer and runtime."""
    found = conn.execute(
        "SELECT uid, runtime, mark, set_at, value FROM marks WHERE mark = ? ORDER BY uid, runtime",
        (mark,),
    )
    return [
        MarkRow(uid=uid, runtime=runtime, mark=name, set_at=set_at, value=value)
        for uid, runtime, name, set_at, value in found
    ]


def record_death(  # noqa: PLR0913, PLR0917 - one row, column by column
    conn: sqlite3.Connection, uid: str, runtime: str, kind: str, now: float, detail: str
) -> None:
    """Record one death of a session or boot."""
    conn.execute(
        "INSERT INTO deaths (uid, runtime, kind, at, detail) VALUES (?, ?, ?, ?, ?)",
        (uid, runtime, kind, now, detail),
    )


def deaths_since(
    conn: sqlite3.Connection, uid: str, runtime: str, since: float, kinds: Collection[str]
) -> list[DeathRow]:
    """Return the deaths of an identity at or after `since` of these kinds, oldest first."""
    found = conn.execute(
        "SELECT uid, runtime, kind, at, detail FROM deaths"
        " WHERE uid = ? AND runtime = ? AND at >= ? ORDER BY at, n",
        (uid, runtime, since),
    )
    rows = [DeathRow(uid=u, runtime=r, kind=k, at=t, detail=d) for u, r, k, t, d in found]
    return [row for row in rows if row.kind in kinds]


def all_deaths_since(
    conn: sqlite3.Connection, since: float, kinds: Collection[str]
) -> list[DeathRow]:
    """Return every identity's deaths at or after `since` of these kinds, oldest first."""
    found = conn.execute(
        "SELECT uid, runtime, kind, at, detail FROM deaths WHERE at >= ? ORDER BY at, n", (since,)
    )
    rows = [DeathRow(uid=u, runtime=r, kind=k, at=t, detail=d) for u, r, k, t, d in found]
    return [row for row in rows if row.kind in kinds]


def clear_deaths(conn: sqlite3.Connection, uid: str, runtime: str) -> int:
    """Forget the deaths of an identity; return how many there were."""
    return conn.execute("DELETE FROM deaths WHERE uid = ? AND runtime = ?", (uid, runtime)).rowcount


def drop_uid(conn: sqlite3.Connection, uid: str, now: float) -> None:
    """Forget the marks and deaths of a removed peer and end its sessions (cause `removed`).

    Its messages are the caller's to fail, in the same transaction: their senders must be told.
    """
    conn.execute("DELETE FROM marks WHERE uid = ?", (uid,))
    conn.execute("DELETE FROM deaths WHERE uid = ?", (uid,))
    conn.execute("DELETE FROM postmortems WHERE uid = ?", (uid,))
    conn.execute(
        "UPDATE sessions SET ended_at = ?, end_cause = 'removed'"
        " WHERE uid = ? AND ended_at IS NULL",
        (now, uid),
    )
