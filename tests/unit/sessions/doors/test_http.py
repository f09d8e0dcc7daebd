"""The `http` door: what it says of a hand-over is what the server can be held to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from iapeer.core.envelope import Envelope
from iapeer.core.identity import Intelligence
from iapeer.core.states import HoldReason
from iapeer.sessions.doors import http
from iapeer.sessions.doors.http import HttpDoor
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.evidence import Fact
from iapeer.sessions.httpserver import HttpChannel, channel
from iapeer.sessions.httpserver.ids import native_message_id
from iapeer.sessions.model import TmuxSession
from tests.unit.sessions.httpserver.fake_opencode import FakeOpencode, until

pytestmark = pytest.mark.anyio

ID = "abcdefgh2345"
ENDED_WELL = [("user", (ID,), ""), ("turn_end", (), "done")]
DOOR = HttpDoor()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "AGAIN_S", 0.05)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes as long as it takes: on a busy machine a step would be put off to the next."""
    monkeypatch.setattr(http, "STEP_S", 30.0)
    monkeypatch.setattr(channel, "RUN_AGAIN_S", 10.0)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FakeOpencode]:
    running = FakeOpencode()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def facts() -> list[Fact]:
    return []


@pytest.fixture
async def session(
    server: FakeOpencode, facts: list[Fact], tmp_path: Path
) -> AsyncIterator[TmuxSession]:
    line = HttpChannel(server.address, facts.extend)
    await line.start()
    await until(lambda: line.ready)
    yield session_of(line, tmp_path)
    await line.close()


def session_of(line: HttpChannel | None, cwd: Path) -> TmuxSession:
    spec = SimpleNamespace(submit=SimpleNamespace(mentions=False))
    fake = SimpleNamespace(channel=line, preface="Welcome.", spec=spec, cwd=cwd)
    return cast("TmuxSession", fake)


def letter(dup: str | None = None) -> Envelope:
    return Envelope(
        from_personality="ann",
        from_runtime="claude",
        from_intelligence=Intelligence.ARTIFICIAL,
        body="Привет\n/help\n!ls\n\ttab ]]> 你好",
        id=ID,
        dup=dup,
    )


def native_id_of(session: TmuxSession) -> str:
    assert session.channel is not None
    return session.channel.native_id


def stored_before(server: FakeOpencode, session: TmuxSession) -> str:
    """Let an earlier life of the session have stored the message."""
    native = native_message_id(f"{ID}-1", time.time() - 60)
    server.store(native_id_of(session), native, "as it was", tells=False)
    return native


async def test_a_message_lands_with_exactly_the_text_that_is_handed_over(
    server: FakeOpencode, session: TmuxSession
) -> None:
    assert await DOOR.probe(session) is None
    assert await DOOR.hand_over(session, letter(), f"{ID}-1") == HandOver.LANDED
    (prompt,) = server.prompts
    assert prompt["parts"] == [{"type": "text", "text": handed_text(session, letter())}]
    assert prompt["messageID"].endswith(f"_{ID}-1")
    assert await DOOR.finish(session, f"{ID}-1") == HandOver.LANDED


async def test_a_running_turn_is_no_reason_to_wait(
    server: FakeOpencode, session: TmuxSession, facts: list[Fact]
) -> None:
    server.answers = False
    await DOOR.hand_over(session, letter(), f"{ID}-1")
    await until(lambda: facts[-1].kind == "user")
    assert await DOOR.is_busy(session)
    assert await DOOR.probe(session) is None
    assert await DOOR.hand_over(session, letter(), "zzzzzzzzzzzz-1") == HandOver.LANDED


