from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import iapeer
from iapeer.client import hot
from iapeer.core import env

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Canned:
    """A server of one answer."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.got = b""
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(self.path)
        self._sock.listen(1)
        self._threads: list[threading.Thread] = []
        self.release = threading.Event()

    def answer(self, *pieces: bytes, hold: bool = False, every_s: float = 0.0) -> None:
        def serve() -> None:
            connection, _ = self._sock.accept()
            # A client that gives up leaves, also while something is being sent.
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.settimeout(10)
                head = b""
                while b"\r\n\r\n" not in head:
                    got = connection.recv(65536)
                    if not got:
                        return
                    head += got
                self.got = head
                for piece in pieces:
                    if every_s and self.release.wait(every_s):
                        return
                    connection.sendall(piece)
                if hold:
                    self.release.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        self.release.set()
        for thread in self._threads:
            thread.join(10)
        self._sock.close()


@pytest.fixture
def server() -> Iterator[Canned]:
    folder = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    canned = Canned(folder)
    yield canned
    canned.close()
    shutil.rmtree(folder)


def test_one_request_with_a_length_and_no_second_use_of_the_connection(server: Canned) -> None:
    server.answer(OK)
    status, body = hot.request(
        "POST", "/p", {"a": "ä"}, socket_path=server.path, headers={"X-A": "1"}
    )
    assert (status, body) == (200, {})
    head, _, content = server.got.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /p HTTP/1.1"
    assert {"Connection: close", "X-A: 1", f"Content-Length: {len(content)}"} <= set(lines)
    assert json.loads(content) == {"a": "ä"}


def test_an_answer_in_pieces_is_read_to_its_length_without_waiting_for_the_end(
    server: Canned,
) -> None:
    server.answer(OK[:10], OK[10:30], OK[30:], hold=True)
    assert hot.request("GET", "/", socket_path=server.path) == (200, {})


def test_an_answer_without_a_length_ends_with_the_connection(server: Canned) -> None:
    server.answer(b"HTTP/1.1 404 Not Found\r\n\r\n", b'{"a":', b"1}")
    assert hot.request("GET", "/", socket_path=server.path) == (404, {"a": 1})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "within its headers"),
        (b"HTTP/1.1 200 OK\r\n", "within its headers"),
        (b"SSH-2.0\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "has 2 bytes, its header says 9"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x", "has 3 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<a>", "no JSON"),
    ],
)
def test_what_is_no_answer_of_ours_is_refused(server: Canned, raw: bytes, words: str) -> None:
    server.answer(raw)
    with pytest.raises(hot.BadAnswer, match=words):
        hot.request("GET", "/", socket_path=server.path)


def test_an_endless_answer_is_not_read_to_the_end(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "ANSWER_MAX", 1000)
    server.answer(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000)
    with pytest.raises(hot.BadAnswer, match="longer than 1000 bytes"):
        hot.request("GET", "/", socket_path=server.path)


def test_a_silent_daemon_is_given_up_in_time(server: Canned) -> None:
    server.answer(b"HTTP/1.1 200 OK\r\n", hold=True)
    began = time.monotonic()
    with pytest.raises(hot.DaemonUnreachable, match="timed out"):
        hot.request("GET", "/", socket_path=server.path, timeout_s=0.3)
    assert time.monotonic() - began < 8  # the server holds it for ten


def test_a_daemon_that_trickles_is_given_up_in_time_too(server: Canned) -> None:
    server.answer(*[b"x"] * 50_000, every_s=0.0005)
    began = time.monotonic()
    try:
        with pytest.raises(hot.DaemonUnreachable, match="timed out"):
            hot.request("GET", "/", socket_path=server.path, timeout_s=0.3)
    finally:
        server.release.set()
    assert time.monotonic() - began < 20  # the server trickles for more than 25


def test_nobody_there_is_named_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(hot.DaemonUnreachable, match=r"no daemon answers at .*missing"):
        hot.request("GET", "/", socket_path=str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("path", "header"), [("/a b", "x"), ("/a\r\nX: y", "x"), ("/", "x\r\nY: z"), ("/\x7f", "x")]
)
def test_nothing_can_be_smuggled_into_the_head(path: str, header: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        hot.request("GET", path, socket_path="/nonexistent", headers={"X": header})


def test_the_socket_is_found_as_the_settings_find_it() -> None:
    from iapeer.core.settings import make_settings

    for environ in (
        {env.HOME: "/h"},
        {env.HOME: "/h", env.ROOT: "/r"},
        {env.HOME: "/h", env.ROOT: "/r", env.DAEMON_SOCKET: "/s"},
        {},
    ):
        assert hot.socket_path(environ) == str(make_settings(environ).daemon_socket)


def test_token_and_bearer_go_along_when_the_environment_has_them(server: Canned) -> None:
    server.answer(OK)
    environ = {env.DAEMON_SOCKET: server.path, env.SESSION_TOKEN: "tok", env.BEARER_TOKEN: "bea"}
    assert hot.send(environ, "bob", "hello")[0] == 200
    assert b"X-IAPeer-Token: tok\r\n" in server.got
    assert b"Authorization: Bearer bea\r\n" in server.got
    assert hot.token_header({}) == {}


def test_the_hot_path_imports_next_to_nothing() -> None:
    source = Path(iapeer.__file__).parents[1]
    code = (
        f"import sys; sys.path.insert(0, {str(source)!r})\n"
        "import os\n"
        "before = set(sys.modules)\n"
        "import iapeer.client.hot\n"
        "print(sorted(set(sys.modules) - before))\n"
        "bad = {'asyncio', 'http.client', 'logging', 'msgspec', 'pathlib', 'tomllib', 'argparse',"
        " 'importlib.metadata', 'rich', 'typing', 'dataclasses', 'enum', 'json', 're', 'socket'}\n"
        "print(sorted(bad & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        encoding="utf-8",
        timeout=20,
        check=True,
    )
    ours, bad = done.stdout.splitlines()
    client = ("iapeer.client", "iapeer.client.hot", "iapeer.client.quickjson")
    hot_modules = ("_json", "_socket", "iapeer", *client, "iapeer.core", "iapeer.core.env")
    assert ours == str(["__future__", *hot_modules])
    assert bad == "[]"
