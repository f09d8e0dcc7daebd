from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import FakeDaemon, Run

SEND = ("POST", "/api/v1/send")


def result(state: str = "landed", **more: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "delivered_to": {"personality": "bob", "runtime": "claude"},
        "woke": False,
        "ts": "2026-11-22T15:00:00+00:00",
        "message_id": "k3vq7m2xd4ta",
        "state": state,
        **more,
    }


@pytest.fixture
def accepting(daemon: FakeDaemon) -> FakeDaemon:
    daemon.on(*SEND, result())
    return daemon


@pytest.mark.requirement("cli:send:text", "cli:send:options")
def test_every_option_arrives_as_given(accepting: FakeDaemon, run: Run, root: Path) -> None:
    done = run(
        *("send", "bob", "--message", "hello\n  wörld", "--from=claude-alice", "--topic", "t"),
        *("--runtime", "claude", "--attachment", "/b c", "--attachment=a", "--key", "k1"),
    )
    assert (done.status, done.out, done.err) == (0, "delivered to bob (claude)\n", "")
    assert len(accepting.asked) == 1
    asked = accepting.asked[0]
    assert asked.body == {
        "to": "bob",
        "message": "hello\n  wörld",
        "from": "claude-alice",
        "topic": "t",
        "runtime": "claude",
        "attachments": ["/b c", str(root / "a")],
        "key": "k1",
    }
    assert asked.headers["x-iapeer-entrance"] == "cli"
    assert "x-iapeer-token" not in asked.headers


@pytest.mark.requirement("cli:send:said")
@pytest.mark.parametrize("state", ["landed", "seen"])
def test_delivered_is_said_of_what_the_reader_has(daemon: FakeDaemon, run: Run, state: str) -> None:
    daemon.on(*SEND, result(state))
    assert run("send", "bob", "hi", "--from", "claude-a").out == "delivered to bob (claude)\n"


@pytest.mark.requirement("send:result:queued", "cli:send:said")
@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("accepted", "", "accepted: it is on its way"),
        ("in_flight", "", "in_flight: it is being handed over"),
        ("held", "composer", "held: someone is typing there; it goes in when they are done"),
        ("held", "waking", "held: its session is starting"),
        ("held", "new_reason", "held: new_reason"),
    ],
)
def test_anything_less_is_said_to_be_queued_and_why(
    daemon: FakeDaemon, run: Run, state: str, reason: str, words: str
) -> None:
    daemon.on(*SEND, result(state, queued=True, reason=reason, queueDepth=1))
    done = run("send", "bob", "hi", "--from", "claude-a")
    assert done.status == 0
    assert done.out == f"queued for bob (claude), {words} (message k3vq7m2xd4ta)\n"


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_message_that_failed_while_we_waited_is_an_error(
    daemon: FakeDaemon, run: Run, state: str
) -> None:
    daemon.on(*SEND, result(state, queued=True, reason="boom"))
    done = run("send", "bob", "hi", "--from", "claude-a")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"iapeer send: message k3vq7m2xd4ta to bob (claude) {state}: boom\n"
        "hint: iapeer trace k3vq7m2xd4ta tells its story\n"
    )


def test_a_repeated_key_is_told(daemon: FakeDaemon, run: Run) -> None:
    daemon.on(*SEND, result(repeated=True))
    done = run("send", "bob", "hi", "--from", "claude-a", "--key", "k")
    assert done.out == "delivered to bob (claude), already sent with this key\n"


def test_json_is_the_daemons_own_answer(accepting: FakeDaemon, run: Run) -> None:
    done = run("send", "bob", "hi", "--from", "claude-a", "--json")
    assert json.loads(done.out) == result()


@pytest.mark.requirement("cli:send:text")
def test_the_message_may_come_from_stdin_or_a_file(
    accepting: FakeDaemon, process: Run, tmp_path: Path
) -> None:
    text = "línea\n--not an option\n"
    # A locale that is not UTF-8 must not change what the bytes mean.
    other = {"PYTHONIOENCODING": "latin-1", "LC_ALL": "POSIX"}
    process("send", "bob", "--message-file=-", "--from=a-b", stdin=text.encode(), env=other)
    file = tmp_path / "m.txt"
    file.write_text(text, encoding="utf-8")
    process("send", "bob", f"--message-file={file}", "--from=a-b", env=other)
    assert [asked.body["message"] for asked in accepting.asked] == [text, text]


