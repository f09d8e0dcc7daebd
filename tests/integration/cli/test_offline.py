"""Messages while no daemon runs, with real daemons, tmux and the demo agent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from iapeer.core import env
from iapeer.core.draft import Draft
from iapeer.core.settings import make_settings
from iapeer.core.states import Event
from iapeer.host.letters import OfflineHouse, OfflineSend
from iapeer.storage.ledger import messages, queries
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.rows import MessageRow
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon, run_all, wait_until

pytestmark = pytest.mark.real_tmux

NOTICED_S = 60.0
_BODY = re.compile("<msg>(.*?)</msg>", re.DOTALL)


@pytest.fixture
def team(iapeer_daemon: TestDaemon) -> TestDaemon:
    """The sleeping peers alice and bob, and no daemon."""
    iapeer_daemon.create("alice", "bob")
    return iapeer_daemon


def send(daemon: TestDaemon, text: str, *words: str, **variables: str) -> str:
    """Send to bob and return the message's id."""
    line = ("send", "bob", "--message", text, "--from", "demo-alice", "--json", *words)
    answer = json.loads(daemon.run(*line, expect=0, **variables).stdout)
    return str(answer["message_id"])


def write(daemon: TestDaemon, text: str) -> str:
    """Accept a message without asking the daemon, as a sender does that saw none."""
    house = OfflineHouse(make_settings(daemon.environ), daemon.environ)
    return house.send(OfflineSend(Draft(to="bob", message=text), "demo-alice")).message_id


def ledger(daemon: TestDaemon) -> dict[str, MessageRow]:
    with offline_read(Paths(daemon.root).ledger) as conn:
        return {row.id: row for row in queries.search(conn, limit=1000)}


def outputs(daemon: TestDaemon) -> list[Path]:
    return sorted(Paths(daemon.root).logs.glob("daemon-*.log"))


def bodies(daemon: TestDaemon) -> list[str]:
    """Return what bob was given, without what stands around it."""
    return [text for prompt in daemon.prompts("bob") for text in _BODY.findall(prompt)]


@pytest.mark.requirement("cli:send:offline")
def test_what_was_accepted_offline_is_delivered_in_order_by_the_next_daemon(
    team: TestDaemon,
) -> None:
    ids = [send(team, f"number {n}", "--no-start") for n in range(3)]
    assert team.owner() is None
    assert outputs(team) == []
    team.start()
    for message_id in ids:
        team.wait_state(message_id, "seen")
    assert bodies(team) == ["number 0", "number 1", "number 2"]


def test_a_send_starts_the_daemon_which_delivers_and_has_nothing_of_its_starter(
    team: TestDaemon,
) -> None:
    secrets = {"CLAUDECODE": "1", "ANTHROPIC_API_KEY": "s", "PEER_PERSONALITY": "alice"}
    message_id = send(team, "hello", **secrets)
    found = team.owner()
    assert found is not None
    team.wait_state(message_id, "seen")
    assert team.prompts("bob") != []
    daemon = psutil.Process(found[0])
    assert daemon.cwd() == "/"
    assert os.getsid(daemon.pid) == daemon.pid
    assert secrets.keys() & daemon.environ().keys() == set()
    assert daemon.environ()["IAPEER_ROOT"] == str(team.root)
    assert Path(f"/proc/{daemon.pid}/fd/0").readlink() == Path(os.devnull)
    (output,) = outputs(team)
    assert output.stat().st_mode & 0o777 == 0o600
    assert Path(f"/proc/{daemon.pid}/fd/2").readlink() == output
    assert "READY" in output.read_text(encoding="utf-8")
    assert team.end_owner()
    assert team.owner() is None


def test_a_daemon_that_can_not_start_is_told_and_the_message_is_kept(team: TestDaemon) -> None:
    line = ("send", "bob", "hi", "--from", "demo-alice")
    done = team.run(*line, IAPEER_TMUX="/no/tmux")
    (row,) = ledger(team).values()
    assert f"accepted: the daemon will deliver it (message {row.id})" in done.stdout
    assert "and it can't be started: the daemon ended at once: " in done.stderr
    assert "/no/tmux" in done.stderr
    assert "hint: start it: iapeer daemon" in done.stderr
    assert team.owner() is None


@pytest.mark.slow
def test_twenty_senders_at_once_start_one_daemon_and_all_is_delivered_once(
    team: TestDaemon,
) -> None:
    ids: list[str] = run_all([partial(send, team, f"text {n}") for n in range(20)], 20)
    assert len(set(ids)) == 20
    found = team.owner()
    assert found is not None
    for message_id in ids:
        team.wait_state(message_id, "seen", timeout_s=120)
    assert sorted(bodies(team)) == sorted(f"text {n}" for n in range(20))
    assert not any(row.dup for row in ledger(team).values())
    ready = [path for path in outputs(team) if "READY" in path.read_text(encoding="utf-8")]
    assert len(ready) == 1
    # Those that found it taken have said nothing.
    assert all(path.stat().st_size == 0 for path in outputs(team) if path not in ready)
    assert Path(f"/proc/{found[0]}/fd/2").readlink() == ready[0]
    assert daemons_of(team) == [found[0]]


