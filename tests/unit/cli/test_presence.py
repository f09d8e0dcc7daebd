from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer.storage.paths import Paths, profile_path
from tests.unit.cli.terminal import Screen

from .conftest import FakeDaemon, Run
from .test_listing import TEAM, peer

SESSION = {"PEER_IDENTITY": "claude-bob", "PEER_TOKEN": "f" * 64}


def refuse(daemon: FakeDaemon, path: str, code: str, message: str, hint: str = "") -> None:
    error = {"code": code, "message": message, "hint": hint, "retry_after_s": None}
    daemon.on("POST", f"/api/v1/{path}", {"ok": False, "error": error}, 409)


# -- new, refresh ---------------------------------------------------------------------------------


@pytest.mark.requirement("cli:new")
def test_new_says_which_fresh_session_is_up(daemon: FakeDaemon, run: Run) -> None:
    daemon.on("POST", "/api/v1/peers/bob/new", {"ok": True, "identity": "codex-bob"})
    done = run("new", "bob", "codex")
    assert (done.status, done.out, done.err) == (0, "new: codex-bob fresh session up\n", "")
    assert daemon.asked[0].body == {"runtime": "codex"}
    assert json.loads(run("new", "bob", "--json").out) == {
        "identity": "codex-bob",
        "personality": "bob",
        "runtime": "codex",
        "action": "new",
    }
    assert daemon.asked[1].body == {}


@pytest.mark.requirement("cli:new")
@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("foreign_unit", "refused-foreign-launchd: "),
        ("service_managed", "refused-infra: "),
        ("unknown_runtime", "refused-undeclared-runtime: "),
        ("not_ready", ""),
    ],
)
def test_a_refusal_has_the_word_that_other_programs_look_for(
    daemon: FakeDaemon, run: Run, code: str, word: str
) -> None:
    refuse(daemon, "peers/bob/new", code, "it is so", "do that")
    done = run("new", "bob")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"iapeer new: {word}it is so\nhint: do that\n"


@pytest.mark.requirement("cli:refresh")
def test_refresh_names_each_runtime_for_one_peer_or_all(daemon: FakeDaemon, run: Run) -> None:
    armed = {"claude": "refresh-armed", "api": "skipped-non-agentic"}
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": TEAM[:2]})
    daemon.on("POST", "/api/v1/peers/alice/refresh", {"ok": True, "actions": armed})
    daemon.on("POST", "/api/v1/peers/bob/refresh", {"ok": True, "actions": {"api": armed["api"]}})
    lines = "alice (claude): refresh-armed\nalice (api): skipped-non-agentic\n"
    assert run("refresh", "alice").out == lines
    done = run("refresh", "--all")
    assert (done.status, done.out) == (0, lines + "bob (api): skipped-non-agentic\n")
    assert run("refresh").status == 2


# -- live-runtime ---------------------------------------------------------------------------------


@pytest.mark.requirement("cli:live-runtime")
@pytest.mark.parametrize(
    ("statuses", "more", "status", "out"),
    [
        ({"claude": "asleep", "codex": "live"}, {}, 0, "codex\n"),
        ({"claude": "live", "codex": "live"}, {}, 0, "claude\n"),
        ({"claude": "live", "codex": "live"}, {"last_active_runtime": "codex"}, 0, "codex\n"),
        ({"claude": "asleep"}, {"last_active_runtime": "claude"}, 1, ""),
        ({"claude": "booting"}, {}, 1, ""),
    ],
)
def test_the_live_runtime_is_one_word_and_none_is_status_1(
    daemon: FakeDaemon, run: Run, statuses: dict[str, str], more: Any, status: int, out: str
) -> None:
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": [peer("bob", statuses, **more)]})
    done = run("live-runtime", "bob")
    assert (done.status, done.out) == (status, out)
    assert done.err == ("" if out else "iapeer live-runtime: bob has no live session\n")
    shown = json.loads(run("live-runtime", "bob", "--json").out)
    assert shown["runtime"] == (out.strip() or None)
    assert set(shown["runtimes"]) == {name for name, state in statuses.items() if state == "live"}


