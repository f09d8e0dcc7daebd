from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iapeer.core.errors import StorageError
from iapeer.core.states import TRANSITIONS, UNDELIVERED, Event, HoldReason, MessageState
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.rows import NewMessage
from tests.unit.storage.ledger.samples import NOW, a_message, accepted, brought_to, open_at

S, E = MessageState, Event


def step(conn: sqlite3.Connection, message_id: str, event: Event) -> None:
    if event is E.HAND_OVER:
        messages.begin_attempt(conn, message_id, "session-2", "paste", NOW + 1)
    else:
        messages.advance(conn, message_id, event, now=NOW + 1, reason="why", evidence="line 7")


@pytest.mark.parametrize("event", list(E))
@pytest.mark.parametrize("state", list(S))
def test_every_pair_of_state_and_event_does_what_the_table_says(
    conn: sqlite3.Connection, state: MessageState, event: Event
) -> None:
    row = brought_to(conn, state)
    before = messages.history(conn, row.id)
    if (state, event) not in TRANSITIONS:
        with pytest.raises(ValueError, match="no transition"):
            step(conn, row.id, event)
        assert messages.get(conn, row.id) == row
        assert messages.history(conn, row.id) == before
        return
    step(conn, row.id, event)
    after = messages.get(conn, row.id)
    assert after is not None
    assert after.state is TRANSITIONS[state, event]
    assert after.changed_at == NOW + 1
    added = messages.history(conn, row.id)[len(before) :]
    assert [(h.state, h.event, h.at, h.attempt) for h in added] == [
        (after.state, event, NOW + 1, after.attempt)
    ]


def test_an_accepted_message_is_returned_as_it_is_stored(conn: sqlite3.Connection) -> None:
    new = a_message(
        topic="t", attachments=("/a", "/b c"), depth=3, key="k", pinned=True, body="a\0b\nü"
    )
    row = messages.accept(conn, new, NOW)
    assert messages.get(conn, new.id) == row
    assert {f: getattr(row, f) for f in NewMessage.__struct_fields__} == msgspec.structs.asdict(new)
    assert (row.state, row.accepted_at, row.attempt, row.seq) == (S.ACCEPTED, NOW, 0, 1)
    assert [(h.event, h.state, h.at) for h in messages.history(conn, new.id)] == [
        ("accept", S.ACCEPTED, NOW)
    ]


@settings(max_examples=30, deadline=None)
@given(body=st.text(), topic=st.none() | st.text(), attachments=st.lists(st.text()).map(tuple))
def test_any_text_comes_back_as_it_went_in(
    body: str, topic: str | None, attachments: tuple[str, ...]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(open_at(Path(folder) / "ledger.db")) as conn,
    ):
        row = accepted(conn, body=body, topic=topic, attachments=attachments)
        found = messages.get(conn, row.id)
        assert found is not None
        assert (found.body, found.topic, found.attachments) == (body, topic, attachments)


@pytest.mark.parametrize("reason", list(HoldReason))
def test_held_as_it_is_stored_is_the_same_as_stored_and_held(
    conn: sqlite3.Connection, reason: HoldReason
) -> None:
    at_once = messages.accept(conn, a_message(), NOW, reason)
    new = a_message()
    messages.accept(conn, new, NOW)
    later = messages.advance(conn, new.id, E.HOLD, now=NOW, reason=reason)
    assert messages.get(conn, at_once.id) == at_once
    assert msgspec.structs.replace(at_once, id=later.id, seq=later.seq) == later
    assert [
        msgspec.structs.replace(step, message_id="") for step in messages.history(conn, at_once.id)
    ] == [msgspec.structs.replace(step, message_id="") for step in messages.history(conn, later.id)]


def test_an_id_is_stored_once(conn: sqlite3.Connection) -> None:
    new = a_message()
    messages.accept(conn, new, NOW)
    with pytest.raises(sqlite3.IntegrityError):
        messages.accept(conn, new, NOW)


