"""What one connection may send and how long it may take: real sockets, a small app behind them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from iapeer.daemon import protocol as protocol_module
from iapeer.daemon.protocol import HEAD_BYTES, PeerProtocol
from tests.integration.daemon.support import ALICE_TOKEN, Edge, parse

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: h\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD = b"Invalid HTTP request received."
BOUND_S = 20


class Server:
    """A listener of `PeerProtocol` alone; its app reads the body and answers `<count>:<body>`."""

    def __init__(self) -> None:
        self.state = ServerState()
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.gone = 0
        self.running = self.most = 0
        self.before_reading: Callable[[Any], Awaitable[None]] | None = None
        self.before_answer: asyncio.Event | None = None
        self.answer: bytes | None = None
        self.port = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self._app(receive, send)
        finally:
            self.running -= 1

    async def _app(self, receive: Any, send: Any) -> None:
        number = len(self.scopes)
        if self.before_reading is not None:
            await self.before_reading(send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                self.gone += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        if self.before_answer is not None:
            await self.before_answer.wait()
        answer = b"%d:%b" % (number, body) if self.answer is None else self.answer
        await respond(send, answer)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, *pieces: bytes, gap_s: float = 0) -> bytes:
        """Send pieces and read until the server closes; raises TimeoutError if it does not."""
        reader, writer = await self.connect()
        got = b""
        try:
            async with asyncio.timeout(BOUND_S):
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(gap_s)
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(65536):
                        got += data
        finally:
            writer.close()
        return got

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not happened():  # noqa: ASYNC110 - a socket's other end has no event
                await asyncio.sleep(0.005)


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def only(server: Server) -> PeerProtocol:
    """Return the only connection, once it is there."""
    await server.until(lambda: len(server.state.connections) == 1)
    (connection,) = server.state.connections
    assert isinstance(connection, PeerProtocol)
    return connection


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    config = uvicorn.Config(
        made.app,
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    config.load()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: PeerProtocol(config, made.state, {}), "127.0.0.1", 0
    )
    made.port = listener.sockets[0].getsockname()[1]
    yield made
    listener.close()
    for connection in list(made.state.connections):
        connection.transport.abort()
    for task in list(made.state.tasks):
        task.cancel()
    await asyncio.gather(*made.state.tasks, return_exceptions=True)


def bodies(raw: bytes) -> list[bytes]:
    """Return the bodies of the answers, each of which must be whole."""
    found = []
    while raw:
        head, gap, raw = raw.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert gap, head
        assert length is not None, head
        size = int(length[1])
        assert len(raw) >= size
        found.append(raw[:size])
        raw = raw[size:]
    return found


REFUSED = {
    "length and chunked": POST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "same length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "space before colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "another encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "encoding not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bare LF after line": b"GET / HTTP/1.1\nHost: h\r\n\r\n",
    "bare LF after header": GET + b"X: y\n\r\n",
    "bare LF at end": GET + b"\n",
    "bare LFs": b"GET / HTTP/1.1\nHost: h\n\n",
    "bare CR in value": GET + b"X: a\rb\r\n\r\n",
    "folded value": GET + b"X: a\r\n b\r\n\r\n",
    "space in name": GET + b"X y: a\r\n\r\n",
    "NUL in name": GET + b"X\0: a\r\n\r\n",
    "NUL in value": GET + b"X: a\0b\r\n\r\n",
    "no name": GET + b": a\r\n\r\n",
    "no colon": GET + b"Xa\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: h\r\n\r\n",
    "two Hosts in 1.0": b"GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n",
    "absolute form": b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "CONNECT": b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    "CONNECT of a path": b"CONNECT / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "RTSP": b"OPTIONS / RTSP/1.0\r\nHost: h\r\n\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "blank line first": b"\r\n" + GET + b"\r\n",
}
REFUSED_IN_BODY = {
    "no size": b"xyz\r\n",
    "empty size": b"\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "overflow": b"fffffffffffffffff\r\n",
    "LF after size": b"3\nabc\r\n0\r\n\r\n",
    "space after size": b"3 \r\nabc\r\n0\r\n\r\n",
    "LF in extension": b"3;a\nabc\r\n0\r\n\r\n",
    "chunk longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "LF after chunk": b"3\r\nabc\n0\r\n\r\n",
    "LF in trailers": b"0\r\nX: y\n\n",
    "endless extension": b"3;" + b"a" * HEAD_BYTES,
    "endless trailer": b"0\r\nX: " + b"a" * HEAD_BYTES,
    "endless trailers": b"0\r\n" + b"X: y\r\n" * (HEAD_BYTES // 6 + 1),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
async def test_what_could_be_read_in_two_ways_is_400_and_the_end(
    server: Server, raw: bytes
) -> None:
    answer = await server.talk(raw)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert bodies(answer) == [BAD]
    assert server.scopes == []


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
async def test_it_is_so_behind_a_good_request_too(server: Server, raw: bytes) -> None:
    assert bodies(await server.talk(GET + b"\r\n" + raw)) == [b"1:", BAD]
    assert bodies(await server.talk(GET + b"\r\n", raw, gap_s=0.05)) == [b"2:", BAD]
    assert len(server.scopes) == 2


@pytest.mark.parametrize("rest", REFUSED_IN_BODY.values(), ids=REFUSED_IN_BODY)
async def test_a_bad_body_is_400_and_the_app_hears_that_nobody_waits(
    server: Server, rest: bytes
) -> None:
    for pieces in ([CHUNKED + rest], [CHUNKED, rest]):
        assert bodies(await server.talk(*pieces, gap_s=0.02)) == [BAD]
    await server.until(lambda: not server.running)
    assert (server.gone, server.bodies) == (2, [])


async def test_a_bad_body_never_puts_a_second_answer_into_one_that_has_begun(
    server: Server,
) -> None:
    begun = asyncio.Event()

    async def begin(send: Any) -> None:
        head = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"9")],
        }
        await send(head)
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        begun.set()
        await server.until(lambda: not server.state.connections)
        await send({"type": "http.response.body", "body": b"defghi"})

    server.before_reading = begin
    assert (await server.talk(CHUNKED, b"xyz\r\n", gap_s=0.1)).endswith(b"\r\n\r\nabc")
    assert begun.is_set()


async def test_the_app_hears_of_a_bad_body_while_the_refusal_still_waits_to_be_read(
    server: Server,
) -> None:
    server.answer = b"x" * 2**24
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(GET + b"\r\n" + CHUNKED + b"xyz\r\n")
        await server.until(lambda: server.gone == 1)
        assert len(server.state.connections) == 1


async def test_a_bad_rest_of_a_refused_body_gets_no_second_answer(server: Server) -> None:
    async def refuse(send: Any) -> None:
        await respond(send, b"no", 403)

    server.before_reading = refuse
    assert bodies(await server.talk(CHUNKED, b"xyz\r\n", gap_s=0.1)) == [b"no"]


@pytest.mark.requirement("daemon:body-limit")
async def test_a_head_over_the_bound_is_refused_however_it_comes(server: Server) -> None:
    head = GET + b"X: " + b"a" * HEAD_BYTES + b"\r\n\r\n"
    assert bodies(await server.talk(head)) == [BAD]
    assert bodies(await server.talk(*[head[i : i + 999] for i in range(0, len(head), 999)])) == [
        BAD
    ]
    many = GET + b"X: y\r\n" * (HEAD_BYTES // 6) + b"\r\n"
    assert bodies(await server.talk(many)) == [BAD]
    assert bodies(await server.talk(b"GET /" + b"a" * HEAD_BYTES)) == [BAD]
    assert server.scopes == []


async def test_a_head_up_to_the_bound_is_served_byte_by_byte(server: Server) -> None:
    head = GET + b"Connection: close\r\nX: "
    head += b"a" * (HEAD_BYTES - len(head) - 4) + b"\r\n\r\n"
    assert len(head) == HEAD_BYTES
    reader, writer = await server.connect()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    async with asyncio.timeout(BOUND_S):
        for byte in head:
            writer.write(bytes([byte]))
        assert bodies(await reader.read()) == [b"1:"]
    writer.close()


async def test_trailers_are_read_and_are_no_headers(server: Server) -> None:
    raw = CHUNKED + b"2\r\nok\r\n0\r\nX-IAPeer-Token: t\r\nHost: i\r\n\r\n"
    raw += GET + b"Connection: close\r\n\r\n"
    assert bodies(await server.talk(raw)) == [b"1:ok", b"2:"]
    assert server.scopes[0]["headers"] == [(b"host", b"h"), (b"transfer-encoding", b"chunked")]


async def test_a_token_in_a_trailer_is_none(edge: Edge) -> None:
    own = f"Host: 127.0.0.1:{edge.server.port}\r\nConnection: close\r\n"
    head = f"POST /api/v1/send HTTP/1.1\r\n{own}Content-Type: application/json\r\n"
    body = b'{"to":"bob","message":"x"}'
    raw = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body
    raw += f"\r\n0\r\nX-IAPeer-Token: {ALICE_TOKEN}\r\n\r\n".encode()
    assert parse(await edge.raw(raw))[0] == 403
    assert edge.postman.sent == []


async def test_pipelined_requests_are_answered_one_after_the_other(server: Server) -> None:
    count = 300
    one = POST + b"Content-Length: 3\r\n\r\nabc"
    other = CHUNKED + b"3\r\nxyz\r\n0\r\n\r\n"
    raw = (one + other) * (count // 2) + GET + b"Connection: close\r\n\r\n"
    expected = [b"%d:%b" % (n, b"abc" if n % 2 else b"xyz") for n in range(1, count + 1)]
    assert bodies(await server.talk(raw)) == [*expected, b"%d:" % (count + 1)]
    assert server.most == 1


@pytest.mark.requirement("daemon:body-limit")
async def test_what_is_pipelined_behind_a_slow_request_is_not_read(server: Server) -> None:
    server.before_answer = asyncio.Event()
    reader, writer = await server.connect()
    writer.write(GET + b"\r\n" + (GET + b"\r\n") * 1_000_000)
    await server.until(lambda: server.running == 1)
    connection = await only(server)
    sent = 0
    for _ in range(50):
        await asyncio.sleep(0.01)
        if writer.transport.get_write_buffer_size() == sent:
            break
        sent = writer.transport.get_write_buffer_size()
    assert sent, "all was read"
    assert len(connection._framing._kept) < 2**20
    assert (len(connection.pipeline), len(server.scopes)) == (0, 1)
    writer.transport.abort()
    await asyncio.sleep(0)
    server.before_answer.set()
    await server.until(lambda: not server.state.connections)
    del reader


async def test_a_request_hears_of_a_lost_connection_with_another_one_behind_it(
    server: Server,
) -> None:
    lost = asyncio.Event()

    async def stream(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        cycle = (await only(server)).cycle
        async with asyncio.timeout(BOUND_S):
            while not cycle.disconnected:
                await send({"type": "http.response.body", "body": b"ping", "more_body": True})
                await asyncio.sleep(0.01)
        lost.set()

    server.before_reading = stream
    _reader, writer = await server.connect()
    writer.write((GET + b"\r\n") * 3)
    await server.until(lambda: server.running == 1)
    writer.transport.abort()
    async with asyncio.timeout(BOUND_S):
        await lost.wait()
    assert len(server.scopes) == 1


async def test_what_comes_after_connection_close_is_never_served(server: Server) -> None:
    last = GET + b"Connection: close\r\n\r\n"
    for raw in (last + GET + b"\r\n", b"GET / HTTP/1.0\r\nHost: h\r\n\r\n" + GET + b"\r\n"):
        seen = len(server.scopes)
        answer = await server.talk(raw)
        assert bodies(answer) == [b"%d:" % (seen + 1)]
        assert b"\r\nconnection: close\r\n" in answer
        assert len(server.scopes) == seen + 1


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
async def test_an_offer_to_upgrade_is_left_alone_and_the_body_stays_a_body(
    server: Server, offer: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = POST + f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\n".encode()
    raw = head + b"Content-Length: 24\r\n\r\nGET /body HTTP/1.1\r\n\r\nabc"[:-1]
    raw += GET + b"Connection: close\r\n\r\n"
    first, second = bodies(await server.talk(raw))
    assert first.startswith(b"1:GET /body HTTP/1.1\r\n\r\n")
    assert second == b"2:"
    assert [scope["path"] for scope in server.scopes] == ["/", "/"]
    assert not caplog.records


async def test_an_http_1_0_request_is_answered_and_closed_without_a_host(server: Server) -> None:
    assert bodies(await server.talk(b"GET /a?b=%20c HTTP/1.0\r\n\r\n")) == [b"1:"]
    (scope,) = server.scopes
    assert (scope["http_version"], scope["path"]) == ("1.0", "/a")
    assert (scope["query_string"], scope["raw_path"]) == (b"b=%20c", b"/a")


async def test_spaces_around_a_value_are_not_part_of_it(server: Server) -> None:
    await server.talk(GET + b"Connection: close\r\nX:  \t a b \t \r\n\r\n")
    assert server.scopes[0]["headers"][-1] == (b"x", b"a b")


async def test_a_go_ahead_is_given_to_who_asks_when_the_body_is_read(server: Server) -> None:
    head = POST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    reader, writer = await server.connect()
    async with asyncio.timeout(BOUND_S):
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert bodies(await reader.read()) == [b"1:ok"]
    writer.close()


async def test_a_refused_body_gets_no_go_ahead_and_little_time(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "LINGER_S", 0.2)
    head = (
        f"POST /api/v1/send HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n"
        f"Expect: 100-continue\r\nContent-Length: {edge.settings.max_body_bytes + 1}\r\n\r\n"
    )
    answer = await edge.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert len(answer.split(b"HTTP/1.1 ")) == 2


@pytest.mark.requirement("daemon:body-limit")
@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"G",
        GET,
        GET + b"\r\n" + GET,
        GET + b"\r\n" + GET + b"X",
        POST + b"Content-Length: 2\r\n\r\nok" + POST,
        CHUNKED + b"0\r\n\r\nG",
    ],
)
async def test_half_a_head_is_cut_in_time_though_it_trickles(
    server: Server, monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    monkeypatch.setattr(protocol_module, "HEAD_S", 0.3)
    reader, writer = await server.connect()
    writer.write(half)
    async with asyncio.timeout(BOUND_S):
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                if half:
                    writer.write(b"a")
                    await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65536), 0.05)
    writer.close()
    await server.until(lambda: not server.state.connections)


@pytest.mark.requirement("daemon:body-limit")
@pytest.mark.parametrize("trickle", [b"a", b"1\r\na\r\n"])
async def test_the_rest_of_a_refused_body_can_not_trickle_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch, trickle: bytes
) -> None:
    monkeypatch.setattr(protocol_module, "LINGER_S", 0.3)

    async def refuse(send: Any) -> None:
        await respond(send, b"no", 403)

    server.before_reading = refuse
    head = POST + b"Content-Length: 999999\r\n\r\n" if len(trickle) == 1 else CHUNKED
    reader, writer = await server.connect()
    writer.write(head)
    async with asyncio.timeout(BOUND_S):
        assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 403")
        with contextlib.suppress(ConnectionError):
            while server.state.connections:
                writer.write(trickle)
                await writer.drain()
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    await server.until(lambda: not server.state.connections)


async def test_a_connection_goes_on_behind_a_refused_body_that_comes_whole(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "LINGER_S", 0.3)

    async def refuse(send: Any) -> None:
        await respond(send, b"no", 403)

    server.before_reading = refuse
    reader, writer = await server.connect()
    async with asyncio.timeout(BOUND_S):
        writer.write(POST + b"Content-Length: 6\r\n\r\nabc")
        assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 403")
        writer.write(b"def")
        await asyncio.sleep(0.6)
        server.before_reading = None
        writer.write(GET + b"Connection: close\r\n\r\n")
        assert bodies(await reader.read()) == [b"2:"]
    writer.close()


@pytest.mark.requirement("daemon:body-limit")
@pytest.mark.parametrize("connection", [b"Connection: close\r\n", b""])
async def test_who_does_not_read_the_last_answer_is_cut(
    server: Server, monkeypatch: pytest.MonkeyPatch, connection: bytes
) -> None:
    monkeypatch.setattr(protocol_module, "CLOSE_S", 0.3)
    server.answer = b"x" * 2**24
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(GET + connection + b"\r\n" if connection else GET + b"\r\n\x16")
        await server.until(lambda: len(server.bodies) == 1)
        await server.until(lambda: not server.state.connections)


async def test_an_idle_connection_ends_after_the_keep_alive(server: Server) -> None:
    reader, writer = await server.connect()
    async with asyncio.timeout(BOUND_S):
        for number in (1, 2):
            (await only(server)).timeout_keep_alive = 0.2  # type: ignore[assignment]
            writer.write(GET + b"\r\n")
            await reader.readuntil(b"%d:" % number)
        assert await reader.read() == b""
    writer.close()


async def test_stop_ends_halves_of_all_kinds(edge: Edge) -> None:
    own = f"POST /api/v1/send HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n".encode()
    bad = own.replace(b"127.0.0.1", b"evil")
    halves = (
        b"",
        b"PO",
        own,
        own + b"Content-Length: 9\r\n\r\na",
        bad + b"Content-Length: 9\r\n\r\n",
    )
    ends = [asyncio.create_task(edge.raw(half)) for half in halves]
    server = edge.server._server
    assert server is not None
    connections = server.server_state.connections
    async with asyncio.timeout(BOUND_S):
        while len(connections) < len(halves):  # noqa: ASYNC110 - a socket's other end has no event
            await asyncio.sleep(0.005)
        await edge.server.stop()
        results = await asyncio.gather(*ends, return_exceptions=True)
    assert all(isinstance(end, bytes | ConnectionError) for end in results)


async def test_an_answer_goes_out_in_one_write(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[bytes] = []
    real = asyncio.selector_events._SelectorSocketTransport.write  # type: ignore[attr-defined]

    def remembering(transport: Any, data: bytes) -> None:
        if transport.get_extra_info("sockname")[1] == server.port:
            wrote.append(bytes(data))
        real(transport, data)

    monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "write", remembering)  # type: ignore[attr-defined]
    await server.talk(GET + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert [bodies(each) for each in wrote] == [[b"1:"], [b"2:"]]


REPLACED = {
    HttpToolsProtocol.data_received: "e74b210e3c04",
    HttpToolsProtocol.on_header: "b89cbbc6db2a",
    HttpToolsProtocol.on_headers_complete: "f48ec6bbe75d",
    HttpToolsProtocol.on_body: "a02fa52bdf33",
    HttpToolsProtocol.on_message_complete: "87e5be1faf50",
    HttpToolsProtocol.on_response_complete: "4dfe4f257f50",
    HttpToolsProtocol.send_400_response: "769895267c15",
    HttpToolsProtocol.connection_lost: "1b99df458c3b",
    HttpToolsProtocol.shutdown: "3fc90dd3d36a",
    RequestResponseCycle.send: "089bd8725f6a",
    RequestResponseCycle.receive: "e7a392a4367a",
}


@pytest.mark.parametrize("method", REPLACED, ids=lambda method: method.__qualname__)
def test_uvicorn_still_does_what_was_read_when_ours_was_built_around_it(method: Any) -> None:
    """Where this fails: read the method anew, then protocol.py, then note its new print here."""
    text = re.sub(r"\s+", "", inspect.getsource(method))
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == REPLACED[method]


def test_the_parser_tells_its_refusals_apart_as_ours_expects() -> None:
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError)
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)
