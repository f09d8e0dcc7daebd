"""The one task of an ephemeral worker's session: which it is, and what becomes of it at the end.

Kept as a mark of the identity, set when the task's attempt is journalled, so that a daemon that
comes later knows it too.
"""

from __future__ import annotations

from sqlite3 import Connection

from iapeer.core.states import Event, MessageState
from iapeer.routing.ownmarks import ARMED, is_armed
from iapeer.storage.ledger import marks, messages, queries
from iapeer.storage.ledger.rows import MessageRow

TASK = "task"
"""The mark; its value is `<session id> <message id>`."""
LOST = "the session ended before the task was finished"
LOST_AGAIN = "the session ended twice before the task was finished"


def note(conn: Connection, row: MessageRow, session_id: str, now: float) -> None:
    """Remember that this message is the session's task."""
    marks.set_mark(conn, row.to_uid, row.runtime, TASK, now, f"{session_id} {row.id}")


def task_of(conn: Connection, uid: str, runtime: str, session_id: str) -> str:
    """Return the id of a session's task, empty while it has none."""
    for mark in marks.marks_of(conn, uid, runtime):
        owner, _, message_id = mark.value.partition(" ")
        if mark.mark == TASK and owner == session_id:
            return message_id
    return ""


def settle(
    conn: Connection, key: tuple[str, str], session_id: str, *, again: bool, now: float
) -> MessageRow | None:
    """End a session's task; `again` says that it was not finished.

    That it has said its word stays known until it is gone, see `disarm`.

    An unfinished one that was read goes back once, marked; the second time it fails. Returns the
    message if it changed.
    """
    uid, runtime = key
    message_id = task_of(conn, uid, runtime, session_id)
    for mark in marks.marks_of(conn, uid, runtime):
        if mark.mark == TASK and message_id:
            marks.clear_mark(conn, uid, runtime, TASK)
    row = queries.get(conn, message_id) if message_id and again else None
    if row is None or not (
        row.state == MessageState.SEEN or (row.state == MessageState.LANDED and row.final)
    ):
        return None
    before = any(step.reason == LOST for step in queries.history(conn, row.id))
    back = messages.advance(conn, row.id, Event.RETURN, now=now, reason=LOST, mark_dup=True)
    if before:
        back = messages.advance(conn, row.id, Event.FAIL, now=now, reason=LOST_AGAIN)
    return back


def disarm(conn: Connection, key: tuple[str, str], session_id: str) -> None:
    """Forget the word of a session that is gone."""
    if is_armed(conn, *key, session_id):
        marks.clear_mark(conn, *key, ARMED)
