"""A turn that was taken for cut off has come to its end after all."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.core.states import TurnEnd
from iapeer.routing.lanes import proofs
from iapeer.sessions.evidence import Fact
from iapeer.storage.ledger import messages, sessions, turns
from tests.unit.storage.ledger.samples import NOW, a_message, a_session, open_at

ONE, TWO = "a" * 12, "b" * 12
CUT = Fact("turn_end", status=TurnEnd.INTERRUPTED)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(open_at(tmp_path / "ledger.db")) as opened:
        sessions.open_session(opened, a_session(id="s"))
        sessions.open_session(opened, a_session(id="other"))
        for message_id in (ONE, TWO):
            messages.accept(opened, a_message(id=message_id, depth=3), NOW)
            messages.begin_attempt(opened, message_id, "s", "appserver", NOW)
        yield opened


def take(conn: sqlite3.Connection, *facts: Fact, session_id: str = "s") -> proofs.Taken:
    return proofs.take(conn, session_id, facts, NOW, has_turns=True)


def ends(conn: sqlite3.Connection) -> list[list[str]]:
    return [[t.turn_end for t in turns.turns_of(conn, i)] for i in (ONE, TWO)]


def done(*ids: str) -> Fact:
    return Fact("turn_end", ids=ids, status=TurnEnd.DONE)


def test_the_later_word_counts_for_its_own_messages_only(conn: sqlite3.Connection) -> None:
    take(conn, Fact("user", (ONE,)), CUT, Fact("user", (TWO,)))
    taken = take(conn, done(ONE))
    assert ends(conn) == [["done"], [""]]
    # The turn that runs goes on, with what it was told.
    assert taken.depth is None
    assert [ids for _, _, ids in taken.ended] == [[ONE]]
    take(conn, CUT)
    assert ends(conn) == [["done"], ["interrupted"]]


@pytest.mark.parametrize("end", [TurnEnd.API_ERROR, TurnEnd.DONE, TurnEnd.DIED])
def test_no_other_end_is_ever_changed(conn: sqlite3.Connection, end: TurnEnd) -> None:
    take(conn, Fact("user", (ONE, TWO)), Fact("turn_end", status=end))
    assert take(conn, done(ONE)).ended[0][2] == []
    assert ends(conn) == [[end], [end]]


def test_another_sessions_word_counts_nothing(conn: sqlite3.Connection) -> None:
    take(conn, Fact("user", (ONE,)), CUT)
    take(conn, done(ONE), session_id="other")
    assert ends(conn)[0] == ["interrupted"]


def test_the_end_of_one_turn_beside_another_leaves_that_one_its_depth(
    conn: sqlite3.Connection,
) -> None:
    assert take(conn, Fact("user", (ONE,)), Fact("user", (TWO,))).depth == 3
    assert take(conn, Fact("turn_end", status=TurnEnd.DONE, spares=(TWO,))).depth is None
    assert take(conn, Fact("turn_end", status=TurnEnd.DONE)).depth == proofs.HUMAN_DEPTH
