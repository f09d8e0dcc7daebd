"""What sessions died of: one row per dead session, kept as long as other metadata.

The functions run inside the caller's transaction.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this module only; values are bound.
from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from .rows import HISTORY_COLUMNS, HistoryRow, PostmortemRow, history_row

_FIELDS = PostmortemRow.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_RANK = {"guess": 0, "likely": 1, "sure": 2}


def record(conn: sqlite3.Connection, new: PostmortemRow) -> PostmortemRow:
    """Store what a session died of; return what is stored then.

    Two may tell of one death, the daemon and the recorder, in any order: the surer verdict stays,
    the newer of two that are equal, and whatever only one of them knows.
    """
    old = of_session(conn, new.session_id)
    row = new if old is None else _merged(old, new)
    conn.execute(
        f"INSERT OR REPLACE INTO postmortems ({_COLUMNS})"
        f" VALUES ({', '.join('?' for _ in _FIELDS)})",
        msgspec.structs.astuple(row),
    )
    return row


def of_session(conn: sqlite3.Connection, session_id: str) -> PostmortemRow | None:
    """Return what a session died of, or None."""
    values = conn.execute(
        f"SELECT {_COLUMNS} FROM postmortems WHERE session_id = ?", (session_id,)
    ).fetchone()
    return None if values is None else _row(values)


def newest(
    conn: sqlite3.Connection, uid: str | None = None, limit: int = 50
) -> list[PostmortemRow]:
    """Return the newest deaths of all peers or of one, newest first."""
    found = conn.execute(
        f"SELECT {_COLUMNS} FROM postmortems WHERE :uid IS NULL OR uid = :uid"
        " ORDER BY at DESC, session_id LIMIT :limit",
        {"uid": uid, "limit": limit},
    )
    return [_row(values) for values in found]


def steps_of(conn: sqlite3.Connection, session_id: str, limit: int = 10) -> list[HistoryRow]:
    """Return the newest steps of messages in a session, oldest first; never a body."""
    found = conn.execute(
        f"SELECT {HISTORY_COLUMNS} FROM history WHERE session_id = ? ORDER BY n DESC LIMIT ?",
        (session_id, limit),
    ).fetchall()
    return [history_row(values) for values in reversed(found)]


def last_turn(conn: sqlite3.Connection, session_id: str) -> tuple[str, float | None] | None:
    """Return how the last turn of a session ended and when; None when it had none.

    An empty end is a turn that was running.
    """
    found = conn.execute(
        "SELECT turn_end, ended_at FROM turns WHERE session_id = ?"
        " ORDER BY seen_at DESC, attempt DESC LIMIT 1",
        (session_id,),
    ).fetchone()
    return None if found is None else (str(found[0]), found[1])


def recent_bodies(conn: sqlite3.Connection, uid: str, limit: int = 50) -> list[str]:
    """Return bodies from and to a peer that may be on its screen, so that no report has them."""
    found = conn.execute(
        "SELECT body FROM messages WHERE (to_uid = :uid OR sender_uid = :uid) AND body <> ''"
        " ORDER BY seq DESC LIMIT :limit",
        {"uid": uid, "limit": limit},
    )
    return [str(body) for (body,) in found]


def _merged(old: PostmortemRow, new: PostmortemRow) -> PostmortemRow:
    surer = new if _RANK[new.confidence] >= _RANK[old.confidence] else old
    other = old if surer is new else new
    return msgspec.structs.replace(
        surer,
        at=min(old.at, new.at),
        status=surer.status if surer.status is not None else other.status,
        signal=surer.signal if surer.signal is not None else other.signal,
        watched=old.watched or new.watched,
        words=surer.words or other.words,
        report=surer.report or other.report,
    )


def _row(values: tuple[Any, ...]) -> PostmortemRow:
    row = dict(zip(_FIELDS, values, strict=True))
    return PostmortemRow(**{**row, "watched": bool(row["watched"])})
