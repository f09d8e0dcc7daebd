"""The official MCP conformance suite: installed from its pinned lock, run against one server."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from iapeer.storage.locks import TryLock
from iapeer.testing.agents.errors import AgentError, NotForThisMachine
from iapeer.testing.agents.npm import NpmRun, find_npm

HERE = Path(__file__).parent / "mcp_conformance"
FILES = ("package.json", "package-lock.json")
"""The suite, all it depends on, and a node for machines whose own is too old; by hash."""
SUITE = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
NODE_MAJOR = 22
"""The suite uses fs.globSync (0.1.16)."""
INSTALL_S = 300.0
RUN_S = 120.0


class Check(msgspec.Struct, frozen=True):
    """One check of one scenario, as the suite writes it into `checks.json`."""

    id: str
    status: str
    error: str = msgspec.field(name="errorMessage", default="")


Rows = dict[tuple[str, str], str]
"""The status of each check, by scenario and check."""


@dataclass(frozen=True)
class McpSuite:
    """An installed suite."""

    node: Path
    folder: Path

    def run(self, url: str, home: Path) -> Rows:
        """Run every server scenario and return what came of each check."""
        found = home / "results"
        done = subprocess.run(
            [self.node, SUITE, "server", "--url", url, "--suite", "all", "--output-dir", found],
            cwd=self.folder,
            env={"HOME": str(home), "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_S,
            check=False,
        )
        rows = {
            (_scenario(path.parent.name), check.id): check.status
            for path in found.glob("*/checks.json")
            for check in msgspec.json.decode(path.read_bytes(), type=list[Check])
        }
        assert rows, done.stderr.decode(errors="replace")[-2000:]
        return rows


def install(cache: Path) -> McpSuite:
    """Return the suite, installed into `cache` if it isn't there yet (measured: 51 MB, 6-33 s).

    Raises AgentError: see its kinds.
    """
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()
    folder = cache / f"mcp-conformance-{digest[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    lock = TryLock(cache / ".mcp-conformance.lock")
    if not lock.acquire(INSTALL_S):
        raise AgentError("another run installs the MCP conformance suite and does not end")
    try:
        if not folder.exists():
            _make(cache, folder)
    finally:
        lock.release()
    return McpSuite(_node(folder), folder)


def _scenario(folder: str) -> str:
    """Return the scenario of a folder `server-<scenario>-<moment>`."""
    return re.sub(r"-\d{4}-\d\d-\d\dT[-\dZ]+$", "", folder.removeprefix("server-"))


def _make(cache: Path, folder: Path) -> None:
    """Download beside the final place and rename: a half-made install is never seen."""
    npm = find_npm(os.environ)
    for old in cache.glob(".new-mcp-conformance-*"):
        shutil.rmtree(old)
    scratch = Path(tempfile.mkdtemp(prefix=".new-mcp-conformance-", dir=cache))
    try:
        project = scratch / "project"
        project.mkdir()
        for name in FILES:
            shutil.copy(HERE / name, project)
        NpmRun(npm, project, scratch, os.environ, threading.Event()).ci(lambda _size, _s: None)
        project.rename(folder)
    finally:
        shutil.rmtree(scratch)


def _node(folder: Path) -> Path:
    """Return the pinned node where there is one for this machine, else its own if new enough."""
    for found in folder.glob("node_modules/node-*/bin/node"):
        found.chmod(0o755)
        return found
    own = shutil.which("node")
    if own is not None:
        said = subprocess.run([own, "--version"], capture_output=True, encoding="utf-8", check=True)
        if int(said.stdout.removeprefix("v").partition(".")[0]) >= NODE_MAJOR:
            return Path(own)
    raise NotForThisMachine(f"node {NODE_MAJOR} or newer is missing, the MCP suite needs it")
