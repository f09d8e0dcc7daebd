from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.daemon import app as app_module
from iapeer.daemon import protocol as protocol_module
from tests.integration.daemon.support import (
    ALICE_TOKEN,
    BODY,
    Edge,
    child_environ,
    parse,
    running,
)

pytestmark = pytest.mark.anyio
SEND = {"to": "bob", "message": BODY}


@pytest.mark.requirement("daemon:host-origin")
async def test_a_foreign_host_is_refused_on_every_path(edge: Edge) -> None:
    for host in ("evil.example:80", "127.0.0.1", "127.0.0.1:1", f"evil.example:{edge.server.port}"):
        for path in ("/mcp", "/api/v1/ping"):
            status, _headers, _body = await edge.tcp("POST", path, {}, Host=host)
            assert status == 403, (host, path)


@pytest.mark.requirement("daemon:host-origin")
async def test_a_foreign_origin_is_refused_and_our_own_is_not(edge: Edge) -> None:
    port = edge.server.port
    foreign = ("http://evil.example", "null", "http://localhost:3000", f"https://localhost:{port}")
    for origin in foreign:
        status, _headers, body = await edge.tcp("GET", "/api/v1/ping", Origin=origin)
        assert (status, body["error"]["code"]) == (403, "foreign_origin"), origin
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://[::1]:{port}"):
        status, _headers, _body = await edge.tcp("GET", "/api/v1/ping", Origin=origin)
        assert status == 200, origin


@pytest.mark.requirement("daemon:bearer")
async def test_the_static_bearer_comes_before_everything_on_both_listeners(root: Path) -> None:
    async with running(root, bearer_token="sesame") as edge:
        for wrong in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic sesame"}):
            status, headers, body = await edge.tcp("POST", "/mcp", {}, Host="evil", **wrong)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert body == {
                "jsonrpc": "2.0",
                "id": None,
                "error": {"code": -32001, "message": "unauthorized"},
            }
            assert (await edge.call("GET", "/api/v1/ping", **wrong))[0] == 401
        right = {"Authorization": "Bearer sesame"}
        assert (await edge.call("GET", "/api/v1/ping", **right))[0] == 200
        status, _headers, body = await edge.tcp("POST", "/api/v1/send", SEND, **right)
        assert (status, body["error"]["code"]) == (403, "caller")
        token = right | {"X_IAPeer_Token": ALICE_TOKEN}
        assert (await edge.tcp("POST", "/api/v1/send", SEND, **token))[0] == 200


async def test_a_live_sessions_token_does_for_the_static_bearer(root: Path) -> None:
    """Some agents can show one header only that stays out of their logs."""
    async with running(root, bearer_token="sesame") as edge:
        own = {"Authorization": f"Bearer {ALICE_TOKEN}"}
        assert (await edge.tcp("POST", "/api/v1/send", SEND, **own))[0] == 200
        ended = {"Authorization": f"Bearer {ALICE_TOKEN}x"}
        assert (await edge.tcp("POST", "/api/v1/send", SEND, **ended))[0] == 401
        assert (await edge.call("GET", "/api/v1/peers", **ended))[0] == 401