def test_an_unknown_id_is_named(conn: sqlite3.Connection) -> None:
    assert messages.get(conn, "nosuchid") is None
    assert messages.history(conn, "nosuchid") == []
    with pytest.raises(StorageError, match="nosuchid") as caught:
        messages.advance(conn, "nosuchid", E.LAND, now=NOW)
    assert caught.value.code == "unknown_message"


def test_a_hold_for_the_same_reason_writes_nothing(conn: sqlite3.Connection) -> None:
    row = accepted(conn)
    first = messages.advance(conn, row.id, E.HOLD, now=NOW + 1, reason="busy")
    changes = conn.total_changes
    assert messages.advance(conn, row.id, E.HOLD, now=NOW + 2, reason="busy") == first
    assert conn.total_changes == changes
    third = messages.advance(conn, row.id, E.HOLD, now=NOW + 3, reason="composer")
    assert (third.reason, third.changed_at) == ("composer", NOW + 3)
    marked = messages.advance(conn, row.id, E.HOLD, now=NOW + 4, reason="composer", mark_dup=True)
    assert marked.dup


def test_a_hand_over_needs_begin_attempt(conn: sqlite3.Connection) -> None:
    row = accepted(conn)
    with pytest.raises(ValueError, match="begin_attempt"):
        messages.advance(conn, row.id, E.HAND_OVER, now=NOW)


def test_attempts_are_counted_and_keep_session_and_door(conn: sqlite3.Connection) -> None:
    row = accepted(conn)
    assert messages.begin_attempt(conn, row.id, "s1", "paste", NOW + 1) == 1
    back = messages.advance(conn, row.id, E.RETURN, now=NOW + 2, reason="died", mark_dup=True)
    assert (back.state, back.dup, back.session_id, back.door) == (S.ACCEPTED, True, "s1", "paste")
    assert messages.begin_attempt(conn, row.id, "s2", "inbox", NOW + 3) == 2
    seen = messages.advance(conn, row.id, E.SEE, now=NOW + 4, door="inbox", evidence="prompt hook")
    assert (seen.attempt, seen.session_id, seen.door, seen.dup) == (2, "s2", "inbox", True)
    steps = [
        (h.event, h.attempt, h.session_id, h.door, h.reason, h.evidence)
        for h in messages.history(conn, row.id)
    ]
    assert steps == [
        ("accept", 0, "", "", "", ""),
        ("hand_over", 1, "s1", "paste", "", ""),
        ("return", 1, "s1", "", "died", ""),
        ("hand_over", 2, "s2", "inbox", "", ""),
        ("see", 2, "s2", "inbox", "", "prompt hook"),
    ]


def test_a_reason_ends_with_its_state(conn: sqlite3.Connection) -> None:
    row = brought_to(conn, S.HELD)
    assert row.reason == "busy"
    messages.begin_attempt(conn, row.id, "s", "paste", NOW)
    found = messages.get(conn, row.id)
    assert found is not None
    assert found.reason == ""


@pytest.mark.parametrize("bulk", [True, False])
def test_a_message_that_waited_for_a_start_says_so(conn: sqlite3.Connection, bulk: bool) -> None:
    row = accepted(conn)
    if bulk:
        messages.hold_pending(conn, row.to_uid, row.runtime, "waking", NOW)
        messages.hold_pending(conn, row.to_uid, row.runtime, "busy", NOW)
    else:
        messages.advance(conn, row.id, E.HOLD, now=NOW, reason="waking")
        messages.advance(conn, row.id, E.HOLD, now=NOW, reason="busy")
    found = messages.get(conn, row.id)
    assert found is not None
    assert (found.woke, found.reason) == (True, "busy")


