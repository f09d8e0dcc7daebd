from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iapeer.cli import output, sessions
from iapeer.sessions.tmux.config import config_text
from iapeer.testing.daemon import wait_until
from tests.unit.cli.terminal import Screen

from .conftest import FakeDaemon, Run
from .test_listing import TEAM

STORY = {
    "id": "k3vq7m2xd4ta",
    "sender": "claude-alice",
    "recipient": "codex-bob",
    "state": "seen",
    "reason": "",
    "topic": "review",
    "length": 120,
    "dup": True,
    "accepted_ts": "2026-11-22T15:00:00+00:00",
    "steps": [
        {"at": 1795359600.0, "state": "accepted", "event": "accept"},
        {"at": 1795359600.25, "state": "held", "event": "hold", "reason": "composer"},
        {"at": 1795359603.5, "state": "in_flight", "event": "hand_over", "door": "paste"},
        {"at": 1795359604.0, "state": "landed", "event": "land", "attempt": 2},
        {"at": 1795359605.125, "state": "seen", "event": "see", "evidence": "hook"},
        {"at": 1795359606.0, "state": "seen", "event": "new_step"},
    ],
}


def actions(daemon: FakeDaemon, verb: str, name: str, **done: str) -> None:
    daemon.on("POST", f"/api/v1/peers/{name}/{verb}", {"ok": True, "actions": done})


@pytest.mark.requirement("cli:stop")
@pytest.mark.parametrize(("verb", "did"), [("stop", "stopped"), ("start", "started")])
def test_a_line_per_runtime_tells_what_was_done(
    daemon: FakeDaemon, run: Run, verb: str, did: str
) -> None:
    actions(daemon, verb, "bob", claude=did, codex="already")
    done = run(verb, "bob")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"bob (claude): {did}\nbob (codex): already\n"
    assert daemon.asked[0].body == {}
    assert json.loads(run(verb, "bob", "codex", "--json").out) == [
        {"personality": "bob", "runtime": "claude", "action": did},
        {"personality": "bob", "runtime": "codex", "action": "already"},
    ]
    assert daemon.asked[1].body == {"runtime": "codex"}


@pytest.mark.requirement("cli:stop", "cli:start:failed")
def test_all_means_every_registered_peer_and_one_that_fails_spares_no_other(
    daemon: FakeDaemon, run: Run
) -> None:
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": TEAM})
    actions(daemon, "stop", "alice", claude="stopped")
    daemon.refuse("POST", "/api/v1/peers/bob/stop", 503, "bob does not obey", "try again")
    actions(daemon, "stop", "carol", demo="stopped")
    actions(daemon, "stop", "dave", demo="stopped")
    done = run("stop", "--all")
    assert done.status == 1
    assert done.out == "alice (claude): stopped\ncarol (demo): stopped\ndave (demo): stopped\n"
    assert done.err == "iapeer stop: bob: bob does not obey\nhint: try again\n"


