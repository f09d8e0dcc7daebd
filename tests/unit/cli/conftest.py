"""A private root, a real unix-socket HTTP server with canned answers, and the command itself."""

from __future__ import annotations

import io
import json
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from iapeer.cli.main import main
from iapeer.storage.paths import Paths

SRC = Path(__file__).parents[3] / "src"
RUN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Ran:
    """How one run of the command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Asked:
    """One request the daemon was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakeDaemon:
    """Answers by (method, path); what has no answer is a 404 in the API's shape."""

    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, method: str, path: str, answer: Any, status: int = 200) -> None:
        self.answers[method, path] = (status, answer)

    def refuse(self, method: str, path: str, status: int, message: str, hint: str = "") -> None:
        error = {"code": "refused", "message": message, "hint": hint, "retry_after_s": None}
        self.on(method, path, {"ok": False, "error": error}, status)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = True
    fake: FakeDaemon


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        assert isinstance(self.server, _Server)
        fake = self.server.fake
        fake.asked.append(Asked(self.command, self.path, headers, body))
        missing = {"ok": False, "error": {"code": "unknown_path", "message": "unknown path"}}
        status, answer = fake.answers.get((self.command, self.path), (404, missing))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        del format, args


@pytest.fixture
def root() -> Iterator[Path]:
    """A root with a short path: a unix socket's holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def environ(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a shell that knows only the private root; this process has it too."""
    for name in list(os.environ):
        if name.startswith(("IAPEER_", "PEER_", "CLAUDE", "CODEX")) or name == "NO_COLOR":
            monkeypatch.delenv(name)
    for name, value in {
        "IAPEER_ROOT": str(root),
        "HOME": str(root / "home"),
        "IAPEER_TEST_SANDBOX": "1",
        "PYTHONPATH": str(SRC),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    (root / "home").mkdir()
    return dict(os.environ)


@pytest.fixture
def daemon(root: Path, environ: dict[str, str]) -> Iterator[FakeDaemon]:
    """A daemon that answers what the test tells it to, on the root's own socket."""
    paths = Paths(root)
    paths.state.mkdir(parents=True)
    fake = FakeDaemon()
    with _Server(str(paths.state / "router.sock"), _Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


Run = Callable[..., Ran]


@pytest.fixture
def run(root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process: `run("send", "bob", stdin=b"...", env={...}, cwd=...)`."""

    def go(
        *words: str | bytes,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        out, err = _stream(), _stream()
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            patch.chdir(cwd or root)
            patch.setattr(sys, "stdin", _stream(stdin))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = main([os.fsdecode(word) for word in words])
        return Ran(status, _text(out), _text(err))

    return go


@pytest.fixture
def process(root: Path, environ: dict[str, str]) -> Run:
    """Run the command as its own process; slower, for what depends on being one."""

    def go(*words: str | bytes, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "iapeer", *words],
            input=stdin,
            capture_output=True,
            env={**environ, **(env or {})},
            cwd=root,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return go


def _stream(content: bytes = b"") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()