@pytest.mark.requirement("cli:live-runtime")
def test_the_live_runtime_of_nobody_is_an_error(daemon: FakeDaemon, run: Run) -> None:
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": TEAM})
    done = run("live-runtime", "eve")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("iapeer live-runtime: peer 'eve' is not registered\nhint: ")


def test_the_list_tells_the_runtime_used_last_when_it_is_known(
    daemon: FakeDaemon, run: Run
) -> None:
    bob = peer("bob", {"claude": "asleep", "codex": "asleep"}, last_active_runtime="codex")
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": [bob]})
    assert run("list").out == ("bob  [claude]  artificial  ○ claude  ○ codex last-active:codex\n")
    assert json.loads(run("list", "--json").out)[0]["last_active_runtime"] == "codex"


# -- a session about itself -----------------------------------------------------------------------


@pytest.mark.requirement("cli:self-done")
@pytest.mark.parametrize("is_ephemeral", [True, False])
def test_self_done_arms_the_session_of_the_token(
    daemon: FakeDaemon, run: Run, is_ephemeral: bool
) -> None:
    answer = {"ok": True, "identity": "claude-bob", "ephemeral": is_ephemeral}
    daemon.on("POST", "/api/v1/session/done", answer)
    done = run("self-done", env=SESSION)
    told = "self-done: armed claude-bob for the quiet-window reap (no one woken)"
    note = " — NOTE: this peer is not wake_policy:ephemeral, the marker is inert"
    assert (done.status, done.err) == (0, "")
    assert done.out == told + ("" if is_ephemeral else note) + "\n"
    (asked,) = daemon.asked
    assert asked.headers["x-iapeer-token"] == SESSION["PEER_TOKEN"]
    shown = json.loads(run("self-done", "--json", env=SESSION).out)
    assert (shown["action"], shown["ephemeral"]) == ("armed", is_ephemeral)


@pytest.mark.requirement("cli:self-fresh")
def test_self_fresh_says_what_happens_now(daemon: FakeDaemon, run: Run) -> None:
    daemon.on(
        "POST", "/api/v1/session/fresh", {"ok": True, "identity": "claude-bob", "ephemeral": True}
    )
    done = run("self-fresh", env=SESSION)
    assert (done.status, done.err) == (0, "")
    assert done.out == "self-fresh: claude-bob ends and begins afresh\n"


@pytest.mark.requirement("cli:self-done", "cli:self-fresh")
@pytest.mark.parametrize("verb", ["self-done", "self-fresh"])
@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "PEER_IDENTITY is not set"),
        ({**SESSION, "PEER_IDENTITY": " "}, "PEER_IDENTITY is not set"),
        ({**SESSION, "PEER_IDENTITY": "bob"}, "invalid PEER_IDENTITY 'bob'"),
        ({"PEER_IDENTITY": "claude-bob"}, "PEER_TOKEN is not set"),
    ],
    ids=["nothing", "blank", "malformed", "no token"],
)
def test_outside_a_session_nothing_is_asked(
    daemon: FakeDaemon, run: Run, verb: str, variables: dict[str, str], told: str
) -> None:
    done = run(verb, env=variables)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"iapeer {verb}: {told}\nhint: this verb is for agents")
    assert daemon.asked == []


# -- launch ---------------------------------------------------------------------------------------


@pytest.fixture
def home(run: Run, root: Path) -> Path:
    """The folder of the peer bob."""
    run("create", "bob", "--runtime", "demo")
    return root / "peers" / "bob"


def launched(daemon: FakeDaemon, root: Path, *, woke: bool = True) -> dict[str, Any]:
    point = {
        "identity": "demo-bob",
        "socket": str(root / "t"),
        "session": "demo-bob",
        "woke": woke,
    }
    daemon.on("POST", "/api/v1/peers/bob/launch", {"ok": True, "attach": point})
    return point


