"""Two may tell of one death; what is stored is what both know together."""

from __future__ import annotations

import sqlite3
from random import Random

import msgspec
import pytest

from iapeer.core.states import Event, MessageState, TurnEnd
from iapeer.storage.ledger import marks, messages, postmortems, turns, upkeep
from iapeer.storage.ledger.rows import PostmortemRow
from tests.unit.storage.ledger.samples import NOW, accepted, brought_to

BASE = PostmortemRow(
    session_id="s",
    uid="u",
    runtime="demo",
    personality="ann",
    at=NOW,
    what="server",
    cause="server_killed",
    confidence="likely",
    why="gone",
)


def _other(**changes: object) -> PostmortemRow:
    return msgspec.structs.replace(BASE, **changes)


def test_the_surer_verdict_stays_in_either_order(conn: sqlite3.Connection) -> None:
    sure = _other(cause="oom", confidence="sure", why="the kernel says so", at=NOW + 3)
    for first, second in ((BASE, sure), (sure, BASE)):
        conn.execute("DELETE FROM postmortems")
        postmortems.record(conn, first)
        row = postmortems.record(conn, second)
        assert (row.cause, row.why, row.at) == ("oom", "the kernel says so", NOW)
        assert postmortems.of_session(conn, "s") == row


def test_what_only_one_of_them_knows_is_kept(conn: sqlite3.Connection) -> None:
    postmortems.record(conn, _other(words="bye", watched=True, signal=9))
    row = postmortems.record(conn, _other(report="/r.txt", watched=False, why="vanished"))
    assert (row.words, row.report, row.signal) == ("bye", "/r.txt", 9)
    assert row.watched
    assert row.why == "vanished"


def test_deaths_are_listed_newest_first_of_all_or_of_one(conn: sqlite3.Connection) -> None:
    for number, uid in enumerate("uvu"):
        postmortems.record(conn, _other(session_id=f"s{number}", uid=uid, at=NOW + number))
    assert [d.session_id for d in postmortems.newest(conn)] == ["s2", "s1", "s0"]
    assert [d.session_id for d in postmortems.newest(conn, "u")] == ["s2", "s0"]
    assert [d.session_id for d in postmortems.newest(conn, limit=1)] == ["s2"]


def test_starting_a_peer_again_forgets_faults_and_not_what_it_died_of(
    conn: sqlite3.Connection,
) -> None:
    marks.record_death(conn, "u", "demo", "death", NOW, "")
    postmortems.record(conn, BASE)
    marks.clear_deaths(conn, "u", "demo")
    assert postmortems.of_session(conn, "s") == BASE


def test_deaths_go_with_their_peer_and_with_their_age(conn: sqlite3.Connection) -> None:
    postmortems.record(conn, BASE)
    postmortems.record(conn, _other(session_id="t", uid="v"))
    marks.drop_uid(conn, "u", NOW)
    assert [d.session_id for d in postmortems.newest(conn)] == ["t"]
    upkeep.purge(conn, NOW + 100, 10.0, 99.0)
    assert postmortems.newest(conn) == []


def test_the_newest_steps_of_one_session_are_told_oldest_first(conn: sqlite3.Connection) -> None:
    brought_to(conn, MessageState.SEEN, "other")
    brought_to(conn, MessageState.LANDED, "s")
    brought_to(conn, MessageState.HELD)
    found = [(step.event, step.session_id) for step in postmortems.steps_of(conn, "s")]
    assert found == [("hand_over", "s"), ("land", "s")]
    assert [step.event for step in postmortems.steps_of(conn, "s", 1)] == ["land"]
    assert postmortems.steps_of(conn, "") == []


def test_the_last_turn_is_the_one_that_began_last_in_that_session(
    conn: sqlite3.Connection,
) -> None:
    assert postmortems.last_turn(conn, "s") is None
    first = brought_to(conn, MessageState.SEEN, "s")
    turns.begin_turn(conn, first, NOW)
    turns.end_turn(conn, "s", TurnEnd.DONE, NOW + 1)
    assert postmortems.last_turn(conn, "s") == ("done", NOW + 1)
    turns.begin_turn(conn, brought_to(conn, MessageState.SEEN, "s"), NOW + 2)
    turns.begin_turn(conn, brought_to(conn, MessageState.SEEN, "t"), NOW + 3)
    assert postmortems.last_turn(conn, "s") == ("", None)
    # The first message once more, in another session: its turn here is still the first.
    messages.advance(conn, first.id, Event.RETURN, now=NOW)
    messages.begin_attempt(conn, first.id, "u", "paste", NOW)
    turns.begin_turn(conn, messages.advance(conn, first.id, Event.SEE, now=NOW), NOW + 4)
    assert postmortems.last_turn(conn, "u") == ("", None)
    turns.end_turn(conn, "u", TurnEnd.DIED, NOW + 5)
    assert postmortems.last_turn(conn, "u") == ("died", NOW + 5)
    assert postmortems.last_turn(conn, "s") == ("", None)


@pytest.mark.parametrize("glance", [0, 7, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_the_bodies_on_a_screen_are_those_of_the_newest_messages_from_and_to_the_peer(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, glance: int, seed: int
) -> None:
    monkeypatch.setattr(postmortems, "_GLANCE", glance)
    random = Random(seed)  # noqa: S311 - a seeded one, to fail again
    assert postmortems.recent_bodies(conn, "p0") == []
    pairs = [(f"p{random.randrange(6)}", f"p{random.randrange(6)}") for _ in range(60)]
    for number, (reader, writer) in enumerate([*pairs, ("p1", ""), ("p0", "")]):
        accepted(conn, to_uid=reader, sender_uid=writer, body=f"words {number}")
    conn.execute("UPDATE messages SET body = '', purged = 1 WHERE seq < 10")
    for peer in ("p0", "p1", "nobody"):
        for limit in (1, 5, 100):
            naive = conn.execute(
                "SELECT body FROM messages WHERE (to_uid = :uid OR sender_uid = :uid)"
                " AND body <> '' ORDER BY seq DESC LIMIT :limit",
                {"uid": peer, "limit": limit},
            )
            assert postmortems.recent_bodies(conn, peer, limit) == [body for (body,) in naive]
