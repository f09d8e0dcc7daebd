from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iapeer.core.states import TurnEnd
from iapeer.sessions.appserver import AppServerChannel, Whereabouts, nudge
from iapeer.sessions.appserver.wire import NotSent, Refused, WireError
from iapeer.sessions.evidence import Fact
from tests.unit.sessions.appserver.app_server import THREAD, AppServer, until

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = "abcdefgh2345", "bcdefghi2345", "cdefghij2345"
NEWER = THREAD.replace("01a2", "01b2")


class Line(AppServerChannel):
    """A channel that keeps what it reports."""

    def __init__(self, server: AppServer, native_id: str = "") -> None:
        self.facts: list[Fact] = []
        super().__init__(
            str(server.path), self.facts.extend, native_id=native_id, since=1_795_000_000.0
        )

    @property
    def told(self) -> list[tuple[str, ...]]:
        return [(f.kind, *f.ids, *filter(None, [f.status])) for f in self.facts]

    @property
    def followed(self) -> str:
        return self.native_id

    def ids(self) -> list[str]:
        return [i for fact in self.facts for i in fact.ids]


@pytest.fixture
async def line(server: AppServer) -> AsyncIterator[Line]:
    found = Line(server)
    await found.start()
    yield found
    await found.close()


async def talking(server: AppServer, line: Line) -> None:
    """Bring a thread up in which one turn with a typed message has ended."""
    await until(lambda: line.connected and server.asked("thread/loaded/list"), "greeted")
    await server.open_thread()
    await server.begin(THREAD, "t0", "typed")
    await server.end(THREAD)
    await until(lambda: line.status().subscribed, "subscribed")


async def test_a_server_that_comes_up_later_is_found(folder: Path) -> None:
    server = AppServer(folder / "c.sock")
    line = Line(server)
    await line.start()
    await until(lambda: line.status().trouble, "the first try has failed")
    assert not line.connected
    with pytest.raises(NotSent):
        await line.queue_add("x", f"{ONE}-1")
    await server.start()
    await until(lambda: line.connected, "connected")
    assert line.native_id == ""
    assert not line.ready
    await line.close()
    await server.stop()


async def test_the_terminals_thread_is_taken_when_it_is_made(server: AppServer, line: Line) -> None:
    await until(lambda: server.asked("thread/loaded/list"), "greeted")
    server.add("02000000-title").ephemeral = True
    await server.tell("thread/started", {"thread": server.threads["02000000-title"].record})
    await server.open_thread()
    await until(lambda: line.ready, "the thread is known")
    assert line.native_id == THREAD
    assert not line.status().subscribed


async def test_the_first_turn_is_told_whole_although_its_news_are_refused_before_it(
    server: AppServer, line: Line
) -> None:
    await until(lambda: server.asked("thread/loaded/list"), "greeted")
    await server.open_thread()
    await until(lambda: server.asked("thread/resume"), "asked too early")
    await line.queue_add("hello", f"{ONE}-1")
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen")
    await server.end(THREAD)
    await until(lambda: len(line.told) == 4, "the turn has ended")
    assert line.told == [
        ("session",),
        ("turn_start",),
        ("user", ONE),
        ("turn_end", TurnEnd.DONE),
    ]
    assert line.facts[0].native_id == THREAD
    assert line.facts[0].transcript.endswith(f"{THREAD}.jsonl")


async def test_a_thread_to_resume_is_left_alone_until_the_terminal_has_loaded_it(
    server: AppServer,
) -> None:
    line = Line(server, native_id=THREAD)
    await line.start()
    await until(lambda: len(server.asked("thread/loaded/list")) > 1, "it has looked twice")
    assert line.native_id == ""
    assert server.asked("thread/resume") == []
    thread = server.add()
    thread.turns.append({"id": "t", "items": [], "status": "completed"})
    await server.status(THREAD)
    await until(lambda: line.status().subscribed, "subscribed")
    assert line.native_id == THREAD
    await line.close()


async def test_busy_follows_the_thread(server: AppServer, line: Line) -> None:
    await talking(server, line)
    assert not line.busy
    await server.begin(THREAD, "t1")
    await until(lambda: line.busy, "busy")
    await server.end(THREAD, "failed", {"message": "no", "codexErrorInfo": "serverOverloaded"})
    await until(lambda: line.told[-1][0] == "turn_end", "idle")
    assert not line.status().busy
    assert line.facts[-1].error == "overloaded"


