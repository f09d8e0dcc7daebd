"""What sessions died of: one row per dead session, kept as long as other metadata.

The functions run inside the caller's transaction.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this module only; values are bound.
from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from iapeer.core.states import Event

from .rows import HISTORY_COLUMNS, HistoryRow, PostmortemRow, history_row
from .schema import IN_SESSION_SQL

_FIELDS = PostmortemRow.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_RANK = {"guess": 0, "likely": 1, "sure": 2}

_GLANCE = 5000
_GLANCE_SQL = (
    "SELECT body FROM messages WHERE seq > (SELECT max(seq) FROM messages) - :glance"
    " AND (to_uid = :uid OR sender_uid = :uid) AND body <> '' ORDER BY seq DESC LIMIT :limit"
)
# No index is by the sender alone: each accept would pay for it (measured: 5 microseconds of 45).
# So the peers who wrote to this one, and those whom it wrote to, are found by one look into
# `messages_answer` for each peer, and the newest messages are those of the newest pairs.
_SOUGHT_SQL = """
    WITH RECURSIVE
    readers (uid) AS (
        SELECT min(to_uid) FROM messages
        UNION ALL
        SELECT (SELECT min(to_uid) FROM messages WHERE to_uid > uid)
        FROM readers WHERE uid IS NOT NULL
    ),
    writers (uid) AS (
        SELECT min(sender_uid) FROM messages WHERE to_uid = :uid
        UNION ALL
        SELECT (SELECT min(sender_uid) FROM messages WHERE to_uid = :uid AND sender_uid > uid)
        FROM writers WHERE uid IS NOT NULL
    ),
    pairs (reader, writer) AS (SELECT uid, :uid FROM readers UNION SELECT :uid, uid FROM writers),
    newest (reader, writer, last) AS (
        SELECT reader, writer,
            (SELECT max(seq) FROM messages WHERE to_uid = reader AND sender_uid = writer) AS last
        FROM pairs ORDER BY last DESC LIMIT :limit
    )
    SELECT body FROM messages WHERE seq IN (
        SELECT one.seq FROM newest CROSS JOIN messages AS one ON one.seq IN (
            SELECT seq FROM messages AS its WHERE its.to_uid = newest.reader
                AND its.sender_uid = newest.writer ORDER BY its.seq DESC LIMIT :limit
        )
        ORDER BY one.seq DESC LIMIT :limit
    )
    ORDER BY seq DESC
"""


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
    # Two statements: with a condition that may be empty SQLite reads the deaths of everybody.
    whose = "" if uid is None else "WHERE uid = :uid"
    found = conn.execute(
        f"SELECT {_COLUMNS} FROM postmortems {whose} ORDER BY at DESC, session_id LIMIT :limit",
        {"uid": uid, "limit": limit},
    )
    return [_row(values) for values in found]


def steps_of(conn: sqlite3.Connection, session_id: str, limit: int = 10) -> list[HistoryRow]:
    """Return the newest steps of messages in a session, oldest first; never a body."""
    found = conn.execute(
        f"SELECT {HISTORY_COLUMNS} FROM history WHERE session_id = ? AND {IN_SESSION_SQL}"
        " ORDER BY n DESC LIMIT ?",
        (session_id, limit),
    ).fetchall()
    return [history_row(values) for values in reversed(found)]


def last_turn(conn: sqlite3.Connection, session_id: str) -> tuple[str, float | None] | None:
    """Return how the last turn of a session ended and when; None when it had none.

    An empty end is a turn that was running.
    """
    # A turn begins where a message is seen. SQLite is told by CROSS JOIN what to begin with.
    found = conn.execute(
        "SELECT turn_end, ended_at FROM history AS step CROSS JOIN turns AS turn"
        " ON turn.message_id = step.message_id AND turn.attempt = step.attempt"
        f" WHERE step.session_id = ? AND step.{IN_SESSION_SQL} AND step.event = ?"
        " ORDER BY step.n DESC LIMIT 1",
        (session_id, Event.SEE),
    ).fetchone()
    return None if found is None else (str(found[0]), found[1])


def recent_bodies(conn: sqlite3.Connection, uid: str, limit: int = 50) -> list[str]:
    """Return bodies from and to a peer that may be on its screen, so that no report has them.

    They are those of its newest `limit` messages, newest first, without those that were forgotten.
    A peer that writes much is found at a glance, another one by looking at each peer once, however
    many messages there are.
    """
    values = {"uid": uid, "limit": limit, "glance": _GLANCE}
    found = conn.execute(_GLANCE_SQL, values).fetchall()
    if len(found) < limit:
        found = conn.execute(_SOUGHT_SQL, values).fetchall()
    return [str(body) for (body,) in found if body]


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
