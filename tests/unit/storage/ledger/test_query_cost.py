"""What is asked for each message must not look at the messages of the past."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from iapeer.core.states import UNDELIVERED
from iapeer.storage.ledger import messages, queries
from tests.unit.storage.ledger.samples import NOW, accepted

PAST = 300
TO, FROM = "box-uid", "sender-uid"

QUESTIONS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "depth": lambda c: queries.depth(c, TO, "claude"),
    "depth_of_uid": lambda c: queries.depth_of_uid(c, TO),
    "fixed_runtime": lambda c: queries.fixed_runtime(c, "api-op", TO),
    "pending": lambda c: queries.pending(c, TO, "claude"),
    "unresolved": lambda c: queries.unresolved(c, TO, "claude"),
    "undelivered_identities": queries.undelivered_identities,
    "untold": queries.untold,
    "expire_due": lambda c: messages.expire_due(c, NOW),
}


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


def test_the_depth_of_a_peer_counts_what_waits_for_all_its_runtimes(
    conn: sqlite3.Connection,
) -> None:
    for runtime in ("claude", "codex", "codex"):
        accepted(conn, to_uid=TO, runtime=runtime)
    accepted(conn, to_uid="somebody-else")
    assert queries.depth_of_uid(conn, TO) == 3


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