def test_a_bulk_hold_changes_only_rows_whose_reason_changes(conn: sqlite3.Connection) -> None:
    rows = [brought_to(conn, state) for state in S]
    other = accepted(conn, runtime="codex")
    assert messages.hold_pending(conn, "uid-ann", "claude", "composer", NOW + 1) == 2
    for row in rows:
        found = messages.get(conn, row.id)
        assert found is not None
        if row.state in {S.ACCEPTED, S.HELD}:
            assert (found.state, found.reason, found.changed_at) == (S.HELD, "composer", NOW + 1)
            last = messages.history(conn, row.id)[-1]
            assert (last.event, last.state, last.reason) == ("hold", S.HELD, "composer")
        else:
            assert found == row
    assert messages.get(conn, other.id) == other
    changes = conn.total_changes
    assert messages.hold_pending(conn, "uid-ann", "claude", "composer", NOW + 2) == 0
    assert conn.total_changes == changes


def test_pending_is_what_waits_in_order_of_acceptance(conn: sqlite3.Connection) -> None:
    rows = [brought_to(conn, state) for state in (S.HELD, *S, S.ACCEPTED)]
    waiting = [row.id for row in rows if row.state in {S.ACCEPTED, S.HELD}]
    assert [row.id for row in messages.pending(conn, "uid-ann", "claude")] == waiting
    assert [row.id for row in messages.pending(conn, "uid-ann", "claude", 2)] == waiting[:2]
    assert messages.pending(conn, "uid-ann", "codex") == []
    assert messages.pending(conn, "uid-bob", "claude") == []


def test_outstanding_is_of_a_session_and_unresolved_of_an_identity(
    conn: sqlite3.Connection,
) -> None:
    one = [brought_to(conn, state, "s1").id for state in (S.IN_FLIGHT, S.LANDED)]
    two = brought_to(conn, S.LANDED, "s2").id
    brought_to(conn, S.SEEN, "s1")
    brought_to(conn, S.IN_FLIGHT, "s1", runtime="codex")
    final = brought_to(conn, S.IN_FLIGHT, "s2")
    messages.advance(conn, final.id, E.LAND, now=NOW, final=True)
    assert [r.id for r in messages.outstanding(conn, "s1") if r.runtime == "claude"] == one
    assert [r.id for r in messages.outstanding(conn, "s2")] == [two]
    assert [r.id for r in messages.unresolved(conn, "uid-ann", "claude")] == [*one, two]


def test_only_a_landing_can_be_final(conn: sqlite3.Connection) -> None:
    row = brought_to(conn, S.IN_FLIGHT)
    with pytest.raises(ValueError, match="final"):
        messages.advance(conn, row.id, E.SEE, now=NOW, final=True)


@pytest.mark.parametrize("dup", [True, False])
def test_a_dead_session_gives_back_what_was_not_seen(conn: sqlite3.Connection, dup: bool) -> None:
    flying, landed = (brought_to(conn, state, "s1") for state in (S.IN_FLIGHT, S.LANDED))
    seen, other = brought_to(conn, S.SEEN, "s1"), brought_to(conn, S.LANDED, "s2")
    final = brought_to(conn, S.IN_FLIGHT, "s1")
    final = messages.advance(conn, final.id, E.LAND, now=NOW, final=True)
    back = messages.give_back(conn, "s1", NOW + 1, "died", dup=dup)
    assert [(r.id, r.state, r.dup, r.reason) for r in back] == [
        (r.id, S.ACCEPTED, dup, "died") for r in (flying, landed)
    ]
    assert [messages.get(conn, r.id) for r in (seen, other, final)] == [seen, other, final]
    assert messages.give_back(conn, "s1", NOW + 2, "died", dup=not dup) == []


def test_a_pair_keeps_its_runtime_while_something_unpinned_is_undelivered(
    conn: sqlite3.Connection,
) -> None:
    def fixed() -> str | None:
        return messages.fixed_runtime(conn, "bob@claude", "uid-ann")

    assert fixed() is None
    accepted(conn, runtime="claude", pinned=True)
    accepted(conn, runtime="claude", sender="eve@claude")
    accepted(conn, runtime="claude", to_uid="uid-kim")
    assert fixed() is None
    row = accepted(conn, runtime="codex")
    assert fixed() == "codex"
    messages.begin_attempt(conn, row.id, "s", "paste", NOW)
    assert fixed() == "codex"
    messages.advance(conn, row.id, E.LAND, now=NOW)
    assert fixed() is None


