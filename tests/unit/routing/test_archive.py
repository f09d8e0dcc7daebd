from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.core.identity import Intelligence
from iapeer.core.record import RegistryRecord
from iapeer.core.states import MessageState, TurnEnd
from iapeer.registry.index import RegistrySnapshot
from iapeer.routing.archive import QUOTE_CHARS, find, story
from iapeer.routing.ports import MessageQuery, TraceTurn
from iapeer.storage.ledger import messages, turns
from tests.unit.storage.ledger.samples import NOW, accepted, brought_to, open_at


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(open_at(tmp_path / "state" / "ledger.db")) as opened:
        yield opened


def test_a_story_tells_turns_the_answer_and_what_was_altered(conn: sqlite3.Connection) -> None:
    row = brought_to(conn, MessageState.SEEN, body="a\x1b[31mb\r\nc")
    turns.begin_turn(conn, row, NOW + 1)
    answer = accepted(conn, sender="claude-ann", sender_uid="uid-ann", to_uid="uid-bob")
    assert messages.note_answer(conn, answer) == row.id
    assert story(conn, row.id).turns == (
        TraceTurn(attempt=1, seen_at=NOW + 1, end="", ended_at=None),
    )
    turns.end_turn(conn, row.session_id, TurnEnd.DONE, NOW + 2)
    told = story(conn, row.id)
    assert [(turn.end, turn.ended_at) for turn in told.turns] == [("done", NOW + 2)]
    assert (told.answered_by, told.altered) == (answer.id, 2)


def test_nothing_is_altered_before_a_terminal_has_it_or_where_none_is(
    conn: sqlite3.Connection,
) -> None:
    assert story(conn, accepted(conn, body="\x1b").id).altered == 0
    row = accepted(conn, body="\x1b")
    messages.begin_attempt(conn, row.id, "session-1", "inbox", NOW)
    assert story(conn, row.id).altered == 0


def test_a_view_quotes_the_beginning_on_one_line_and_keeps_the_body_back(
    conn: sqlite3.Connection,
) -> None:
    row = accepted(conn, body="first\nline " + "x" * 100)
    (view,) = find(conn, RegistrySnapshot(), MessageQuery())
    assert view.body is None
    assert view.quote.startswith("first line xxx")
    assert len(view.quote) == QUOTE_CHARS
    (whole,) = find(conn, RegistrySnapshot(), MessageQuery(bodies=True))
    assert whole.body == row.body


def test_a_registered_peer_is_found_by_its_uid_and_one_that_is_gone_by_its_name(
    conn: sqlite3.Connection,
) -> None:
    of_old_ann = accepted(conn, to_uid="uid-old", personality="ann", sender_uid="x")
    of_ann = accepted(conn, to_uid="uid-ann", personality="its-old-name", sender_uid="x")
    record = RegistryRecord(
        personality="ann",
        default_runtime="demo",
        runtimes=("demo",),
        intelligence=Intelligence.ARTIFICIAL,
        cwd="/nowhere",
        uid="uid-ann",
    )
    query = MessageQuery(peer="ann")
    found = find(conn, RegistrySnapshot(records=(record,)), query)
    assert [view.id for view in found] == [of_ann.id]
    assert [view.id for view in find(conn, RegistrySnapshot(), query)] == [of_old_ann.id]