@pytest.mark.requirement("cli:stop:nobody")
@pytest.mark.parametrize("words", [[], ["bob", "--all"]], ids=["nobody", "both"])
@pytest.mark.parametrize("verb", ["stop", "start"])
def test_nobody_and_everybody_at_once_are_usage_and_nothing_is_done(
    daemon: FakeDaemon, run: Run, verb: str, words: list[str]
) -> None:
    done = run(verb, *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(
        f"iapeer {verb}: takes the name of a peer, or --all for every one\nusage: iapeer {verb} "
    )
    assert daemon.asked == []


@pytest.mark.requirement("cli:control")
def test_what_was_controlled_is_named(daemon: FakeDaemon, run: Run) -> None:
    daemon.on("POST", "/api/v1/peers/bob/interrupt", {"ok": True, "identity": "claude-bob"})
    assert run("interrupt", "bob").out == "interrupt → bob (claude)\n"
    answer = {"ok": True, "identity": "codex-bob", "resumed": True}
    daemon.on("POST", "/api/v1/peers/bob/compact", answer)
    assert run("compact", "bob").out == "compact → bob (codex) after resume\n"
    daemon.on("POST", "/api/v1/peers/bob/compact", {**answer, "resumed": False})
    assert run("compact", "bob", "codex").out == "compact → bob (codex)\n"
    assert json.loads(run("compact", "bob", "--json").out) == {
        "personality": "bob",
        "runtime": "codex",
        "action": "compact",
        "resumed": False,
    }


@pytest.mark.requirement("cli:control")
@pytest.mark.parametrize("verb", ["interrupt", "compact"])
def test_what_can_not_be_controlled_is_told(daemon: FakeDaemon, run: Run, verb: str) -> None:
    message = "cannot control bob: nothing-to-compact"
    daemon.refuse("POST", f"/api/v1/peers/bob/{verb}", 409, message, "look")
    done = run(verb, "bob")
    assert (done.status, done.out, done.err) == (1, "", f"iapeer {verb}: {message}\nhint: look\n")


@pytest.mark.requirement("cli:stop:unknown")
def test_an_unknown_peer_is_the_daemons_error(daemon: FakeDaemon, run: Run) -> None:
    message = "peer 'bob' is not registered"
    daemon.refuse("POST", "/api/v1/peers/bob/stop", 404, message, "iapeer list shows who is")
    done = run("stop", "bob")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"iapeer stop: {message}\nhint: iapeer list shows who is\n"


def test_without_a_daemon_nothing_can_be_stopped(run: Run, root: Path) -> None:
    for words in (["bob"], ["--all"]):
        done = run("stop", *words)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith(f"iapeer stop: no daemon is running on {root}\n")


def test_trace_tells_the_story_in_order(daemon: FakeDaemon, process: Run) -> None:
    daemon.on("GET", "/api/v1/messages/k3vq7m2xd4ta", {"ok": True, "message": STORY})
    done = process("trace", "k3vq7m2xd4ta")  # the clock of a process has its own time zone
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "message k3vq7m2xd4ta: claude-alice -> codex-bob\n"
        "  120 characters, topic review\n"
        "  accepted 2026-11-22T15:00:00+00:00\n"
        "  15:00:00.000  accepted\n"
        "  15:00:00.250  held: someone is typing there; it goes in when they are done\n"
        "  15:00:03.500  handed to the runtime (door paste)\n"
        "  15:00:04.000  landed: the runtime has it (attempt 2)\n"
        "  15:00:05.125  seen by the reader (proof: hook)\n"
        "  15:00:06.000  new_step\n"
        "  it may have been shown twice, and is marked so\n"
        "now seen\n"
    )
    assert json.loads(process("trace", "k3vq7m2xd4ta", "--json").out) == STORY


def test_an_unknown_message_is_an_error(daemon: FakeDaemon, run: Run) -> None:
    daemon.refuse("GET", "/api/v1/messages/aaaa", 404, "no message aaaa")
    done = run("trace", "aaaa")
    assert (done.status, done.out) == (1, "")
    assert done.err == "iapeer trace: no message aaaa\n"


def test_attach_without_a_terminal_wakes_nobody(daemon: FakeDaemon, run: Run) -> None:
    done = run("attach", "bob")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "iapeer attach: attach needs a terminal\nhint: send it a message: iapeer send bob\n"
    )
    assert daemon.asked == []


@pytest.fixture
def tmux(root: Path) -> Iterator[Path]:
    """A real tmux server with the session `demo-bob`, on a private socket."""
    if shutil.which("tmux") is None:
        pytest.fail("tmux is missing")
    socket = root / "t.sock"
    command = ["tmux", "-S", str(socket), "-f", os.devnull]
    subprocess.run(
        [*command, "new-session", "-d", "-s", "demo-bob", "echo in the session; exec sleep 600"],
        check=True,
        timeout=30,
    )
    yield socket
    subprocess.run([*command, "kill-server"], check=True, timeout=30)


def attach_point(socket: Path, *, woke: bool, session: str = "demo-bob") -> dict[str, Any]:
    point = {"identity": "demo-bob", "socket": str(socket), "session": session, "woke": woke}
    return {"ok": True, "attach": point}


