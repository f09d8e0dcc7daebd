"""How the turn ended in which a message was seen: one row per attempt that was seen.

Only for runtimes whose record tells of turns. `now` is seconds since the epoch.
"""

from __future__ import annotations

import sqlite3

import msgspec

from iapeer.core.states import TurnEnd

from .queries import get
from .rows import MessageRow, TurnRow


def begin_turn(conn: sqlite3.Connection, row: MessageRow, now: float) -> None:
    """Note that the newest attempt of a message was seen in a turn that runs now."""
    conn.execute(
        "INSERT OR IGNORE INTO turns (message_id, attempt, session_id, seen_at)"
        " VALUES (?, ?, ?, ?)",
        (row.id, row.attempt, row.session_id, now),
    )


class Until(msgspec.Struct, frozen=True):
    """Which messages of a session an end is about: those seen by `at` (None: all), but `spares`."""

    at: float | None = None
    spares: tuple[str, ...] = ()


ALL = Until()


def open_messages(
    conn: sqlite3.Connection, session_id: str, until: Until = ALL
) -> list[MessageRow]:
    """Return the messages of a session's running turn, in order of acceptance."""
    found = _open_ids(conn, session_id, until)
    rows = [row for message_id in found if (row := get(conn, message_id)) is not None]
    return sorted(rows, key=lambda row: row.seq)


def end_turn(
    conn: sqlite3.Connection,
    session_id: str,
    end: TurnEnd,
    now: float,
    until: Until = ALL,
) -> list[str]:
    """Note how a session's running turn ended; return the ids of its messages.

    What `until` leaves out is of the next turn.
    """
    ids = [row.id for row in open_messages(conn, session_id, until)]
    conn.executemany(
        "UPDATE turns SET turn_end = ?, ended_at = ?"
        " WHERE session_id = ? AND turn_end = '' AND message_id = ?",
        [(end, now, session_id, found) for found in _open_ids(conn, session_id, until)],
    )
    return ids


def mend_end(
    conn: sqlite3.Connection, session_id: str, ids: tuple[str, ...], end: TurnEnd, now: float
) -> list[str]:
    """Note how a turn ended that was taken for interrupted; return those it was so for.

    No other end is changed, and no other session's turn.
    """
    return [
        message_id
        for message_id in ids
        if conn.execute(
            "UPDATE turns SET turn_end = ?, ended_at = ?"
            " WHERE session_id = ? AND message_id = ? AND turn_end = ?",
            (end, now, session_id, message_id, TurnEnd.INTERRUPTED),
        ).rowcount
    ]


def end_earlier(
    conn: sqlite3.Connection, session_id: str, end: TurnEnd, ended_at: float
) -> list[str]:
    """Note how a session's turns ended of which a later end was noted; return their messages' ids.

    Which turn is meant is told by the times alone: it ran at `ended_at`. One in which the session
    died stays as it is.
    """
    found = conn.execute(
        "UPDATE turns SET turn_end = :end, ended_at = :at"
        " WHERE session_id = :session AND turn_end NOT IN ('', :died)"
        " AND seen_at <= :at AND ended_at > :at RETURNING message_id",
        {"end": end, "at": ended_at, "session": session_id, "died": TurnEnd.DIED},
    ).fetchall()
    return [message_id for (message_id,) in found]


def _open_ids(conn: sqlite3.Connection, session_id: str, until: Until) -> list[str]:
    found = conn.execute(
        "SELECT message_id FROM turns WHERE session_id = :session AND turn_end = ''"
        " AND (:at IS NULL OR seen_at <= :at)",
        {"session": session_id, "at": until.at},
    ).fetchall()
    return [message_id for (message_id,) in found if message_id not in until.spares]


def turns_of(conn: sqlite3.Connection, message_id: str) -> list[TurnRow]:
    """Return the turns one message was seen in, oldest first."""
    found = conn.execute(
        "SELECT message_id, attempt, session_id, seen_at, turn_end, ended_at FROM turns"
        " WHERE message_id = ? ORDER BY attempt",
        (message_id,),
    )
    return [
        TurnRow(
            message_id=values[0],
            attempt=values[1],
            session_id=values[2],
            seen_at=values[3],
            turn_end=values[4],
            ended_at=values[5],
        )
        for values in found
    ]


def times_died(conn: sqlite3.Connection, message_id: str) -> int:
    """Return in how many turns of this message the session died."""
    found = conn.execute(
        "SELECT count(*) FROM turns WHERE message_id = ? AND turn_end = ?",
        (message_id, TurnEnd.DIED),
    ).fetchone()
    return int(found[0])
