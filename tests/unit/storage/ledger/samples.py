"""Rows for ledger tests, with every field that does not matter filled in."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.ids import new_message_id
from iapeer.core.states import Event, MessageState
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.dbfile import connect, ensure_ledger
from iapeer.storage.ledger.rows import MessageRow, NewMessage, NewSession

NOW = 1_790_000_000.0

WAY_TO: dict[MessageState, tuple[Event, ...]] = {
    MessageState.ACCEPTED: (),
    MessageState.HELD: (Event.HOLD,),
    MessageState.IN_FLIGHT: (Event.HAND_OVER,),
    MessageState.LANDED: (Event.HAND_OVER, Event.LAND),
    MessageState.SEEN: (Event.HAND_OVER, Event.SEE),
    MessageState.FAILED: (Event.FAIL,),
    MessageState.EXPIRED: (Event.EXPIRE,),
}


def open_at(path: Path) -> sqlite3.Connection:
    """Make a ledger and open it as the writer does."""
    ensure_ledger(path, 5.0)
    return connect(path, 5.0)


def a_message(**fields: Any) -> NewMessage:
    base = NewMessage(
        id=new_message_id(),
        sender="bob@claude",
        sender_uid="uid-bob",
        to_uid="uid-ann",
        personality="ann",
        runtime="claude",
        body="hello",
        accepted_ts="2026-09-21T14:13:20+02:00",
        expires_at=NOW + 1000,
        path="cli",
        intelligence="natural",
    )
    return msgspec.structs.replace(base, **fields)


def a_session(**fields: Any) -> NewSession:
    base = NewSession(
        id="session-1",
        uid="uid-ann",
        runtime="claude",
        personality="ann",
        token_sha256="",
        cwd="/home/ann",
        socket="/run/s.sock",
        mode="fresh",
        started_at=NOW,
    )
    return msgspec.structs.replace(base, **fields)


def accepted(conn: sqlite3.Connection, **fields: Any) -> MessageRow:
    return messages.accept(conn, a_message(**fields), NOW)


def brought_to(
    conn: sqlite3.Connection, state: MessageState, session_id: str = "session-1", **fields: Any
) -> MessageRow:
    """Accept a message and walk it to a state."""
    row = accepted(conn, **fields)
    for event in WAY_TO[state]:
        if event is Event.HAND_OVER:
            messages.begin_attempt(conn, row.id, session_id, "paste", NOW)
        else:
            messages.advance(conn, row.id, event, now=NOW, reason="busy")
    found = messages.get(conn, row.id)
    assert found is not None
    assert found.state is state
    return found
