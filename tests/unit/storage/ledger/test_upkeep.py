from __future__ import annotations

import sqlite3

import pytest

from iapeer.core.states import Event, MessageState
from iapeer.storage.ledger import marks, messages, sessions, upkeep
from iapeer.storage.ledger.rows import MessageRow, Purged
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


NOTHING = Purged(bodies=0, messages=0, keys=0, sessions=0, deaths=0)


def _seen(conn: sqlite3.Connection, ages: list[float], body: str = "hello") -> list[MessageRow]:
    """Messages that were seen, each so many seconds ago."""
    rows = [brought_to(conn, S.SEEN, body=body) for _ in ages]
    for row, age in zip(rows, ages, strict=True):
        conn.execute("UPDATE messages SET accepted_at = ? WHERE seq = ?", (NOW - age, row.seq))
    return rows


@pytest.mark.requirement("storage:retention")
@pytest.mark.parametrize(
    ("body_s", "metadata_s", "what"),
    [(10, 99, "bodies"), (10, 10, "messages"), (99, 10, "messages")],
)
def test_a_purge_forgets_a_bounded_number_the_oldest_first_and_the_next_goes_on(
    conn: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    body_s: float,
    metadata_s: float,
    what: str,
) -> None:
    monkeypatch.setattr(upkeep, "PURGE_ROWS", 3)
    ages = [11.0, 40.0, 9.0, 20.0, 30.0, 15.0, 50.0]
    rows = _seen(conn, ages)
    forgotten = []
    while (done := messages.purge(conn, NOW, body_s, metadata_s)) != NOTHING:
        forgotten.append(getattr(done, what))
        kept = [messages.get(conn, row.id) for row in rows]
        left = {
            age
            for row, age in zip(kept, ages, strict=True)
            if row and (what == "messages" or not row.purged)
        }
        assert left == set(sorted(ages)[: len(ages) - sum(forgotten)])
    assert forgotten == [3, 3]
    if what == "messages":
        assert conn.execute("SELECT count(DISTINCT message_id) FROM history").fetchone() == (1,)


def test_a_purge_of_long_bodies_ends_sooner(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PURGE_BYTES", 250)
    _seen(conn, [20.0] * 5, body="x" * 100)
    assert [messages.purge(conn, NOW, 10, 99).bodies for _ in range(3)] == [3, 2, 0]


def test_what_is_in_use_does_not_keep_others_from_being_purged(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PURGE_ROWS", 2)
    sessions.open_session(conn, a_session(id="alive"))
    kept = [brought_to(conn, state, "alive").id for state in (S.HELD, S.IN_FLIGHT, S.LANDED) * 2]
    conn.execute("UPDATE messages SET accepted_at = ?", (NOW - 30,))
    (old,) = _seen(conn, [20.0])
    assert messages.purge(conn, NOW, 10, 10).messages == 1
    assert messages.get(conn, old.id) is None
    assert all(messages.get(conn, message_id) for message_id in kept)


def test_old_keys_sessions_deaths_and_postmortems_go_in_pieces_too(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PURGE_ROWS", 2)
    for number in range(3):
        messages.remember_key(conn, "ci", f"k{number}", "ann", "digest", "m", NOW)
        marks.record_death(conn, "u", "claude", "boot", NOW, "")
        sessions.open_session(conn, a_session(id=f"s{number}"))
        sessions.end_session(conn, f"s{number}", "exit", NOW)
    done = [messages.purge(conn, NOW + 180 * DAY, 30 * DAY, 180 * DAY) for _ in range(3)]
    assert [(each.keys, each.deaths, each.sessions) for each in done] == [
        (2,) * 3,
        (1,) * 3,
        (0,) * 3,
    ]
