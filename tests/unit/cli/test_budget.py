"""What a verb may import: a set, so that it is the same on every machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import FakeDaemon

_PROBE = """
import sys
before = set(sys.modules)
from iapeer.cli.main import main
status = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(status)
"""

DAEMON_ONLY = {"asyncio", "anyio", "httpx2", "mcp", "pydantic", "starlette", "structlog", "uvicorn"}
DRAWING = {"rich", "textual"}
ORDINARY = DAEMON_ONLY | DRAWING | {"filelock", "psutil", "sqlite3"}
HOT = ORDINARY | {
    "argparse",
    "dataclasses",
    "enum",
    "http.client",
    "importlib.metadata",
    "inspect",
    "json",
    "logging",
    "msgspec",
    "pathlib",
    "re",
    "socket",
    "subprocess",
    "tomllib",
    "typing",
}
BARE = HOT | {"iapeer.client", "iapeer.core"}


def loaded(environ: dict[str, str], *line: str) -> set[str]:
    """Run a line in a fresh interpreter; returns the modules it took."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *line],
        capture_output=True,
        env=environ,
        timeout=60,
        check=True,
    )
    return set(done.stderr.decode().splitlines()[-1].split())


def test_version_imports_next_to_nothing(environ: dict[str, str]) -> None:
    modules = loaded(environ, "version")
    assert modules >= {"iapeer.cli.main"}
    assert modules & BARE == set()


def test_send_stays_within_the_hot_set(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    daemon.on("POST", "/api/v1/send", {"ok": True, "state": "landed", "message_id": "x"})
    modules = loaded({**environ, "PEER_IDENTITY": "claude-a"}, "send", "bob", "hi", "--topic", "t")
    assert modules >= {"iapeer.cli.send", "iapeer.client.hot"}
    assert modules & HOT == set()


@pytest.mark.parametrize(
    "line",
    [
        ["list", "--json"],
        ["list"],
        ["status", "--json"],
        ["stop", "bob"],
        ["start", "bob"],
        ["refresh", "bob"],
        ["new", "bob"],
        ["interrupt", "bob"],
        ["trace", "k3vq7m2xd4ta", "--json"],
        ["messages"],
        ["messages", "--json"],
        ["dead-letter", "list"],
        ["dead-letter", "drop", "k3vq7m2xd4ta"],
    ],
    ids=" ".join,
)
def test_an_ordinary_verb_needs_no_event_loop_and_draws_nothing(
    daemon: FakeDaemon, environ: dict[str, str], line: list[str]
) -> None:
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": []})
    daemon.on("GET", "/api/v1/ping", {"ok": True})
    daemon.on("GET", "/api/v1/status", {"ok": True, "status": {}})
    daemon.on("GET", "/api/v1/messages/k3vq7m2xd4ta", {"ok": True, "message": {}})
    daemon.on("GET", "/api/v1/messages?limit=50", {"ok": True, "messages": []})
    daemon.on("GET", "/api/v1/dead-letters?limit=1000", {"ok": True, "messages": []})
    daemon.on("POST", "/api/v1/dead-letters/drop", {"ok": True, "results": []})
    for verb in ("new", "interrupt"):
        daemon.on("POST", f"/api/v1/peers/bob/{verb}", {"ok": True, "identity": "demo-bob"})
    for verb in ("stop", "start", "refresh"):
        daemon.on("POST", f"/api/v1/peers/bob/{verb}", {"ok": True, "actions": {}})
    modules = loaded(environ, *line)
    assert modules >= {"iapeer.client.hot"}
    assert modules & ORDINARY == set()


def test_list_without_a_daemon_reads_the_registry_within_the_same_set(
    environ: dict[str, str],
) -> None:
    modules = loaded(environ, "list", "--json")
    assert modules >= {"iapeer.registry.index"}
    assert modules & ORDINARY == set()
