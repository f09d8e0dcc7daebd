"""Questions about messages: nothing here changes a row.

The functions run inside the caller's transaction and return values, never cursors.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this package only; values are bound.
from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from iapeer.core.states import TRANSITIONS, UNDELIVERED, Event, MessageState

from .rows import (
    HISTORY_COLUMNS,
    MESSAGE_COLUMNS,
    HistoryRow,
    MessageRow,
    Waiting,
    history_row,
    message_row,
)
from .schema import IN_SESSION_SQL, OUTSTANDING_SQL, UNDELIVERED_SQL

_SELECT = f"SELECT {MESSAGE_COLUMNS} FROM messages"


def sources_sql(event: Event) -> str:
    """Return the undelivered states `event` may start from, as an SQL list."""
    states = sorted(s for s, e in TRANSITIONS if e is event and s in UNDELIVERED)
    return ", ".join(f"'{state}'" for state in states)


# The first term lets SQLite use the partial indexes, the second is the condition itself.
_WAITING_SQL = f"{UNDELIVERED_SQL} AND state IN ({sources_sql(Event.HAND_OVER)})"


def get(conn: sqlite3.Connection, message_id: str) -> MessageRow | None:
    """Return one message, or None."""
    values = conn.execute(f"{_SELECT} WHERE id = ?", (message_id,)).fetchone()
    return None if values is None else message_row(values)


def history(conn: sqlite3.Connection, message_id: str) -> list[HistoryRow]:
    """Return every step of one message, oldest first; empty for an unknown id."""
    found = conn.execute(
        f"SELECT {HISTORY_COLUMNS} FROM history WHERE message_id = ? ORDER BY n",
        (message_id,),
    )
    return [history_row(values) for values in found]


def select(
    conn: sqlite3.Connection,
    where: str,
    values: Iterable[Any] | Mapping[str, Any],
    limit: int = -1,
    order: str = "seq",
) -> list[MessageRow]:
    """Return the messages `where` matches; `where` and `order` are trusted text of this package.

    `values` are for `?`, or with a mapping for `:name`.
    """
    sql = f"{_SELECT} WHERE {where} ORDER BY {order} LIMIT "
    if isinstance(values, Mapping):
        found = conn.execute(sql + ":limit", {**values, "limit": limit})
    else:
        found = conn.execute(sql + "?", (*values, limit))
    return [message_row(row) for row in found]


def about_sql(uid: str | None, name: str | None) -> str:
    """Return the condition that a message is from or to a peer; binds `:peer` and `:name`.

    The uid counts when there is one; the name is for peers that are not registered any more.
    """
    if uid is not None:
        return "(to_uid = :peer OR sender_uid = :peer)"
    if name is not None:
        # An address is `<runtime>-<name>`, and a runtime has no hyphen.
        return "(personality = :name OR substr(sender, instr(sender, '-') + 1) = :name)"
    return "1"


def pending(conn: sqlite3.Connection, uid: str, runtime: str, limit: int = 100) -> list[MessageRow]:
    """Return what waits for an identity (accepted or held), in order of acceptance."""
    return select(conn, f"to_uid = ? AND runtime = ? AND {_WAITING_SQL}", (uid, runtime), limit)


def outstanding(conn: sqlite3.Connection, session_id: str) -> list[MessageRow]:
    """Return what a session has in flight or landed without proof that it was seen, in order."""
    return select(conn, f"session_id = ? AND {OUTSTANDING_SQL}", (session_id,))


def unresolved(conn: sqlite3.Connection, uid: str, runtime: str) -> list[MessageRow]:
    """Return the same for an identity, whatever the session, in order."""
    return select(conn, f"to_uid = ? AND runtime = ? AND {OUTSTANDING_SQL}", (uid, runtime))


def fixed_runtime(conn: sqlite3.Connection, sender: str, to_uid: str) -> str | None:
    """Return the runtime of this sender's newest unpinned, undelivered message to a peer.

    While there is one, later unpinned messages of the pair follow it, which keeps their order.
    """
    found = conn.execute(
        f"SELECT runtime FROM messages WHERE to_uid = ? AND sender = ? AND {UNDELIVERED_SQL}"
        " AND pinned = 0 ORDER BY seq DESC LIMIT 1",
        (to_uid, sender),
    ).fetchone()
    return None if found is None else str(found[0])


def depth(conn: sqlite3.Connection, uid: str, runtime: str) -> int:
    """Return how many messages of an identity are undelivered, those in flight included."""
    found = conn.execute(
        "SELECT depth FROM queues WHERE to_uid = ? AND runtime = ?", (uid, runtime)
    ).fetchone()
    return int(found[0]) if found else 0


def depths(conn: sqlite3.Connection, uid: str) -> dict[str, int]:
    """Return the same for each runtime of a peer that ever had a message."""
    found = conn.execute("SELECT runtime, depth FROM queues WHERE to_uid = ?", (uid,))
    return {str(runtime): int(depth) for runtime, depth in found}


def undelivered_identities(conn: sqlite3.Connection) -> list[Waiting]:
    """Return every identity with undelivered messages, the longest waiting first."""
    found = conn.execute(
        f"SELECT to_uid, personality, runtime, count(*) FROM messages WHERE {UNDELIVERED_SQL}"
        " GROUP BY to_uid, personality, runtime ORDER BY min(seq)"
    )
    return [Waiting(*values) for values in found]


def last_change(conn: sqlite3.Connection, session_id: str) -> float:
    """Return when a message of a session changed last (wall time), 0 where it had none."""
    found = conn.execute(
        f"SELECT at FROM history WHERE session_id = ? AND {IN_SESSION_SQL} ORDER BY n DESC LIMIT 1",
        (session_id,),
    ).fetchone()
    return float(found[0]) if found else 0.0


def untold(conn: sqlite3.Connection, limit: int = 1000) -> list[MessageRow]:
    """Return messages that ended without success and whose senders were not told, in order."""
    return select(conn, "state IN ('failed', 'expired') AND told = 0", (), limit)


def search(  # noqa: PLR0913 - what may be searched for, all by name
    conn: sqlite3.Connection,
    *,
    peer_uid: str | None = None,
    peer_name: str | None = None,
    state: MessageState | None = None,
    grep: str | None = None,
    limit: int = 50,
) -> list[MessageRow]:
    """Return at most `limit` messages, newest first.

    `peer_uid`, else `peer_name`, matches sender or recipient; `grep` is a substring of the body
    or the topic, where ASCII letters match in either case.
    """
    terms = [about_sql(peer_uid, peer_name)]
    if state is not None:
        terms.append("state = :state")
    if grep is not None:
        terms.append("(instr(lower(body), lower(:grep)) OR instr(lower(topic), lower(:grep)))")
    found = conn.execute(
        f"{_SELECT} WHERE {' AND '.join(terms)} ORDER BY seq DESC LIMIT :limit",
        {"peer": peer_uid, "name": peer_name, "state": state, "grep": grep, "limit": max(0, limit)},
    )
    return [message_row(row) for row in found]
