"""The demo agent on a real terminal: what is typed and pasted, and how it misbehaves."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.apps.pty_agent import NASTY, PtyAgent, child_environment

LONG_NASTY = (NASTY * (16_000 // len(NASTY) + 1))[:16_000]
HEAVY = frozenset(
    {"argparse", "asyncio", "concurrent", "ctypes", "dataclasses", "email", "http", "inspect"}
    | {"logging", "mcp", "msgspec", "multiprocessing", "pathlib", "selectors", "socket", "ssl"}
    | {"subprocess", "tempfile", "threading", "typing", "unicodedata", "urllib", "uuid"}
)
MODULES_AT_MOST = 75
"""55 of a bare interpreter with `json` and `termios`, 15 of our own."""
HOOK = "import os,sys; open(os.environ['HOOKED'],'a').write(sys.stdin.read()+chr(10))"


def test_start_loads_only_a_handful_of_modules() -> None:
    code = "import iapeer.apps.demo_agent.__main__, sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env=child_environment(),
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.split()
    assert not HEAVY & {name.partition(".")[0] for name in found}
    assert len(found) <= MODULES_AT_MOST, sorted(found)


def test_it_is_small_until_its_first_send_and_soon_ready(tmp_path: Path) -> None:
    times = []
    rss = 0.0
    for _ in range(3):
        with PtyAgent(tmp_path) as agent:
            times.append(agent.ready())
            agent.type("SAY hello")
            agent.wait_records("turn", 2)
            rss = agent.rss_mib()
    sys.stdout.write(f"ready after {min(times):.3f} s, RSS {rss:.1f} MiB\n")
    assert rss < 20
    assert min(times) < 1, "the budget is 0.15 s on a quiet machine; this one may be busy"


def test_a_pasted_text_arrives_exactly_in_a_private_transcript(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, PEER_SESSION="s1") as agent:
        agent.ready()
        agent.paste("<iap>" + LONG_NASTY)
        agent.wait_output("[Pasted text #1 +")
        agent.enter()
        (record,) = agent.wait_records("user", 1)
        assert record["text"] == "<iap>" + LONG_NASTY
        assert record["session"] == "s1"
        assert stat.S_IMODE(agent.transcript.stat().st_mode) == 0o600
        for folder in (agent.transcript.parent, agent.transcript.parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not agent.records("shell")


def test_a_leading_exclamation_mark_would_be_a_command(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        agent.paste(f"!touch {marker}")
        agent.enter()
        agent.paste(f"x\x1b[201~\r!touch {marker}\r")
        agent.type(f" !touch {marker}")
        shells = agent.wait_records("shell", 2)
        assert [record["text"] for record in shells] == [f"!touch {marker}"] * 2
        users = agent.wait_records("user", 2)
        assert [record["text"] for record in users] == ["x", f" !touch {marker}"]
    assert not marker.exists()


def test_keys_edit_the_draft(tmp_path: Path) -> None:
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        agent.type("gone\x15SAY onx\x7fe\nNOTHING \x07й")
        (record,) = agent.wait_records("user", 1)
        assert record["text"] == "SAY one\nNOTHING й"


def test_it_draws_anew_when_the_terminal_has_another_size(tmp_path: Path) -> None:
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        agent.write(b"half a thought")
        agent.wait_output("half a thought")
        agent.resize(50, 60)
        agent.wait_output("\x1b[2J")
        agent.wait_output("\u2500" * 58 + "\r\n")
        agent.wait_output("half a thought")


def test_text_sent_while_busy_is_queued_and_becomes_turns_of_its_own(tmp_path: Path) -> None:
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        agent.type(f"HOLD {tmp_path}/go")
        agent.wait_records("turn", 1)
        agent.type("SAY one")
        agent.type("SAY two")
        agent.wait_records("queue", 2)
        assert [r["type"] for r in agent.records()] == ["user", "turn", "queue", "queue"]
        agent.wait_output("esc to interrupt")
        (tmp_path / "go").touch()
        agent.wait_records("turn", 6)
        told = [(r["type"], r.get("op") or r.get("text")) for r in agent.records()[4:]]
        turns = [
            [
                ("queue", "dequeue"),
                ("user", f"SAY {word}"),
                ("turn", "start"),
                ("assistant", word),
                ("turn", "end"),
            ]
            for word in ("one", "two")
        ]
        assert told == [("turn", "end"), *turns[0], *turns[1]]


def test_escape_interrupts_the_turn_and_the_queue_goes_on(tmp_path: Path) -> None:
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        agent.type("SLOW 500")
        agent.wait_records("turn", 1)
        agent.type("APIERROR")
        agent.wait_records("queue", 1)
        agent.write(b"\x1b")
        ends = [r["status"] for r in agent.wait_records("turn", 4) if r["op"] == "end"]
        assert ends == ["interrupted", "api_error"]


@pytest.mark.parametrize(
    ("keys", "status"), [("/exit\r", 0), ("\x03\x03", 0), ("\x04", 0), ("EXIT 7\r", 7)]
)
def test_it_leaves_when_told_to(tmp_path: Path, keys: str, status: int) -> None:
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        agent.write(keys.encode())
        assert agent.status() == status


def test_the_hook_gets_the_exact_prompt(tmp_path: Path) -> None:
    hooked = tmp_path / "hooked.jsonl"
    hook = json.dumps([sys.executable, "-c", HOOK])
    with PtyAgent(
        tmp_path, DEMO_PROMPT_HOOK=hook, HOOKED=str(hooked), PEER_SESSION="s2", PYTHONUTF8="1"
    ) as agent:
        agent.ready()
        agent.paste(NASTY)
        agent.enter()
        agent.wait_records("turn", 2)
        told = json.loads(hooked.read_text(encoding="utf-8"))
        assert told == {
            "session_id": "s2",
            "transcript_path": str(agent.transcript),
            "cwd": str(tmp_path),
            "hook_event_name": "UserPromptSubmit",
            "prompt": NASTY,
        }


@pytest.mark.parametrize("program", ["/nonexistent/hook", "false"])
def test_a_failing_hook_stops_nothing(tmp_path: Path, program: str) -> None:
    with PtyAgent(tmp_path, DEMO_PROMPT_HOOK=json.dumps([program])) as agent:
        agent.ready()
        agent.type("SAY on it goes")
        agent.wait_output("prompt hook: ")
        agent.wait_records("assistant", 1)


@pytest.mark.slow
def test_a_hanging_hook_is_killed_and_the_turn_goes_on(tmp_path: Path) -> None:
    hook = json.dumps(["/bin/sh", "-c", "sleep 300 & wait"])
    with PtyAgent(tmp_path, DEMO_PROMPT_HOOK=hook) as agent:
        agent.ready()
        agent.type("SAY on it goes")
        agent.wait_output("killed after 5 s")
        agent.wait_records("assistant", 1)


def test_the_first_enters_can_be_swallowed(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="swallow_enter=2") as agent:
        agent.ready()
        agent.paste("SAY one\n\n\n")
        agent.wait_output("[Pasted text #1 +3 lines]")
        agent.enter()
        agent.enter()
        agent.type("x\x7f")
        (record,) = agent.wait_records("user", 1)
        assert record["text"] == "SAY one\n\n\n"


def test_an_enter_right_after_the_start_can_be_swallowed(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="swallow_enter") as agent:
        agent.write(b"\x1b[200~SAY one\x1b[201~\r")
        agent.ready()
        agent.wait_output("SAY one")
        presses = 0
        while not agent.records("user"):
            agent.enter()
            agent._read(0.1)
            presses += 1
            assert presses < 200
        # Taken at once, it had been in the record before it was on the screen.
        assert presses >= 1


def test_a_dialog_takes_one_key_at_a_time(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="dialog") as agent:
        agent.wait_output("Do you trust this folder?")
        agent.wait_output("No, exit")
        agent.write(b"\x1b[B\r")  # the Enter of one burst is lost
        agent.wait_output("\u276f 2. No, exit")
        agent.write(b"\x1b[A")
        agent.wait_output("\u276f 1. Yes")
        agent.enter()
        agent.ready()
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="dialog") as agent:
        agent.wait_output("No, exit")
        agent.write(b"2")
        agent.wait_output("\u276f 2. No, exit")
        agent.enter()
        assert agent.status() == 1


def test_a_queue_can_be_lost(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="lose_queue") as agent:
        agent.ready()
        agent.type(f"HOLD {tmp_path}/go")
        agent.wait_records("turn", 1)
        agent.type("SAY lost")
        agent.wait_records("queue", 1)
        (tmp_path / "go").touch()
        agent.wait_records("turn", 2)
        agent.type("SAY found")
        assert [r["text"] for r in agent.wait_records("user", 2)][1:] == ["SAY found"]


@pytest.mark.parametrize(("switch", "status"), [("exit_at_start=3", 3), ("exit_at_start", 1)])
def test_it_can_leave_at_start(tmp_path: Path, switch: str, status: int) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE=switch) as agent:
        assert agent.status() == status


def test_it_can_crash_on_a_message_it_has_seen(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="crash_on_message") as agent:
        agent.ready()
        agent.type("hello")
        assert agent.status() == 70
        assert [record["type"] for record in agent.records()] == ["user", "turn"]


def test_hook_and_transcript_can_be_missing(tmp_path: Path) -> None:
    hooked = tmp_path / "hooked"
    with PtyAgent(
        tmp_path,
        DEMO_MISBEHAVE="no_hook,no_transcript",
        DEMO_PROMPT_HOOK=json.dumps(["touch", str(hooked)]),
    ) as agent:
        agent.ready()
        agent.type("SAY hello")
        agent.wait_output("\u25cf hello")
        assert not agent.transcript.exists()
    assert not hooked.exists()


def test_a_slow_or_hanging_start_shows_no_composer(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="slow_start=0.5") as agent:
        assert agent.ready() >= 0.5
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="hang_at_start") as agent:
        agent.write(b"SAY hello\r\x03\x03")
        with pytest.raises(subprocess.TimeoutExpired):
            agent.process.wait(0.5)
        assert "ready" not in agent.output


def test_a_wrong_switch_is_an_error_that_names_it(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_MISBEHAVE="be_nice") as agent:
        assert agent.status() == 2
        agent.wait_output("unknown 'be_nice'")


def test_help_describes_every_directive_and_switch() -> None:
    command = [sys.executable, "-P", "-m", "iapeer.apps.demo_agent", "--help"]
    text = subprocess.run(
        command, env=child_environment(), capture_output=True, encoding="utf-8", check=True
    ).stdout
    for word in ("ASK", "SEND", "REPLY", "SLOW", "PINGPONG", "RING", "SAY", "EXIT", "NOTHING"):
        assert f"  {word}" in text
    for switch in ("swallow_enter", "hang_at_start", "lose_queue", "no_transcript", "dialog"):
        assert switch in text


def test_a_suggestion_is_faint_and_never_sent(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, DEMO_GHOST="1") as agent:
        agent.ready()
        agent.wait_output("\x1b[2mTry ")
        agent.enter()
        agent.type("SAY x")
        assert [r["text"] for r in agent.wait_records("user", 1)] == ["SAY x"]


def test_the_cooked_reader_takes_lines(tmp_path: Path) -> None:
    with PtyAgent(tmp_path, module="iapeer.apps.demo_agent.cooked") as agent:
        agent.wait_output("> ")
        agent.type("привет")
        agent.wait_output("heard: привет")
        assert [r["text"] for r in agent.wait_records("user", 1)] == ["привет"]
        agent.type("exit 4")
        assert agent.status() == 4