def test_attach_forgets_the_tmux_it_was_called_from(
    daemon: FakeDaemon, environ: dict[str, str], root: Path
) -> None:
    # Only a client in a pane of the very same server is refused by tmux: ask what it is given.
    program = root / "tmux"
    program.write_text('#!/bin/sh\necho "[$TMUX$TMUX_PANE] $*"\n', encoding="utf-8")
    program.chmod(0o700)
    daemon.on("POST", "/api/v1/peers/bob/wake", attach_point(root / "t", woke=False))
    outer = {"TMUX": "/tmp/other,1,0", "TMUX_PANE": "%1", "IAPEER_TMUX": str(program)}
    screen = Screen({**environ, **outer}, "attach", "bob")
    assert screen.end() == 0
    assert screen.drawn.splitlines()[1].startswith(f"[] -S {root}/t attach -t =demo-bob ;")


@pytest.mark.requirement("launch:tmux:one-server", "cli:attach")
@pytest.mark.real_tmux
def test_attach_becomes_tmux_on_that_session(
    daemon: FakeDaemon, tmux: Path, environ: dict[str, str]
) -> None:
    daemon.on("POST", "/api/v1/peers/bob/wake", attach_point(tmux, woke=True))
    screen = Screen(environ, "attach", "bob", "demo")
    screen.wait_for("in the session")
    screen.wait_for("leave with Ctrl-] d")
    assert daemon.asked[0].body == {"runtime": "demo"}
    detach = ["tmux", "-S", str(tmux), "detach-client", "-s", "=demo-bob"]
    subprocess.run(detach, check=True, timeout=30)
    assert screen.end() == 0


@pytest.mark.requirement("cli:attach")
@pytest.mark.real_tmux
def test_attach_ends_with_tmuxs_own_status(
    daemon: FakeDaemon, tmux: Path, environ: dict[str, str]
) -> None:
    # A prefix of a session's name is not that session.
    point = attach_point(tmux, woke=False, session="demo-b")
    daemon.on("POST", "/api/v1/peers/bob/wake", point)
    screen = Screen(environ, "attach", "bob")
    assert screen.end() == 1
    assert "can't find session: demo-b" in screen.drawn


@pytest.mark.requirement("cli:attach")
def test_attach_tells_why_a_peer_did_not_come_up(
    daemon: FakeDaemon, environ: dict[str, str]
) -> None:
    daemon.refuse("POST", "/api/v1/peers/bob/wake", 500, "bob did not come up", "see its log")
    screen = Screen(environ, "attach", "bob")
    assert screen.end() == 1
    assert screen.drawn == "iapeer attach: bob did not come up\r\nhint: see its log\r\n"


@pytest.mark.parametrize(("woke", "prefix"), [(True, "woke + "), (False, "")])
def test_attach_says_where_it_goes_and_how_to_get_tmux(
    daemon: FakeDaemon, environ: dict[str, str], root: Path, woke: bool, prefix: str
) -> None:
    daemon.on("POST", "/api/v1/peers/bob/wake", attach_point(root / "t", woke=woke))
    screen = Screen({**environ, "IAPEER_TMUX": "/nowhere/tmux"}, "attach", "bob")
    assert screen.end() == 1
    assert screen.drawn == (
        f"{prefix}attaching demo-bob…\r\n"
        "iapeer attach: /nowhere/tmux can't be run: No such file or directory\r\n"
        "hint: install tmux, or name it in IAPEER_TMUX\r\n"
    )


