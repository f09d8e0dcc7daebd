from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.core.errors import ConfigError, DaemonRunning, PortBusy, StorageError
from iapeer.daemon import discovery
from iapeer.storage.paths import Paths
from tests.integration.daemon.support import (
    child_environ,
    free_port,
    make_server,
    running,
    settings_for,
)

pytestmark = pytest.mark.anyio


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.requirement("daemon:listeners:socket", "daemon:listeners:both")
async def test_both_listeners_answer_and_the_socket_is_private(root: Path) -> None:
    async with running(root) as edge:
        assert mode(Path(edge.sock)) == 0o600
        assert mode(Path(edge.sock).parent) == 0o700
        status, body = await edge.call("GET", "/api/v1/ping")
        assert (status, body) == (200, {"ok": True, "version": "9.8.7", "pid": os.getpid()})
        assert (await edge.tcp("GET", "/api/v1/ping"))[0] == 200
        assert edge.server.url == f"http://127.0.0.1:{edge.server.port}/mcp"


@pytest.mark.requirement("daemon:discovery")
async def test_the_discovery_file_lives_exactly_as_long_as_the_listeners(root: Path) -> None:
    edge = make_server(settings_for(root))
    path = Paths(edge.settings.root).discovery
    await edge.server.start()
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {"sock": edge.sock, "tcp": edge.server.url}
    assert mode(path) == 0o600
    assert discovery.read(path) == discovery.Discovery(edge.sock, edge.server.url)
    await edge.server.stop()
    assert not path.exists()
    assert not Path(edge.sock).exists()


@pytest.mark.requirement("daemon:stale-socket")
async def test_files_of_a_successor_are_left_alone(root: Path) -> None:
    edge = make_server(settings_for(root))
    path = Paths(edge.settings.root).discovery
    await edge.server.start()
    theirs = '{"sock":null,"tcp":"http://127.0.0.1:1/mcp"}\n'
    path.write_text(theirs, encoding="utf-8")
    Path(edge.sock).unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(edge.sock)
        await edge.server.stop()
        assert path.read_text(encoding="utf-8") == theirs
        assert Path(edge.sock).exists()


@pytest.mark.requirement("daemon:second")
async def test_a_second_daemon_is_refused_and_the_first_stays_reachable(root: Path) -> None:
    async with running(root) as edge:
        second = make_server(settings_for(root))
        with pytest.raises(DaemonRunning, match="another daemon answers"):
            await second.server.start()
        assert (await edge.call("GET", "/api/v1/ping"))[0] == 200
        assert Paths(edge.settings.root).discovery.exists()


@pytest.mark.requirement("daemon:stale-socket")
async def test_a_stale_socket_is_replaced(root: Path) -> None:
    settings = settings_for(root)
    settings.daemon_socket.parent.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(settings.daemon_socket))
    async with running(root) as edge:
        assert (await edge.call("GET", "/api/v1/ping"))[0] == 200


@pytest.mark.requirement("daemon:stale-socket")
async def test_a_file_that_is_no_socket_is_not_removed(root: Path) -> None:
    settings = settings_for(root)
    settings.daemon_socket.parent.mkdir(parents=True, mode=0o700)
    settings.daemon_socket.write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match="it is no socket"):
        await make_server(settings).server.start()
    assert settings.daemon_socket.read_text(encoding="utf-8") == "precious"


async def test_a_folder_others_may_write_is_refused(root: Path) -> None:
    settings = settings_for(root)
    settings.daemon_socket.parent.mkdir(parents=True)
    settings.daemon_socket.parent.chmod(0o777)
    with pytest.raises(StorageError, match="may be written by others"):
        await make_server(settings).server.start()


@pytest.mark.requirement("names:socket:length")
async def test_a_socket_path_that_is_too_long_is_named(root: Path) -> None:
    settings = settings_for(root, daemon_socket=root / ("x" * 120))
    with pytest.raises(ConfigError, match="longer than"):
        await make_server(settings).server.start()


