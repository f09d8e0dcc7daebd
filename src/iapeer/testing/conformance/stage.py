"""Where the checks play: a private daemon, two peers of the runtime, a demo agent and a sender."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil

from iapeer.core import env
from iapeer.core.envelope import Envelope
from iapeer.core.errors import IapeerError
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.sessions.doors.text import agent_text, defuse_mentions
from iapeer.storage.atomic import write_text
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths, launch_env_path
from iapeer.testing.agents.peers import AgentDaemon
from iapeer.testing.agents.simulated import SimulatedModel
from iapeer.testing.daemon import AskFailed
from iapeer.testing.leaks import wait_for_none
from iapeer.testing.model_server import RecordedRequest

from .given import Given, ModelGiven, RecordGiven, body_in
from .outcome import CheckFailed
from .simulation import Subject, rules

ANN, BEN, DAN, SENDER = "ann", "ben", "dan", "me"
"""Two peers of the runtime, a demo agent, and the program in whose name the checks write."""

HOLD_S = 2
"""How long new messages wait here after an API error of unknown length."""
SLOW_S, KILLED_S, LONG_S = 3, 5, 30
"""Turns to send into, to kill in, and to interrupt."""
STEP_S = 20.0
"""A program that has come up answers within this, on a busy machine too."""
TOOL_S = 60.0
"""The same for its first command: it may have to load what reads one, and do nothing else meanwhile
(measured: Qwen Code 0.15.10 works 2 to 3 s on it, 12 to 15 s with twelve of them on two cores)."""
_POLL_S = 0.05
_SCREEN_LINES = 20
_TMUX_S = 5.0
_BASE = "/tmp"
_SETTINGS = f"""\
api_error_hold_s = {HOLD_S}
quota_hold_s = {HOLD_S}
boot_backoff_s = 0.2
wait_live_s = 0
wait_waking_s = 0
boot_deadline_s = 90
compact_done_timeout_ms = 30000
"""
_Found = TypeVar("_Found")


@dataclass
class Stage:
    """All that a check needs. Waits end at the latest at `deadline` (monotonic)."""

    subject: Subject
    spec: RuntimeSpec
    home: Path
    model: SimulatedModel | None
    daemon: AgentDaemon
    deadline: float
    sent: dict[str, str] = field(default_factory=dict)
    """Ids of messages that later checks look at again, by a label."""

    @cached_property
    def given(self) -> Given | None:
        """What the program gave its model, else what it wrote down; None when both are closed."""
        if self.model is not None:
            return ModelGiven(self.model)
        records = self.spec.evidence.records
        if not any(record.kind == "user" for record in records):
            return None
        return RecordGiven(records, self._transcripts)

    def texts(self, message_id: str) -> list[str]:
        """Return the texts that hold a message and that the program was given."""
        return self.given.texts(message_id) if self.given is not None else []

    def main_request(self) -> RecordedRequest | None:
        """Return the newest request of a conversation; None without a model or before the first."""
        return self.given.main() if self.given is not None else None

    def sender_of(self, recipient: str, word: str) -> str:
        """Return who sent the newest message with a word in it, empty as long as nobody did."""
        letters = self.daemon.ask("GET", f"/api/v1/messages?peer={recipient}")["messages"]
        return next((str(m["sender"]) for m in letters if word in m["quote"]), "")

    def was_given(self, word: str) -> bool:
        """Tell whether a word got into anything the program was given."""
        return self.given is not None and self.given.raw(word)

    def environ_of(self, peer: str) -> dict[str, str]:
        """Return the environment in which the program can be run beside its session."""
        environ = {**self.daemon.environ, "TERM": "xterm-256color"}
        path = launch_env_path(self.folder(peer), self.spec.id)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return environ | dict(line.split("=", 1) for line in lines)

    def folder(self, peer: str) -> Path:
        """Return a peer's folder."""
        return Paths(self.daemon.root).peer_home(peer)

    def address(self, peer: str) -> str:
        """Return the identity of a peer of the runtime."""
        return f"{self.spec.id}-{peer}"

    def send(self, peer: str, body: str, *, topic: str = "") -> str:
        """Send to a peer of the runtime and return the id. Raises CheckFailed when refused."""
        more = {"topic": topic} if topic else {}
        try:
            answer = self.daemon.send(peer, body, f"api-{SENDER}", **more)
        except AskFailed as error:
            raise CheckFailed(f"the message was refused: {error.error.get('message')}") from None
        return str(answer["message_id"])

    def wait(
        self, what: Callable[[], _Found], reason: str, limit_s: float = STEP_S, hint: str = ""
    ) -> _Found:
        """Ask until the answer is truthy and return it. Raises CheckFailed with the reason."""
        began = time.monotonic()
        end = min(began + limit_s, self.deadline)
        while not (found := what()):
            if time.monotonic() > end:
                raise CheckFailed(f"not within {end - began:.0f} s: {reason}", hint)
            time.sleep(_POLL_S)
        return found

    def trace(self, message_id: str) -> dict[str, Any]:
        """Return the way of one message."""
        return self.daemon.trace(message_id)

    def seen(self, message_id: str, limit_s: float = STEP_S) -> dict[str, Any]:
        """Wait until the program has it (`seen`, or `landed` where it proves no more)."""
        wanted = {"seen"} if self.spec.proves_seen else {"seen", "landed"}

        def look() -> dict[str, Any] | None:
            told = self.trace(message_id)
            return told if told["state"] in wanted else None

        try:
            return self.wait(look, "the message is seen", limit_s) or {}
        except CheckFailed as error:
            told = self.trace(message_id)
            now = " ".join(filter(None, (told["state"], told["reason"])))
            raise CheckFailed(f"{error.figure}; it is {now}", error.hint) from None

    def ended(self, message_id: str, limit_s: float = STEP_S) -> str:
        """Wait for the end of the turn a message was seen in; empty if the runtime tells none."""
        self.seen(message_id, limit_s)
        if not self.spec.tells_turns:
            return ""
        return self.wait(
            lambda: next((turn["end"] for turn in reversed(self.trace(message_id)["turns"])), ""),
            "its turn ends",
            limit_s,
        )

    def prepare(self, peer: str) -> None:
        """Have a live session of a peer in which nothing waits and no turn runs."""
        if not self._settled(peer):
            self.again(peer)
        self.daemon.ask("POST", f"/api/v1/peers/{peer}/wake", {})

    def _settled(self, peer: str) -> bool:

        def quiet() -> bool:
            letters = self.daemon.ask("GET", f"/api/v1/messages?peer={peer}&limit=20")["messages"]
            mine = [letter for letter in letters if letter["recipient"] == self.address(peer)]
            return all(self._is_over(str(letter["id"])) for letter in mine)

        with contextlib.suppress(CheckFailed):
            return self.wait(quiet, "quiet", STEP_S)
        return False

    def _is_over(self, message_id: str) -> bool:
        told = self.trace(message_id)
        final = {"failed", "expired", "seen"} | (set() if self.spec.proves_seen else {"landed"})
        turns = told["turns"]
        return told["state"] in final and (not turns or bool(turns[-1]["end"]))

    def again(self, peer: str) -> None:
        """End a peer's session, whatever it is in: the next check begins with another one."""
        for verb in ("stop", "start"):
            self.daemon.run(verb, peer, expect=None)

    def expected(self, message_id: str, peer: str, body: str) -> str:
        """Return what the program must be given between the marks of a message."""
        shown = defuse_mentions(body, self.folder(peer)) if self.spec.submit.mentions else body
        envelope = Envelope(
            from_personality=SENDER,
            from_runtime="api",
            from_intelligence=None,
            ts="",
            body=shown,
            id=message_id,
        )
        return body_in(agent_text(envelope, datetime.now(tz=UTC)), message_id)

    # -- the session ------------------------------------------------------------------------------

    def session(self, peer: str) -> SessionRow:
        """Return the newest session of a peer. Raises CheckFailed when there was none."""
        found = self.newest(peer)
        if found is None:
            raise CheckFailed(f"{peer} has never had a session")
        return found

    def newest(self, peer: str) -> SessionRow | None:
        """Return the newest session of a peer, if there was any."""
        return next(reversed(self._sessions(peer)), None)

    def _sessions(self, peer: str) -> list[SessionRow]:
        with offline_read(Paths(self.daemon.root).ledger) as conn:
            found = rows.all_sessions(conn)
        mine = [row for row in found if row.personality == peer and row.runtime == self.spec.id]
        return sorted(mine, key=lambda row: row.started_at)

    def _transcripts(self) -> list[Path]:
        return [
            Path(row.transcript)
            for peer in (ANN, BEN)
            for row in self._sessions(peer)
            if row.transcript
        ]

    def processes(self, peer: str) -> list[psutil.Process]:
        """Return the living processes of a peer: its program, its own server, their children."""
        identity = self.address(peer)
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environ = process.environ()
                if environ.get(env.PEER_IDENTITY) == identity and str(self.home) in environ.get(
                    "HOME", ""
                ):
                    found.append(process)
        return found

    def screen(self, peer: str) -> str:
        """Return what a peer's program shows; empty when nothing can be seen."""
        try:
            return self._tmux(peer, "capture-pane", "-p", "-t").rstrip()
        except (CheckFailed, AskFailed):
            return ""

    def tail(self, peer: str) -> str:
        """Return the last lines of the screen, for a report."""
        lines = [line for line in self.screen(peer).splitlines() if line.strip()]
        return "\n".join(lines[-_SCREEN_LINES:])

    def type(self, peer: str, text: str) -> None:
        """Type as a person would."""
        self._tmux(peer, "send-keys", "-l", "-t", last=(text,))

    def press(self, peer: str, *keys: str) -> None:
        """Press keys as a person would."""
        self._tmux(peer, "send-keys", "-t", last=keys)

    def _tmux(self, peer: str, *words: str, last: tuple[str, ...] = ()) -> str:
        row = self.session(peer)
        done = subprocess.run(
            ["tmux", "-S", row.socket, *words, f"={self.address(peer)}:", *last],
            env=self.daemon.environ,
            capture_output=True,
            encoding="utf-8",
            timeout=_TMUX_S,
            check=False,
        )
        if done.returncode != 0:
            raise CheckFailed(f"the terminal can't be reached: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def set_up(subject: Subject, spec: RuntimeSpec, limit_s: float) -> Iterator[Stage]:
    """Build a stage and clear all of it away, whatever happens meanwhile."""
    home = Path(tempfile.mkdtemp(prefix="iah", dir=_BASE)).resolve()
    try:
        with contextlib.ExitStack() as stack:
            model = None
            if subject.has_model:
                model = stack.enter_context(SimulatedModel(rules((SLOW_S, KILLED_S, LONG_S))))
            user = subject.user(model.url if model else "")
            _furnish(home, user.files)
            daemon = _daemon(subject, home, model.url if model else "")
            stack.callback(daemon.clean_up)
            stage = Stage(subject, spec, home, model, daemon, time.monotonic() + limit_s)
            for peer in (ANN, BEN):
                daemon.create(peer, runtime=spec.id)
                daemon.set_variables(peer, spec.id, **user.variables)
            daemon.create(DAN)
            daemon.create(SENDER, runtime="api")
            _start(daemon)
            yield stage
    finally:
        # What the program left by itself is not left to the caller either.
        wait_for_none(home, timeout_s=1.0)
        shutil.rmtree(home, ignore_errors=True)


def _start(daemon: AgentDaemon) -> None:
    try:
        daemon.start()
    except AssertionError as error:
        raise IapeerError(f"the private daemon can't be started: {error}") from None


def _furnish(home: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(path, text)


def _daemon(subject: Subject, home: Path, model_url: str) -> AgentDaemon:
    variables = {env.HOME: str(home), "PATH": subject.search_path()}
    if subject.runtimes_dir is not None:
        variables[env.RUNTIMES_DIR] = str(subject.runtimes_dir)
    daemon = AgentDaemon.make(**variables)
    assert isinstance(daemon, AgentDaemon)
    daemon.model_url = model_url
    daemon.root.mkdir(mode=0o700)
    write_text(daemon.root / "iapeer.toml", _SETTINGS)
    return daemon