def test_a_session_is_proven_by_its_token_and_names_no_sender(
    accepting: FakeDaemon, run: Run
) -> None:
    run("send", "bob", "hi", env={"PEER_TOKEN": "t0ken", "PEER_IDENTITY": "claude-alice"})
    run("send", "bob", "hi", "--from", "claude-x", env={"PEER_TOKEN": "t0ken"})
    assert [asked.headers["x-iapeer-token"] for asked in accepting.asked] == ["t0ken", "t0ken"]
    assert "from" not in accepting.asked[0].body
    # Whether the two agree is the daemon's to judge.
    assert accepting.asked[1].body["from"] == "claude-x"


def test_the_daemons_bearer_is_shown_when_the_environment_has_one(
    accepting: FakeDaemon, run: Run
) -> None:
    run("send", "bob", "hi", "--from", "claude-a", env={"IAPEER_BEARER_TOKEN": "b"})
    assert accepting.asked[0].headers["authorization"] == "Bearer b"


def test_without_token_the_environments_identity_speaks(accepting: FakeDaemon, run: Run) -> None:
    run("send", "bob", "hi", env={"PEER_IDENTITY": "claude-alice"})
    assert accepting.asked[0].body["from"] == "claude-alice"


@pytest.mark.requirement("caller:process:runtime")
def test_a_person_in_a_peers_folder_speaks_as_that_peer(
    accepting: FakeDaemon, run: Run, root: Path
) -> None:
    assert run("create", "alice", "--runtime", "demo").status == 0
    below = root / "peers" / "alice" / "src" / "deep"
    below.mkdir(parents=True)
    assert run("send", "bob", "hi", cwd=below).status == 0
    assert accepting.asked[-1].body["from"] == "demo-alice"


def test_nobodys_folder_says_how_to_name_a_sender(accepting: FakeDaemon, run: Run) -> None:
    done = run("send", "bob", "hi")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("iapeer send: no peer lives in ")
    assert "--from <runtime>-<peer>" in done.err
    assert accepting.asked == []


def test_a_refusal_is_the_daemons_own_sentence(daemon: FakeDaemon, run: Run) -> None:
    message = "message exceeds 16000 char limit (got 16001)"
    daemon.refuse(*SEND, status=400, message=message, hint="attach it")
    done = run("send", "bob", "--message", "x" * 16001, "--from", "claude-a")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"iapeer send: {message}\nhint: attach it\n"
    assert len(daemon.asked[0].body["message"]) == 16001


@pytest.mark.requirement("cli:send:text")
@pytest.mark.parametrize(
    "words",
    [
        ["bob"],
        ["bob", "text", "--message", "m"],
        ["bob", "--message", "m", "--message-file", "f"],
        ["bob", "--message"],
        ["bob", "--message", "--topic", "t"],
        ["--message", "m"],
    ],
    ids=" ".join,
)
def test_a_wrong_line_is_usage_on_stderr_and_nothing_is_sent(
    accepting: FakeDaemon, run: Run, words: list[str]
) -> None:
    done = run("send", *words, "--from", "claude-a")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("iapeer send: ")
    assert "usage: iapeer send <peer> [<text>]" in done.err
    assert accepting.asked == []


def test_a_bad_message_file_is_told_and_nothing_is_sent(
    accepting: FakeDaemon, run: Run, tmp_path: Path
) -> None:
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"ab\xff")
    large.write_bytes(b"x" * 64_001)
    for path, problem in (
        (tmp_path / "none", "can't be read: No such file or directory"),
        (tmp_path, "can't be read: Is a directory"),
        (binary, "is not UTF-8 text (byte 2)"),
        (large, "is larger than 64000 bytes, and a message holds 16000 characters"),
    ):
        done = run("send", "bob", "--message-file", str(path), "--from", "claude-a")
        assert (done.status, done.out) == (1, "")
        assert done.err.splitlines()[0] == f"iapeer send: message file {path} {problem}"
    assert accepting.asked == []


def test_bytes_that_are_no_text_are_refused(accepting: FakeDaemon, process: Run) -> None:
    done = process("send", "bob", "--message", b"a\xff", "--from", "claude-a")
    assert (done.status, done.err) == (1, "iapeer send: the message is not UTF-8 text\n")
    assert accepting.asked == []


def test_what_the_daemon_says_never_drives_the_terminal(daemon: FakeDaemon, run: Run) -> None:
    daemon.on(*SEND, result("held", reason="\x1b]0;owned\x07\x9b2J", queued=True))
    done = run("send", "bob", "hi", "--from", "claude-a")
    assert "\\x1b]0;owned\\x07\\x9b2J" in done.out
    as_json = run("send", "bob", "hi", "--from", "claude-a", "--json").out
    assert "\x9b" not in as_json
    assert json.loads(as_json)["reason"] == "\x1b]0;owned\x07\x9b2J"
