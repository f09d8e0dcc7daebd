"""Sessions begun and ended on purpose, with real daemons, tmux and the demo agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths, profile_path
from iapeer.testing.daemon import TestDaemon, wait_until
from tests.integration.cli.test_offline import token_of
from tests.unit.cli.terminal import Screen

pytestmark = pytest.mark.real_tmux


@pytest.fixture
def team(iapeer_daemon: TestDaemon) -> TestDaemon:
    """A running daemon with the sleeping peers alice and bob."""
    iapeer_daemon.create("alice", "bob")
    iapeer_daemon.start()
    return iapeer_daemon


def at(daemon: TestDaemon, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "iapeer", *words],
        env=daemon.environ,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def home(daemon: TestDaemon, name: str = "bob") -> Path:
    return daemon.root / "peers" / name


def sessions(daemon: TestDaemon) -> list[SessionRow]:
    with offline_read(Paths(daemon.root).ledger) as conn:
        return sorted(rows.all_sessions(conn), key=lambda row: row.started_at)


def live(daemon: TestDaemon, name: str = "bob") -> list[str]:
    """Return the ids of a peer's sessions that have not ended."""
    return [row.id for row in sessions(daemon) if row.personality == name and not row.ended_at]


def wake(daemon: TestDaemon) -> str:
    """Bring bob up; returns the token of his session."""
    daemon.run("attach", "bob", "--json")
    return token_of(daemon, "bob")


