from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from iapeer.sessions.appserver import wire as wire_module
from iapeer.sessions.appserver.frames import LoadedPage
from iapeer.sessions.appserver.wire import NotSent, Refused, Wire, WireError, connect
from tests.unit.sessions.appserver.app_server import AppServer, until

pytestmark = pytest.mark.anyio


def deaf(_method: str, _params: msgspec.Raw) -> None:
    return


async def test_nobody_at_the_socket_is_an_error_not_a_wait(folder: Path) -> None:
    with pytest.raises(WireError, match="no app-server"):
        await connect(str(folder / "none.sock"), deaf)


async def test_an_answer_is_decoded_and_a_refusal_is_told(server: AppServer) -> None:
    wire = await connect(str(server.path), deaf)
    server.add("a")
    assert (await wire.call("thread/loaded/list", {}, LoadedPage)).data == ("a",)
    with pytest.raises(Refused, match="thread not found"):
        await wire.call("thread/read", {"threadId": "x"}, LoadedPage)
    with pytest.raises(WireError, match="another shape"):
        await wire.call("thread/loaded/list", {}, int)
    await wire.close()
    with pytest.raises(NotSent):
        await wire.call("thread/loaded/list", {}, LoadedPage)


async def test_a_request_without_an_answer_ends_after_its_time(server: AppServer) -> None:
    wire = await connect(str(server.path), deaf)
    server.silent.add("thread/loaded/list")
    with pytest.raises(WireError, match="no answer within") as caught:
        await wire.call("thread/loaded/list", {}, LoadedPage, timeout_s=0.1)
    assert not isinstance(caught.value, NotSent)
    await wire.close()


async def test_a_connection_that_breaks_before_the_answer_leaves_the_request_unknown(
    server: AppServer,
) -> None:
    wire = await connect(str(server.path), deaf)
    server.deadly.add("thread/queue/add")
    with pytest.raises(WireError, match="the connection ended") as caught:
        await wire.call("thread/queue/add", {}, msgspec.Raw)
    assert not isinstance(caught.value, NotSent | Refused)
    assert wire.ended.is_set()
    await wire.close()


async def test_notifications_come_in_order_and_requests_of_the_server_are_left_alone(
    server: AppServer,
) -> None:
    heard: list[str] = []
    wire = await connect(str(server.path), lambda method, _params: heard.append(method))
    await until(lambda: server._connections, "connected")
    await server.send_raw('{"id": 7, "method": "item/permissions/requestApproval", "params": {}}')
    for number in range(50):
        await server.tell(f"n{number}", {})
    await until(lambda: len(heard) == 50, "all are heard")
    assert heard == [f"n{number}" for number in range(50)]
    assert server.calls == []
    await wire.close()


@pytest.mark.parametrize("text", ["no json", "[]", json.dumps({"method": 5})])
async def test_what_is_no_frame_ends_the_connection_and_says_why(
    server: AppServer, text: str
) -> None:
    wire = await connect(str(server.path), deaf)
    await until(lambda: server._connections, "connected")
    await server.send_raw(text)
    error = await asyncio.wait_for(wire.failure(), 5)
    assert isinstance(error, msgspec.DecodeError)
    await wire.close()


async def test_a_frame_beyond_the_limit_ends_the_connection(
    server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "MAX_FRAME_BYTES", 1_000)
    wire: Wire = await connect(str(server.path), deaf)
    await until(lambda: server._connections, "connected")
    await server.tell("big", {"text": "x" * 2_000})
    await asyncio.wait_for(wire.ended.wait(), 5)
    await wire.close()
