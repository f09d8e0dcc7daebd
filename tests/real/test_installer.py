"""The real npm with a lock of ours: no address in it, the hash decides, no code of a package runs.

The registry is ours and on loopback, so this needs npm but no network.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from iapeer.testing.agents import Installer, Pin, Program, install
from iapeer.testing.agents.__main__ import in_ci
from iapeer.testing.agents.errors import DownloadFailed, WrongContent

PACKAGE = "@made-up/agent"
VERSION = "1.0.0-linux"


def tarball(touched: Path) -> bytes:
    """A package with a program, a script npm would run, and a dependency that does not exist."""
    manifest = {
        "name": PACKAGE,
        "version": VERSION,
        "scripts": {"install": f"touch {touched}", "postinstall": f"touch {touched}"},
        "dependencies": {"no-such-package": "1.0.0"},
    }
    files = {"package.json": json.dumps(manifest), "bin/agent": "#!/bin/sh\necho made up\n"}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


class Registry(ThreadingHTTPServer):
    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.is_empty = False
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    @property
    def registry(self) -> Registry:
        assert isinstance(self.server, Registry)
        return self.server

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.registry.asked.append(path)
        if path == f"/{PACKAGE}" and not self.registry.is_empty:
            dist = {"tarball": f"{self.registry.url}/agent.tgz"}
            version = {"name": PACKAGE, "version": VERSION, "dist": dist}
            self.answer(json.dumps({"name": PACKAGE, "versions": {VERSION: version}}).encode())
        elif path == "/agent.tgz":
            self.answer(self.registry.content)
        else:
            self.send_error(404)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing on stderr."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if shutil.which("npm") is None:
        (pytest.fail if in_ci(os.environ) else pytest.skip)("npm is missing")
    with Registry(tarball(tmp_path / "touched")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def installer(
    registry: Registry, pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Installer:
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(pinned).digest()).decode()
    program = Program(package=PACKAGE, release=VERSION, program="bin/agent", integrity=integrity)
    pin = Pin(command="agent", version="1.0.0", platforms={"any": program})
    monkeypatch.setattr(install, "pin_of", lambda _name: pin)
    monkeypatch.setattr(install, "PAUSES_S", (0.0, 0.0))
    environ = {"PATH": os.environ["PATH"], "npm_config_registry": registry.url}
    environ["npm_config_fetch_retries"] = "0"
    return Installer(tmp_path / "cache", lambda _line: None, environ)


def test_npm_installs_from_its_registry_what_the_lock_pins_and_runs_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = installer(registry, registry.content, tmp_path, monkeypatch).install("agent")
    assert program == tmp_path / "cache" / "agent-1.0.0" / "bin" / "agent"
    assert os.access(program, os.X_OK)
    assert program.read_text(encoding="utf-8") == "#!/bin/sh\necho made up\n"
    assert registry.asked == [f"/{PACKAGE}", "/agent.tgz"]
    assert not (tmp_path / "touched").exists()


def test_npm_refuses_another_content_than_the_pinned(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = registry.content
    registry.content = tarball(tmp_path / "evil")
    with pytest.raises(WrongContent, match="EINTEGRITY"):
        installer(registry, pinned, tmp_path, monkeypatch).install("agent")
    assert not (tmp_path / "cache" / "agent-1.0.0").exists()


def test_npm_fails_three_times_where_the_package_is_missing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = installer(registry, registry.content, tmp_path, monkeypatch)
    registry.is_empty = True
    with pytest.raises(DownloadFailed, match="in 3 tries"):
        made.install("agent")
    assert set(registry.asked) == {f"/{PACKAGE}"}
    assert len(registry.asked) >= 3
