"""The real Claude Code in its person's own configuration, and in one of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iapeer.client import hot
from iapeer.runtimes.catalog import SHIPPED
from iapeer.testing.agents import AgentDaemon, SimulatedModel
from iapeer.testing.daemon import wait_until
from iapeer.testing.model_server import Call, Rule, Script
from tests.integration.routing.house import until
from tests.real.claude_house import CLAUDE, open_claude

pytestmark = pytest.mark.anyio

OWN = (
    ".claude.json",
    ".claude/backups/",
    ".claude/history.jsonl",
    ".claude/projects/",
    ".claude/sessions/",
    ".claude/shell-snapshots/",
    ".claude/session-env/",
    ".claude/plugins/",
    ".claude/.last-cleanup",
    ".cache/claude-cli-nodejs/",
    ".local/share/applications/claude-code-url-handler.desktop",
    ".local/state/claude/",
)
"""What the program itself writes below HOME, in any session."""
CHANGE = re.compile(r"openat\(.*O_(?:WRONLY|RDWR|CREAT)|(?:creat|rename\w*|unlink\w*|mkdir\w*)\(")
EXEC = re.compile(r'execve\("([^"]+)", \[(.*?)\]')
CHILD = re.compile(r"(?:<\.\.\. )?(?:clone3?|v?fork)\b.* = (\d+)$")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    return (Rule("TELL", (Call("send_to_peer", {"personality": "me", "message": "told"}),)),)


def files_of(home: Path) -> dict[str, bytes]:
    """Every file below HOME with its content."""
    found = (path for path in home.rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_bytes() for path in found}


def changed_keys(before: bytes, after: bytes) -> dict[str, Any]:
    """The top-level keys of a JSON file that are new or have another value."""
    old, new = json.loads(before), json.loads(after)
    assert set(old) <= set(new)
    return {key: value for key, value in new.items() if old.get(key) != value}


def test_nothing_of_the_persons_own_is_written_by_us(
    real_daemon: AgentDaemon, agent_home: Path, agent_binaries: dict[str, Path]
) -> None:
    assert agent_binaries["claude"].is_file()
    settings = agent_home / ".claude/settings.json"
    settings.parent.mkdir()
    own = {"env": {"MINE": "1"}, "hooks": {"Stop": []}, "verbose": False}
    settings.write_text(json.dumps(own), encoding="utf-8")
    before = files_of(agent_home)
    traced = real_daemon.base / "trace.txt"
    real_daemon.create("ann", runtime=CLAUDE)
    real_daemon.create("me", runtime="api")
    _start_traced(real_daemon, traced)
    for topic in ("one", "one", "two"):
        sent = real_daemon.send("ann", f"TELL about {topic}", "api-me", topic=topic)
        real_daemon.wait_state(sent["message_id"], "seen")
        _wait_for_end(real_daemon, sent["message_id"])
        real_daemon.run("stop", "ann")
        real_daemon.run("start", "ann")
    assert real_daemon.end_owner()
    after = files_of(agent_home)
    assert json.loads(after[".claude/settings.json"]) == own
    new = {name for name in after if before.get(name) != after[name]}
    assert not {name for name in new if not name.startswith(OWN)}
    keys = changed_keys(before[".claude.json"], after[".claude.json"])
    assert "mcpServers" not in keys
    assert b"iapeer" not in after[".claude.json"].replace(str(real_daemon.root).encode(), b"")
    projects = keys.get("projects", {})
    assert set(projects) == {str((real_daemon.root / "peers/ann").resolve())}
    _check_trace(traced, agent_home)


def _wait_for_end(daemon: AgentDaemon, message_id: str) -> None:
    """Wait until the turn that read a message is done; strace makes everything slow."""

    def is_done() -> bool:
        turns = daemon.trace(message_id)["turns"]
        return bool(turns) and turns[0]["end"] == "done"

    wait_until(is_done, 45, "the turn to end")


def _start_traced(daemon: AgentDaemon, traced: Path) -> None:
    """Start the daemon below strace, which looks after all its descendants."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = "trace=execve,clone,clone3,fork,vfork,openat,/^(creat|rename|unlink|mkdir)"
    words = ["strace", "-D", "-f", "-q", "--seccomp-bpf", "-s", "300", "-e", calls]
    with (daemon.base / "daemon.err").open("a", encoding="utf-8") as sink:
        daemon.process = subprocess.Popen(
            [*words, "-o", str(traced), sys.executable, "-P", "-m", "iapeer", "daemon"],
            env=daemon.environ,
            cwd=daemon.base,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            encoding="utf-8",
        )

    def is_up() -> bool:
        assert daemon.process is not None
        assert daemon.process.poll() is None, daemon.errors()
        try:
            hot.request("GET", "/api/v1/ping", socket_path=daemon.socket, timeout_s=5)
        except (hot.DaemonUnreachable, hot.BadAnswer):
            return False
        return True

    wait_until(is_up, 60, "the traced daemon to answer")