async def test_without_a_line_nothing_is_handed_over(
    server: FakeOpencode,
    session: TmuxSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody = session_of(None, tmp_path)
    assert await DOOR.probe(nobody) == HoldReason.WAKING
    assert await DOOR.hand_over(nobody, letter(), f"{ID}-1") == HandOver.NOT_HANDED
    assert await DOOR.finish(nobody, f"{ID}-1") == HandOver.UNCERTAIN
    unstarted = session_of(HttpChannel(server.address, lambda _facts: None), tmp_path)
    assert await DOOR.probe(unstarted) == HoldReason.WAKING
    assert await DOOR.hand_over(unstarted, letter(), f"{ID}-1") == HandOver.NOT_HANDED
    monkeypatch.setattr(channel, "BACK_OFF_S", (30.0,))
    await server.stop()
    line = session.channel
    assert isinstance(line, HttpChannel)
    await until(lambda: not line.ready)
    assert await DOOR.probe(session) == HoldReason.BUSY
    assert await DOOR.is_busy(session)
    for dup in (None, "maybe"):
        assert await DOOR.hand_over(session, letter(dup), f"{ID}-1") == HandOver.NOT_HANDED
    assert await DOOR.finish(session, f"{ID}-1") == HandOver.UNCERTAIN


async def test_what_was_taken_and_not_stored_stays_open_until_it_is_found(
    server: FakeOpencode, session: TmuxSession
) -> None:
    server.deaf = True
    assert await DOOR.hand_over(session, letter(), f"{ID}-1") == HandOver.UNCERTAIN
    assert await DOOR.finish(session, f"{ID}-1") == HandOver.UNCERTAIN
    server.store(native_id_of(session), server.prompts[0]["messageID"], "late")
    assert await DOOR.finish(session, f"{ID}-1") == HandOver.LANDED
    assert await DOOR.finish(session, f"{ID}-2") == HandOver.UNCERTAIN


@pytest.mark.usefixtures("patient")
async def test_one_that_was_answered_before_is_told_and_not_handed_over_again(
    server: FakeOpencode, facts: list[Fact], tmp_path: Path
) -> None:
    before = server.add_session()
    native = native_message_id(f"{ID}-1", time.time() - 60)
    server.store(before, native, "as it was", tells=False)
    server.begin(before, native, tells=False)
    server.finish(before, tells=False)
    line = HttpChannel(server.address, facts.extend, native_id=before)
    await line.start()
    await until(lambda: line.ready)
    # Nobody waits for it yet: what its history tells is nothing to the lane.
    facts.clear()
    again = session_of(line, tmp_path)
    assert await DOOR.hand_over(again, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    assert server.prompts == []
    assert [(f.kind, f.ids, f.status) for f in facts] == ENDED_WELL
    await line.close()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("over", [False, True])
async def test_one_whose_turn_has_just_begun_is_told_of_by_the_events_alone(
    server: FakeOpencode, session: TmuxSession, facts: list[Fact], over: bool
) -> None:
    """The server is ahead of them on a busy machine: it has begun what we do not know to run."""
    ours = native_id_of(session)
    answer = server.begin(ours, stored_before(server, session), tells=False)
    if over:
        server.finish(ours, tells=False)
    facts.clear()
    assert await DOOR.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    assert (server.prompts, facts) == ([], [])
    server.store(ours, answer["parentID"], "as it was")
    server.tell("session.status", sessionID=ours, status={"type": "busy"})
    server.tell("message.updated", sessionID=ours, info=answer)
    await until(lambda: "user" in [fact.kind for fact in facts])
    assert "turn_end" not in [fact.kind for fact in facts]
    server.finish(ours)
    await until(lambda: "turn_end" in [fact.kind for fact in facts])
    assert [(f.kind, f.ids, f.status) for f in facts[1:]] == ENDED_WELL


@pytest.mark.usefixtures("patient")
async def test_one_that_was_set_going_again_ends_with_that_turn(
    server: FakeOpencode, facts: list[Fact], tmp_path: Path
) -> None:
    """What stands in the history is what was cut off; that it runs is not told yet."""
    before = server.add_session()
    native = native_message_id(f"{ID}-1", time.time() - 60)
    server.store(before, native, "as it was", tells=False)
    server.begin(before, native, tells=False)
    server.busy.clear()
    server.answers = False
    line = HttpChannel(server.address, facts.extend, native_id=before)
    await line.start()
    await until(lambda: line.ready)
    facts.clear()
    server.deaf = True
    again = session_of(line, tmp_path)
    assert await DOOR.hand_over(again, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    server.busy.add(before)
    assert await DOOR.hand_over(again, letter("maybe"), f"{ID}-3") == HandOver.LANDED
    assert facts == []
    server.begin(before, native)
    server.finish(before)
    await until(lambda: facts and facts[-1].kind == "turn_end")
    assert [(f.kind, f.ids, f.status) for f in facts] == ENDED_WELL
    await line.close()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("begun", [False, True])
async def test_one_whose_turn_never_ended_is_run_again_and_added_to_nothing(
    server: FakeOpencode, facts: list[Fact], tmp_path: Path, begun: bool
) -> None:
    before = server.add_session()
    native = native_message_id(f"{ID}-1", time.time() - 60)
    server.store(before, native, "as it was", tells=False)
    if begun:
        server.begin(before, native, tells=False)
        server.busy.clear()
    line = HttpChannel(server.address, facts.extend, native_id=before)
    await line.start()
    await until(lambda: line.ready)
    facts.clear()
    outcome = await DOOR.hand_over(session_of(line, tmp_path), letter("maybe"), f"{ID}-2")
    assert outcome == HandOver.LANDED
    (prompt,) = server.prompts
    assert (prompt["messageID"], prompt["parts"]) == (native, [])
    await until(lambda: facts and facts[-1].kind == "turn_end")
    assert [(f.kind, f.ids, f.status) for f in facts] == ENDED_WELL
    await line.close()


@pytest.mark.usefixtures("patient")
async def test_a_marked_one_that_is_nowhere_is_handed_over(
    server: FakeOpencode, session: TmuxSession
) -> None:
    assert await DOOR.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    (prompt,) = server.prompts
    assert 'dup="maybe"' in prompt["parts"][0]["text"]


@pytest.mark.parametrize(
    ("dup", "expected"), [(None, HandOver.UNCERTAIN), ("maybe", HandOver.NOT_HANDED)]
)
async def test_no_step_takes_longer_than_two_seconds(
    server: FakeOpencode, session: TmuxSession, dup: str | None, expected: HandOver
) -> None:
    assert http.STEP_S < 2.0
    server.slow_s = 600.0
    for step in (
        DOOR.hand_over(session, letter(dup), f"{ID}-1"),
        DOOR.finish(session, f"{ID}-1"),
        DOOR.probe(session),
    ):
        async with asyncio.timeout(30.0):
            outcome = await step
        assert outcome in (expected, HandOver.UNCERTAIN, None)
    server.slow_s = 0.0
