"""Sessions: who runs where, under which token, and how far its record was read.

The functions run inside the caller's transaction; `now` is seconds since the epoch.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this package only; values are bound.
from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from iapeer.core.errors import StorageError

from .rows import SESSION_COLUMNS, Birth, NewSession, SessionRow, session_row

_SELECT = f"SELECT {SESSION_COLUMNS} FROM sessions"
_NEW_FIELDS = NewSession.__struct_fields__
_INSERT = (
    f"INSERT INTO sessions ({', '.join(_NEW_FIELDS)})"
    f" VALUES ({', '.join('?' for _ in _NEW_FIELDS)})"
)


def open_session(conn: sqlite3.Connection, new: NewSession) -> SessionRow:
    """Store a session that is about to be started; its token is valid from the commit on.

    Raises sqlite3.IntegrityError for an id that was used, or a token a live session holds.
    """
    conn.execute(_INSERT, msgspec.structs.astuple(new))
    return _require(conn, new.id)


def get_session(conn: sqlite3.Connection, session_id: str) -> SessionRow | None:
    """Return a session, live or ended, or None."""
    return _first(conn, "id = ?", (session_id,))


def set_birth(conn: sqlite3.Connection, session_id: str, birth: Birth) -> SessionRow:
    """Record which processes carry a session.

    Raises StorageError for an unknown id.
    """
    return _update(
        conn,
        session_id,
        "server_pid = ?, server_start = ?, pane_id = ?, pane_pid = ?, pane_start = ?",
        (birth.server_pid, birth.server_start, birth.pane_id, birth.pane_pid, birth.pane_start),
    )


def mark_ready(conn: sqlite3.Connection, session_id: str, now: float) -> SessionRow:
    """Record that the input surface of a session is ready; the first time stays.

    Raises StorageError for an unknown id.
    """
    return _update(conn, session_id, "ready_at = coalesce(ready_at, ?)", (now,))


def set_offset(
    conn: sqlite3.Connection, session_id: str, transcript: str, native_id: str, offset: int
) -> SessionRow:
    """Record which file is followed for a session, and the byte up to which it was read.

    Raises StorageError for an unknown id.
    """
    return _update(
        conn,
        session_id,
        "transcript = ?, native_id = ?, read_offset = ?",
        (transcript, native_id, offset),
    )


def mark_heard(conn: sqlite3.Connection, session_id: str) -> None:
    """Record that something was said in the conversation of a session."""
    conn.execute("UPDATE sessions SET heard = 1 WHERE id = ? AND heard = 0", (session_id,))


def set_conversation(
    conn: sqlite3.Connection, session_id: str, transcript: str, native_id: str
) -> SessionRow:
    """Record that a session talks in another conversation now; its record is read from the start.

    Raises StorageError for an unknown id.
    """
    return set_offset(conn, session_id, transcript, native_id, 0)


def end_session(conn: sqlite3.Connection, session_id: str, cause: str, now: float) -> bool:
    """End a session, which revokes its token; return False when it had ended already.

    The first cause stays. Messages it has in flight are the caller's to give back, in the same
    transaction. Raises StorageError for an unknown id.
    """
    changed = conn.execute(
        "UPDATE sessions SET ended_at = ?, end_cause = ? WHERE id = ? AND ended_at IS NULL",
        (now, cause, session_id),
    ).rowcount
    if not changed:
        _require(conn, session_id)
    return changed > 0


def live_sessions(conn: sqlite3.Connection) -> list[SessionRow]:
    """Return every session that has not ended, oldest first."""
    found = conn.execute(f"{_SELECT} WHERE ended_at IS NULL ORDER BY started_at, rowid")
    return [session_row(values) for values in found]


def all_sessions(conn: sqlite3.Connection) -> list[SessionRow]:
    """Return every stored session, ended ones too, oldest first."""
    found = conn.execute(f"{_SELECT} ORDER BY started_at, rowid")
    return [session_row(values) for values in found]


def live_of(conn: sqlite3.Connection, uid: str, runtime: str) -> SessionRow | None:
    """Return the newest live session of an identity, or None."""
    where = "uid = ? AND runtime = ? AND ended_at IS NULL ORDER BY started_at DESC, rowid DESC"
    return _first(conn, where, (uid, runtime))


def last_of(conn: sqlite3.Connection, uid: str, runtime: str) -> SessionRow | None:
    """Return the newest session of an identity that was ever ready, live or ended, or None."""
    where = (
        "uid = ? AND runtime = ? AND ready_at IS NOT NULL AND mode <> 'stream'"
        " ORDER BY started_at DESC, rowid DESC"
    )
    return _first(conn, where, (uid, runtime))


def last_used(conn: sqlite3.Connection, uid: str) -> str:
    """Return the runtime of a peer's newest session that was ever ready, empty without one."""
    found = conn.execute(
        "SELECT runtime FROM sessions WHERE uid = ? AND ready_at IS NOT NULL"
        " ORDER BY started_at DESC, rowid DESC LIMIT 1",
        (uid,),
    ).fetchone()
    return str(found[0]) if found else ""


def last_ready(conn: sqlite3.Connection) -> dict[str, float]:
    """Return when a session of each runtime became ready last, by runtime."""
    found = conn.execute(
        "SELECT runtime, max(ready_at) FROM sessions WHERE ready_at IS NOT NULL GROUP BY runtime"
    )
    return {str(runtime): float(at) for runtime, at in found}


def next_of(conn: sqlite3.Connection, uid: str, runtime: str, after: float) -> SessionRow | None:
    """Return the first session of an identity that was started at or after `after`, or None."""
    where = "uid = ? AND runtime = ? AND started_at >= ? ORDER BY started_at, rowid"
    return _first(conn, where, (uid, runtime, after))


def by_token(conn: sqlite3.Connection, token_sha256: str) -> SessionRow | None:
    """Return the live session that holds a token, by the token's SHA-256, or None."""
    where = "token_sha256 = ? AND ended_at IS NULL AND token_sha256 <> ''"
    return _first(conn, where, (token_sha256,))


def _first(conn: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> SessionRow | None:
    found = conn.execute(f"{_SELECT} WHERE {where} LIMIT 1", values).fetchone()
    return None if found is None else session_row(found)


def _require(conn: sqlite3.Connection, session_id: str) -> SessionRow:
    row = get_session(conn, session_id)
    if row is None:
        raise StorageError(f"the ledger has no session {session_id!r}", code="unknown_session")
    return row


def _update(
    conn: sqlite3.Connection, session_id: str, change: str, values: tuple[Any, ...]
) -> SessionRow:
    conn.execute(f"UPDATE sessions SET {change} WHERE id = ?", (*values, session_id))
    return _require(conn, session_id)
