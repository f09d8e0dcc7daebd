"""The life of a message, as functions that run inside the caller's transaction.

Nothing here opens, commits or rolls back. Every change of a state goes through
`core.states.next_state` and appends one row of history. `now` is seconds since the epoch.
Callers find the questions (`queries`) and the keys and retention (`upkeep`) here as well.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this package only; values are bound.
from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from iapeer.core.errors import StorageError
from iapeer.core.states import Event, HoldReason, MessageState, next_state

from .queries import (
    depth,
    depths,
    fixed_runtime,
    get,
    history,
    outstanding,
    pending,
    search,
    select,
    sources_sql,
    undelivered_identities,
    unresolved,
)
from .rows import MessageRow, NewMessage
from .schema import UNDELIVERED_SQL
from .upkeep import find_key, purge, remember_key

__all__ = [
    "accept",
    "advance",
    "begin_attempt",
    "depth",
    "depths",
    "expire_due",
    "fail_for_uid",
    "find_key",
    "fixed_runtime",
    "get",
    "give_back",
    "history",
    "hold_pending",
    "outstanding",
    "pending",
    "purge",
    "remember_key",
    "retarget",
    "search",
    "undelivered_identities",
    "unresolved",
]

_HELD = next_state(MessageState.ACCEPTED, Event.HOLD)
_HISTORY_SQL = (
    "INSERT INTO history"
    " (message_id, at, state, event, reason, door, attempt, session_id, evidence)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TWO_STEPS_SQL = f"{_HISTORY_SQL}, (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class _Step:
    """One change of a message, before it is stored."""

    event: Event
    now: float
    reason: str = ""
    door: str = ""
    evidence: str = ""
    dup: bool = False
    final: bool = False
    session_id: str = ""
    """Set by a hand-over only: it begins a new attempt."""


def accept(
    conn: sqlite3.Connection, new: NewMessage, now: float, held: HoldReason | None = None
) -> MessageRow:
    """Store a new message and return it; durable once the transaction commits.

    It is `accepted`, or held at once for the reason `held`: its history then has both steps.
    (sqlite3 takes plain values as they are; for each that is an enum or a bool it looks for an
    adapter.)

    Raises sqlite3.IntegrityError for an id the ledger already has.
    """
    state = MessageState.ACCEPTED if held is None else _HELD
    reason = "" if held is None else str(held)
    woke = held is not None and _is_waking(Event.HOLD, held)
    cursor = conn.execute(
        "INSERT INTO messages (id, sender, sender_uid, to_uid, personality, runtime, pinned, state,"
        " reason, woke, accepted_at, changed_at, accepted_ts, expires_at, path, intelligence,"
        " depth, key, topic, attachments, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.id,
            new.sender,
            new.sender_uid,
            new.to_uid,
            new.personality,
            new.runtime,
            int(new.pinned),
            state.value,
            reason,
            int(woke),
            now,
            now,
            new.accepted_ts,
            new.expires_at,
            new.path,
            str(new.intelligence),
            new.depth,
            new.key,
            new.topic,
            msgspec.json.encode(new.attachments).decode(),
            new.body,
        ),
    )
    row = MessageRow(
        **msgspec.structs.asdict(new),
        seq=cursor.lastrowid or 0,
        state=state,
        reason=reason,
        dup=False,
        attempt=0,
        session_id="",
        door="",
        final=False,
        woke=woke,
        purged=False,
        answered_by="",
        accepted_at=now,
        changed_at=now,
    )
    began = (row.id, now, MessageState.ACCEPTED.value, "accept", "", "", 0, "", "")
    if held is None:
        conn.execute(_HISTORY_SQL, began)
    else:
        hold = (row.id, now, state.value, Event.HOLD.value, reason, "", 0, "", "")
        conn.execute(_TWO_STEPS_SQL, began + hold)
    return row


def note_answer(conn: sqlite3.Connection, answer: MessageRow) -> str | None:
    """Let `answer` be the answer to the newest message its reader gave its sender.

    Returns that message's id; None when there is none, or when it was answered before.
    """
    found = conn.execute(
        "SELECT id, answered_by FROM messages WHERE to_uid = ? AND sender_uid = ?"
        " AND state IN ('landed', 'seen') ORDER BY seq DESC LIMIT 1",
        (answer.sender_uid, answer.to_uid),
    ).fetchone()
    if found is None or found[1]:
        return None
    conn.execute("UPDATE messages SET answered_by = ? WHERE id = ?", (answer.id, found[0]))
    return str(found[0])


def mark_told(conn: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Note that the senders of these messages know how they ended, or can't be told."""
    conn.executemany("UPDATE messages SET told = 1 WHERE id = ?", [(i,) for i in ids])