def _check_trace(traced: Path, home: Path) -> None:
    """Of all that ran, ours made nothing below HOME but the folder of the program's records."""
    trace = Trace(traced.read_text(encoding="utf-8", errors="replace"))
    changes = list(trace.changes(home))
    assert [call for ours, call in changes if not ours]
    mine = [call for ours, call in changes if ours]
    assert mine
    records = re.escape(str(home)) + r"/\.claude/projects(/[A-Za-z0-9-]+)?"
    assert not [call for call in mine if not re.match(rf'mkdir\("{records}", 0700', call)]


class Trace:
    """What strace wrote down, by process and thread."""

    def __init__(self, text: str) -> None:
        # Short ids are padded with blanks.
        self.lines = [line.split(maxsplit=1) for line in text.splitlines() if " " in line]
        self._parents: dict[str, tuple[str, int]] = {}
        self._programs: dict[str, list[tuple[int, bool]]] = {}
        for number, (pid, call) in enumerate(self.lines):
            child, program = CHILD.match(call), EXEC.match(call)
            if child is not None:
                self._parents[child[1]] = (pid, number)
            if program is not None and " = -1 " not in call:
                name = Path(program[1]).name
                ours = name == "tmux" or (name.startswith("python") and "iapeer" in program[2])
                self._programs.setdefault(pid, []).append((number, ours))

    def is_ours(self, pid: str, number: int) -> bool:
        """Whether our code or tmux ran in that process or thread at that line."""
        programs = [ours for at, ours in self._programs.get(pid, ()) if at <= number]
        if programs:
            return programs[-1]
        return self.is_ours(*self._parents[pid]) if pid in self._parents else True

    def changes(self, below: Path) -> Iterator[tuple[bool, str]]:
        """Yield what was changed below a folder, and whether it was by us."""
        for number, (pid, call) in enumerate(self.lines):
            if CHANGE.match(call) and str(below) in call:
                yield self.is_ours(pid, number), call


async def test_dialogs_of_a_first_start_are_answered_by_keys(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    """The person has never been in that folder, and our settings do not name the bypass mode."""
    async with open_claude(empty_home / "x", agent_path, model) as house:
        text = (SHIPPED / "claude.toml").read_text(encoding="utf-8")
        house.runtime(CLAUDE, text.replace("skipDangerousModePermissionPrompt = true\n", ""))
        house.hire("ann")
        await house.done("ann", "after two dialogs")
        keys = json.loads((house.home / ".claude.json").read_text(encoding="utf-8"))
        folder = str(house.paths.peer_home("ann").resolve())
        assert keys["projects"][folder]["hasTrustDialogAccepted"] is True
        own = json.loads((house.home / ".claude/settings.json").read_text(encoding="utf-8"))
        assert own == {"skipDangerousModePermissionPrompt": True}
        await house.fleet.stop("ann", None)


async def test_whether_a_key_may_be_used_only_the_person_says_in_their_configuration(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model) as house:
        own = house.home / ".claude.json"
        own.write_text('{"hasCompletedOnboarding": true}', encoding="utf-8")
        house.hire("ann")
        await house.send("ann", "nobody has approved the key")
        await until(lambda: "mode=fail" in house.log(), "the boot to fail")
        assert "customApiKeyResponses" not in json.loads(own.read_text(encoding="utf-8"))
        await house.fleet.stop("ann", None)


async def _written(transcript: Path) -> None:
    """The program writes a moment after it has happened."""
    await until(lambda: '"type":"user"' in transcript.read_text(encoding="utf-8"), "the record")


async def test_an_isolated_agent_has_a_configuration_of_its_own(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(
        empty_home / "x", agent_path, model, "ann", "ben", agent_config="isolated"
    ) as house:
        before = files_of(house.home)
        for name in ("ann", "ben"):
            sent = await house.done(name, f"hello {name}", topic="t")
            assert (await house.asked(sent)).user_texts == (await house.shown_as(sent),)
            transcript = Path(house.session(name, CLAUDE).transcript)
            assert transcript.is_relative_to(house.paths.peer_home(name) / ".iapeer")
            await _written(transcript)
        # A second start: nothing is asked again, the conversation is gone on with.
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        again = await house.done("ann", "hello again", topic="t")
        assert len((await house.asked(again)).user_texts) == 2
        await until(lambda: house.session("ann", CLAUDE).mode == "resume", "the same session")
        after = files_of(house.home)
        new = {name for name in after if before.get(name) != after[name]}
        assert not {name for name in new if name.startswith(".claude")}
        for name in ("ann", "ben"):
            mode = (house.paths.peer_home(name) / ".iapeer/state/claude/home").stat().st_mode
            assert mode & 0o777 == 0o700