@pytest.mark.requirement("daemon:body-limit")
async def test_an_oversized_body_is_refused_with_and_without_a_length(edge: Edge) -> None:
    size = edge.settings.max_body_bytes + 1
    for path in ("/mcp", "/api/v1/send"):
        status, _headers, _body = await edge.tcp("POST", path, b"x" * size)
        assert status == 413
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        raw = head.encode() + chunk * (size // 0x10000 + 1) + b"0\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(raw)
        async with asyncio.timeout(30):
            assert b" 413 " in await reader.readline()
        writer.close()
    assert edge.postman.sent == []


async def test_a_declared_giant_is_refused_before_its_body_comes(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "LINGER_S", 0.1)
    head = (
        f"POST /api/v1/send HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n"
        "Connection: close\r\nContent-Length: 99999999999\r\n\r\n"
    )
    assert parse(await edge.raw(head.encode()))[0] == 413


async def test_the_rest_of_a_refused_body_is_read_for_a_moment_only(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "LINGER_S", 0.1)
    monkeypatch.setattr(protocol_module, "LINGER_S", 0.1)
    head = (
        f"POST /api/v1/send HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n"
        "Content-Length: 99999999999\r\n\r\nxxx"
    )
    # No `Connection: close`: only the server can end this, so that raw() returns at all.
    try:
        answer = await edge.raw(head.encode())
    except ConnectionResetError:
        return
    assert b" 413 " in answer


@pytest.mark.requirement("daemon:body-limit")
@pytest.mark.parametrize("half", [b"", b"POST /mcp HT", b"POST /mcp HTTP/1.1\r\nHost: x\r\nA: b"])
async def test_half_a_request_blocks_nobody_and_is_cut(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    monkeypatch.setattr(protocol_module, "HEAD_S", 0.3)
    slow = [asyncio.create_task(edge.raw(half)) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        assert (await edge.tcp("GET", "/api/v1/ping"))[0] == 200
        ends = await asyncio.gather(*slow, return_exceptions=True)
    assert all(end == b"" or isinstance(end, ConnectionResetError) for end in ends)


async def test_half_a_second_request_on_a_kept_connection_is_cut_too(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "HEAD_S", 0.3)
    head = f"GET /api/v1/ping HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
    writer.write(f"{head}\r\n".encode())
    async with asyncio.timeout(30):
        assert b" 200 " in await reader.readline()
        writer.write(head.encode())
        with contextlib.suppress(ConnectionError):
            await reader.read()
    writer.close()


async def test_a_body_that_does_not_come_is_answered_with_408(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "BODY_S", 0.2)
    head = (
        f"POST /api/v1/send HTTP/1.1\r\nHost: 127.0.0.1:{edge.server.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
    writer.write(head.encode())
    async with asyncio.timeout(30):
        assert b" 408 " in await reader.readline()
    writer.close()


@pytest.mark.requirement("daemon:body-limit")
async def test_too_many_tcp_connections_do_not_cost_the_unix_socket(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "TCP_CONNECTIONS_MAX", 3)
    opened = [await asyncio.open_connection("127.0.0.1", edge.server.port) for _ in range(3)]
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert (await edge.call("GET", "/api/v1/ping"))[0] == 200
    for _reader, other in opened:
        other.close()


@pytest.mark.requirement("caller:account")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another uid")
async def test_another_account_is_refused_on_the_unix_socket_even_if_its_mode_was_loosened(
    edge: Edge, root: Path
) -> None:
    code = (
        "import json, sys\n"
        "import os\n"
        "from iapeer.client import hot\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "status, body = hot.request('GET', '/api/v1/ping', socket_path=sys.argv[1])\n"
        "print(json.dumps([status, body]))\n"
    )

    def as_nobody() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, edge.sock],
            env=child_environ(),
            capture_output=True,
            encoding="utf-8",
            timeout=20,
            check=False,
        )

    closed = await asyncio.to_thread(as_nobody)
    assert "Permission denied" in closed.stderr
    sock = Path(edge.sock)
    for folder in (root, *sock.relative_to(root).parents):
        (root / folder).chmod(0o755)
    sock.chmod(0o666)
    opened = await asyncio.to_thread(as_nobody)
    status, body = json.loads(opened.stdout)
    assert (status, body["error"]["code"]) == (403, "foreign_account")


@pytest.mark.requirement("daemon:log:quiet")
async def test_no_token_and_no_body_reaches_a_log_at_any_level(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(root, bearer_token="sesame-open", daemon_log=True) as edge:
        right = {"Authorization": "Bearer sesame-open", "X_IAPeer_Token": ALICE_TOKEN}
        wrong = right | {"X_IAPeer_Token": "wrong-token"}
        for headers in (right, wrong, {"Authorization": "Bearer guessed"}):
            for to in ("bob", "nobody", "crash"):
                body = {"to": to, "message": BODY}
                await edge.call("POST", "/api/v1/send", body, **headers)
                await edge.tcp("POST", "/api/v1/send", body, **headers)
                call = {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "tools/call",
                    "params": {
                        "name": "send_to_peer",
                        "arguments": {"personality": to, "message": BODY},
                    },
                }
                await edge.tcp("POST", "/mcp", call, **headers)
    lines = [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    ours = [r for r in caplog.records if r.name == "iapeer.daemon"]
    assert any("event=call" in r.getMessage() for r in ours)
    assert any("event=refused" in r.getMessage() for r in ours)
    assert any("event=defect" in r.getMessage() for r in ours)
    for secret in (ALICE_TOKEN, "wrong-token", "sesame-open", "guessed", BODY):
        assert not [line for line in lines if secret in line], secret
