"""A person begins anew while a turn runs: two conversations of one terminal at work at once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.core.states import TurnEnd
from iapeer.routing.lanes import proofs
from iapeer.storage.ledger import messages, sessions, turns
from tests.unit.sessions.appserver.app_server import THREAD, AppServer, until
from tests.unit.sessions.appserver.test_channel import (
    NEWER,
    ONE,
    THREE,
    TWO,
    Line,
    line,
    talking,
)
from tests.unit.storage.ledger.samples import NOW, a_message, a_session, open_at

__all__ = ["line"]

pytestmark = pytest.mark.anyio


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(open_at(tmp_path / "ledger.db")) as opened:
        sessions.open_session(opened, a_session(id="s"))
        for message_id in (ONE, TWO, THREE):
            messages.accept(opened, a_message(id=message_id), NOW)
            messages.begin_attempt(opened, message_id, "s", "appserver", NOW)
        yield opened


def ends(conn: sqlite3.Connection, line: Line) -> list[list[str]]:
    """Return how the turns of ONE, TWO and THREE have ended, as far as was told since before."""
    proofs.take(conn, "s", line.facts, NOW, has_turns=True)
    line.facts.clear()
    found = [turns.turns_of(conn, message_id) for message_id in (ONE, TWO, THREE)]
    return [[turn.turn_end for turn in rows] for rows in found]


async def both(server: AppServer, line: Line) -> None:
    """Bring ONE to run in a conversation that was left for one in which TWO runs."""
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen in the old one")
    await server.open_thread(NEWER)
    await server.begin(NEWER, "t2", f"{TWO}-1")
    await until(lambda: TWO in line.ids(), "seen in the new one")


async def test_the_end_of_a_turn_leaves_those_of_other_conversations_open(
    server: AppServer, line: Line, conn: sqlite3.Connection
) -> None:
    await both(server, line)
    await server.end(NEWER)
    await until(lambda: line.told[-1][0] == "turn_end", "the new one's end")
    assert ends(conn, line) == [[""], [TurnEnd.DONE], []]
    await server.begin(NEWER, "t3", f"{THREE}-1")
    await server.end(THREAD, "failed", {"message": "no"})
    await until(lambda: line.told[-1:] == [("turn_end", TurnEnd.API_ERROR)], "the old one's end")
    assert ends(conn, line) == [[TurnEnd.API_ERROR], [TurnEnd.DONE], [""]]
    await server.end(NEWER, "interrupted")
    await until(lambda: line.told, "its end")
    assert ends(conn, line)[2] == [TurnEnd.INTERRUPTED]


@pytest.mark.parametrize("known", [NEWER, THREAD])
async def test_another_channel_hears_the_conversation_that_was_left_too(
    server: AppServer, line: Line, conn: sqlite3.Connection, known: str
) -> None:
    await both(server, line)
    await line.close()
    server.add("00a20000-older").turns.append({"id": "t", "items": [], "status": "completed"})
    later = Line(server, native_id=known)
    await later.start()
    await until(lambda: {ONE, TWO} <= set(later.ids()), "both are read")
    assert later.native_id == NEWER
    await server.end(NEWER)
    await until(lambda: later.told[-1][0] == "turn_end", "the new one's end")
    assert ends(conn, later) == [[""], [TurnEnd.DONE], []]
    await server.end(THREAD)
    await until(lambda: later.told, "the old one's end")
    assert ends(conn, later)[0] == [TurnEnd.DONE]
    assert {asked["threadId"] for asked in server.asked("thread/resume")} == {THREAD, NEWER}
    await later.close()


async def test_so_do_ends_that_are_read_after_a_lost_connection(
    server: AppServer, line: Line, conn: sqlite3.Connection
) -> None:
    await both(server, line)
    server.drop()
    await until(lambda: not line.connected, "lost")
    await server.end(NEWER)
    await until(lambda: line.told[-1][0] == "turn_end", "read")
    assert ends(conn, line) == [[""], [TurnEnd.DONE], []]
    await server.end(THREAD, "interrupted")
    await until(lambda: line.told, "the old one's end")
    assert ends(conn, line)[0] == [TurnEnd.INTERRUPTED]


async def test_a_turn_of_a_conversation_that_a_new_server_has_not_loaded_was_cut_off(
    server: AppServer, line: Line, conn: sqlite3.Connection
) -> None:
    await both(server, line)
    await server.stop()
    await until(lambda: not line.connected, "lost")
    left = server.threads.pop(THREAD)
    await server.start()
    await until(lambda: line.told[-1][0] == "turn_end", "told")
    assert ends(conn, line) == [[TurnEnd.INTERRUPTED], [""], []]
    # The person goes back to it, and its list says the same.
    left.status = "idle"
    server.threads[THREAD] = left
    asked = len(server.asked("thread/resume"))
    await server.begin(THREAD, "t3")
    await until(lambda: len(server.asked("thread/resume")) > asked, "heard again")
    await server.say(THREAD, "typed")
    await until(lambda: line.followed == THREAD, "followed again")
    await server.end(THREAD)
    await server.end(NEWER)
    await until(lambda: line.told.count(("turn_end", TurnEnd.DONE)) == 2, "both have ended")
    assert ends(conn, line) == [[TurnEnd.INTERRUPTED], [TurnEnd.DONE], []]


async def test_a_turn_of_a_conversation_that_is_deleted_was_cut_off(
    server: AppServer, line: Line, conn: sqlite3.Connection
) -> None:
    await both(server, line)
    del server.threads[THREAD]
    await server.tell("thread/deleted", {"threadId": THREAD})
    await until(lambda: line.told[-1][0] == "turn_end", "told")
    assert ends(conn, line) == [[TurnEnd.INTERRUPTED], [""], []]


async def test_a_server_that_closes_all_on_its_way_out_has_ended_nothing(
    server: AppServer, line: Line, conn: sqlite3.Connection
) -> None:
    await both(server, line)
    server.threads.clear()
    looks = len(server.asked("thread/loaded/list"))
    for thread in (THREAD, NEWER):
        await server.tell("thread/closed", {"threadId": thread})
    await until(lambda: len(server.asked("thread/loaded/list")) > looks + 1, "looked again")
    assert ends(conn, line) == [[""], [""], []]


async def test_what_was_taken_for_cut_off_and_ends_later_was_answered(
    server: AppServer, line: Line, conn: sqlite3.Connection
) -> None:
    async def idle() -> None:
        server.threads[THREAD].status = "idle"
        await server.status(THREAD)

    await until(lambda: line.connected and server.asked("thread/loaded/list"), "greeted")
    await server.open_thread()
    await until(lambda: server.asked("thread/resume"), "asked too early")
    server.meanwhile["thread/turns/list"] = idle
    await server.begin_unheard(THREAD, "t1", f"{ONE}-1")
    server.threads[THREAD].turns[0]["startedAt"] = 1_795_000_001
    await until(lambda: line.told[-1:] == [("turn_end", TurnEnd.INTERRUPTED)], "settled")
    assert ends(conn, line)[0] == [TurnEnd.INTERRUPTED]
    await server.end(THREAD)
    await until(lambda: line.told == [("turn_end", ONE, TurnEnd.DONE)], "the better word")
    assert ends(conn, line)[0] == [TurnEnd.DONE]