def begin_attempt(
    conn: sqlite3.Connection, message_id: str, session_id: str, door: str, now: float
) -> int:
    """Journal that a hand-over is about to begin and return its number, counted from 1.

    The hand-over may start only after this transaction has committed.

    Raises ValueError when the message is not waiting, StorageError for an unknown id.
    """
    step = _Step(event=Event.HAND_OVER, now=now, door=door, session_id=session_id)
    return _store(conn, _require(conn, message_id), step).attempt


def advance(  # noqa: PLR0913 - what a step may carry, all by name
    conn: sqlite3.Connection,
    message_id: str,
    event: Event,
    *,
    now: float,
    reason: str = "",
    door: str = "",
    evidence: str = "",
    mark_dup: bool = False,
    final: bool = False,
) -> MessageRow:
    """Carry out one step and return the message after it.

    A hold with an unchanged reason writes nothing. `mark_dup` says that the reader may get the
    message twice; the mark is never taken away. `final`, for `LAND` only, says that this door
    can't prove more: the message then counts as resolved. A hand-over goes through
    `begin_attempt`, because it needs a session.

    Raises ValueError for a step the table does not have, for a hand-over, and for the return of a
    message whose body was purged; StorageError for an unknown id.
    """
    if event is Event.HAND_OVER:
        raise ValueError("a hand-over starts with begin_attempt")
    if final and event is not Event.LAND:
        raise ValueError(f"only a landing can be final, not {event}")
    row = _require(conn, message_id)
    return _store(conn, row, _Step(event, now, reason, door, evidence, mark_dup, final))


def _require(conn: sqlite3.Connection, message_id: str) -> MessageRow:
    row = get(conn, message_id)
    if row is None:
        raise StorageError(f"the ledger has no message {message_id!r}", code="unknown_message")
    return row


def _store(conn: sqlite3.Connection, row: MessageRow, step: _Step) -> MessageRow:
    state = next_state(row.state, step.event)
    dup = row.dup or step.dup
    if step.event is Event.HOLD and (row.state, row.reason, row.dup) == (state, step.reason, dup):
        return row
    if step.event is Event.RETURN and row.purged:
        raise ValueError(f"the body of {row.id} was purged: it can't be handed over again")
    begins = step.event is Event.HAND_OVER
    after = msgspec.structs.replace(
        row,
        state=state,
        reason=step.reason,
        dup=dup,
        attempt=row.attempt + 1 if begins else row.attempt,
        session_id=step.session_id if begins else row.session_id,
        door=step.door or row.door,
        final=step.final,
        woke=row.woke or _is_waking(step.event, step.reason),
        changed_at=step.now,
    )
    conn.execute(
        "UPDATE messages SET state = ?, reason = ?, dup = ?, attempt = ?, session_id = ?, door = ?,"
        " final = ?, woke = ?, changed_at = ? WHERE seq = ?",
        (
            after.state,
            after.reason,
            after.dup,
            after.attempt,
            after.session_id,
            after.door,
            after.final,
            after.woke,
            after.changed_at,
            after.seq,
        ),
    )
    _append_history(conn, after, step.event, step.door, step.evidence)
    return after


def _is_waking(event: Event, reason: str) -> bool:
    return event is Event.HOLD and reason == HoldReason.WAKING


