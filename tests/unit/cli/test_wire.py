from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from iapeer.cli import wire
from iapeer.core.errors import DaemonDown, IapeerError
from iapeer.storage.paths import Paths

from .conftest import FakeDaemon


def test_the_settings_file_may_name_the_socket(
    daemon: FakeDaemon, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Paths(root).state / "router.sock"
    moved = real.rename(root / "moved.sock")
    daemon.on("GET", "/api/v1/ping", {"ok": True})
    with pytest.raises(DaemonDown):
        wire.ask("GET", "/api/v1/ping")
    (root / "iapeer.toml").write_text(f'daemon_socket = "{moved}"\n', encoding="utf-8")
    assert wire.ask("GET", "/api/v1/ping") == {"ok": True}


def test_the_settings_file_may_hold_the_bearer(daemon: FakeDaemon, root: Path) -> None:
    daemon.refuse("GET", "/api/v1/ping", 401, "unauthorized")
    with pytest.raises(IapeerError, match="unauthorized"):
        wire.ask("GET", "/api/v1/ping")
    assert len(daemon.asked) == 1
    (root / "iapeer.toml").write_text('bearer_token = "b"\n', encoding="utf-8")
    with pytest.raises(IapeerError, match="unauthorized"):
        wire.ask("GET", "/api/v1/ping")
    assert [asked.headers.get("authorization") for asked in daemon.asked] == [
        None,
        None,
        "Bearer b",
    ]


def test_a_socket_nobody_serves_is_no_daemon(root: Path, environ: dict[str, str]) -> None:
    path = Paths(root).state / "router.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(DaemonDown) as caught:
        wire.ask("GET", "/api/v1/ping")
    assert caught.value.message == f"no daemon is running on {root}"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "makes no sense: the answer ends within its headers"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "makes no sense: the answer is no JSON"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "status 200 and no reason"),
        (b"HTTP/1.1 500 Oops\r\n\r\n{}", "status 500 and no reason"),
    ],
)
def test_an_answer_that_is_not_ours_is_told(
    root: Path, environ: dict[str, str], answer: bytes, told: str
) -> None:
    with one_answer(root, answer), pytest.raises(IapeerError, match=told):
        wire.ask("GET", "/api/v1/ping")


def test_silence_says_that_it_may_have_been_done(root: Path, environ: dict[str, str]) -> None:
    with one_answer(root, None), pytest.raises(IapeerError) as caught:
        wire.ask("GET", "/api/v1/ping", timeout_s=0.2)
    assert caught.value.code == "no_answer"
    assert "did not answer within 0.2 s; it may still do what was asked" in caught.value.message


class one_answer:  # noqa: N801 - used as a context manager
    """A server that reads one request and says `answer`, or nothing and keeps the line open."""

    def __init__(self, root: Path, answer: bytes | None) -> None:
        path = Paths(root).state / "router.sock"
        path.parent.mkdir(parents=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._answer = answer
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            if self._answer is None:
                self._done.wait(30)
            else:
                connection.sendall(self._answer)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._listener.close()
