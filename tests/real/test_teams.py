"""Teams of real CLIs: Claude Code and Codex talk to each other through our daemon."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iapeer.testing.agents import AgentDaemon, SimulatedModel
from iapeer.testing.daemon import wait_until
from iapeer.testing.model_server import Call, RecordedRequest, Rule, Say, Script
from tests.real.crew import CALL, NASTY, Crew, body_of, gate, newest

PASSES = 20


def passing(number: int) -> Rule:
    """Return what a player does who gets the baton with this number."""
    if number == PASSES:
        return Rule(rf"\bBATON {number}\b", (Say("caught"),))
    to = "ann" if number % 2 else "cody"
    handed = {"personality": to, "message": f"BATON {number + 1}", "topic": "relay"}
    return Rule(rf"\bBATON {number}\b", (Call("send_to_peer", handed), Say("passed")))


def meeting(folder: Path, tool: str, mine: str) -> Rule:
    """Return what a peer does that is told `MEET <peer>`: wait, send in mid-turn, wait, be done."""
    sent = {"personality": "$1", "message": f"from inside {mine}"}
    return Rule(
        rf"\bMEET (\w+) AS {mine}\b",
        (
            Call(tool, gate(folder / "go", tool)),
            Call("send_to_peer", sent),
            Call(tool, gate(folder / "end", tool)),
            Say("done"),
        ),
    )


@pytest.fixture
def rules(tmp_path: Path) -> Script | Iterable[Rule]:
    return (
        *(passing(number) for number in range(1, PASSES + 1)),
        meeting(tmp_path, "exec_command", "cody"),
        meeting(tmp_path, "exec_command", "cora"),
        meeting(tmp_path, "Bash", "ann"),
        CALL,
    )


@pytest.fixture
def crew(real_daemon: AgentDaemon, model: SimulatedModel) -> Iterator[Crew]:
    real_daemon.create("cody", runtime="codex")
    real_daemon.create("me", runtime="api")
    made = Crew(real_daemon, model)
    yield made
    made.end()


def test_codex_asks_claude_and_gets_the_answer_both_exactly(crew: Crew) -> None:
    crew.daemon.create("ann", runtime="claude")
    crew.daemon.start()
    answer = json.dumps({"personality": "cody", "message": NASTY}, ensure_ascii=False)
    question = json.dumps({"personality": "ann", "message": f"CALL send_to_peer {answer}"})
    crew.wait(crew.send("cody", f"CALL send_to_peer {question}"))
    asked = crew.wait_asked("CALL send_to_peer", "claude")
    assert "cody" in newest(asked).split("\n")[0]
    back = crew.wait_asked("/help is no command\n")
    texts = [text for text in back.user_texts if text.startswith('<iap from="ann"')]
    found = crew.daemon.ask("GET", "/api/v1/messages")["messages"]
    (stored,) = [row["id"] for row in found if row["sender"] == "claude-ann"]
    assert texts == [crew.text_of(stored)]
    crew.wait_ends(stored, "done")
    assert crew.daemon.trace(stored)["sender"] == "claude-ann"


@pytest.mark.timeout(300)  # measured: 4 s, beside seven more on two cores 67 s
def test_claude_and_codex_pass_a_baton_twenty_times_in_order(crew: Crew) -> None:
    crew.daemon.create("ann", runtime="claude")
    crew.daemon.start()
    crew.wait(crew.send("cody", "BATON 1", topic="relay"))
    for number in range(1, PASSES + 1):
        wait_for_pass(crew, number)
    passes = passes_of(crew)
    caught = [body_of(newest(request)) for request in passes]
    assert caught == [f"BATON {number}" for number in range(1, PASSES + 1)]
    protocols = [request.protocol for request in passes]
    assert protocols == ["responses", "messages"] * (PASSES // 2)
    found = crew.daemon.ask("GET", "/api/v1/messages?limit=100")["messages"]
    assert len(found) == PASSES
    for message in found:
        crew.wait(message["id"])


def wait_for_pass(crew: Crew, number: int) -> None:
    """Each has a time of its own: how long all take together is the machine's affair."""
    wait_until(
        lambda: len(passes_of(crew)) >= number,
        reason=lambda: f"pass {number}: {crew.story()}\n{crew.log()}",
    )


def passes_of(crew: Crew) -> list[RecordedRequest]:
    return [request for request in crew.model.requests if is_pass(request)]


def is_pass(request: RecordedRequest) -> bool:
    ask = request.ask
    if ask is None or not ask.tools or ask.rounds:
        return False
    return body_of(ask.last_user_text).startswith("BATON")


