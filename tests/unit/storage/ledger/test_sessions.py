from __future__ import annotations

import sqlite3

import pytest

from iapeer.core.errors import StorageError
from iapeer.core.ids import new_token, token_digest
from iapeer.storage.ledger import sessions
from iapeer.storage.ledger.rows import Birth
from tests.unit.storage.ledger.samples import NOW, a_session

BIRTH = Birth(server_pid=10, server_start=11.5, pane_id="%0", pane_pid=12, pane_start=13.25)


def test_a_session_walks_from_start_to_end(conn: sqlite3.Connection) -> None:
    row = sessions.open_session(conn, a_session(mode="resume"))
    assert (row.mode, row.server_pid, row.ready_at, row.ended_at, row.read_offset) == (
        "resume",
        None,
        None,
        None,
        0,
    )
    row = sessions.set_birth(conn, row.id, BIRTH)
    assert [getattr(row, name) for name in Birth.__struct_fields__] == [
        getattr(BIRTH, name) for name in Birth.__struct_fields__
    ]
    row = sessions.mark_ready(conn, row.id, NOW + 1)
    assert sessions.mark_ready(conn, row.id, NOW + 2).ready_at == NOW + 1
    row = sessions.set_offset(conn, row.id, "/t.jsonl", "native", 1 << 40)
    assert (row.transcript, row.native_id, row.read_offset) == ("/t.jsonl", "native", 1 << 40)
    assert sessions.get_session(conn, row.id) == row
    assert sessions.end_session(conn, row.id, "reaped", NOW + 3)
    assert not sessions.end_session(conn, row.id, "died", NOW + 4)
    ended = sessions.get_session(conn, row.id)
    assert ended is not None
    assert (ended.ended_at, ended.end_cause) == (NOW + 3, "reaped")


def test_live_sessions_are_those_that_have_not_ended(conn: sqlite3.Connection) -> None:
    for number, name in enumerate(("a", "b", "c")):
        sessions.open_session(conn, a_session(id=name, started_at=NOW + number))
    sessions.open_session(conn, a_session(id="d", runtime="codex", started_at=NOW - 1))
    sessions.end_session(conn, "c", "exit", NOW)
    assert [row.id for row in sessions.live_sessions(conn)] == ["d", "a", "b"]
    assert [row.id for row in sessions.all_sessions(conn)] == ["d", "a", "b", "c"]
    live = sessions.live_of(conn, "uid-ann", "claude")
    assert live is not None
    assert live.id == "b"
    assert sessions.live_of(conn, "uid-ann", "opencode") is None


def test_a_token_is_known_while_its_session_lives(conn: sqlite3.Connection) -> None:
    digest = token_digest(new_token())
    sessions.open_session(conn, a_session(token_sha256=digest))
    found = sessions.by_token(conn, digest)
    assert found is not None
    assert found.id == "session-1"
    assert sessions.by_token(conn, token_digest(new_token())) is None
    sessions.end_session(conn, "session-1", "exit", NOW)
    assert sessions.by_token(conn, digest) is None


def test_no_token_is_never_a_match(conn: sqlite3.Connection) -> None:
    sessions.open_session(conn, a_session(id="a"))
    sessions.open_session(conn, a_session(id="b"))
    assert sessions.by_token(conn, "") is None


def test_two_live_sessions_can_not_share_a_token(conn: sqlite3.Connection) -> None:
    sessions.open_session(conn, a_session(id="a", token_sha256="d"))
    with pytest.raises(sqlite3.IntegrityError):
        sessions.open_session(conn, a_session(id="b", token_sha256="d"))


def test_an_unknown_session_is_named(conn: sqlite3.Connection) -> None:
    for call in (
        lambda: sessions.set_birth(conn, "nope", BIRTH),
        lambda: sessions.mark_ready(conn, "nope", NOW),
        lambda: sessions.set_offset(conn, "nope", "", "", 0),
        lambda: sessions.end_session(conn, "nope", "exit", NOW),
    ):
        with pytest.raises(StorageError, match="nope"):
            call()