def test_depth_counts_what_is_undelivered(conn: sqlite3.Connection) -> None:
    for state in S:
        brought_to(conn, state)
        brought_to(conn, state, runtime="codex")
    assert messages.depth(conn, "uid-ann", "claude") == len(UNDELIVERED)
    assert sum(messages.depths(conn, "uid-ann").values()) == 2 * len(UNDELIVERED)
    assert messages.depths(conn, "uid-bob") == {}


def test_identities_that_wait_are_listed_oldest_first(conn: sqlite3.Connection) -> None:
    accepted(conn, runtime="codex")
    accepted(conn)
    accepted(conn, runtime="codex")
    brought_to(conn, S.SEEN, to_uid="uid-kim", personality="kim")
    assert messages.undelivered_identities(conn) == [
        ("uid-ann", "ann", "codex", 2),
        ("uid-ann", "ann", "claude", 1),
    ]


def test_what_a_removed_peer_had_not_got_fails(conn: sqlite3.Connection) -> None:
    rows = [brought_to(conn, state) for state in S]
    other = accepted(conn, to_uid="uid-kim")
    failed = messages.fail_for_uid(conn, "uid-ann", "removed", NOW + 1)
    assert [r.id for r in failed] == [r.id for r in rows if r.state in UNDELIVERED]
    assert {(r.state, r.reason) for r in failed} == {(S.FAILED, "removed")}
    assert messages.get(conn, other.id) == other
    assert sum(messages.depths(conn, "uid-ann").values()) == 0


def test_a_rename_follows_into_undelivered_messages_only(conn: sqlite3.Connection) -> None:
    rows = [brought_to(conn, state) for state in S]
    assert messages.retarget(conn, "uid-ann", "anna") == len(UNDELIVERED)
    for row in rows:
        found = messages.get(conn, row.id)
        assert found is not None
        assert found.personality == ("anna" if row.state in UNDELIVERED else "ann")


def test_what_waits_past_its_time_expires(conn: sqlite3.Connection) -> None:
    rows = [brought_to(conn, state, expires_at=NOW + 5) for state in S]
    later = accepted(conn, expires_at=NOW + 6)
    assert messages.expire_due(conn, NOW + 4) == []
    assert [r.id for r in messages.expire_due(conn, NOW + 5, limit=1)] == [rows[0].id]
    assert [r.id for r in messages.expire_due(conn, NOW + 5)] == [rows[1].id]
    assert messages.expire_due(conn, NOW + 5) == []
    expired = messages.get(conn, rows[1].id)
    assert expired is not None
    assert (expired.state, expired.reason) == (S.EXPIRED, "ttl")
    assert messages.get(conn, later.id) == later


def test_a_search_combines_its_terms_newest_first(conn: sqlite3.Connection) -> None:
    a = accepted(conn, body="Deploy at 100%")
    b = brought_to(conn, S.FAILED, body="x", topic="deploy_plan")
    c = accepted(conn, sender_uid="uid-kim", to_uid="uid-eve", body="nothing")

    def found(**terms: object) -> list[str]:
        return [row.id for row in messages.search(conn, **terms)]  # type: ignore[arg-type]

    assert found() == [c.id, b.id, a.id]
    assert found(limit=2) == [c.id, b.id]
    assert found(limit=-1) == []
    assert found(grep="DEPLOY") == [b.id, a.id]
    assert found(grep="0%") == [a.id]
    assert found(grep="y_p") == [b.id]
    assert found(grep="100_") == []
    assert found(state=S.FAILED) == [b.id]
    assert found(peer_uid="uid-kim") == [c.id]
    assert found(peer_uid="uid-ann", grep="deploy", state=S.ACCEPTED) == [a.id]