def own(
    daemon: TestDaemon, token: str, verb: str, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a verb as a command in bob's session does."""
    return daemon.run(verb, expect=expect, PEER_IDENTITY="demo-bob", PEER_TOKEN=token)


@pytest.mark.requirement("cli:new", "cli:live-runtime")
def test_new_ends_what_runs_and_is_done_when_the_fresh_one_is_ready(team: TestDaemon) -> None:
    assert team.run("live-runtime", "bob", expect=1).stdout == ""
    assert team.run("new", "bob").stdout == "new: demo-bob fresh session up\n"
    (first,) = live(team)
    assert team.run("live-runtime", "bob").stdout == "demo\n"
    assert team.run("new", "bob").stdout == "new: demo-bob fresh session up\n"
    (second,) = live(team)
    assert second != first
    refused = team.run("new", "bob", "claude", expect=1)
    assert "iapeer new: refused-undeclared-runtime: " in refused.stderr
    assert "is not registered" in team.run("new", "nobody", expect=1).stderr
    assert live(team) == [second]


@pytest.mark.requirement("cli:new")
def test_new_starts_a_stopped_peer(team: TestDaemon) -> None:
    team.run("stop", "bob")
    assert team.run("new", "bob").stdout == "new: demo-bob fresh session up\n"
    assert "● demo" in team.run("list").stdout


@pytest.mark.requirement("cli:refresh")
def test_refresh_ends_nothing(team: TestDaemon) -> None:
    team.create("op", runtime="api")
    wake(team)
    before = live(team)
    assert team.run("refresh", "--all").stdout == (
        "alice (demo): refresh-armed\nbob (demo): refresh-armed\nop (api): skipped-non-agentic\n"
    )
    assert live(team) == before


@pytest.mark.requirement("cli:bare-runtime", "cli:bare-runtime:typo")
def test_the_name_of_a_runtime_begins_a_session_of_this_folders_peer(
    iapeer_daemon: TestDaemon,
) -> None:
    daemon = iapeer_daemon
    daemon.create("bob")
    assert at(daemon, home(daemon), "dmeo").returncode == 2
    assert daemon.owner() is None
    done = at(daemon, home(daemon), "demo")
    # No daemon ran: who wants a session wants one.
    assert (done.returncode, done.stdout) == (0, "launched demo-bob (fresh)\n")
    assert "iapeer launch: no daemon is running" in done.stderr
    (first,) = live(daemon)
    again = at(daemon, home(daemon), "demo")
    assert again.stdout == "demo-bob is live already: nothing launched\n"
    assert live(daemon) == [first]
    nobody = at(daemon, daemon.base, "demo")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "hint: make it one: iapeer init --runtime demo" in nobody.stderr


@pytest.mark.requirement("cli:bare-runtime")
def test_on_a_terminal_a_launch_shows_the_session(
    team: TestDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home(team))
    screen = Screen(team.environ, "demo")
    screen.wait_for("demo agent · ready")
    wait_until(lambda: _left(screen), reason="tmux to detach")
    assert screen.end() == 0
    assert len(live(team)) == 1


def _left(screen: Screen) -> bool:
    """Press the keys once; tmux loses keys of the first milliseconds after it attached."""
    screen.type(b"\x1dd")
    try:
        screen.process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.requirement("cli:runtimes:running")
def test_a_running_daemon_counts_a_new_runtime_and_a_new_default_at_once(
    team: TestDaemon,
) -> None:
    say = ("send", "bob", "hi", "--from", "demo-alice", "--json")
    team.run(*say, "--runtime", "api", expect=1)
    team.run("add-runtime", "api", "--peer", "bob")
    sent = json.loads(team.run(*say, "--runtime", "api").stdout)
    assert sent["delivered_to"] == {"personality": "bob", "runtime": "api"}
    assert "bob  [demo]" in team.run("list").stdout
    team.run("default-runtime", "api", "--peer", "bob")
    assert "bob  [api]" in team.run("list").stdout
    sent = json.loads(team.run(*say).stdout)
    assert sent["delivered_to"] == {"personality": "bob", "runtime": "api"}
    assert team.run("verify").returncode == 0
    assert live(team) == []


@pytest.mark.requirement("cli:list:last-active")
def test_the_list_knows_on_which_runtime_a_peer_was_last(team: TestDaemon) -> None:
    def listed() -> tuple[str | None, str]:
        found = {row["personality"]: row for row in json.loads(team.run("list", "--json").stdout)}
        assert "last_active_runtime" not in found["alice"]
        lines = team.run("list").stdout.splitlines()
        return found["bob"].get("last_active_runtime"), lines[1]

    assert listed()[0] is None
    team.run("send", "bob", "NOTHING", "--from", "demo-alice")
    last, line = listed()
    assert last == "demo"
    assert "last-active" not in line
    team.run("add-runtime", "api", "--peer", "bob")
    team.run("default-runtime", "api", "--peer", "bob")
    team.run("stop", "bob", "demo")
    last, line = listed()
    assert last == "demo"
    assert line.endswith("last-active:demo")
    team.stop()
    team.start()
    assert listed()[0] == "demo"


@pytest.mark.requirement("cli:send:interrupt")
def test_a_message_can_end_the_turn_that_runs(team: TestDaemon) -> None:
    slow = team.send("bob", "SLOW 600", "demo-alice")["message_id"]
    team.wait_state(slow, "seen")
    say = ("send", "bob", "NOTHING", "--from", "demo-alice", "--interrupt")
    sent = json.loads(team.run(*say, "--json").stdout)
    team.wait_state(sent["message_id"], "seen")
    ends = [r["status"] for r in team.records("bob") if r["type"] == "turn" and r["op"] == "end"]
    assert ends[0] == "interrupted"
    refused = team.run(*say, expect=1, PEER_TOKEN=token_of(team, "bob"))
    assert "a session may not interrupt another one" in refused.stderr


# -- a session about itself -----------------------------------------------------------------------


def ephemeral(daemon: TestDaemon, name: str = "bob") -> None:
    path = profile_path(home(daemon, name))
    raw = json.loads(path.read_bytes())
    path.write_text(json.dumps({**raw, "wake_policy": "ephemeral"}), encoding="utf-8")


ARMED = "self-done: armed demo-bob for the quiet-window reap (no one woken)"
INERT = " — NOTE: this peer is not wake_policy:ephemeral, the marker is inert"


@pytest.mark.requirement("cli:self-done")
def test_self_done_tells_whether_it_has_an_effect_and_wakes_nobody(team: TestDaemon) -> None:
    token = wake(team)
    # The folder it is said in does not matter, only whose session it is.
    assert own(team, token, "self-done").stdout == f"{ARMED}{INERT}\n"
    ephemeral(team)
    assert own(team, token, "self-done").stdout == f"{ARMED}\n"
    assert live(team, "alice") == []
    assert own(team, "f" * 64, "self-done", 1).stderr.startswith("iapeer self-done: ")
    assert "PEER_IDENTITY is not set" in team.run("self-done", expect=1).stderr


@pytest.mark.requirement("cli:self-fresh")
def test_self_fresh_puts_a_fresh_session_in_the_place_of_this_one(team: TestDaemon) -> None:
    token = wake(team)
    before = live(team)
    done = own(team, token, "self-fresh")
    assert done.stdout == "self-fresh: demo-bob ends and begins afresh\n"
    wait_until(lambda: (now := live(team)) and now != before, reason="a fresh session")
    wait_until(lambda: "● demo" in team.run("list").stdout, reason="the fresh one to be ready")
    assert own(team, token, "self-fresh", 1).stderr.startswith("iapeer self-fresh: ")


@pytest.mark.requirement("cli:self:offline")
def test_self_done_counts_without_a_daemon_and_starts_none(team: TestDaemon) -> None:
    ephemeral(team)
    token = wake(team)
    assert team.stop() == 0
    assert own(team, token, "self-done").stdout == f"{ARMED}\n"
    assert own(team, "f" * 64, "self-done", 1).stderr.startswith("iapeer self-done: ")
    assert team.owner() is None


@pytest.mark.requirement("cli:self:offline")
def test_self_fresh_without_a_daemon_starts_one_that_does_it(team: TestDaemon) -> None:
    token = wake(team)
    before = live(team)
    assert team.stop() == 0
    done = own(team, token, "self-fresh")
    assert done.stdout == "self-fresh: demo-bob ends and begins afresh\n"
    assert team.owner() is not None
    wait_until(lambda: (now := live(team)) and now != before, 60, "a fresh session")
