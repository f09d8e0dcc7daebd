"""A thread's past is read while it goes on: whatever happens between, nothing is lost or turned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from iapeer.core.states import TurnEnd
from iapeer.sessions.appserver import Whereabouts, nudge
from tests.unit.sessions.appserver.app_server import THREAD, AppServer, until
from tests.unit.sessions.appserver.test_channel import NEWER, ONE, TWO, Line, line, talking

__all__ = ["line"]

pytestmark = pytest.mark.anyio

DONE = ("turn_end", TurnEnd.DONE)
WHOLE = [("session",), ("turn_start",), ("user", ONE), DONE]
SHORT = [WHOLE[0], *WHOLE[2:]]
"""The same, when nobody has seen it run."""
Order = Callable[[AppServer], Awaitable[object]]


async def open_first(server: AppServer, line: Line) -> None:
    await until(lambda: line.connected and server.asked("thread/loaded/list"), "greeted")
    await server.open_thread()
    await until(lambda: server.asked("thread/resume"), "asked too early")


async def ends(server: AppServer) -> None:
    await server.end(THREAD)


async def ends_in_an_old_list(server: AppServer) -> None:
    """The list goes on to show the turn as it was."""
    thread = server.threads[THREAD]
    thread.behind = [thread.copied() for _ in range(3)]
    await server.end(THREAD)


async def ends_in_a_list_without_its_message(server: AppServer) -> None:
    thread = server.threads[THREAD]
    thread.behind = [[thread.copied()[0] | {"items": []}]] * 3
    await server.end(THREAD)


async def ends_and_is_taken_for_cut_off(server: AppServer) -> None:
    thread = server.threads[THREAD]
    thread.behind = [[thread.copied()[0] | {"status": "interrupted", "completedAt": None}]] * 3
    await server.end(THREAD)


@pytest.mark.parametrize(
    "order",
    [
        ends,
        ends_in_an_old_list,
        ends_in_a_list_without_its_message,
        ends_and_is_taken_for_cut_off,
    ],
)
async def test_a_turn_that_ends_while_its_past_is_read_is_told_whole(
    server: AppServer, line: Line, order: Order
) -> None:
    await open_first(server, line)
    server.meanwhile["thread/turns/list"] = lambda: order(server)
    await server.begin_unheard(THREAD, "t1", f"{ONE}-1")
    await until(lambda: DONE in line.told, "the end")
    assert line.told in (WHOLE, SHORT)
    server.threads[THREAD].behind.clear()
    assert not await line.interrupt()


async def test_its_end_may_come_long_after_the_thread_was_told_to_be_idle(
    server: AppServer, line: Line
) -> None:
    async def idle() -> None:
        server.threads[THREAD].status = "idle"
        await server.status(THREAD)

    await open_first(server, line)
    server.meanwhile["thread/turns/list"] = idle
    await server.begin_unheard(THREAD, "t1", f"{ONE}-1")
    await until(lambda: len(server.asked("thread/turns/list")) > 2, "looked again")
    await server.end(THREAD)
    await until(lambda: line.told in (WHOLE, SHORT), "told whole")


async def test_a_turn_that_has_just_begun_is_not_taken_for_one_that_was_cut_off(
    server: AppServer, line: Line
) -> None:
    await open_first(server, line)
    thread = server.threads[THREAD]
    thread.behind = [[{"id": "t1", "items": [], "status": "interrupted", "completedAt": None}]] * 3
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: line.told == WHOLE[:3], "seen")
    assert line.busy
    await server.end(THREAD)
    await until(lambda: line.told == WHOLE, "told whole")


async def test_a_message_that_was_told_before_we_listened_is_in_a_later_list(
    server: AppServer, line: Line
) -> None:
    await open_first(server, line)
    server.threads[THREAD].behind = [[{"id": "t1", "items": [], "status": "inProgress"}]] * 3
    await server.begin_unheard(THREAD, "t1", f"{ONE}-1")
    await until(lambda: line.told == WHOLE[:3], "seen")


async def test_a_turn_that_is_not_yet_in_the_list_is_waited_for(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await server.end(THREAD)
    await until(lambda: line.told[-1] == DONE, "the first one has ended")
    thread = server.threads[THREAD]
    thread.behind = [thread.copied() for _ in range(3)]
    server.drop()
    await until(lambda: not line.connected, "lost")
    await server.begin_unheard(THREAD, "t2", f"{TWO}-1")
    await until(lambda: line.told[-2:] == [("turn_start",), ("user", TWO)], "seen")


async def test_a_turn_that_nobody_ends_was_cut_off(server: AppServer, line: Line) -> None:
    await open_first(server, line)
    await server.begin_unheard(THREAD, "t1", f"{ONE}-1")
    server.threads[THREAD].turns[0]["startedAt"] = 1_795_000_001
    server.threads[THREAD].status = "idle"
    await server.status(THREAD)
    cut = ("turn_end", TurnEnd.INTERRUPTED)
    await until(lambda: line.told[-2:] == [("user", ONE), cut], "settled")


async def test_a_person_who_leaves_while_the_past_is_read_turns_nothing_round(
    server: AppServer, line: Line
) -> None:
    async def leave() -> None:
        await server.open_thread(NEWER)
        await server.end(THREAD)

    await open_first(server, line)
    server.meanwhile["thread/turns/list"] = leave
    await server.begin_unheard(THREAD, "t1", f"{ONE}-1")
    await until(lambda: DONE in line.told, "the end")
    assert line.told == WHOLE[1:]
    assert line.native_id == NEWER
    await server.begin(NEWER, "t2", f"{TWO}-1")
    await until(lambda: line.told[3:] == [("session",), ("turn_start",), ("user", TWO)], "goes on")


async def test_a_turn_in_a_conversation_that_was_left_unheard_is_told_to_its_end(
    server: AppServer, line: Line
) -> None:
    await open_first(server, line)
    await line.queue_add("x", f"{ONE}-1")
    await server.open_thread(NEWER)
    await until(lambda: line.native_id == NEWER, "left")
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: line.told == WHOLE[1:3], "seen there")
    assert line.busy
    await server.end(THREAD)
    await until(lambda: line.told == WHOLE[1:], "and its end")
    assert line.native_id == NEWER


async def test_after_a_lost_connection_a_conversation_that_was_left_is_heard_again(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen")
    await server.open_thread(NEWER)
    await until(lambda: line.native_id == NEWER, "left")
    line.facts.clear()
    server.drop()
    await until(lambda: not line.connected, "lost")
    await server.end(THREAD)
    await until(lambda: line.told == [DONE], "its end")


async def test_an_interrupt_reaches_a_conversation_that_was_left(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: line.busy, "busy")
    await server.open_thread(NEWER)
    await until(lambda: line.native_id == NEWER, "left")
    assert line.busy
    assert await line.interrupt()
    assert server.asked("turn/interrupt") == [{"threadId": THREAD, "turnId": "t1"}]
    await server.end(THREAD, "interrupted")
    await until(lambda: line.told[-1] == ("turn_end", TurnEnd.INTERRUPTED), "told")
    assert not await line.interrupt()


async def test_a_message_behind_an_interrupted_turn_is_started_where_it_was_left(
    server: AppServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "NUDGE_S", 0.05)
    await talking(server, line)
    await server.begin(THREAD, "t1")
    await until(lambda: line.busy, "busy")
    await line.queue_add("x", f"{ONE}-1")
    await server.open_thread(NEWER)
    await until(lambda: line.native_id == NEWER, "left")
    await server.end(THREAD, "interrupted")
    await until(lambda: server.asked("thread/queue/start"), "started")
    assert server.asked("thread/queue/start")[0] == {
        "threadId": THREAD,
        "queuedSubmissionId": f"q-{ONE}-1",
    }


async def test_a_message_whose_turn_ends_while_it_is_looked_for_was_answered(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen")
    server.meanwhile["thread/turns/list"] = lambda: ends_in_an_old_list(server)
    assert await line.look_any(ONE) == Whereabouts.SHOWN
