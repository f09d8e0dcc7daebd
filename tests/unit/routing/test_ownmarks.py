from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from iapeer.core.states import Event, MessageState
from iapeer.routing import ownmarks
from iapeer.routing.lanes import proofs, tasks
from iapeer.sessions.evidence import Fact
from iapeer.storage.ledger import marks, messages, queries
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.rows import MessageRow, NewMessage, NewSession

KEY = ("u", "claude")


@pytest.fixture
def conn(tmp_path: Path) -> sqlite3.Connection:
    with offline(tmp_path / "ledger.db"):
        pass
    opened = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    for name in ("old", "new"):
        session = NewSession(
            id=name,
            uid="u",
            runtime="claude",
            personality="ann",
            token_sha256=name,
            cwd="/",
            socket="",
            mode="fresh",
            started_at=1.0,
        )
        rows.open_session(opened, session)
        if name == "old":
            rows.end_session(opened, name, "test", 2.0)
    return opened


def _seen(conn: sqlite3.Connection, session_id: str, message_id: str = "m") -> MessageRow:
    if queries.get(conn, message_id) is None:
        new = NewMessage(
            id=message_id,
            sender="api-op",
            sender_uid="",
            to_uid="u",
            personality="ann",
            runtime="claude",
            body="task",
            accepted_ts="",
            expires_at=9e9,
            path="cli",
            intelligence="absent",
        )
        messages.accept(conn, new, 1.0)
    row = queries.get(conn, message_id)
    assert row is not None
    tasks.note(conn, row, session_id, 1.0)
    messages.begin_attempt(conn, message_id, session_id, "paste", 1.0)
    messages.advance(conn, message_id, Event.LAND, now=1.0)
    return messages.advance(conn, message_id, Event.SEE, now=1.0)


def test_a_sender_arms_its_live_session_and_no_other(conn: sqlite3.Connection) -> None:
    ownmarks.arm_sender(conn, "u", "codex", 1.0)
    ownmarks.arm_sender(conn, "u", "claude", 1.0)
    assert ownmarks.is_armed(conn, *KEY, "new")
    assert not ownmarks.is_armed(conn, *KEY, "old")
    assert not ownmarks.is_armed(conn, "u", "codex", "new")


def test_a_finished_task_is_forgotten_and_stays_seen(conn: sqlite3.Connection) -> None:
    _seen(conn, "new")
    ownmarks.arm_sender(conn, "u", "claude", 1.0)
    assert tasks.task_of(conn, *KEY, "new") == "m"
    assert tasks.settle(conn, KEY, "new", again=False, now=2.0) is None
    assert tasks.task_of(conn, *KEY, "new") == ""
    # A daemon that dies before the session is ended must not make the next one ask for its word.
    assert ownmarks.is_armed(conn, *KEY, "new")
    tasks.disarm(conn, KEY, "old")
    assert ownmarks.is_armed(conn, *KEY, "new")
    tasks.disarm(conn, KEY, "new")
    assert marks.marks_of(conn, *KEY) == []
    row = queries.get(conn, "m")
    assert row is not None
    assert row.state == MessageState.SEEN


def test_an_unfinished_task_comes_back_once_and_then_fails(conn: sqlite3.Connection) -> None:
    _seen(conn, "new")
    back = tasks.settle(conn, KEY, "new", again=True, now=2.0)
    assert back is not None
    assert (back.state, back.dup) == (MessageState.ACCEPTED, True)
    assert tasks.settle(conn, KEY, "new", again=True, now=2.0) is None
    _seen(conn, "new")
    failed = tasks.settle(conn, KEY, "new", again=True, now=3.0)
    assert failed is not None
    assert (failed.state, failed.reason) == (MessageState.FAILED, tasks.LOST_AGAIN)


def test_the_end_of_another_session_settles_nothing(conn: sqlite3.Connection) -> None:
    _seen(conn, "new")
    ownmarks.arm_sender(conn, "u", "claude", 1.0)
    assert tasks.settle(conn, KEY, "old", again=True, now=2.0) is None
    assert tasks.task_of(conn, *KEY, "new") == "m"
    assert ownmarks.is_armed(conn, *KEY, "new")


def test_a_second_source_does_not_take_a_task_back_that_its_session_lost(
    conn: sqlite3.Connection,
) -> None:
    _seen(conn, "new")
    tasks.settle(conn, KEY, "new", again=True, now=2.0)
    late = Fact(kind="user", ids=("m",), source="hook")
    taken = proofs.take(conn, "new", [late], 3.0, has_turns=True)
    assert taken.changed == []
    row = queries.get(conn, "m")
    assert row is not None
    assert row.state == MessageState.ACCEPTED


def test_a_proof_that_comes_too_late_for_a_message_never_seen_still_counts(
    conn: sqlite3.Connection,
) -> None:
    _seen(conn, "new", "n")
    tasks.settle(conn, KEY, "new", again=True, now=2.0)
    messages.begin_attempt(conn, "n", "new", "paste", 3.0)
    messages.advance(conn, "n", Event.RETURN, now=3.0)
    late = Fact(kind="user", ids=("n",), source="hook")
    assert proofs.take(conn, "new", [late], 4.0, has_turns=True).seen == ["n"]
