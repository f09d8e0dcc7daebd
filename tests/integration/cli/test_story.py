"""The command against a real daemon, real tmux and the demo agent; whole outputs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import NamedTuple

import pytest

from iapeer import __version__
from iapeer.testing.daemon import TestDaemon, wait_until
from tests.unit.cli.terminal import Screen

pytestmark = pytest.mark.real_tmux


class Said(NamedTuple):
    status: int
    out: str
    err: str


def say(daemon: TestDaemon, *words: str, **variables: str) -> Said:
    done = daemon.run(*words, expect=None, **variables)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def team(iapeer_daemon: TestDaemon) -> TestDaemon:
    """A running daemon with the sleeping peers alice and bob."""
    iapeer_daemon.create("alice", "bob")
    iapeer_daemon.start()
    return iapeer_daemon


@pytest.mark.requirement("cli:list:text")
def test_a_message_is_sent_seen_and_its_story_told(team: TestDaemon) -> None:
    assert say(team, "list").out == (
        "alice  [demo]  artificial  ○ demo\nbob  [demo]  artificial  ○ demo\n"
    )
    sent = say(team, "send", "bob", "--message", "NOTHING", "--from", "demo-alice", "--topic", "t")
    assert sent == (0, "delivered to bob (demo)\n", "")
    assert say(team, "list").out == (
        "alice  [demo]  artificial  ○ demo\nbob  [demo]  artificial  ● demo\n"
    )
    answer = json.loads(say(team, "send", "bob", "again", "--from", "demo-alice", "--json").out)
    number = answer["message_id"]
    team.wait_state(number, "seen")
    story = say(team, "trace", number)
    assert (story.status, story.err) == (0, "")
    lines = story.out.splitlines()
    assert lines[:2] == [f"message {number}: demo-alice -> demo-bob", "  5 characters"]
    assert lines[-1] == "now seen"
    steps = [re.sub(r"^ *[0-9:.]+  | \(.*", "", line) for line in lines[3:-1]]
    assert steps[0] == "accepted"
    assert steps.index("handed to the runtime") < steps.index("seen by the reader")
    wait_until(
        lambda: "the reader's turn ended" in say(team, "trace", number).out,
        reason="the turn to end",
    )
    assert len(team.prompts("bob")) == 2


@pytest.mark.requirement("send:refuse:unknown", "cli:errors")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["bob", "hi", "--from", "demo-nobody"],
            "unknown caller 'demo-nobody': peer 'nobody' is not registered",
        ),
        (["bob", "--message=", "--from", "demo-alice"], 'requires non-empty "personality" and'),
        (["bob", "x" * 16_001, "--from", "demo-alice"], "message exceeds 16000 char limit (got"),
        (["carol", "hi", "--from", "demo-alice"], '"carol" is not in the iapeer peers index'),
        (["bob", "hi", "--from", "demo-alice", "--runtime", "zzz"], 'runtime "zzz" is not'),
        (["Bob!", "hi", "--from", "demo-alice"], 'invalid personality "Bob!"'),
    ],
)
def test_a_refused_message_is_told_in_one_sentence_and_a_hint(
    team: TestDaemon, words: list[str], told: str
) -> None:
    done = say(team, "send", *words)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"iapeer send: {told}")
    assert len(done.err.splitlines()) == 2
    assert done.err.splitlines()[1].startswith("hint: ")
    assert team.prompts("bob") == []


@pytest.mark.requirement("send:refuse:stopped", "cli:stop")
def test_stop_refuses_messages_until_start(team: TestDaemon) -> None:
    say(team, "send", "bob", "hi", "--from", "demo-alice")
    assert say(team, "stop", "bob") == (0, "bob (demo): stopped\n", "")
    assert "✕ demo" in say(team, "list").out
    refused = say(team, "send", "bob", "hi", "--from", "demo-alice")
    assert refused.status == 1
    assert "hint: iapeer start bob" in refused.err
    assert say(team, "start", "bob") == (0, "bob (demo): started\n", "")
    assert say(team, "send", "bob", "hi", "--from", "demo-alice").status == 0
    assert say(team, "stop", "--all").out == "alice (demo): stopped\nbob (demo): stopped\n"
    assert say(team, "stop", "nobody").status == 1


@pytest.mark.requirement("launch:tmux:one-server", "cli:attach")
def test_attach_wakes_a_peer_and_shows_its_terminal(team: TestDaemon) -> None:
    screen = Screen(team.environ, "attach", "bob")
    screen.wait_for("demo agent · ready")
    screen.wait_for("leave with Ctrl-] d")
    wait_until(lambda: _leave(screen), reason="tmux to detach")
    assert screen.end() == 0
    assert "● demo" in say(team, "list").out


def _leave(screen: Screen) -> bool:
    """Press the keys once; tmux loses keys of the first milliseconds after it attached."""
    screen.type(b"\x1dd")
    try:
        screen.process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.requirement("daemon:ready", "daemon:stop", "cli:status:healthy")
def test_the_daemon_says_ready_is_healthy_and_ends_with_0(iapeer_daemon: TestDaemon) -> None:
    iapeer_daemon.start()
    url = f"http://127.0.0.1:{iapeer_daemon.port}/mcp"
    where = iapeer_daemon.socket
    wait_until(lambda: "READY" in iapeer_daemon.errors(), reason="READY")
    assert iapeer_daemon.errors() == f"[iapeer] daemon READY tcp={url} sock={where}\n"
    status = say(iapeer_daemon, "status")
    assert (status.status, status.err) == (0, "")
    assert status.out.startswith(
        f"iapeer {__version__}\ndaemon: healthy @ {url} + {where}\npeers: 0, "
    )
    second = say(iapeer_daemon, "daemon", "--port", "0")
    assert second.status == 1
    assert second.err.startswith("iapeer daemon: ")
    assert "Traceback" not in second.err
    assert say(iapeer_daemon, "status").status == 0
    assert iapeer_daemon.stop() == 0
    down = say(iapeer_daemon, "status")
    told = f"daemon: NOT healthy (no daemon is running on {iapeer_daemon.root})"
    shown = f"iapeer {__version__}\n{told}\nmemory: none\n"
    assert down == (1, shown, "hint: start it: iapeer daemon\n")


@pytest.mark.requirement("daemon:stop")
def test_ctrl_c_ends_the_daemon_in_order(iapeer_daemon: TestDaemon) -> None:
    iapeer_daemon.start()
    assert iapeer_daemon.process is not None
    iapeer_daemon.process.send_signal(signal.SIGINT)
    assert iapeer_daemon.process.wait(timeout=30) == 0
    assert "Traceback" not in iapeer_daemon.errors()


@pytest.mark.requirement("registry:remove:live", "cli:rename")
def test_a_peer_is_renamed_and_removed_while_the_daemon_runs(team: TestDaemon) -> None:
    say(team, "send", "bob", "NOTHING", "--from", "demo-alice")
    live = say(team, "remove", "bob")
    assert (live.status, live.out) == (1, "")
    assert live.err.startswith('iapeer remove: "bob" is live')
    assert say(team, "remove", "--force", "bob").out.startswith('removed "bob" from the registry\n')
    assert say(team, "remove", "bob") == (0, '"bob" not registered — no-op\n', "")
    renamed = say(team, "rename", "alice", "anna")
    assert renamed == (
        0,
        f'renamed "alice" to "anna"\nfolder: {team.root}/peers/anna\n',
        "",
    )
    assert say(team, "list").out == "anna  [demo]  artificial  ○ demo\n"
    assert say(team, "verify").status == 0


@pytest.mark.requirement("cli:remove", "cli:rename")
def test_a_peer_is_renamed_and_removed_without_a_daemon(iapeer_daemon: TestDaemon) -> None:
    iapeer_daemon.create("bob")
    assert say(iapeer_daemon, "rename", "bob", "rob").out.startswith('renamed "bob" to "rob"\n')
    folder = iapeer_daemon.root / "peers" / "rob"
    removed = say(iapeer_daemon, "remove", "rob")
    assert (removed.status, removed.err) == (0, "")
    assert removed.out.splitlines() == [
        'removed "rob" from the registry',
        f"folder kept: {folder} (delete it yourself if you want to)",
    ]
    assert folder.is_dir()
    assert say(iapeer_daemon, "remove", "rob") == (0, '"rob" not registered — no-op\n', "")
    assert say(iapeer_daemon, "rename", "rob", "bob").status == 1


def test_after_the_daemon_was_killed_nothing_is_claimed_about_sessions(team: TestDaemon) -> None:
    say(team, "send", "bob", "hi", "--from", "demo-alice")
    team.kill()
    done = say(team, "list")
    assert done == (
        0,
        "alice  [demo]  artificial  ? demo\nbob  [demo]  artificial  ? demo\n",
        f"iapeer list: no daemon is running on {team.root}: live state is unknown\n",
    )
    refused = say(team, "remove", "bob", "--force")
    assert refused.status == 1
    assert "start the daemon" in refused.err
