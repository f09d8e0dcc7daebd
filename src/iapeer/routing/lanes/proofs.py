"""What a session's record proves about its messages, taken in one transaction.

The same function serves a living session and one that died while nobody watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

import msgspec

from iapeer.core.states import Event, MessageState, TurnEnd
from iapeer.sessions.evidence import Fact
from iapeer.storage.ledger import messages, queries, turns
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import MessageRow

_WAITING = (MessageState.ACCEPTED, MessageState.HELD)
HUMAN_DEPTH = -1
"""Nothing of a peer is behind what is written now: a person's input, or no turn at all."""


class Taken(msgspec.Struct):
    """What came of some facts.

    `changed` are ids whose state changed, `ended` are ends of turns with their messages' ids,
    `depth` is the causal depth of the newest input, None when there was none.
    """

    changed: list[str] = msgspec.field(default_factory=list)
    seen: list[str] = msgspec.field(default_factory=list)
    ended: list[tuple[Fact, TurnEnd, list[str]]] = msgspec.field(default_factory=list)
    depth: int | None = None


def take(
    conn: Connection, session_id: str, facts: Sequence[Fact], now: float, *, has_turns: bool
) -> Taken:
    """Take facts of one session's own record, in order; only ids in flight for it count.

    `has_turns` says that the record tells how turns end. Where it does not, or where a reader
    acknowledges, `seen` ends our duty: there is no turn that could die with the message.
    """
    open_rows = {row.id: row for row in queries.outstanding(conn, session_id)}
    open_rows.update(_given_back(conn, session_id, facts))
    taken = Taken()
    for fact in facts:
        match fact.kind:
            case "user":
                rows.mark_heard(conn, session_id)
                if fact.begins:
                    _cut_off(conn, session_id, fact, taken, now)
                for seen in _take_input(conn, fact, open_rows, taken, now):
                    if has_turns:
                        turns.begin_turn(conn, seen, now if fact.at is None else fact.at)
            case "enqueue":
                _take_enqueue(conn, fact, open_rows, taken, now)
            case "turn_end":
                _take_end(conn, session_id, fact, taken, now)
            case "turn_start" | "dequeue" | "compacted" | "session":
                pass
    return taken


def _cut_off(conn: Connection, session_id: str, fact: Fact, taken: Taken, now: float) -> None:
    """End what nothing has ended before a new turn began.

    A turn that comes to its end tells so before (measured: Claude Code 2.1.197 waits for its
    hooks); one that is interrupted before its first word may tell nothing at all.
    """
    until = turns.Until(fact.at, (*fact.spares, *fact.ids))
    ended = turns.end_turn(conn, session_id, TurnEnd.INTERRUPTED, now, until)
    if ended:
        taken.ended.append((fact, TurnEnd.INTERRUPTED, ended))


def _take_end(conn: Connection, session_id: str, fact: Fact, taken: Taken, now: float) -> None:
    end = _turn_end(fact.status)
    if fact.ids:
        mended = turns.mend_end(conn, session_id, fact.ids, end, now)
        taken.ended.append((fact, end, mended))
        return
    until = turns.Until(fact.at, fact.spares)
    ended_at = now if fact.stamp is None else fact.stamp
    ended = turns.end_turn(conn, session_id, end, ended_at, until)
    if fact.stamp is not None:
        ended += turns.end_earlier(conn, session_id, end, fact.stamp)
    taken.ended.append((fact, end, ended))
    # What was spared runs, and what is written in it is still behind its message.
    if not turns.open_messages(conn, session_id):
        taken.depth = HUMAN_DEPTH


def _given_back(conn: Connection, session_id: str, facts: Sequence[Fact]) -> dict[str, MessageRow]:
    """Return what was given up too early: it waits again, and this session read it after all.

    One that was seen by this very attempt is not among them: it was given back because its turn
    died, and a second source only tells the same again.
    """
    found = {i: queries.get(conn, i) for fact in facts if fact.kind == "user" for i in fact.ids}
    return {
        i: row
        for i, row in found.items()
        if row is not None
        and row.session_id == session_id
        and row.state in _WAITING
        and not _was_seen(conn, row)
    }


def _was_seen(conn: Connection, row: MessageRow) -> bool:
    """Whether the newest attempt of a message was proven before."""
    return any(
        step.event == Event.SEE and step.attempt == row.attempt
        for step in queries.history(conn, row.id)
    )


def set_offset(conn: Connection, session_id: str, offset: int) -> None:
    """Remember how far a session's record was read."""
    row = rows.get_session(conn, session_id)
    if row is not None:
        rows.set_offset(conn, session_id, row.transcript, row.native_id, offset)


def _take_input(
    conn: Connection, fact: Fact, open_rows: dict[str, MessageRow], taken: Taken, now: float
) -> list[MessageRow]:
    rows_seen = []
    if not fact.ids:
        taken.depth = HUMAN_DEPTH
    for message_id in fact.ids:
        row = open_rows.pop(message_id, None)
        if row is None:
            continue
        seen = messages.advance(
            conn, row.id, Event.SEE, now=now, door=row.door, evidence=fact.source
        )
        rows_seen.append(seen)
        taken.changed.append(row.id)
        taken.seen.append(row.id)
        taken.depth = row.depth
    return rows_seen


def _take_enqueue(
    conn: Connection, fact: Fact, open_rows: dict[str, MessageRow], taken: Taken, now: float
) -> None:
    """The runtime has it in memory only: that is `landed`, never `seen`."""
    for message_id in fact.ids:
        row = open_rows.get(message_id)
        if row is not None and row.state == MessageState.IN_FLIGHT:
            open_rows[message_id] = messages.advance(
                conn,
                row.id,
                Event.LAND,
                now=now,
                door=row.door,
                evidence=f"enqueue {fact.source}",
            )
            taken.changed.append(row.id)


def _turn_end(status: str) -> TurnEnd:
    try:
        return TurnEnd(status)
    except ValueError:
        return TurnEnd.UNKNOWN