@pytest.mark.requirement("cli:bare-runtime")
@pytest.mark.parametrize("line", [["demo"], ["launch", "demo"]])
def test_a_runtime_launches_the_peer_of_this_folder(
    daemon: FakeDaemon, run: Run, root: Path, home: Path, line: list[str]
) -> None:
    point = launched(daemon, root)
    done = run(*line, cwd=home)
    assert (done.status, done.out, done.err) == (0, "launched demo-bob (fresh)\n", "")
    assert daemon.asked[-1].body == {"runtime": "demo"}
    assert json.loads(run(*line, "--json", cwd=home).out) == point


@pytest.mark.requirement("cli:bare-runtime")
def test_what_is_live_already_is_not_called_fresh(
    daemon: FakeDaemon, run: Run, root: Path, home: Path
) -> None:
    launched(daemon, root, woke=False)
    done = run("demo", cwd=home)
    assert (done.status, done.out) == (0, "demo-bob is live already: nothing launched\n")


@pytest.mark.requirement("cli:bare-runtime")
def test_on_a_terminal_it_attaches(
    daemon: FakeDaemon,
    root: Path,
    home: Path,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = root / "tmux"
    program.write_text('#!/bin/sh\necho "tmux $*"\n', encoding="utf-8")
    program.chmod(0o700)
    launched(daemon, root)
    monkeypatch.chdir(home)
    screen = Screen({**environ, "IAPEER_TMUX": str(program)}, "demo")
    assert screen.end() == 0
    first, second = screen.drawn.splitlines()
    assert first == "launched demo-bob (fresh); attaching…"
    assert second.startswith(f"tmux -S {root}/t attach -t =demo-bob ;")


@pytest.mark.requirement("cli:bare-runtime")
def test_a_launch_that_fails_says_why(daemon: FakeDaemon, run: Run, home: Path) -> None:
    refuse(daemon, "peers/bob/launch", "stopped", "bob is stopped", "iapeer start bob")
    done = run("demo", cwd=home)
    assert (done.status, done.out) == (1, "")
    assert done.err == "iapeer launch: bob is stopped\nhint: iapeer start bob\n"


@pytest.mark.requirement("cli:bare-runtime")
def test_a_folder_without_a_peer_is_told_how_to_become_one(
    daemon: FakeDaemon, run: Run, root: Path, home: Path
) -> None:
    done = run("demo", cwd=root)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"iapeer launch: no peer lives in {root}\nhint: make it one: iapeer init --runtime demo\n"
    )
    below = home / "src"
    below.mkdir()
    assert f"hint: bob lives above: cd {home}; or " in run("demo", cwd=below).err
    assert daemon.asked == []


@pytest.mark.requirement("cli:bare-runtime")
def test_a_runtime_that_the_peer_does_not_declare_is_offered(
    daemon: FakeDaemon, run: Run, home: Path
) -> None:
    done = run("claude", cwd=home)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "iapeer launch: runtime 'claude' is not declared for 'bob'\n"
        "hint: let it: iapeer add-runtime claude --peer bob\n"
    )
    assert daemon.asked == []


@pytest.mark.requirement("cli:bare-runtime")
def test_a_copied_folder_launches_nobody(
    daemon: FakeDaemon, run: Run, root: Path, home: Path
) -> None:
    copy = root / "copy"
    profile_path(copy).parent.mkdir(parents=True)
    profile_path(copy).write_bytes(profile_path(home).read_bytes())
    done = run("demo", cwd=copy)
    assert done.status == 1
    assert "is not registered\nhint: register it: iapeer init\n" in done.err
    assert daemon.asked == []


@pytest.mark.requirement("cli:bare-runtime:typo")
def test_a_mistyped_verb_launches_nothing(
    daemon: FakeDaemon, run: Run, root: Path, home: Path
) -> None:
    launched(daemon, root)
    for word in ("lst", "dmeo", "stopp"):
        done = run(word, cwd=home)
        assert (done.status, done.out) == (2, "")
        assert f"iapeer: unknown verb {word!r}\nhint: did you mean " in done.err
    assert daemon.asked == []


@pytest.mark.requirement("cli:help:anywhere")
def test_help_launches_nothing(daemon: FakeDaemon, run: Run, root: Path, home: Path) -> None:
    launched(daemon, root)
    assert "usage: iapeer <verb>" in run("demo", "--help", cwd=home).out
    assert "usage: iapeer launch <runtime>" in run("launch", "demo", "-h", cwd=home).out
    assert daemon.asked == []


