"""A person begins anew while nobody listens: the connection was lost for a moment."""

from __future__ import annotations

import pytest

from tests.unit.sessions.appserver.app_server import THREAD, AppServer, until
from tests.unit.sessions.appserver.test_channel import NEWER, ONE, Line, line, talking

__all__ = ["line"]

pytestmark = pytest.mark.anyio

NEWEST = THREAD.replace("01a2", "01c2")


async def lose(server: AppServer, line: Line) -> None:
    """Break the connection; what the server does next is told to nobody."""
    server.drop()
    await until(lambda: not line.connected, "lost")


async def test_a_conversation_that_was_begun_meanwhile_is_followed(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await lose(server, line)
    server.add(NEWER)
    server.add(NEWEST).ephemeral = True
    await until(lambda: line.ready, "the channel is back")
    assert line.native_id == NEWER
    await server.begin(NEWER, "t1", f"{ONE}-1")
    await until(lambda: ONE in line.ids(), "seen there")


async def test_nothing_is_handed_over_before_it_was_looked_for(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    server.silent.add("thread/read")
    await lose(server, line)
    server.add(NEWER)
    looks = len(server.asked("thread/read"))
    await until(lambda: len(server.asked("thread/read")) > looks, "it looks")
    assert line.connected
    assert not line.ready


async def test_one_that_was_left_for_an_earlier_one_is_not_taken_for_new(
    server: AppServer, line: Line
) -> None:
    await talking(server, line)
    await server.open_thread(NEWER)
    await until(lambda: line.native_id == NEWER, "followed")
    await server.begin(THREAD, "t1", "typed again")
    await until(lambda: line.followed == THREAD, "the person has gone back")
    await lose(server, line)
    await until(lambda: line.ready, "the channel is back")
    assert line.native_id == THREAD


async def test_one_that_was_looked_at_is_not_looked_at_again(server: AppServer, line: Line) -> None:
    await talking(server, line)
    server.add(NEWEST).ephemeral = True
    for _ in range(3):
        await lose(server, line)
        await until(lambda: line.status().subscribed, "the channel is back")
    assert server.asked("thread/read") == [{"threadId": NEWEST}]
    assert line.native_id == THREAD