async def test_after_a_lost_connection_what_was_missed_is_told_once(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen")
    server.drop()
    await until(lambda: not line.connected, "lost")
    assert not line.busy
    await server.end(THREAD)
    await server.begin(THREAD, "t2", f"{TWO}-1")
    await server.end(THREAD, "interrupted")
    await server.begin(THREAD, "t3", f"{THREE}-1")
    await until(lambda: THREE in line.ids(), "read again")
    assert line.ids() == [ONE, TWO, THREE]
    assert [word for *_, word in line.told if word in set(TurnEnd)][-2:] == [
        TurnEnd.DONE,
        TurnEnd.INTERRUPTED,
    ]
    assert line.busy


async def test_a_turn_cut_off_with_its_server_is_told_as_interrupted(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen")
    await server.stop()
    server.threads[THREAD].status = "idle"
    await until(lambda: not line.connected, "lost")
    await server.start()
    await until(lambda: line.told[-1] == ("turn_end", TurnEnd.INTERRUPTED), "told")


async def test_where_a_message_is_can_be_looked_up(server: AppServer, line: Line) -> None:
    await talking(server, line)
    assert await line.look(f"{ONE}-1") == Whereabouts.ABSENT
    await line.queue_add("x", f"{ONE}-1")
    assert await line.look(f"{ONE}-1") == Whereabouts.QUEUED
    assert await line.look(f"{ONE}-2") == Whereabouts.ABSENT
    assert await line.look_any(ONE) == Whereabouts.QUEUED
    server.threads[THREAD].queue.clear()
    await server.begin(THREAD, "t1", f"{ONE}-1")
    assert await line.look_any(ONE) == Whereabouts.SHOWN
    await server.end(THREAD, "interrupted")
    assert await line.look_any(ONE) == Whereabouts.CUT
    assert await line.has_message(ONE)
    server.deadly.add("thread/queue/list")
    with pytest.raises(WireError):
        await line.look(f"{TWO}-1")


async def test_behind_an_interrupted_turn_our_message_is_started_a_little_later(
    server: AppServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "NUDGE_S", 0.05)
    await talking(server, line)
    await server.begin(THREAD, "t1")
    queue = server.threads[THREAD].queue
    queue.append({"id": "q-typed", "clientUserMessageId": "typed"})
    await line.queue_add("x", f"{ONE}-1")
    await until(lambda: line.busy, "busy")
    assert server.asked("thread/queue/start") == []
    await server.end(THREAD, "interrupted")
    await until(lambda: server.asked("thread/queue/start"), "started")
    assert server.asked("thread/queue/start")[0]["queuedSubmissionId"] == f"q-{ONE}-1"


async def test_an_interrupt_names_the_running_turn(server: AppServer, line: Line) -> None:
    await talking(server, line)
    assert not await line.interrupt()
    await server.begin(THREAD, "t1")
    await until(lambda: line.busy, "busy")
    assert await line.interrupt()
    assert server.asked("turn/interrupt") == [{"threadId": THREAD, "turnId": "t1"}]


async def test_compaction_waits_for_nobody(server: AppServer, line: Line) -> None:
    await talking(server, line)
    await server.begin(THREAD, "t1")
    await until(lambda: line.busy, "busy")
    assert not await line.compact()
    await server.end(THREAD)
    await until(lambda: not line.busy, "idle")
    await line.queue_add("x", f"{ONE}-1")
    assert not await line.compact()
    server.threads[THREAD].queue.clear()
    assert await line.compact()
    assert len(server.asked("thread/compact/start")) == 1


async def test_a_refusal_pauses_the_line(server: AppServer, line: Line) -> None:
    await talking(server, line)
    assert line.ready
    server.refusing["thread/queue/add"] = "no"
    with pytest.raises(Refused):
        await line.queue_add("x", f"{ONE}-1")
    assert line.status().trouble
    assert [line.ready] == [False]


async def test_a_new_conversation_is_followed_and_the_old_one_is_still_heard(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.open_thread(NEWER)
    await until(lambda: line.native_id == NEWER, "followed")
    await server.begin(THREAD, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "heard in the old one")
    await server.end(THREAD)
    await until(lambda: line.told[-1] == ("turn_end", TurnEnd.DONE), "and its end")
    assert line.native_id == NEWER
    await server.begin(NEWER, "t2", f"{TWO}-1")
    await until(lambda: TWO in line.ids(), "heard in the new one")
    # A person has gone back.
    await server.begin(THREAD, "t3", "typed again")
    await until(lambda: line.followed == THREAD, "followed again")


async def test_a_conversation_is_never_brought_up_by_us(server: AppServer, line: Line) -> None:
    await talking(server, line)
    thread = server.threads.pop(THREAD)
    thread.turns.append({"id": "t1", "items": [], "status": "completed"})
    server.calls.clear()
    server.drop()
    await until(lambda: len(server.asked("thread/loaded/list")) > 1, "it has looked twice")
    assert server.asked("thread/resume") == []
    assert not line.ready
    # What is not loaded can't be looked into: nobody may say that a message is not there.
    with pytest.raises(NotSent, match="not loaded"):
        await line.look(f"{ONE}-1")
    server.threads[THREAD] = thread
    await server.status(THREAD)
    await until(lambda: line.status().subscribed, "subscribed")


async def test_a_notification_of_another_shape_ends_the_connection_and_is_told(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.tell("turn/started", {"threadId": 5})
    await until(lambda: "another shape" in line.status().trouble, "told")
    await until(lambda: line.status().subscribed, "and it goes on")


async def test_after_the_end_nothing_is_reported(server: AppServer, line: Line) -> None:
    await talking(server, line)
    await line.close()
    assert not line.status().connected
    await until(lambda: not server._connections, "disconnected")
    await line.close()
    await line.start()
    assert not server._connections