@pytest.mark.requirement("daemon:port-busy")
async def test_a_busy_port_names_its_holder_and_the_way_out(root: Path) -> None:
    code = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environ(),
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        port = int(await holder.stdout.readline())
        edge = make_server(settings_for(root, port=port))
        with pytest.raises(PortBusy) as caught:
            await edge.server.start()
        assert f"port {port} is taken by pid {holder.pid} (python" in str(caught.value)
        assert "iapeer daemon --port N" in caught.value.hint
        assert "IAPEER_PORT" in caught.value.hint
        assert not Path(edge.sock).exists()
        assert not Paths(edge.settings.root).discovery.exists()
    finally:
        holder.stdin.close()
        await holder.wait()


@pytest.mark.requirement("daemon:listeners:tcp")
async def test_only_loopback_is_listened_on_and_the_port_asked_for_is_used(root: Path) -> None:
    port = free_port()
    async with running(root, port=port) as edge:
        assert edge.server.port == port
        addresses = {
            line.split()[1]
            for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        }
        assert addresses == {f"0100007F:{port:04X}"}


async def test_no_answer_over_tcp_waits_for_a_delayed_ack(root: Path) -> None:
    async with running(root) as edge:
        _reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        await edge.tcp("GET", "/api/v1/ping")
        server = edge.server._server
        assert server is not None
        (accepted,) = server.server_state.connections
        sock = accepted.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        writer.close()


async def test_the_port_is_free_again_at_once_after_stop(root: Path) -> None:
    port = free_port()
    for _ in range(3):
        async with running(root, port=port) as edge:
            assert (await edge.tcp("GET", "/api/v1/ping"))[0] == 200


async def test_stop_cuts_a_request_that_does_not_end_and_is_bounded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iapeer.daemon.server.GRACE_S", 0.2)
    edge = make_server(settings_for(root))
    edge.postman.block = asyncio.Event()
    await edge.server.start()
    body = {"to": "bob", "message": "x", "from": "claude-alice"}
    waiting = asyncio.create_task(edge.call("POST", "/api/v1/send", body))
    stream = asyncio.create_task(
        edge.call("GET", "/api/v1/inbox", X_IAPeer_Identity="service-ci-bot")
    )
    await edge.inbox.until(lambda: edge.inbox.opened == 1)
    async with asyncio.timeout(30):
        await edge.server.stop()
        ends = await asyncio.gather(waiting, stream, return_exceptions=True)
    assert all(isinstance(end, Exception) for end in ends)
    assert edge.inbox.closed == 1


async def test_the_sockets_answer_before_the_sdk_is_imported_and_mcp_waits_for_it(
    root: Path,
) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from tests.integration.daemon.support import make_server, settings_for

async def main():
    edge = make_server(settings_for(Path(sys.argv[1])))
    assert "mcp" not in sys.modules and "pydantic" not in sys.modules
    await edge.server.start()
    assert "pydantic" not in sys.modules, "imported before the sockets were bound"
    status, _ = await edge.call("GET", "/api/v1/ping")
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    rpc_status, _, answer = await edge.tcp("POST", "/mcp", listing)
    print(status, rpc_status, [tool["name"] for tool in answer["result"]["tools"]])
    await edge.server.stop()

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", code, str(root)],
        env=child_environ(),
        cwd=Path(__file__).parents[3],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "200 200 ['send_to_peer']", done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_connects_while_the_server_stops_is_cut_off(root: Path, turns: int) -> None:
    edge = make_server(settings_for(root))
    await edge.server.start()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    for client in clients:
        client.settimeout(5)
        client.connect(str(edge.settings.daemon_socket))
    # Accepting takes the loop several turns: the stop comes in each of them.
    for _ in range(turns):
        await asyncio.sleep(0)
    await edge.server.stop()
    for client in clients:
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