def daemons_of(daemon: TestDaemon) -> list[int]:
    """Return the ids of all daemon processes of this root."""
    found = []
    for process in psutil.process_iter():
        try:
            words, root = process.cmdline(), process.environ().get(env.ROOT)
        except psutil.Error:
            continue
        if root == str(daemon.root) and "daemon" in words and "iapeer" in words:
            found.append(process.pid)
    return found


@pytest.mark.parametrize("pokes", [True, False], ids=["with a poke", "by the audit"])
def test_a_running_daemon_notices_what_another_process_writes(
    iapeer_daemons: Callable[..., TestDaemon], pokes: bool
) -> None:
    team = iapeer_daemons(IAPEER_AUDIT_SECS="3600" if pokes else "1")
    team.create("alice", "bob")
    team.start()
    if pokes:
        message_id = write(team, "hello")
        wait_until(lambda: ledger(team)[message_id].state != "accepted", NOTICED_S)
    else:
        killed(team, "--no-start", sock=str(team.base / "none"))
        (message_id,) = ledger(team)
    team.wait_state(message_id, "seen")
    assert bodies(team) == ["hello"]


def test_a_sender_killed_between_its_commit_and_its_poke_has_lost_nothing(team: TestDaemon) -> None:
    killed(team)
    (row,) = ledger(team).values()
    assert row.state == "accepted"
    team.start()
    team.wait_state(row.id, "seen")
    assert bodies(team) == ["hello"]
    assert not ledger(team)[row.id].dup


def killed(daemon: TestDaemon, *words: str, sock: str = "") -> None:
    """Send as a process that dies right after its commit; with `sock` it sees no daemon."""
    line = ("send", "bob", "hello", "--from", "demo-alice", *words)
    variables = {env.FAULT: "offline.poke"} | ({env.DAEMON_SOCKET: sock} if sock else {})
    done = subprocess.run(
        [sys.executable, "-P", "-m", "iapeer", *line],
        env={**daemon.environ, **variables},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_a_message_sent_while_the_old_daemon_goes_down_is_delivered_by_a_new_one(
    team: TestDaemon,
) -> None:
    team.start()
    assert team.process is not None
    team.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not Path(team.socket).exists(), reason="the socket to go")
    message_id = send(team, "hello")
    team.process.wait(timeout=30)
    wait_until(team.owner, reason="a new daemon")
    team.wait_state(message_id, "seen")
    assert bodies(team) == ["hello"]


def test_a_token_decides_offline_as_well(team: TestDaemon) -> None:
    team.start()
    team.wait_state(team.send("alice", "wake up", "demo-bob")["message_id"], "seen")
    token = token_of(team, "alice")
    assert team.stop() == 0
    line = ("send", "bob", "--message", "hi", "--no-start")
    team.run(*line, PEER_TOKEN=token)
    refused = team.run(*line, "--from", "demo-bob", expect=1, PEER_TOKEN=token)
    assert "the session token belongs to demo-alice" in refused.stderr
    assert "unknown session token" in team.run(*line, expect=1, PEER_TOKEN="0" * 64).stderr
    newest = max(ledger(team).values(), key=lambda each: each.seq)
    assert (newest.sender, newest.body) == ("demo-alice", "hi")


def token_of(daemon: TestDaemon, personality: str) -> str:
    """Return the token of a live demo session, from its program's own environment."""
    for pid, _ in daemon.session_processes():
        try:
            environ = psutil.Process(pid).environ()
        except psutil.Error:
            continue
        if environ.get(env.PEER_PERSONALITY) == personality and environ.get(env.SESSION_TOKEN):
            return environ[env.SESSION_TOKEN]
    raise AssertionError(f"no live session of {personality}")


def test_the_list_and_the_letters_are_the_same_with_and_without_a_daemon(
    team: TestDaemon,
) -> None:
    old = send(team, "hello", "--topic", "t", "--no-start")
    with offline(Paths(team.root).ledger) as conn:
        messages.advance(conn, old, Event.FAIL, now=time.time(), reason="a test")
        # Else the daemon writes a notice, and the lists differ.
        messages.mark_told(conn, [old])
    team.start()
    commands = (
        ("messages", "--peer", "bob"),
        ("messages", "--peer", "bob", "--json", "--bodies"),
        ("dead-letter", "list"),
        ("trace", old),
    )
    told = [team.run(*words).stdout for words in commands]
    assert old in told[2]
    assert team.stop() == 0
    assert [team.run(*words).stdout for words in commands] == told
    team.start()
    done = team.run("dead-letter", "redeliver", old)
    new = done.stdout.split()[-1]
    team.wait_state(new, "seen")
    assert bodies(team) == ["hello"]
    assert team.run("dead-letter", "list", "--peer", "bob").stdout == "no dead letters\n"
    assert f"redelivers {old}" in team.run("trace", new).stdout
    assert "was redelivered before" in team.run("dead-letter", "drop", old, expect=1).stderr
