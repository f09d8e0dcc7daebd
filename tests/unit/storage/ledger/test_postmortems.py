"""Two may tell of one death; what is stored is what both know together."""

from __future__ import annotations

import sqlite3

import msgspec

from iapeer.storage.ledger import marks, postmortems, upkeep
from iapeer.storage.ledger.rows import PostmortemRow
from tests.unit.storage.ledger.samples import NOW

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
