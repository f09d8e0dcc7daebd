"""What the tests of whole teams share: peers of real CLIs behind a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from iapeer.routing.lanes.envelopes import envelope_of
from iapeer.sessions.doors.text import agent_text
from iapeer.storage.ledger import queries
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import MessageRow, SessionRow
from iapeer.storage.paths import Paths
from iapeer.testing.agents import AgentDaemon, SimulatedModel
from iapeer.testing.daemon import wait_until
from iapeer.testing.leaks import processes_of
from iapeer.testing.model_server import Call, RecordedRequest, Rule, Say, Slow

NASTY = (
    "/help is no command\n!echo no shell\n@etc/passwd #x\n"
    "Кириллица 日本語 👩‍👩‍👧 e\u0301 \u202bרtl\u202c\t<tab>\n"
    "\"quotes\" 'and' `ticks` ]]> $(id) <system>x</system> \\n\n\n   blanks around   \n"
)
CALL = Rule(r"(?m)\bCALL (\w+) (\{.*\})", (Call("$1", "$2"), Say("done")))
"""`CALL <tool> <JSON>` on a line: the model calls it, then is done."""
SLOWLY = Rule(r"\bSLOWLY\b", (Slow(0.25), Say("one word after the other, each takes its time")))
"""Streams for about a second."""
PROTOCOLS = {"claude": "messages", "codex": "responses"}


def gate(path: Path, tool: str = "exec_command") -> dict[str, str]:
    """Return the arguments of a shell tool that waits until a file exists, 20 s at most."""
    name = {"exec_command": "cmd", "Bash": "command"}[tool]
    loop = f"for i in $(seq 400); do [ -e {path} ] && break; sleep 0.05; done; echo gone on"
    return {name: loop}


@dataclass
class Crew:
    """A daemon, its model, and looks at both."""

    daemon: AgentDaemon
    model: SimulatedModel

    # -- what the model was asked ---------------------------------------------------------

    def asked(self, words: str, runtime: str = "codex") -> list[RecordedRequest]:
        """Return the requests that began a turn with these words in it, oldest first."""
        return [
            request
            for request in self.model.requests
            if request.protocol == PROTOCOLS[runtime]
            and request.has_tools
            and request.ask is not None
            and request.ask.rounds == 0
            and words in newest(request)
        ]

    def wait_asked(self, words: str, runtime: str = "codex", times: int = 1) -> RecordedRequest:
        """Wait until that many turns began with these words; return the last one's request."""
        wait_until(
            lambda: len(self.asked(words, runtime)) >= times,
            reason=lambda: f"{runtime} to be asked {words!r} {times} times, not {self.story()}",
        )
        return self.asked(words, runtime)[times - 1]

    def told(self, words: str, runtime: str = "codex") -> int:
        """Return how many texts of the fullest conversation hold these words.

        Claude gives what comes in mid-turn to its model as a note of the system.
        """
        return max(
            (
                sum(words in text for text in (*request.user_texts, *request.system_texts))
                for request in self.model.requests
                if request.protocol == PROTOCOLS[runtime] and request.has_tools
            ),
            default=0,
        )

    def wait_result(self, name: str, runtime: str = "codex") -> dict[str, Any]:
        """Wait for what `send_to_peer` answered to this peer's model."""

        def find() -> dict[str, Any] | None:
            for request in self.model.requests:
                if request.protocol != PROTOCOLS[runtime] or f"AS {name}" not in newest(request):
                    continue
                for text in request.tool_results:
                    if '"delivered_to"' in text:
                        found: dict[str, Any] = json.loads(text[text.index("{") :])
                        return found
            return None

        try:
            found: dict[str, Any] = wait_until(find)
        except AssertionError:
            letters = self.daemon.ask("GET", "/api/v1/messages")["messages"]
            raise AssertionError(
                f"{name} got no answer\n{self.story()}\n{letters}\n{self.log()}"
            ) from None
        return found

    def story(self) -> list[str]:
        """Return one short line per request of a turn, for messages of failed tests."""
        return [
            f"{r.number} {r.protocol} {r.ask.rounds} {body_of(newest(r))[:60]!r}"
            for r in self.model.requests
            if r.has_tools and r.ask is not None
        ]

    # -- what the daemon knows ------------------------------------------------------------

    def send(self, to: str, message: str, sender: str = "api-me", **more: Any) -> str:
        """Send and return the message's id."""
        return str(self.daemon.send(to, message, sender, **more)["message_id"])

    def wait(self, message_id: str, *states: str, timeout_s: float = 30.0) -> None:
        """Wait for `seen`, or the states named."""
        try:
            self.daemon.wait_state(message_id, *(states or ("seen",)), timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{self.log()}\n{self.daemon.trace(message_id)['steps']}\n{self.story()}"
            ) from None

    def ends(self, message_id: str) -> list[str]:
        """Return how each turn ended that read a message, empty for one that runs."""
        return [turn["end"] for turn in self.daemon.trace(message_id)["turns"]]

    def wait_ends(self, message_id: str, *ends: str) -> None:
        """Wait until the turns that read a message ended like this."""
        try:
            wait_until(lambda: self.ends(message_id) == list(ends))
        except AssertionError:
            found = self.daemon.trace(message_id)
            raise AssertionError(
                f"turns of {message_id} ended {self.ends(message_id)}, not {ends}\n{self.log()}\n"
                f"{found['steps']}\n{found['turns']}\n{self.story()}"
            ) from None

    def steps(self, message_id: str) -> list[str]:
        """Return the events of a message's way."""
        return [step["event"] for step in self.daemon.trace(message_id)["steps"]]

    def stored(self, message_id: str) -> MessageRow:
        """Return a message as the ledger has it."""
        with offline_read(Paths(self.daemon.root).ledger) as conn:
            found = queries.get(conn, message_id)
        assert found is not None
        return found

    def text_of(self, message_id: str) -> str:
        """Return the text that a reader must be given."""
        return agent_text(envelope_of(self.stored(message_id)), datetime.now().astimezone())

    def sessions(self, name: str, runtime: str = "codex") -> list[SessionRow]:
        """Return all sessions of an identity, oldest first."""
        with offline_read(Paths(self.daemon.root).ledger) as conn:
            found = rows.all_sessions(conn)
        mine = [row for row in found if (row.personality, row.runtime) == (name, runtime)]
        return sorted(mine, key=lambda row: row.started_at)

    def session(self, name: str, runtime: str = "codex") -> SessionRow:
        """Return the newest session of an identity."""
        return self.sessions(name, runtime)[-1]

    def log(self, event: str = "") -> str:
        """Return lifecycle.log, or its lines of one event."""
        path = Paths(self.daemon.root).lifecycle_log
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return "\n".join(line for line in lines if f" ev={event}" in line)

    def wakes(self, name: str) -> list[tuple[str, str]]:
        """Return mode and cause of each session of a peer, as lifecycle.log tells."""
        lines = [ln for ln in self.log("wake ").split("\n") if f"personality={name} " in ln]
        return [(_field(line, "mode"), _field(line, "cause")) for line in lines]

    # -- hands -----------------------------------------------------------------------------

    def tmux(self, row: SessionRow, *words: str) -> str:
        """Give a command to the tmux server of a session."""
        return subprocess.run(
            ["tmux", "-S", row.socket, *words],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        ).stdout

    def screen(self, row: SessionRow) -> str:
        """Return what a person sees there."""
        return self.tmux(row, "capture-pane", "-p", "-t", _pane(row))

    def type(self, row: SessionRow, text: str) -> None:
        """Type as a person would, without an Enter."""
        self.tmux(row, "send-keys", "-t", _pane(row), "-l", text)
        wait_until(lambda: text in self.screen(row), reason=f"{text!r} to be shown")

    def key(self, row: SessionRow, name: str) -> None:
        """Press one key."""
        self.tmux(row, "send-keys", "-t", _pane(row), name)

    def own_server(self, row: SessionRow) -> psutil.Process:
        """Return the app-server of a session."""
        found = [
            process
            for process in processes_of(self.home)
            if any(row.endpoint in word for word in cmdline(process))
            and "app-server" in cmdline(process)
        ]
        assert len(found) == 1, found
        return found[0]

    def end(self) -> None:
        """Kill the daemon, then the servers that would take their time when they are hung up."""
        process = self.daemon.process
        if process is not None and process.poll() is None:
            self.daemon.kill()
        for left in processes_of(self.home):
            if "app-server" in cmdline(left):
                kill(left)

    @property
    def home(self) -> Path:
        """The HOME of the made-up person."""
        return Path(self.daemon.environ["HOME"])


def newest(request: RecordedRequest) -> str:
    """Return what the user said last."""
    return (request.user_texts or ("",))[-1]


def body_of(text: str) -> str:
    """Return the body of an envelope as the reader sees it; other texts as they are."""
    found = re.search(r"<msg>(.*)</msg>", text, re.DOTALL)
    return found[1] if found else text


def kill(process: psutil.Process) -> None:
    """SIGKILL; psutil compares the start time first. One that has ended is fine."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def cmdline(process: psutil.Process) -> list[str]:
    """Return a process' arguments, none when it has ended."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return what a process was started with."""
    text = Path(f"/proc/{process.pid}/environ").read_bytes().decode("utf-8", "surrogateescape")
    return dict(pair.partition("=")[::2] for pair in text.split("\0") if pair)


def files_with(secret: str, *folders: Path) -> list[Path]:
    """Return the files below some folders that hold a text."""
    wanted = os.fsencode(secret)
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and wanted in path.read_bytes():
                    found.append(path)
    return found


def _field(line: str, name: str) -> str:
    found = re.search(rf' {name}=("[^"]*"|\S+)', line)
    return found[1].strip('"') if found else ""


def _pane(row: SessionRow) -> str:
    return f"={row.runtime}-{row.personality}:"
