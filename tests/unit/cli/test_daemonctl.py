from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer import __version__
from iapeer.storage.paths import Paths

from .conftest import FakeDaemon, Run

FACTS = {"version": __version__, "pid": 7, "peers": 3, "live": 2, "undelivered": 1, "problems": []}


@pytest.fixture
def healthy(daemon: FakeDaemon, root: Path) -> FakeDaemon:
    announce(daemon, root, FACTS)
    return daemon


def announce(daemon: FakeDaemon, root: Path, facts: dict[str, Any]) -> None:
    paths = Paths(root)
    found = {"sock": str(paths.state / "router.sock"), "tcp": "http://127.0.0.1:8765/mcp"}
    paths.discovery.write_text(json.dumps(found), encoding="utf-8")
    daemon.on("GET", "/api/v1/ping", {"ok": True, "version": __version__, "pid": 7})
    daemon.on("GET", "/api/v1/status", {"ok": True, "status": facts})


@pytest.mark.requirement("cli:status:healthy")
def test_a_daemon_that_answers_is_healthy(healthy: FakeDaemon, run: Run, root: Path) -> None:
    done = run("status")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        f"iapeer {__version__}\n"
        f"daemon: healthy @ http://127.0.0.1:8765/mcp + {root}/state/iapeer/router.sock\n"
        "peers: 3, live sessions: 2, undelivered messages: 1\n"
        "memory: none\n"
    )


def test_status_as_json(healthy: FakeDaemon, run: Run, root: Path) -> None:
    assert json.loads(run("status", "--json").out) == {
        "version": __version__,
        "healthy": True,
        "tcp": "http://127.0.0.1:8765/mcp",
        "sock": f"{root}/state/iapeer/router.sock",
        "daemon": FACTS,
        "memory": None,
    }


@pytest.mark.requirement("memory:status")
def test_a_held_memory_slot_is_told_whether_a_daemon_runs_or_not(
    run: Run, root: Path, healthy: FakeDaemon
) -> None:
    beat = root / "beat"
    slot = {"provider": "mem", "package": "@x/mem", "version": "1.2", "heartbeat": str(beat)}
    Paths(root).memory_slot.write_text(json.dumps(slot), encoding="utf-8")
    done = run("status")
    assert done.status == 0
    assert done.out.endswith("\nmemory: mem 1.2 (daemon not running — no heartbeat file)\n")
    beat.touch()
    assert "\nmemory: mem 1.2 (heartbeat " in run("status").out
    healthy.refuse("GET", "/api/v1/ping", 500, "internal error")
    shown = json.loads(run("status", "--json").out)
    assert shown["memory"]["provider"] == "mem"
    assert shown["memory"]["heartbeat_age_s"] >= 0


def test_problems_and_an_old_daemon_are_told_and_it_is_still_healthy(
    daemon: FakeDaemon, run: Run, root: Path
) -> None:
    announce(daemon, root, {**FACTS, "version": "0.0.9", "problems": ["one", "two"]})
    done = run("status")
    assert done.status == 0
    assert done.out.splitlines()[2:] == [
        "peers: 3, live sessions: 2, undelivered messages: 1",
        "version: the daemon still runs 0.0.9, restart it",
        "problem: one",
        "problem: two",
        "memory: none",
    ]


@pytest.mark.requirement("cli:status:healthy")
def test_no_daemon_is_not_healthy(run: Run, root: Path) -> None:
    done = run("status")
    assert done.status == 1
    assert done.out == (
        f"iapeer {__version__}\ndaemon: NOT healthy (no daemon is running on {root})\n"
        "memory: none\n"
    )
    assert done.err == "hint: start it: iapeer daemon\n"
    shown = json.loads(run("status", "--json").out)
    assert (shown["healthy"], shown["error"]["code"]) == (False, "daemon_down")


@pytest.mark.requirement("cli:status:request")
def test_a_daemon_that_only_listens_is_not_healthy(daemon: FakeDaemon, run: Run) -> None:
    daemon.refuse("GET", "/api/v1/ping", 500, "internal error")
    done = run("status")
    assert done.status == 1
    assert "\ndaemon: NOT healthy (internal error)\n" in done.out


@pytest.mark.parametrize("port", ["x", "-1", "65536", ""])
def test_a_bad_port_is_refused_before_anything_starts(run: Run, root: Path, port: str) -> None:
    done = run("daemon", f"--port={port}")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[0] == f"iapeer daemon: --port={port!r} is no port"
    assert not Paths(root).state.exists()