def _append_history(
    conn: sqlite3.Connection,
    row: MessageRow,
    event: str,
    door: str = "",
    evidence: str = "",
) -> None:
    conn.execute(
        _HISTORY_SQL,
        (
            row.id,
            row.changed_at,
            row.state,
            event,
            row.reason,
            door,
            row.attempt,
            row.session_id,
            evidence,
        ),
    )


_OTHER_REASON = (" AND reason < :reason", " AND reason > :reason")
# One search of the index for each term: as one condition with `<>` it reads the whole queue.
_NOT_HELD_SQL = " UNION ALL ".join(
    "SELECT seq FROM messages INDEXED BY messages_reason"
    f" WHERE to_uid = :uid AND runtime = :runtime AND {UNDELIVERED_SQL} AND state = {state}{term}"
    for state in sources_sql(Event.HOLD).split(", ")
    for term in (_OTHER_REASON if state == f"'{_HELD}'" else ("",))
)


def hold_pending(  # noqa: PLR0913 - which messages, why, when
    conn: sqlite3.Connection,
    uid: str,
    runtime: str,
    reason: str,
    now: float,
    *,
    only: str = "",
    but: str = "",
) -> int:
    """Hold everything that waits for an identity and return how many rows that changed.

    Messages held for the same reason already are left as they are. `only` and `but` name one
    message: all the rest, or that one, is left alone.
    """
    woke = _is_waking(Event.HOLD, reason)
    where = f"seq IN ({_NOT_HELD_SQL}) AND (:only = '' OR id = :only) AND id <> :but"
    values = {
        "uid": uid,
        "runtime": runtime,
        "reason": str(reason),
        "now": now,
        "held": _HELD,
        "event": Event.HOLD,
        "woke": woke,
        "only": only,
        "but": but,
    }
    conn.execute(
        "INSERT INTO history"
        " (message_id, at, state, event, reason, door, attempt, session_id, evidence)"
        " SELECT id, :now, :held, :event, :reason, '', attempt, session_id, ''"
        f" FROM messages WHERE {where} ORDER BY seq",
        values,
    )
    return conn.execute(
        "UPDATE messages SET state = :held, reason = :reason, changed_at = :now,"
        f" woke = max(woke, :woke) WHERE {where}",
        values,
    ).rowcount


def give_back(
    conn: sqlite3.Connection, session_id: str, now: float, reason: str, *, dup: bool
) -> list[MessageRow]:
    """Return what a dead session had in flight or landed to `accepted`, in order.

    With `dup` they are marked as possibly delivered. Messages that landed by a door which can't
    prove more stay, and so do those whose body was purged.
    """
    step = _Step(event=Event.RETURN, now=now, reason=reason, dup=dup)
    return [_store(conn, row, step) for row in outstanding(conn, session_id) if not row.purged]


def fail_for_uid(conn: sqlite3.Connection, uid: str, reason: str, now: float) -> list[MessageRow]:
    """Fail everything undelivered of a peer that is gone and return it, in order."""
    step = _Step(event=Event.FAIL, now=now, reason=reason)
    where = f"to_uid = ? AND {UNDELIVERED_SQL}"
    return [_store(conn, row, step) for row in select(conn, where, (uid,))]


def expire_due(conn: sqlite3.Connection, now: float, limit: int = 1000) -> list[MessageRow]:
    """Expire at most `limit` waiting messages whose time has passed and return them.

    The longest due come first. One that is in flight is left alone: it expires if it comes back.
    """
    where = f"expires_at <= ? AND {UNDELIVERED_SQL} AND state IN ({sources_sql(Event.EXPIRE)})"
    step = _Step(event=Event.EXPIRE, now=now, reason="ttl")
    return [
        _store(conn, row, step) for row in select(conn, where, (now,), limit, "expires_at, seq")
    ]


def retarget(conn: sqlite3.Connection, uid: str, new_personality: str) -> int:
    """Write a renamed recipient's new name into its undelivered messages; return how many."""
    return conn.execute(
        f"UPDATE messages SET personality = ? WHERE to_uid = ? AND {UNDELIVERED_SQL}",
        (new_personality, uid),
    ).rowcount
