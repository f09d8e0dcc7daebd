from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import FakeDaemon, Run

PEERS = ("GET", "/api/v1/peers")


def peer(name: str, statuses: dict[str, str], **more: Any) -> dict[str, Any]:
    runtimes = list(statuses)
    return {
        "personality": name,
        "default_runtime": runtimes[0],
        "intelligence": "artificial",
        "description": "",
        "cwd": f"/peers/{name}",
        "runtimes": runtimes,
        "statuses": statuses,
        "undelivered": 0,
        **more,
    }


TEAM = [
    peer("alice", {"claude": "live", "codex": "asleep"}, description="Plans [red]work"),
    peer("bob", {"claude": "stopped"}, undelivered=2),
    peer("carol", {"demo": "booting"}),
    peer("dave", {"demo": "broken"}, intelligence="natural"),
]


@pytest.fixture
def team(daemon: FakeDaemon) -> FakeDaemon:
    daemon.on(*PEERS, {"ok": True, "peers": TEAM})
    return daemon


@pytest.mark.requirement("cli:list:text")
def test_the_table_shows_each_runtimes_state(team: FakeDaemon, run: Run) -> None:
    done = run("list")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "alice  [claude]  artificial  ● claude  ○ codex\n"
        "bob  [claude]  artificial  ✕ claude  waiting:2\n"
        "carol  [demo]  artificial  ◐ demo\n"
        "dave  [demo]  natural  ! demo\n"
    )


@pytest.mark.requirement("cli:list:json")
def test_the_json_has_the_contracts_shape_and_words(team: FakeDaemon, run: Run) -> None:
    done = run("list", "--json")
    shown = json.loads(done.out)
    assert shown[0] == {
        "personality": "alice",
        "default_runtime": "claude",
        "intelligence": "artificial",
        "description": "Plans [red]work",
        "cwd": "/peers/alice",
        "runtimes": [
            {"runtime": "claude", "status": "live"},
            {"runtime": "codex", "status": "asleep"},
        ],
        "undelivered": 0,
    }
    assert shown[2]["runtimes"] == [{"runtime": "demo", "status": "asleep", "detail": "booting"}]
    assert shown[3]["runtimes"] == [{"runtime": "demo", "status": "asleep", "detail": "broken"}]


@pytest.mark.requirement("cli:list:empty")
def test_no_peers_is_said(daemon: FakeDaemon, run: Run) -> None:
    daemon.on(*PEERS, {"ok": True, "peers": []})
    assert run("list").out == "no peers registered\n"
    assert json.loads(run("list", "--json").out) == []


def test_without_a_daemon_the_registry_is_shown_and_nothing_is_claimed(
    run: Run, root: Path
) -> None:
    assert run("create", "bob", "--runtime", "demo", "--description", "Tests").status == 0
    told = f"iapeer list: no daemon is running on {root}: live state is unknown\n"
    done = run("list")
    assert (done.status, done.err) == (0, told)
    assert done.out == "bob  [demo]  artificial  ? demo\n"
    done = run("list", "--json")
    assert (done.status, done.err) == (0, told)
    assert json.loads(done.out) == [
        {
            "personality": "bob",
            "default_runtime": "demo",
            "intelligence": "artificial",
            "description": "Tests",
            "cwd": str(root / "peers" / "bob"),
            "runtimes": [{"runtime": "demo", "status": "unknown"}],
            "undelivered": 0,
        }
    ]


def on_terminal(environ: dict[str, str], **more: str) -> str:
    """Run `list` on a terminal of its own; returns what it drew."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "iapeer", "list"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**environ, "TERM": "xterm", "COLUMNS": "100", **more},
    ) as process:
        os.close(theirs)
        drawn = b""
        try:
            while chunk := os.read(ours, 4096):
                drawn += chunk
        except OSError:
            pass  # Linux's way to say that the other end of a terminal is closed
        os.close(ours)
        assert process.wait(timeout=60) == 0
    return drawn.decode()


def test_a_terminal_gets_a_table_and_markup_in_a_description_is_text(
    team: FakeDaemon, environ: dict[str, str]
) -> None:
    drawn = on_terminal(environ)
    assert "\x1b[1m" in drawn
    assert "PEER" in drawn
    assert "● claude live" in drawn
    assert "Plans [red]work" in drawn


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["no_color", "dumb"])
def test_a_plain_terminal_gets_plain_lines(
    team: FakeDaemon, environ: dict[str, str], plain: dict[str, str]
) -> None:
    drawn = on_terminal(environ, **plain)
    assert "\x1b" not in drawn
    assert drawn.startswith("alice  [claude]  artificial  ● claude  ○ codex\r\n")
