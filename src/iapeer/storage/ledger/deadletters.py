"""Dead letters: messages that ended undelivered, until an operator redelivers or drops them.

Nothing is ever deleted here: what was done is noted in the history, and the message leaves the
list. The functions run inside the caller's transaction; `now` is seconds since the epoch.
"""

from __future__ import annotations

import sqlite3

from iapeer.core.errors import InvalidInput, PeerNotFound
from iapeer.core.states import FINAL

from .queries import about_sql, get, select
from .rows import MessageRow
from .schema import DEAD_SQL

DROPPED = "dropped"
REDELIVERED = "redelivered"


def dead_letters(
    conn: sqlite3.Connection, uid: str | None = None, name: str | None = None, limit: int = 1000
) -> list[MessageRow]:
    """Return failed and expired messages nobody has seen to, in order of acceptance.

    `uid` or `name` matches sender or recipient, as in `queries.search`.
    """
    where = " AND ".join((DEAD_SQL, about_sql(uid, name)))
    values = {"peer": uid, "name": name}
    return select(conn, where, values, max(0, limit))


def dead_letter(conn: sqlite3.Connection, message_id: str) -> MessageRow:
    """Return a message that is in the list.

    Raises PeerNotFound (`unknown_message`) for an id the ledger does not have, InvalidInput for
    one that is not dead (`not_dead`) or was seen to before (`settled`).
    """
    row = get(conn, message_id)
    if row is None:
        raise PeerNotFound(f"no message {message_id!r} in the ledger", code="unknown_message")
    if row.state not in FINAL:
        raise InvalidInput(
            f"message {message_id} is {row.state}: only failed and expired ones are dead letters",
            hint=f"iapeer trace {message_id} tells its story",
            code="not_dead",
        )
    done = _settled(conn, message_id)
    if done:
        raise InvalidInput(
            f"message {message_id} was {done} before",
            hint=f"iapeer trace {message_id} tells its story",
            code="settled",
        )
    return row


def note_redelivered(
    conn: sqlite3.Connection, old: MessageRow, new: MessageRow, now: float
) -> None:
    """Note in both histories that `new` carries what `old` could not; `old` leaves the list."""
    _settle(conn, old, REDELIVERED, f"redelivered as {new.id}", now)
    _note(conn, new, f"redelivers {old.id}", REDELIVERED, now)


def drop(conn: sqlite3.Connection, message_id: str, now: float) -> MessageRow:
    """Take a message off the list for good. Raises as `dead_letter`."""
    row = dead_letter(conn, message_id)
    _settle(conn, row, DROPPED, "", now)
    return row


def _settled(conn: sqlite3.Connection, message_id: str) -> str:
    found = conn.execute("SELECT settled FROM messages WHERE id = ?", (message_id,)).fetchone()
    return str(found[0])


def _settle(conn: sqlite3.Connection, row: MessageRow, how: str, reason: str, now: float) -> None:
    conn.execute("UPDATE messages SET settled = ? WHERE id = ?", (how, row.id))
    _note(conn, row, reason, how, now)


def _note(conn: sqlite3.Connection, row: MessageRow, reason: str, event: str, now: float) -> None:
    conn.execute(
        "INSERT INTO history"
        " (message_id, at, state, event, reason, door, attempt, session_id, evidence)"
        " VALUES (?, ?, ?, ?, ?, '', ?, ?, '')",
        (row.id, now, row.state, event, reason, row.attempt, row.session_id),
    )
