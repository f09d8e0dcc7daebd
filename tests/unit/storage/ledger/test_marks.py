from __future__ import annotations

import sqlite3

import pytest

from iapeer.storage.ledger import marks, sessions
from tests.unit.storage.ledger.samples import NOW, a_session


def test_a_mark_can_be_set_again_and_taken_away(conn: sqlite3.Connection) -> None:
    assert not marks.has_mark(conn, "u", "claude", "stopped")
    marks.set_mark(conn, "u", "claude", "stopped", NOW)
    marks.set_mark(conn, "u", "claude", "stopped", NOW + 1, "by hand")
    assert marks.has_mark(conn, "u", "claude", "stopped")
    (row,) = marks.marks_of(conn, "u", "claude")
    assert (row.mark, row.set_at, row.value) == ("stopped", NOW + 1, "by hand")
    assert marks.clear_mark(conn, "u", "claude", "stopped")
    assert not marks.clear_mark(conn, "u", "claude", "stopped")
    assert not marks.has_mark(conn, "u", "claude", "stopped")


def test_marks_of_one_runtime_or_of_all(conn: sqlite3.Connection) -> None:
    marks.set_mark(conn, "u", "codex", "armed", NOW)
    marks.set_mark(conn, "u", "claude", "stopped", NOW)
    marks.set_mark(conn, "v", "claude", "stopped", NOW)
    assert [(m.runtime, m.mark) for m in marks.marks_of(conn, "u")] == [
        ("claude", "stopped"),
        ("codex", "armed"),
    ]
    assert [m.mark for m in marks.marks_of(conn, "u", "codex")] == ["armed"]
    named = marks.marks_named(conn, "stopped")
    assert [(m.uid, m.runtime, m.mark) for m in named] == [
        ("u", "claude", "stopped"),
        ("v", "claude", "stopped"),
    ]


def test_deaths_are_counted_by_time_and_kind(conn: sqlite3.Connection) -> None:
    for at, kind in ((1.0, "boot"), (2.0, "crash"), (3.0, "boot"), (4.0, "reap")):
        marks.record_death(conn, "u", "claude", kind, at, f"at {at}")
    marks.record_death(conn, "u", "codex", "boot", 3.0, "")
    found = marks.deaths_since(conn, "u", "claude", 2.0, {"boot", "crash"})
    assert [(d.kind, d.at, d.detail) for d in found] == [
        ("crash", 2.0, "at 2.0"),
        ("boot", 3.0, "at 3.0"),
    ]
    assert marks.clear_deaths(conn, "u", "claude") == 4
    assert marks.deaths_since(conn, "u", "claude", 0.0, {"boot"}) == []
    assert len(marks.deaths_since(conn, "u", "codex", 0.0, {"boot"})) == 1


@pytest.mark.requirement("registry:remove:namesake")
def test_a_removed_peer_leaves_nothing_a_namesake_could_inherit(conn: sqlite3.Connection) -> None:
    for uid in ("u", "v"):
        marks.set_mark(conn, uid, "claude", "stopped", NOW)
        marks.record_death(conn, uid, "claude", "boot", NOW, "")
        sessions.open_session(conn, a_session(id=uid, uid=uid))
    marks.drop_uid(conn, "u", NOW + 1)
    assert marks.marks_of(conn, "u") == []
    assert marks.deaths_since(conn, "u", "claude", 0.0, {"boot"}) == []
    ended = sessions.get_session(conn, "u")
    assert ended is not None
    assert (ended.ended_at, ended.end_cause) == (NOW + 1, "removed")
    assert [row.id for row in sessions.live_sessions(conn)] == ["v"]
    assert marks.has_mark(conn, "v", "claude", "stopped")
