"""What the command does while no daemon runs; starting one is in tests/integration/cli."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.ids import token_digest
from iapeer.core.states import Event
from iapeer.registry.index import Registry
from iapeer.sessions.process import start_time
from iapeer.storage.ledger import messages, queries
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.rows import Birth, MessageRow, NewSession
from iapeer.storage.paths import Paths

from .conftest import Run
from .test_budget import DAEMON_ONLY, DRAWING, loaded

TOKEN = "a1" * 32
NOBODY = 65534


@pytest.fixture
def team(root: Path, run: Run) -> Path:
    """ann and bob, and nothing running."""
    for name in ("ann", "bob"):
        assert run("create", name, "--runtime", "demo").status == 0
    return root


@pytest.fixture
def send(team: Path, run: Run) -> Any:
    def go(*words: str, sender: str = "demo-ann", **more: Any) -> Any:
        return run("send", "bob", *words, "--from", sender, "--no-start", **more)

    return go


def stored(root: Path) -> list[MessageRow]:
    """Everything in the ledger, oldest first."""
    with offline_read(Paths(root).ledger) as conn:
        return list(reversed(queries.search(conn)))


def change(root: Path, message_id: str, event: Event) -> None:
    with offline(Paths(root).ledger) as conn:
        messages.advance(conn, message_id, event, now=1.0, reason="gone")


def uid_of(root: Path, name: str) -> str:
    return Registry(Paths(root), sandbox=True).snapshot().require(name).uid


def open_session(root: Path, name: str, *, alive: bool = True) -> None:
    """Record a session that holds TOKEN and is carried by this process, or by one that is gone."""
    start = start_time(os.getpid()) or 0
    birth = Birth(
        server_pid=os.getpid(),
        server_start=float(start if alive else start + 1),
        pane_id="%0",
        pane_pid=os.getpid(),
        pane_start=float(start),
    )
    session = NewSession(
        id="session-1",
        uid=uid_of(root, name),
        runtime="demo",
        personality=name,
        token_sha256=token_digest(TOKEN),
        cwd="/",
        socket="/s",
        mode="fresh",
        started_at=1.0,
    )
    with offline(Paths(root).ledger) as conn:
        rows.open_session(conn, session)
        rows.set_birth(conn, session.id, birth)


@pytest.mark.requirement("cli:send:offline", "cli:send:by-daemon")
def test_a_message_is_accepted_and_waits_for_the_daemon(send: Any, root: Path) -> None:
    done = send("--message", "the text", "--topic", "t", "--attachment", "/x")
    (row,) = stored(root)
    assert (done.status, done.out) == (
        0,
        f"queued for bob (demo), accepted: the daemon will deliver it (message {row.id})\n",
    )
    assert done.err == (
        f"iapeer send: no daemon is running on {root}: the message waits until one does\n"
        "hint: start it: iapeer daemon\n"
    )
    assert (row.body, row.topic, row.attachments, row.path) == ("the text", "t", ("/x",), "cli")
    assert (row.sender, row.sender_uid, row.state) == ("demo-ann", uid_of(root, "ann"), "accepted")


def test_json_says_the_same_and_what_is_logged_has_no_body(send: Any, root: Path) -> None:
    send("--message", "first")
    shown = json.loads(send("--message", "the secret text", "--json").out)
    assert (shown["ok"], shown["queued"], shown["state"]) == (True, True, "accepted")
    assert shown["delivered_to"] == {"personality": "bob", "runtime": "demo"}
    line = Paths(root).delivery_log.read_text(encoding="utf-8").splitlines()[-1]
    for part in ("path=cli", "caller=demo-ann", "to=bob", "qd=2", "len=15", shown["message_id"]):
        assert part in line
    assert "secret" not in line


def test_what_is_refused_online_is_refused_offline_and_stored_nowhere(
    send: Any, run: Run, root: Path
) -> None:
    for done, told in (
        (send("--message", "hi", sender="demo-nobody"), "unknown caller 'demo-nobody'"),
        (send("--message", "x" * 16_001), "message exceeds 16000 char limit (got 16001)"),
        (send("--message", "hi", "--runtime", "zzz"), 'runtime "zzz" is not declared'),
        (send("--message", "hi", sender="demo-bob"), "demo-bob cannot send to self"),
        (
            run("send", "eve", "hi", "--from", "demo-ann", "--no-start"),
            '"eve" is not in the iapeer peers index',
        ),
    ):
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith(f"iapeer send: {told}")
    Paths(root).peer_home("bob").rename(root / "moved")
    assert "peer cwd does not exist" in send("--message", "hi").err
    assert stored(root) == []
    line = Paths(root).delivery_log.read_text(encoding="utf-8").splitlines()[-1]
    assert "ok=false" in line


def test_a_root_without_anything_is_left_without_anything(root: Path, run: Run) -> None:
    done = run("send", "bob", "hi", "--from", "demo-ann", "--no-start")
    assert done.status == 1
    assert "unknown caller" in done.err
    assert not Paths(root).ledger.exists()


def test_a_key_sends_once(send: Any, root: Path) -> None:
    first = send("--message", "hi", "--key", "k")
    again = send("--message", "hi", "--key", "k")
    (row,) = stored(root)
    assert row.id in first.out
    assert again.out == first.out.replace(f"{row.id})", f"{row.id}, already sent with this key)")
    assert "stands for another message" in send("--message", "other", "--key", "k").err
    change(root, row.id, Event.FAIL)
    failed = send("--message", "hi", "--key", "k")
    assert (failed.status, failed.out) == (1, "")
    assert f"message {row.id} failed: gone" in failed.err


def test_a_token_decides_who_speaks(team: Path, run: Run) -> None:
    open_session(team, "ann")
    words = ("send", "bob", "hi", "--no-start")
    assert run(*words, env={"PEER_TOKEN": TOKEN}).status == 0
    assert run(*words, "--from", "demo-ann", env={"PEER_TOKEN": TOKEN}).status == 0
    other = run(*words, "--from", "demo-bob", env={"PEER_TOKEN": TOKEN})
    assert other.status == 1
    assert "the session token belongs to demo-ann, the call says 'demo-bob'" in other.err
    assert [row.sender for row in stored(team)] == ["demo-ann", "demo-ann"]


def test_a_token_of_nobodys_session_is_refused_whatever_else_is_said(team: Path, run: Run) -> None:
    def told() -> str:
        words = ("send", "bob", "hi", "--from", "demo-ann", "--no-start")
        done = run(*words, env={"PEER_TOKEN": TOKEN})
        assert (done.status, done.out) == (1, "")
        return done.err

    assert "unknown session token" in told()
    open_session(team, "ann", alive=False)
    assert "unknown session token" in told()
    with offline(Paths(team).ledger) as conn:
        rows.end_session(conn, "session-1", "test", 2.0)
    assert "unknown session token" in told()
    assert stored(team) == []


def test_a_namesake_of_a_removed_peer_does_not_get_its_session(team: Path, run: Run) -> None:
    open_session(team, "ann")
    with offline(Paths(team).ledger) as conn:
        conn.execute("UPDATE sessions SET uid = 'another'")
    done = run("send", "bob", "hi", "--no-start", env={"PEER_TOKEN": TOKEN})
    assert "unknown session token" in done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_another_account_is_refused_and_opens_nothing(team: Path, send: Any) -> None:
    send("--message", "hi")
    team.chmod(0o755)
    before = {path: path.stat().st_mtime_ns for path in team.rglob("*")}
    # The interpreter may stand where another account can't read: all is imported before.
    code = (
        "import os, sys, difflib, tomllib, iapeer.cli.main, iapeer.cli.send, iapeer.cli.offline\n"
        "import iapeer.cli.context, iapeer.host.letters, iapeer.host.ondemand\n"
        f"os.chdir('/'); os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sys.exit(iapeer.cli.main.main(sys.argv[1:]))\n"
    )
    words = ["send", "bob", "hi", "--from", "demo-ann", "--no-start"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        env={**os.environ, "IAPEER_ROOT": str(team), "IAPEER_DAEMON_SOCKET": str(team / "none")},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{team} belongs to uid 0, this is uid {NOBODY}" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in team.rglob("*")} == before


def test_a_full_disk_says_so_and_accepts_nothing(send: Any, team: Path) -> None:
    send("--message", "hi")
    script = (
        "import resource, sys, iapeer.cli.main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "sys.exit(iapeer.cli.main.main(sys.argv[1:]))\n"
    )
    body = team / "body"
    body.write_text("x" * 16_000, encoding="utf-8")
    statuses = []
    for _ in range(4):
        words = ["send", "bob", "--message-file", str(body), "--from", "demo-ann", "--no-start"]
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            env=dict(os.environ),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        statuses.append(done.returncode)
        if done.returncode:
            assert done.stdout == ""
            assert done.stderr.startswith("iapeer send: the ledger ")
            assert "disk" in done.stderr
            assert "Traceback" not in done.stderr
    assert statuses[-1] == 1
    assert len(stored(team)) == 1 + statuses.count(0)
    with contextlib.closing(sqlite3.connect(Paths(team).ledger)) as conn, conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_messages_and_trace_read_the_ledger(send: Any, run: Run, root: Path) -> None:
    assert run("messages").out == "no messages\n"
    send("--message", "the first\nof two", "--topic", "greeting")
    send("--message", "another")
    first, second = stored(root)
    lines = run("messages").out.splitlines()
    assert [line.split()[2] for line in lines] == [second.id, first.id]
    assert lines[1].endswith("demo-ann -> demo-bob  accepted  [greeting]  16  the first of two")
    assert run("messages", "--grep", "FIRST").out.splitlines() == [lines[1]]
    assert run("messages", "--peer", "eve").out == "no messages\n"
    assert run("messages", "--state", "seen").out == "no messages\n"
    assert run("messages", "--limit", "1").out.splitlines() == [lines[0]]
    shown = json.loads(run("messages", "--json").out)
    assert [item["length"] for item in shown] == [7, 16]
    assert all("body" not in item for item in shown)
    bodies = json.loads(run("messages", "--json", "--bodies").out)
    assert [item["body"] for item in bodies] == ["another", "the first\nof two"]
    story = run("trace", first.id)
    assert story.status == 0
    assert story.out.splitlines()[-2:] == [story.out.splitlines()[-2], "now accepted"]
    assert story.out.splitlines()[-2].endswith("  accepted")
    assert "no message 'aaaaaaaaaaaa'" in run("trace", "a" * 12).err
    assert "'nope' is no message id" in run("trace", "nope").err


def test_dead_letters_are_redelivered_as_new_messages_and_dropped(
    send: Any, run: Run, root: Path
) -> None:
    assert run("dead-letter", "list").out == "no dead letters\n"
    send("--message", "one", "--topic", "t", "--runtime", "demo")
    send("--message", "two")
    old, two = stored(root)
    for row in (old, two):
        change(root, row.id, Event.FAIL)
    assert [line.split()[2] for line in run("dead-letter", "list").out.splitlines()] == [
        old.id,
        two.id,
    ]
    done = run("dead-letter", "redeliver", old.id)
    new = stored(root)[-1]
    assert (done.status, done.out) == (0, f"{old.id} redelivered as {new.id}\n")
    assert "the messages wait until one does" in done.err
    for name in ("body", "topic", "sender", "sender_uid", "to_uid", "runtime", "pinned"):
        assert getattr(new, name) == getattr(old, name)
    assert new.state == "accepted"
    line = Paths(root).delivery_log.read_text(encoding="utf-8").splitlines()[-1]
    assert "caller=demo-ann to=bob rt=demo ok=true via=demo-bob" in line
    assert f"id={new.id} state=accepted" in line
    assert f"the operator: redelivered as {new.id}" in run("trace", old.id).out
    assert f"the operator: redelivers {old.id}" in run("trace", new.id).out
    again = run("dead-letter", "redeliver", old.id)
    assert again.status == 1
    assert f"{old.id}: message {old.id} was redelivered before" in again.err
    assert run("dead-letter", "drop", "--all").out == f"{two.id} dropped\n"
    assert run("dead-letter", "list", "--json").out == "[]\n"
    assert "dropped by the operator" in run("trace", two.id).out
    assert run("dead-letter", "drop", "--all").out == "no dead letters\n"


def test_a_redelivery_is_refused_as_any_message_and_spares_the_others(
    send: Any, run: Run, root: Path
) -> None:
    run("create", "eve", "--runtime", "demo")
    run("send", "eve", "hi", "--from", "demo-ann", "--no-start")
    send("--message", "hi")
    to_eve, to_bob = stored(root)
    for row in (to_eve, to_bob):
        change(root, row.id, Event.FAIL)
    run("remove", "eve", "--force")
    run("create", "eve", "--runtime", "demo", "--path", str(root / "second" / "eve"))
    done = run("dead-letter", "redeliver", "--all", "--json")
    results = json.loads(done.out)
    assert done.status == 1
    assert [(each["id"], each["code"]) for each in results] == [
        (to_eve.id, "unknown_peer"),
        (to_bob.id, ""),
    ]
    assert '"eve" is not registered any more' in done.err
    assert [line.split()[2] for line in run("dead-letter", "list").out.splitlines()] == [to_eve.id]


def test_a_letter_of_a_renamed_peer_goes_to_its_new_name(send: Any, run: Run, root: Path) -> None:
    send("--message", "hi")
    (old,) = stored(root)
    change(root, old.id, Event.EXPIRE)
    for name, to in (("bob", "robert"), ("ann", "anna")):
        assert run("rename", name, to).status == 0
    assert run("dead-letter", "redeliver", "--all", "--peer", "robert").status == 0
    new = stored(root)[-1]
    assert (new.personality, new.sender, new.to_uid) == ("robert", "demo-anna", old.to_uid)


def test_what_can_not_be_said_again_is_refused(send: Any, run: Run, root: Path) -> None:
    for text in ("notice", "purged"):
        send("--message", text)
    notice, purged = stored(root)
    for row in (notice, purged):
        change(root, row.id, Event.FAIL)
    with offline(Paths(root).ledger) as conn:
        conn.execute("UPDATE messages SET sender_uid = '' WHERE id = ?", (notice.id,))
        conn.execute("UPDATE messages SET body = '', purged = 1 WHERE id = ?", (purged.id,))
    done = run("dead-letter", "redeliver", "--all", "--json")
    assert [each["code"] for each in json.loads(done.out)] == ["notice", "purged"]
    assert "(body forgotten)" in run("dead-letter", "list").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["messages", "--bodies"], "--bodies needs --json"),
        (["messages", "--state", "lost"], "there is no state 'lost'"),
        (["messages", "--limit", "0"], "--limit 0 is no number from 1 to 1000"),
        (["messages", "--limit", "51", "--bodies", "--json"], "is no number from 1 to 50"),
        (["dead-letter", "mend"], "there is no action 'mend'"),
        (["dead-letter", "drop"], "drop takes the id of a message, or --all"),
        (["dead-letter", "drop", "a" * 12, "--all"], "drop takes the id of a message, or --all"),
        (["dead-letter", "drop", "a" * 12, "--peer", "x"], "--peer goes with --all"),
        (["dead-letter", "list", "--all"], "list takes no message id and no --all"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    team: Path, run: Run, words: list[str], told: str
) -> None:
    done = run(*words)
    assert done.status in (1, 2)
    assert told in done.err


@pytest.mark.usefixtures("team")
def test_even_an_offline_send_needs_no_event_loop_and_draws_nothing(
    environ: dict[str, str],
) -> None:
    line = ("send", "bob", "hi", "--from", "demo-ann", "--no-start")
    modules = loaded(environ, *line)
    assert modules >= {"iapeer.host.letters", "sqlite3"}
    assert modules & (DRAWING | DAEMON_ONLY) - {"asyncio"} == set()
