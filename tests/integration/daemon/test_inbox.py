from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from iapeer.client import peer as peer_module
from iapeer.client.peer import Incoming, Peer
from iapeer.core import env
from iapeer.core.errors import (
    CallerError,
    DaemonDown,
    PeerNotFound,
    SendRefused,
    Unauthorized,
)
from iapeer.daemon import inbox_stream
from iapeer.routing.ports import InboxMessage
from tests.integration.daemon.support import ALICE_TOKEN, Edge, make_server, running, settings_for

pytestmark = pytest.mark.anyio
BOT = "service-ci-bot"


@pytest.fixture(autouse=True)
def _no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (env.SESSION_TOKEN, env.BEARER_TOKEN, env.DAEMON_SOCKET, env.ROOT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(peer_module, "BACKOFF_FIRST_S", 0.02)


def message(number: int, **more: Any) -> InboxMessage:
    return InboxMessage(
        id=f"id{number}",
        sender="claude-alice",
        intelligence="artificial",
        body=f"line one\nline two {number}",
        **more,
    )


@contextlib.asynccontextmanager
async def reading(peer: Peer, **options: Any) -> AsyncIterator[AsyncIterator[Incoming]]:
    async with asyncio.timeout(30), contextlib.aclosing(peer.inbox(**options)) as stream:
        yield stream


async def test_messages_are_read_replied_to_and_acknowledged(edge: Edge) -> None:
    await edge.inbox.put(BOT, message(1, topic="build", attachments=("/a",), ts="now"))
    await edge.inbox.put(BOT, message(2, dup="maybe"))
    async with reading(Peer("ci-bot", socket=edge.sock)) as stream:
        first = await anext(stream)
        assert (first.id, first.sender, first.topic) == ("id1", "claude-alice", "build")
        assert (first.body, first.attachments) == ("line one\nline two 1", ("/a",))
        assert edge.inbox.acked == []
        result = await first.reply("on it")
        assert result["ok"] is True
        assert edge.inbox.acked == [(BOT, "id1")]
        second = await anext(stream)
        assert second.dup == "maybe"
        assert len(edge.inbox.acked) == 1
        waiting = asyncio.ensure_future(anext(stream))
        await edge.inbox.until(lambda: len(edge.inbox.acked) == 2)
        await edge.inbox.put(BOT, message(3))
        assert (await waiting).id == "id3"
    (sent,) = edge.postman.sent
    assert (sent.caller, sent.draft.to, sent.draft.runtime) == (BOT, "alice", "claude")
    assert (sent.draft.message, sent.draft.topic) == ("on it", "build")


async def test_a_message_is_not_acknowledged_when_the_loop_is_left(edge: Edge) -> None:
    await edge.inbox.put(BOT, message(1))
    async with reading(Peer(BOT, socket=edge.sock)) as stream:
        async for incoming in stream:
            assert incoming.id == "id1"
            break
    assert edge.inbox.acked == []
    async with reading(Peer(BOT, socket=edge.sock), auto_ack=False) as stream:
        again = await anext(stream)
        assert again.id == "id1"
        await again.reply("no ack by this")
        assert edge.inbox.acked == []
        await again.ack()
        await again.ack()
    assert edge.inbox.acked == [(BOT, "id1")]


async def test_the_stream_is_found_again_after_a_restart_and_nothing_is_shown_twice(
    root: Path,
) -> None:
    peer = Peer(BOT, socket=settings_for(root).daemon_socket)
    async with reading(peer) as stream:
        async with running(root) as edge:
            await edge.inbox.put(BOT, message(1))
            assert (await anext(stream)).id == "id1"
        # The daemon is gone while the loop body works; asking for more acknowledges after it is
        # back, and the copy that the new daemon still has is not shown.
        asked = asyncio.ensure_future(anext(stream))
        async with running(root) as edge:
            await edge.inbox.put(BOT, message(1, dup="maybe"))
            await edge.inbox.put(BOT, message(2))
            assert (await asked).id == "id2"
            assert [m.id for m in edge.inbox.queues[BOT]] == ["id2"]


async def test_a_daemon_that_is_down_is_waited_for_by_inbox_and_named_by_send(root: Path) -> None:
    peer = Peer(BOT, socket=settings_for(root).daemon_socket)
    with pytest.raises(DaemonDown, match="no daemon answers"):
        await peer.send("alice", "x")
    async with reading(peer) as stream:
        asked = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        assert not asked.done()
        async with running(root) as edge:
            await edge.inbox.put(BOT, message(1))
            assert (await asked).id == "id1"


async def test_a_second_reader_takes_over_and_the_first_is_told(edge: Edge) -> None:
    async with reading(Peer(BOT, socket=edge.sock)) as first:
        losing = asyncio.ensure_future(anext(first))
        await edge.inbox.until(lambda: edge.inbox.opened == 1)
        async with reading(Peer(BOT, socket=edge.sock)) as second:
            winning = asyncio.ensure_future(anext(second))
            await edge.inbox.until(lambda: edge.inbox.opened == 2)
            with pytest.raises(SendRefused, match="another reader"):
                await losing
            await edge.inbox.put(BOT, message(1))
            assert (await winning).id == "id1"


async def test_errors_of_the_daemon_come_back_as_their_classes(edge: Edge) -> None:
    with pytest.raises(PeerNotFound):
        await Peer("missing", socket=edge.sock).send("alice", "x")
    with pytest.raises(CallerError, match="not registered"):
        await Peer("claude-stranger", socket=edge.sock).send("alice", "x")
    with pytest.raises(Unauthorized):
        await Peer("ci-bot", socket=edge.sock, token="wrong").send("alice", "x")
    with pytest.raises(CallerError, match="belongs to claude-alice"):
        await Peer("ci-bot", socket=edge.sock, token=ALICE_TOKEN).send("alice", "x")
    with pytest.raises(SendRefused) as caught:
        await Peer("ci-bot", socket=edge.sock).send("flooded", "x")
    assert (caught.value.code, caught.value.retry_after_s) == ("queue_full", 7)
    async with reading(Peer("alice", socket=edge.sock)) as stream:
        with pytest.raises(SendRefused, match="no inbox"):
            await anext(stream)


async def test_a_program_in_a_session_speaks_for_that_session_only(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env.SESSION_TOKEN, ALICE_TOKEN)
    monkeypatch.setenv(env.DAEMON_SOCKET, edge.sock)
    await Peer("alice").send("bob", "x", key="k")
    with pytest.raises(CallerError):
        await Peer("ci-bot").send("bob", "x")
    assert [(s.caller, s.key) for s in edge.postman.sent] == [("claude-alice", "k")]


async def test_events_have_ids_and_pings_keep_the_stream_alive(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = make_server(settings_for(root))
    edge.server._streams._ping_s = 0.05
    await edge.server.start()
    await edge.inbox.put(BOT, message(1))
    kinds: list[tuple[str, str]] = []
    transport = httpx2.AsyncHTTPTransport(uds=edge.sock)
    async with (
        asyncio.timeout(30),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        client.sse("/api/v1/inbox", headers={"X-IAPeer-Identity": BOT}) as source,
    ):
        async for event in source:
            kinds.append((event.event, event.id))
            if event.event == "message":
                assert json.loads(event.data)["body"] == "line one\nline two 1"
            if len(kinds) == 3:
                break
    assert kinds == [("message", "id1"), ("ping", "id1"), ("ping", "id1")]
    await edge.server.stop()


async def test_a_reader_that_does_not_read_holds_up_nobody_and_is_cut(root: Path) -> None:
    edge = make_server(settings_for(root))
    edge.server._streams._send_timeout_s = 0.5
    await edge.server.start()
    for number in range(60):
        await edge.inbox.put(BOT, InboxMessage(**_big(number)))
    reader, writer = await asyncio.open_unix_connection(edge.sock, limit=1024)
    head = f"GET /api/v1/inbox HTTP/1.1\r\nHost: x\r\nX-IAPeer-Identity: {BOT}\r\n\r\n"
    writer.write(head.encode())
    await edge.inbox.until(lambda: edge.inbox.opened == 1)
    async with asyncio.timeout(30):
        assert (await edge.call("GET", "/api/v1/ping"))[0] == 200
        await edge.inbox.ended.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.close()
    await edge.server.stop()


async def test_an_open_stream_ends_cleanly_and_at_once_when_the_daemon_stops(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iapeer.daemon.server.GRACE_S", 60.0)
    edge = make_server(settings_for(root))
    await edge.server.start()
    transport = httpx2.AsyncHTTPTransport(uds=edge.sock)
    async with (
        asyncio.timeout(30),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        client.sse("/api/v1/inbox", headers={"X-IAPeer-Identity": BOT}) as source,
    ):
        await edge.inbox.until(lambda: edge.inbox.opened == 1)
        stopping = asyncio.ensure_future(edge.server.stop())
        assert [event async for event in source] == []
        await stopping
    assert edge.inbox.closed == 1


@pytest.mark.requirement("daemon:log:quiet")
async def test_no_message_of_a_stream_reaches_a_log_at_any_level(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await edge.inbox.put(BOT, message(1))
    async with reading(Peer(BOT, socket=edge.sock)) as stream:
        incoming = await anext(stream)
        assert "line one" in incoming.body
        await incoming.reply("a secret answer")
    assert caplog.records
    for text in ("line one", "a secret answer"):
        assert not [r for r in caplog.records if text in r.getMessage()]
    assert "line one" not in repr(incoming)


async def test_the_number_of_streams_is_bounded(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_stream, "MAX_STREAMS", 0)
    status, answer = await edge.call("GET", "/api/v1/inbox", X_IAPeer_Identity=BOT)
    assert (status, answer["error"]["code"]) == (429, "too_many_streams")
    assert edge.inbox.opened == 0


async def test_inbox_and_ack_need_an_identity(edge: Edge) -> None:
    for method, path, body in (
        ("GET", "/api/v1/inbox", None),
        ("POST", "/api/v1/inbox/ack", {"id": "id1"}),
    ):
        assert (await edge.call(method, path, body))[0] == 403
        assert (await edge.tcp(method, path, body))[0] == 403
    body = {"id": "nothing", "from": BOT}
    assert await edge.call("POST", "/api/v1/inbox/ack", body) == (200, {"ok": True, "acked": False})


def _big(number: int) -> dict[str, Any]:
    return {"id": f"id{number}", "sender": "a-b", "intelligence": "absent", "body": "x" * 100_000}
