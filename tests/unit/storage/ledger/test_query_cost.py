"""What is asked for each message must not look at the messages of the past."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from iapeer.core.states import UNDELIVERED
from iapeer.storage.ledger import marks, messages, postmortems, queries, upkeep
from tests.unit.storage.ledger.samples import NOW, accepted

PAST = 300
TO, FROM = "box-uid", "sender-uid"

QUESTIONS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "depth": lambda c: queries.depth(c, TO, "claude"),
    "depths": lambda c: queries.depths(c, TO),
    "fixed_runtime": lambda c: queries.fixed_runtime(c, "api-op", TO),
    "pending": lambda c: queries.pending(c, TO, "claude"),
    "unresolved": lambda c: queries.unresolved(c, TO, "claude"),
    "undelivered_identities": queries.undelivered_identities,
    "untold": queries.untold,
    "expire_due": lambda c: messages.expire_due(c, NOW),
    "purge": lambda c: upkeep.purge(c, NOW, 10.0, 100.0),
    "steps_of": lambda c: postmortems.steps_of(c, "session"),
    "last_turn": lambda c: postmortems.last_turn(c, "session"),
}
INDEXES: dict[str, tuple[Callable[[sqlite3.Connection], object], set[str]]] = {
    "purge": (
        lambda c: upkeep.purge(c, NOW, 10.0, 100.0),
        {"messages_age", "keys_created", "sessions_ended", "deaths_at", "postmortems_at"},
    ),
    "expire_due": (lambda c: messages.expire_due(c, NOW), {"messages_ttl"}),
    "steps_of": (lambda c: postmortems.steps_of(c, "session"), {"history_session"}),
    "last_turn": (lambda c: postmortems.last_turn(c, "session"), {"history_session"}),
    "newest of a peer": (lambda c: postmortems.newest(c, "uid"), {"postmortems_uid"}),
    "recent_bodies": (lambda c: postmortems.recent_bodies(c, "uid"), {"messages_answer"}),
    "all_deaths_since": (lambda c: marks.all_deaths_since(c, NOW, ()), {"deaths_at"}),
}
TABLES = {"messages", "history", "turns", "sessions", "keys", "deaths", "postmortems"}


def steps_of(conn: sqlite3.Connection, ask: Callable[[sqlite3.Connection], object]) -> int:
    """Return how many steps of its machine SQLite takes for a question."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    conn.set_progress_handler(count, 1)
    ask(conn)
    conn.set_progress_handler(None, 1)
    return steps


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_asked_per_message_takes_no_more_steps_when_much_was_delivered(
    conn: sqlite3.Connection, name: str
) -> None:
    for _ in range(PAST):
        accepted(conn, to_uid=TO, sender_uid=FROM, sender="api-op", runtime="claude")
    conn.execute("UPDATE messages SET state = 'seen'")
    waiting = accepted(conn, to_uid=TO, sender_uid=FROM, sender="api-op", runtime="claude")
    assert waiting.state in UNDELIVERED
    assert steps_of(conn, QUESTIONS[name]) < PAST


@pytest.mark.parametrize("name", INDEXES)
def test_what_is_asked_again_and_again_reads_no_table_from_end_to_end(
    conn: sqlite3.Connection, name: str
) -> None:
    ask, wanted = INDEXES[name]
    asked: list[str] = []
    conn.set_trace_callback(asked.append)
    ask(conn)
    conn.set_trace_callback(None)
    # SQLite also tells of what it does by itself, in a comment.
    statements = [statement for statement in asked if not statement.startswith("--")]
    plans = [str(r[3]) for sql in statements for r in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert not [plan for plan in plans if plan.startswith("SCAN") and plan.split()[1] in TABLES]
    assert {index for index in wanted if any(f"INDEX {index}" in plan for plan in plans)} == wanted
    # What is true without statistics must be what production has.
    stored = conn.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'sqlite_stat%'")
    assert stored.fetchone() == (0,)


def test_the_bodies_of_a_silent_peer_are_found_without_reading_those_of_others(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmortems, "_GLANCE", 10)

    def look() -> int:
        return steps_of(conn, lambda c: postmortems.recent_bodies(c, "silent"))

    accepted(conn, to_uid="silent", sender_uid=FROM, body="old words")
    for _ in range(20):
        accepted(conn, to_uid=TO, sender_uid=FROM)
    before = look()
    for _ in range(PAST):
        accepted(conn, to_uid=TO, sender_uid=FROM)
    assert look() < before + PAST
    assert postmortems.recent_bodies(conn, "silent") == ["old words"]


def test_the_depth_of_a_peer_counts_what_waits_for_all_its_runtimes(
    conn: sqlite3.Connection,
) -> None:
    for runtime in ("claude", "codex", "codex"):
        accepted(conn, to_uid=TO, runtime=runtime)
    accepted(conn, to_uid="somebody-else")
    assert sum(queries.depths(conn, TO).values()) == 3


def test_a_hold_takes_no_more_steps_when_much_is_held_already(conn: sqlite3.Connection) -> None:
    def hold_one_more() -> int:
        new = accepted(conn, to_uid=TO, runtime="claude")
        steps = steps_of(conn, lambda c: messages.hold_pending(c, TO, "claude", "offline", NOW))
        held = messages.get(conn, new.id)
        assert held is not None
        assert (held.state, held.reason) == ("held", "offline")
        return steps

    first = hold_one_more()
    for _ in range(PAST):
        accepted(conn, to_uid=TO, runtime="claude")
    assert messages.hold_pending(conn, TO, "claude", "offline", NOW) == PAST
    assert hold_one_more() < first + PAST
