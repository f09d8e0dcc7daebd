from __future__ import annotations

import sqlite3

import pytest

from iapeer.core.states import Event, MessageState
from iapeer.storage.ledger import marks, messages, sessions
from iapeer.storage.ledger.upkeep import KEY_LIFE_S
from tests.unit.storage.ledger.samples import NOW, a_session, accepted, brought_to

S, E = MessageState, Event
DAY = 86400.0


@pytest.mark.requirement("send:key")
def test_a_key_stands_for_its_message_for_24_hours(conn: sqlite3.Connection) -> None:
    assert messages.find_key(conn, "ci", "k", NOW) is None
    messages.remember_key(conn, "ci", "k", "ann", "digest", "m1", NOW)
    found = messages.find_key(conn, "ci", "k", NOW + KEY_LIFE_S - 1)
    assert found is not None
    assert (found.to, found.body_sha256, found.message_id) == ("ann", "digest", "m1")
    assert messages.find_key(conn, "other", "k", NOW) is None
    assert messages.find_key(conn, "ci", "k", NOW + KEY_LIFE_S) is None


def test_a_key_can_not_be_taken_twice_until_it_expires(conn: sqlite3.Connection) -> None:
    messages.remember_key(conn, "ci", "k", "ann", "digest", "m1", NOW)
    with pytest.raises(sqlite3.IntegrityError):
        messages.remember_key(conn, "ci", "k", "ann", "digest", "m2", NOW + KEY_LIFE_S - 1)
    messages.remember_key(conn, "ci", "k", "bob", "other", "m3", NOW + KEY_LIFE_S)
    found = messages.find_key(conn, "ci", "k", NOW + KEY_LIFE_S)
    assert found is not None
    assert found.message_id == "m3"


def test_bodies_go_first_and_rows_later_and_what_is_in_use_stays(conn: sqlite3.Connection) -> None:
    sessions.open_session(conn, a_session(id="alive"))
    rows = {state: brought_to(conn, state, "gone") for state in S}
    live = brought_to(conn, S.LANDED, "alive")
    counts = messages.purge(conn, NOW + 30 * DAY, 30 * DAY, 180 * DAY)
    assert (counts.bodies, counts.messages) == (4, 0)
    for state, row in rows.items():
        found = messages.get(conn, row.id)
        assert found is not None
        purged = state in {S.LANDED, S.SEEN, S.FAILED, S.EXPIRED}
        assert (found.purged, found.body) == (purged, "" if purged else "hello")
    assert messages.get(conn, live.id) == live
    assert messages.purge(conn, NOW + 30 * DAY, 30 * DAY, 180 * DAY).bodies == 0
    counts = messages.purge(conn, NOW + 180 * DAY, 30 * DAY, 180 * DAY)
    assert counts.messages == 4
    left = {S.ACCEPTED, S.HELD, S.IN_FLIGHT, S.LANDED}
    assert {row.state for row in messages.search(conn)} == left
    assert messages.history(conn, rows[S.SEEN].id) == []
    assert messages.history(conn, live.id) != []


def test_nothing_is_purged_before_its_time(conn: sqlite3.Connection) -> None:
    brought_to(conn, S.SEEN)
    assert messages.purge(conn, NOW + 30 * DAY - 1, 30 * DAY, 180 * DAY).bodies == 0


def test_a_purged_message_is_never_handed_over_again(conn: sqlite3.Connection) -> None:
    row = brought_to(conn, S.LANDED, "gone")
    messages.purge(conn, NOW + 30 * DAY, 30 * DAY, 180 * DAY)
    with pytest.raises(ValueError, match="purged"):
        messages.advance(conn, row.id, E.RETURN, now=NOW)
    assert messages.give_back(conn, "gone", NOW, "died", dup=True) == []


def test_keys_ended_sessions_and_deaths_go_too(conn: sqlite3.Connection) -> None:
    messages.remember_key(conn, "ci", "k", "ann", "digest", "m1", NOW)
    marks.record_death(conn, "u", "claude", "boot", NOW, "")
    sessions.open_session(conn, a_session(id="alive"))
    sessions.open_session(conn, a_session(id="ended"))
    sessions.end_session(conn, "ended", "exit", NOW)
    accepted(conn)
    counts = messages.purge(conn, NOW + 180 * DAY, 30 * DAY, 180 * DAY)
    assert (counts.keys, counts.deaths, counts.sessions, counts.messages) == (1, 1, 1, 0)
    assert [row.id for row in sessions.live_sessions(conn)] == ["alive"]
