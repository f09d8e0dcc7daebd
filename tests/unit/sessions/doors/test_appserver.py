from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from iapeer.core.envelope import Envelope
from iapeer.core.identity import Intelligence
from iapeer.core.states import HoldReason
from iapeer.sessions.appserver import AppServerChannel
from iapeer.sessions.doors import appserver
from iapeer.sessions.doors.appserver import AppServerDoor
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.model import TmuxSession
from tests.unit.sessions.appserver.app_server import THREAD, AppServer, until

pytestmark = pytest.mark.anyio

ID = "abcdefgh2345"
MARKER = f"{ID}-1"
ADD = "thread/queue/add"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    yield found
    shutil.rmtree(found)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appserver, "AGAIN_S", 0.05)


@pytest.fixture
async def server(folder: Path, anyio_backend: str) -> AsyncIterator[AppServer]:
    running = AppServer(folder / "c.sock")
    await running.start()
    yield running
    await running.stop()


def session_of(channel: AppServerChannel | None, cwd: Path) -> TmuxSession:
    spec = SimpleNamespace(submit=SimpleNamespace(mentions=False))
    fake = SimpleNamespace(channel=channel, preface="Welcome.", spec=spec, cwd=cwd)
    return cast("TmuxSession", fake)


@pytest.fixture
async def session(server: AppServer, folder: Path) -> AsyncIterator[TmuxSession]:
    server.add()
    channel = AppServerChannel(str(server.path), lambda _facts: None)
    await channel.start()
    await until(lambda: channel.ready, "ready")
    yield session_of(channel, folder)
    await channel.close()


def letter(dup: str | None = None) -> Envelope:
    return Envelope(
        from_personality="ann",
        from_runtime="claude",
        from_intelligence=Intelligence.ARTIFICIAL,
        body="hello\r\n\x1b[201~ ]]> there",
        ts="2026-01-01T12:00:00+00:00",
        id=ID,
        dup=dup,
    )


door = AppServerDoor()


def test_the_door_alone_loads_no_websocket_library() -> None:
    """Start-up time: most daemons have no such runtime."""
    code = "import sys, iapeer.sessions.doors.appserver; sys.exit('websockets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_it_holds_until_there_is_a_conversation_and_while_nobody_answers(
    server: AppServer, folder: Path
) -> None:
    assert await door.probe(session_of(None, folder)) == HoldReason.WAKING
    channel = AppServerChannel(str(server.path), lambda _facts: None)
    session = session_of(channel, folder)
    assert await door.probe(session) == HoldReason.WAKING
    assert await door.is_busy(session)
    await channel.start()
    await until(lambda: channel.connected, "connected")
    assert await door.probe(session) == HoldReason.WAKING
    await server.open_thread()
    await until(lambda: channel.ready, "ready")
    assert await door.probe(session) is None
    assert not await door.is_busy(session)
    await server.stop()
    await until(lambda: not channel.connected, "lost")
    assert await door.probe(session) == HoldReason.BUSY
    await channel.close()
    await server.start()


async def test_a_message_is_queued_once_under_its_marker_with_the_exact_text(
    server: AppServer, session: TmuxSession
) -> None:
    assert await door.hand_over(session, letter(), MARKER) == HandOver.LANDED
    (asked,) = server.asked(ADD)
    text = handed_text(session, letter())
    assert asked["clientUserMessageId"] == MARKER
    assert asked["input"] == [{"type": "text", "text": text}]
    assert text.startswith("Welcome.\n\n<iap ")
    assert "\x1b" not in text
    assert server.asked("thread/turns/list") == []


@pytest.mark.parametrize("misdeed", ["silent", "deadly"])
async def test_a_request_that_may_have_arrived_is_never_repeated(
    server: AppServer, session: TmuxSession, misdeed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appserver, "REQUEST_S", 0.2)
    getattr(server, misdeed).add(ADD)
    assert await door.hand_over(session, letter(), MARKER) == HandOver.UNCERTAIN
    assert len(server.asked(ADD)) == 1


async def test_without_a_connection_or_refused_nothing_is_handed_over(
    server: AppServer, session: TmuxSession, folder: Path
) -> None:
    assert await door.hand_over(session_of(None, folder), letter(), MARKER) == HandOver.NOT_HANDED
    server.refusing[ADD] = "thread not found"
    assert await door.hand_over(session, letter(), MARKER) == HandOver.NOT_HANDED
    assert await door.probe(session) == HoldReason.BUSY
    channel = session.channel
    assert isinstance(channel, AppServerChannel)
    await channel.close()
    assert await door.hand_over(session, letter(), MARKER) == HandOver.NOT_HANDED


async def test_one_that_may_be_there_is_looked_for_and_not_handed_over_again(
    server: AppServer, session: TmuxSession
) -> None:
    server.threads[THREAD].queue.append({"id": "q", "clientUserMessageId": MARKER})
    assert await door.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    server.threads[THREAD].queue.clear()
    await server.begin(THREAD, "t", MARKER)
    assert await door.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    assert server.asked(ADD) == []


async def test_one_that_is_not_there_or_was_cut_off_is_handed_over(
    server: AppServer, session: TmuxSession
) -> None:
    assert await door.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.LANDED
    assert len(server.asked(ADD)) == 1
    # It was looked for twice: queue and conversation are two lists.
    assert len(server.asked("thread/queue/list")) == 2
    server.threads[THREAD].queue.clear()
    await server.begin(THREAD, "t", f"{ID}-2")
    await server.end(THREAD, "interrupted")
    assert await door.hand_over(session, letter("maybe"), f"{ID}-3") == HandOver.LANDED
    assert len(server.asked(ADD)) == 2


async def test_one_that_can_not_be_looked_for_is_not_handed_over(
    server: AppServer, session: TmuxSession
) -> None:
    server.deadly.add("thread/queue/list")
    assert await door.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.NOT_HANDED
    assert server.asked(ADD) == []


async def test_an_open_attempt_is_settled_by_what_the_server_has(
    server: AppServer, session: TmuxSession
) -> None:
    assert await door.finish(session, MARKER) == HandOver.NOT_HANDED
    server.threads[THREAD].queue.append({"id": "q", "clientUserMessageId": MARKER})
    assert await door.finish(session, MARKER) == HandOver.LANDED
    assert await door.finish(session, f"{ID}-2") == HandOver.NOT_HANDED
    server.deadly.add("thread/queue/list")
    assert await door.finish(session, f"{ID}-2") == HandOver.UNCERTAIN


async def test_a_message_that_arrives_between_two_looks_is_found(
    server: AppServer, session: TmuxSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appserver, "AGAIN_S", 0.3)
    looking = asyncio.create_task(door.finish(session, MARKER))
    await until(lambda: server.asked("thread/queue/list"), "the first look")
    await server.begin(THREAD, "t", MARKER)
    assert await looking == HandOver.LANDED


async def test_no_step_takes_longer_than_two_seconds(
    server: AppServer, session: TmuxSession
) -> None:
    assert appserver.STEP_S < 2.0
    server.silent |= {"thread/queue/list", ADD}
    # The server never answers: without its own bound no step would end.
    async with asyncio.timeout(60.0):
        assert await door.finish(session, MARKER) == HandOver.UNCERTAIN
        assert await door.hand_over(session, letter("maybe"), f"{ID}-2") == HandOver.NOT_HANDED
        assert await door.hand_over(session, letter(), MARKER) == HandOver.UNCERTAIN
