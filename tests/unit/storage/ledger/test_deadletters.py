from __future__ import annotations

import sqlite3

import pytest

from iapeer.core.errors import InvalidInput, PeerNotFound
from iapeer.core.states import MessageState
from iapeer.storage.ledger import deadletters, messages, queries
from tests.unit.storage.ledger.samples import NOW, accepted, brought_to

DEAD = (MessageState.FAILED, MessageState.EXPIRED)


def listed(conn: sqlite3.Connection, uid: str | None = None, name: str | None = None) -> list[str]:
    return [row.id for row in deadletters.dead_letters(conn, uid, name)]


def test_only_what_ended_undelivered_is_listed_in_order_of_acceptance(
    conn: sqlite3.Connection,
) -> None:
    rows = [brought_to(conn, state) for state in MessageState]
    assert listed(conn) == [row.id for row in rows if row.state in DEAD]
    assert len(deadletters.dead_letters(conn, limit=1)) == 1


def test_a_peers_letters_are_those_from_and_to_it_by_uid_or_by_name(
    conn: sqlite3.Connection,
) -> None:
    to_ann = brought_to(conn, MessageState.FAILED)
    other = {"to_uid": "uid-eve", "personality": "eve", "sender": "demo-ann-b", "sender_uid": "u"}
    to_eve = brought_to(conn, MessageState.FAILED, **other)
    by_ann = brought_to(conn, MessageState.FAILED, **other | {"sender_uid": "uid-ann"})
    assert listed(conn, uid="uid-ann") == [to_ann.id, by_ann.id]
    assert listed(conn, name="eve") == [to_eve.id, by_ann.id]
    assert listed(conn, name="ann-b") == [to_eve.id, by_ann.id]
    assert listed(conn, name="b") == []


def test_a_redelivery_is_noted_in_both_histories_and_leaves_the_list(
    conn: sqlite3.Connection,
) -> None:
    old = brought_to(conn, MessageState.EXPIRED)
    new = accepted(conn)
    deadletters.note_redelivered(conn, old, new, NOW + 5)
    assert listed(conn) == []
    last, first = queries.history(conn, old.id)[-1], queries.history(conn, new.id)[-1]
    assert (last.event, last.reason, last.at) == (
        "redelivered",
        f"redelivered as {new.id}",
        NOW + 5,
    )
    assert (last.state, first.state) == (MessageState.EXPIRED, MessageState.ACCEPTED)
    assert (first.event, first.reason) == ("redelivered", f"redelivers {old.id}")
    assert messages.get(conn, old.id) == old
    with pytest.raises(InvalidInput, match="was redelivered before") as caught:
        deadletters.dead_letter(conn, old.id)
    assert caught.value.code == "settled"


def test_a_drop_deletes_nothing_and_can_be_done_once(conn: sqlite3.Connection) -> None:
    old = brought_to(conn, MessageState.FAILED)
    before = queries.history(conn, old.id)
    assert deadletters.drop(conn, old.id, NOW + 5) == old
    assert listed(conn) == []
    assert messages.get(conn, old.id) == old
    assert queries.history(conn, old.id)[:-1] == before
    assert queries.history(conn, old.id)[-1].event == "dropped"
    with pytest.raises(InvalidInput, match="was dropped before"):
        deadletters.drop(conn, old.id, NOW + 6)
    assert len(queries.history(conn, old.id)) == len(before) + 1


@pytest.mark.parametrize("state", sorted(set(MessageState) - set(DEAD)))
def test_what_is_not_dead_is_no_dead_letter(conn: sqlite3.Connection, state: MessageState) -> None:
    row = brought_to(conn, state)
    with pytest.raises(InvalidInput, match=f"is {state}: only failed and expired") as caught:
        deadletters.drop(conn, row.id, NOW)
    assert caught.value.code == "not_dead"


def test_an_unknown_id_is_said_to_be_unknown(conn: sqlite3.Connection) -> None:
    with pytest.raises(PeerNotFound) as caught:
        deadletters.drop(conn, "a" * 12, NOW)
    assert caught.value.code == "unknown_message"


def test_the_list_is_answered_by_its_index(conn: sqlite3.Connection) -> None:
    plan = conn.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM messages"
        " WHERE state IN ('failed', 'expired') AND settled = '' ORDER BY seq"
    ).fetchall()
    assert "messages_dead" in str(plan)