def test_a_long_wait_is_talked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    enough = threading.Event()

    def listen(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            enough.set()

    monkeypatch.setattr(sessions, "FIRST_WORD_S", 0.01)
    monkeypatch.setattr(sessions, "NEXT_WORD_S", 0.02)
    monkeypatch.setattr(output, "warn", listen)
    with sessions.progress("waking bob"):
        assert enough.wait(10)
    assert said[0] == "waking bob…"
    assert said[1].startswith("waking bob… (")


# -- what a person sees and does there ------------------------------------------------------------

WHEEL_UP, WHEEL_DOWN = b"\x1b[<64;10;10M", b"\x1b[<65;10;10M"
"""One click of a wheel over the pane, as terminals report it (SGR)."""

SCROLLING = "seq -f 'line %g of many' 300; exec sleep 600"
"""A program that fills the scrollback."""
TRACKING = (
    r"printf '\033[?1049h\033[?1000h\033[?1006hready to scroll'; stty -echo -icanon; exec cat -v"
)
"""A full-screen program that wants the mouse itself."""


class Attached:
    """A real tmux server with the configuration of every session of ours, and a person at it."""

    def __init__(self, socket: Path, environ: dict[str, str], daemon: FakeDaemon) -> None:
        self._socket = socket
        daemon.on("POST", "/api/v1/peers/bob/wake", attach_point(socket, woke=False))
        self.screen = Screen(environ, "attach", "bob")

    def ask(self, form: str) -> str:
        line = ["tmux", "-S", str(self._socket), "display-message", "-p", "-t", "=demo-bob:", form]
        return subprocess.run(
            line, check=True, timeout=30, capture_output=True, encoding="utf-8"
        ).stdout.strip()


@pytest.fixture
def attach(
    root: Path, daemon: FakeDaemon, environ: dict[str, str]
) -> Iterator[Callable[[str], Attached]]:
    """Attach to a session that runs the given shell command; everything ends with the test."""
    config, socket = root / "tmux.conf", root / "t.sock"
    config.write_text(config_text({}), encoding="utf-8")
    command = ["tmux", "-S", str(socket)]
    made: list[Attached] = []

    def go(program: str) -> Attached:
        server = [*command, "-f", str(config), "new-session", "-d", "-s", "demo-bob", program]
        subprocess.run(server, check=True, timeout=30)
        made.append(Attached(socket, environ, daemon))
        return made[0]

    yield go
    subprocess.run([*command, "kill-server"], check=True, timeout=30)
    for attached in made:
        attached.screen.end()


@pytest.mark.requirement("cli:attach:screen")
@pytest.mark.real_tmux
def test_the_wheel_scrolls_back_and_q_leaves_that(attach: Callable[[str], Attached]) -> None:
    bob = attach(SCROLLING)
    bob.screen.wait_for("line 300 of many")
    assert "line 200 of many" not in bob.screen.drawn
    wait_until(lambda: _typed(bob, WHEEL_UP, "#{pane_in_mode}", "1"), reason="copy mode")
    wait_until(lambda: _typed(bob, WHEEL_UP * 5, "#{e|>:#{scroll_position},100}", "1"))
    bob.screen.wait_for("line 200 of many")
    bob.screen.type(b"q")
    wait_until(lambda: bob.ask("#{pane_in_mode}") == "0", reason="the end of copy mode")


@pytest.mark.requirement("cli:attach:screen")
@pytest.mark.real_tmux
def test_the_wheel_down_to_the_end_leaves_it_too(attach: Callable[[str], Attached]) -> None:
    bob = attach(SCROLLING)
    bob.screen.wait_for("line 300 of many")
    wait_until(lambda: _typed(bob, WHEEL_UP, "#{pane_in_mode}", "1"), reason="copy mode")
    wait_until(lambda: _typed(bob, WHEEL_DOWN * 5, "#{pane_in_mode}", "0"), reason="the end")


@pytest.mark.requirement("cli:attach:screen")
@pytest.mark.real_tmux
def test_a_program_that_wants_the_wheel_gets_it(attach: Callable[[str], Attached]) -> None:
    bob = attach(TRACKING)
    bob.screen.wait_for("ready to scroll")
    wait_until(lambda: _typed(bob, WHEEL_UP, "#{mouse_any_flag}", "1"))
    bob.screen.wait_for("^[[<64;10;10M")
    assert bob.ask("#{pane_in_mode}") == "0"


def _typed(bob: Attached, keys: bytes, form: str, wanted: str) -> bool:
    """Press once and tell whether it is so; tmux loses keys right after it attached."""
    bob.screen.type(keys)
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        if bob.ask(form) == wanted:
            return True
    return False
