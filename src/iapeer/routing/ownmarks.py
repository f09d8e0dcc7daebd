"""What a session says about itself, kept in the ledger: it is done, or wants to begin anew.

The functions run inside the caller's transaction, of the daemon or of a command line while none
runs. A mark belongs to one session: its value is the session's id, a successor inherits nothing.
"""

from __future__ import annotations

from sqlite3 import Connection

from iapeer.storage.ledger import marks
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import SessionRow

ARMED = "armed"
"""An ephemeral worker's session has said its word: it may be ended when it is quiet."""
NEW_EAGER = "new_eager"
"""A session wants to be ended and replaced by a fresh one, at once."""


def arm(conn: Connection, row: SessionRow, now: float) -> None:
    """Note that a session has said its word."""
    marks.set_mark(conn, row.uid, row.runtime, ARMED, now, row.id)


def arm_sender(conn: Connection, uid: str, runtime: str, now: float) -> None:
    """Note it of the live session of a sender, if there is one."""
    row = rows.live_of(conn, uid, runtime)
    if row is not None:
        arm(conn, row, now)


def want_fresh(conn: Connection, row: SessionRow, now: float) -> None:
    """Note that a session wants to be replaced."""
    marks.set_mark(conn, row.uid, row.runtime, NEW_EAGER, now, row.id)


def is_armed(conn: Connection, uid: str, runtime: str, session_id: str) -> bool:
    """Tell whether this very session has said its word."""
    return any(
        mark.mark == ARMED and mark.value == session_id
        for mark in marks.marks_of(conn, uid, runtime)
    )