@pytest.mark.requirement("cli:bare-runtime")
def test_a_runtime_of_ones_own_can_be_launched_and_a_verb_wins_over_its_name(
    daemon: FakeDaemon, run: Run, root: Path
) -> None:
    Paths(root).runtimes.mkdir()
    for name in ("mytool", "status"):
        text = f'id = "{name}"\n[launch]\nargv = ["sh"]\n'
        (Paths(root).runtimes / f"{name}.toml").write_text(text, encoding="utf-8")
    run("create", "bob", "--runtime", "mytool")
    launched(daemon, root)
    home = root / "peers" / "bob"
    assert run("mytool", cwd=home).out == "launched demo-bob (fresh)\n"
    run("status", cwd=home)
    assert [asked.path for asked in daemon.asked] == [
        "/api/v1/peers/bob/launch",
        "/api/v1/ping",
    ]


# -- attach, send --interrupt ---------------------------------------------------------------------


@pytest.mark.requirement("cli:attach")
def test_attach_can_just_tell_where(daemon: FakeDaemon, run: Run, root: Path) -> None:
    point = {"identity": "demo-bob", "socket": "/s", "session": "demo-bob", "woke": True}
    daemon.on("POST", "/api/v1/peers/bob/wake", {"ok": True, "attach": point})
    done = run("attach", "bob", "--json")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == point
    assert daemon.asked[0].body == {}


SAY = ("send", "bob", "stop that", "--from", "demo-ann", "--interrupt")


def accepting(daemon: FakeDaemon) -> None:
    answer = {"ok": True, "state": "landed", "message_id": "aaaaaaaaaaaa", "delivered_to": {}}
    daemon.on("POST", "/api/v1/send", answer)


@pytest.mark.requirement("cli:send:interrupt")
def test_a_send_can_interrupt_first_and_goes_to_whom_it_interrupted(
    daemon: FakeDaemon, run: Run
) -> None:
    accepting(daemon)
    daemon.on("POST", "/api/v1/peers/bob/interrupt", {"ok": True, "identity": "codex-bob"})
    assert run(*SAY).status == 0
    paths = [asked.path for asked in daemon.asked]
    assert paths == ["/api/v1/peers/bob/interrupt", "/api/v1/send"]
    assert daemon.asked[0].body == {}
    assert daemon.asked[1].body["runtime"] == "codex"
    run(*SAY, "--runtime", "claude")
    assert daemon.asked[2].body == {"runtime": "claude"}


@pytest.mark.requirement("cli:send:interrupt")
def test_who_is_in_no_turn_just_gets_the_message(daemon: FakeDaemon, run: Run) -> None:
    accepting(daemon)
    refuse(daemon, "peers/bob/interrupt", "not_live", "cannot control bob: not live")
    assert run(*SAY).status == 0
    assert "runtime" not in daemon.asked[1].body


@pytest.mark.requirement("cli:send:interrupt")
def test_what_can_not_be_interrupted_gets_no_message(daemon: FakeDaemon, run: Run) -> None:
    accepting(daemon)
    refuse(daemon, "peers/bob/interrupt", "unsupported", "api does not support control command")
    done = run(*SAY)
    assert (done.status, done.out) == (1, "")
    assert done.err == "iapeer send: api does not support control command\n"
    assert len(daemon.asked) == 1


@pytest.mark.requirement("cli:send:interrupt")
def test_a_session_may_not_interrupt_others(daemon: FakeDaemon, run: Run) -> None:
    accepting(daemon)
    done = run(*SAY, env=SESSION)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("iapeer send: a session may not interrupt another one\nhint: ")
    assert daemon.asked == []


@pytest.mark.requirement("cli:send:interrupt")
def test_without_a_daemon_nothing_is_interrupted_and_nothing_sent(run: Run, root: Path) -> None:
    run("create", "ann", "--runtime", "demo")
    run("create", "bob", "--runtime", "demo")
    done = run(*SAY)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"iapeer send: no daemon is running on {root}\n")
    assert not Paths(root).ledger.exists()