@pytest.mark.parametrize(
    ("other", "runtime"), [("cora", "codex"), ("ann", "claude")], ids=["codex", "claude"]
)
def test_two_that_send_to_each_other_in_mid_turn_do_not_block_each_other(
    crew: Crew, tmp_path: Path, other: str, runtime: str
) -> None:
    crew.daemon.create(other, runtime=runtime)
    crew.daemon.start()
    orders = [("cody", f"MEET {other} AS cody"), (other, f"MEET cody AS {other}")]
    with ThreadPoolExecutor(2) as pool:
        begun = list(pool.map(lambda order: crew.send(*order), orders))
    for sent in begun:
        crew.wait(sent)
    (tmp_path / "go").touch()
    # Both have the answer of their call while both turns still run.
    pair = (crew.wait_result("cody"), crew.wait_result(other, runtime))
    assert [crew.ends(sent) for sent in begun] == [[""], [""]]
    for answer in pair:
        assert answer["ok"] is True, answer
        assert answer["state"] in {"landed", "seen", "held"}, answer
    (tmp_path / "end").touch()
    for sent in begun:
        crew.wait_ends(sent, "done")
    crew.wait(pair[0]["message_id"])
    crew.wait(pair[1]["message_id"])
    wait_until(lambda: crew.told("from inside cody", runtime), reason=f"{other} to read it")
    wait_until(lambda: crew.told(f"from inside {other}"), reason="cody to read it")
    assert crew.told("from inside cody", runtime) == crew.told(f"from inside {other}") == 1


CODEX_WRITES = {"tui"}
CLAUDE_WRITES = {
    "firstStartTime",
    "lastReleaseNotesSeen",
    "machineID",
    "migrationVersion",
    "numStartups",
    "projects",
    "seenNotifications",
    "tipsHistory",
    "tipLifetimeShownCounts",
    "userID",
}
"""Keys that the programs themselves write into the person's files on their first start (measured);
and Claude more that begin with a word of `CLAUDE_FAMILIES`."""
CLAUDE_FAMILIES = ("official", "opus", "sonnet", "cached")


def test_the_persons_files_are_changed_by_the_programs_only(crew: Crew, tmp_path: Path) -> None:
    crew.daemon.create("ann", runtime="claude")
    before = files_of(crew.home)
    crew.daemon.start()
    assert files_of(crew.home) == before
    with traced(crew, tmp_path / "trace") as trace:
        order = json.dumps({"personality": "ann", "message": "hello"})
        crew.wait(crew.send("cody", f"CALL send_to_peer {order}", topic="lighthouse"))
        crew.wait_asked("hello", "claude")
        crew.daemon.run("stop", "--all")
        crew.daemon.run("start", "cody")
        crew.wait(crew.send("cody", "and again", topic="lighthouse"))
        crew.daemon.run("stop", "--all")
        crew.daemon.stop()
    calls = trace.read_text(encoding="utf-8", errors="replace").split("\n")
    ours = [call for call in calls if f"{crew.home}/" in call]
    assert [call for call in ours if "openat" in call], "the trace saw nothing"
    writing = [call for call in ours if WRITING.search(call)]
    # The folder of a record is made so that it can be watched before its first line.
    folders = [call for call in writing if " mkdir(" in call and "/.claude" in call]
    assert writing == folders
    after = files_of(crew.home)
    told = changed_keys(json.loads, ".claude.json", before, after)
    assert {key for key in told if not key.startswith(CLAUDE_FAMILIES)} <= CLAUDE_WRITES
    assert changed_keys(tomllib.loads, ".codex/config.toml", before, after) <= CODEX_WRITES
    # Nothing else that was there has changed, and no file that is new speaks of us to the program.
    assert {name for name in before if before[name] != after.get(name)} <= {
        ".claude.json",
        ".codex/config.toml",
    }
    settings = (".claude/settings.json", ".mcp.json", ".codex/hooks.json", ".claude/CLAUDE.md")
    assert not [name for name in settings if name in after]


WRITING = re.compile(
    r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC"
    r"|\b(rename|unlink|mkdir|rmdir|symlink|link|f?chmod|f?chown|utime|f?truncate|mknod)\w*\("
)


@contextlib.contextmanager
def traced(crew: Crew, trace: Path) -> Iterator[Path]:
    """Write down every call of the daemon that names a file; not those of what it starts."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert crew.daemon.process is not None
    words = ["strace", "-f", "-b", "execve", "-y", "-qq", "-s", "4096", "-o", str(trace)]
    calls = ["-e", "trace=%file,ftruncate,fchmod,fchown"]
    daemon = crew.daemon.process.pid
    tracer = subprocess.Popen([*words, *calls, "-p", str(daemon)])
    try:
        status = Path(f"/proc/{daemon}/status")
        wait_until(lambda: f"TracerPid:\t{tracer.pid}\n" in status.read_text(encoding="utf-8"))
        yield trace
    finally:
        tracer.terminate()
        tracer.wait(timeout=10)


def files_of(home: Path) -> dict[str, str]:
    """Return every file below a folder with its content."""
    return {
        str(path.relative_to(home)): path.read_bytes().decode("utf-8", "replace")
        for path in home.rglob("*")
        if path.is_file()
    }


def changed_keys(
    load: Callable[[str], dict[str, Any]], name: str, before: dict[str, str], after: dict[str, str]
) -> set[str]:
    """Return the top keys of a file that have another value than before."""
    old, new = load(before[name]), load(after[name])
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
