"""One run from an empty root to a verdict; leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from iapeer.client import hot
from iapeer.core.envelope import decode
from iapeer.core.errors import EnvelopeError, StorageError
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger import queries
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import MessageRow, SessionRow
from iapeer.storage.paths import Paths, peer_state_dir, profile_path
from iapeer.testing.daemon import AskFailed, TestDaemon

from .checker import Fate, Found, Shown, Span, Violation, check
from .plan import SETTINGS, Kill, WorkerOptions, answers, body_of, make_plan, result_in, task_in

WORKER, BOSS = "bee", "op"
AHEAD = 8
"""Tasks that wait at most: later kills find senders at work too."""
POLL_S = 0.05
PROGRESS_S = 10.0
MINUTE_S = 60.0
_END = ("turn", "end")
_FAILED = (AskFailed, hot.DaemonUnreachable, hot.BadAnswer)


@dataclass
class Result:
    """What a run found; `complete` is False when time ran out before all was done."""

    options: WorkerOptions
    violations: list[Violation]
    figures: dict[str, int | str]
    misdeeds: list[str] = field(default_factory=list)
    complete: bool = True


def run(options: WorkerOptions, say: Callable[[str], None] | None = None) -> Result:
    """Do one run and return its verdict. Raises AssertionError when the daemon stays away."""
    tell = say or (lambda text: print(text, file=sys.stderr, flush=True))
    path = os.environ.get("PYTHONPATH")
    # The daemon runs the code that this program runs.
    daemon = TestDaemon.make(**({"PYTHONPATH": path} if path else {}))
    tell(f"workers: seed {options.seed}, {options.tasks} tasks, root {daemon.base}")
    try:
        return _Run(options, daemon, tell).run()
    finally:
        daemon.clean_up()


class _Run:
    """The parts of one run, in order."""

    def __init__(
        self, options: WorkerOptions, daemon: TestDaemon, tell: Callable[[str], None]
    ) -> None:
        self._options = options
        self._daemon = daemon
        self._tell = tell
        self._paths = Paths(daemon.root)
        self._began = time.monotonic()
        self._over = threading.Event()
        self._sent = 0
        self._kills: Counter[str] = Counter()
        self._killed: set[str] = set()
        self._misdeeds: list[str] = []
        self._told = 0.0

    def run(self) -> Result:
        """See `run`."""
        self._prepare()
        self._daemon.start()
        sender = threading.Thread(target=self._send_all, name="sender", daemon=True)
        sender.start()
        try:
            complete = all(self._carry_out(kill) for kill in make_plan(self._options))
            complete = complete and self._wait(self._at_rest)
        finally:
            self._over.set()
            sender.join(MINUTE_S)
        found = self._found()
        self._end()
        return Result(
            options=self._options,
            violations=check(found),
            figures=self._figures(found),
            misdeeds=self._misdeeds,
            complete=complete,
        )

    def _prepare(self) -> None:
        """Write the settings and register both; nothing runs yet."""
        self._daemon.root.mkdir(mode=0o700)
        lines = [f"{name} = {value}" for name, value in SETTINGS.items()]
        text = "\n".join(lines) + "\n"
        (self._daemon.root / "iapeer.toml").write_text(text, encoding="utf-8")
        self._daemon.create(WORKER)
        self._daemon.create(BOSS, runtime="api")
        profile = profile_path(self._paths.peer_home(WORKER))
        known = json.loads(profile.read_text(encoding="utf-8"))
        known["wake_policy"] = "ephemeral"
        profile.write_text(json.dumps(known), encoding="utf-8")

    # -- what is done to it -------------------------------------------------------------------

    def _send_all(self) -> None:
        """Send every task in its order; a call without an answer is made again with its key."""
        for task in range(self._options.tasks):
            while self._sent - len(self._records()) >= AHEAD and not self._over.is_set():
                self._over.wait(POLL_S)
            while not self._over.is_set() and not self._sent_once(task):
                self._over.wait(POLL_S)
            self._sent += 1

    def _sent_once(self, task: int) -> bool:
        try:
            self._daemon.send(
                WORKER, body_of(self._options.seed, task), f"api-{BOSS}", key=f"task-{task}"
            )
        except _FAILED:
            return False
        return True

    def _carry_out(self, kill: Kill) -> bool:
        """Wait for the moment, kill, and go on; False when time is up."""
        if not self._wait(lambda: len(self._records()) >= kill.after):
            return False
        time.sleep(kill.delay_s)
        if kill.victim == "worker":
            self._kill_worker()
            return True
        process = self._daemon.process
        if process is not None and process.poll() is not None:
            self._misdeeds.append(f"died by itself with exit status {process.returncode}")
        self._daemon.kill()
        self._kills["daemon"] += 1
        time.sleep(kill.away_s)
        self._daemon.start()
        return True

    def _kill_worker(self) -> None:
        """Kill the program of the session that lives, if one does."""
        for row in self._sessions():
            if row.ended_at is None and row.pane_pid and row.pane_start is not None:
                pid, start = row.pane_pid, int(row.pane_start)
                if is_alive(pid, start):
                    self._killed.add(row.id)
                    os.kill(pid, signal.SIGKILL)
                    self._kills["worker"] += 1

    def _wait(self, what: Callable[[], bool]) -> bool:
        """Wait for something; False when the time of the run is up."""
        while not what():
            passed = time.monotonic() - self._began
            if passed > self._options.seconds:
                return False
            if passed - self._told > PROGRESS_S:
                self._told = passed
                self._tell(
                    f"workers: {passed:5.0f} s, {self._sent} sent, {len(self._records())} shown, "
                    f"{self._kills['daemon']} kills"
                )
            time.sleep(POLL_S)
        return True

    def _at_rest(self) -> bool:
        """Whether every task is settled and the last session has ended."""
        if self._sent < self._options.tasks:
            return False
        tasks = self._messages(WORKER)
        settled = all(row.state in ("seen", "failed") for row in tasks)
        return settled and all(row.ended_at is not None for row in self._sessions())

    def _end(self) -> None:
        """End the daemon as an operator does; nothing else may be left."""
        status = self._daemon.stop()
        if status:
            self._misdeeds.append(f"ended with exit status {status} at SIGTERM")
        left = [pair for pair in self._daemon.session_processes() if is_alive(*pair)]
        if left:
            self._misdeeds.append(f"left processes: {left}")

    # -- what is found ------------------------------------------------------------------------

    def _records(self) -> list[Path]:
        """Return the worker's records that show something, one per session."""
        folder = peer_state_dir(self._paths.peer_home(WORKER), "demo")
        return [path for path in folder.glob("*.jsonl") if b'"user"' in path.read_bytes()]

    def _sessions(self) -> list[SessionRow]:
        try:
            with offline_read(self._paths.ledger) as conn:
                return rows.all_sessions(conn)
        except StorageError:
            return []

    def _messages(self, to: str) -> list[MessageRow]:
        with offline_read(self._paths.ledger) as conn:
            return queries.select(conn, "personality = ?", (to,))

    def _found(self) -> Found:
        seed, tasks = self._options.seed, self._options.tasks
        results = Counter(
            number
            for row in self._messages(BOSS)
            if row.sender == f"demo-{WORKER}" and (number := result_in(row.body)) is not None
        )
        fates = [
            Fate(number=number, state=row.state, dup=row.dup)
            for row in self._messages(WORKER)
            if (number := task_in(row.body)) is not None
        ]
        return Found(
            tasks=tasks,
            shown=read_records(self._records()),
            fates=fates,
            spans=[Span(id=r.id, began=r.started_at, ended=r.ended_at) for r in self._sessions()],
            results=results,
            answering=frozenset(n for n in range(tasks) if answers(seed, n)),
            killed=frozenset(self._killed),
        )

    def _figures(self, found: Found) -> dict[str, int | str]:
        showings = Counter(one.number for one in found.shown if one.number is not None)
        return {
            "tasks": found.tasks,
            "tasks done once": sum(count == 1 for count in showings.values()),
            "tasks shown again, marked": sum(count > 1 for count in showings.values()),
            "dead letters after two tries": sum(f.state == "failed" for f in found.fates),
            "showings marked without need": sum(
                f.dup and showings[f.number] == 1 for f in found.fates
            ),
            "daemon killed": self._kills["daemon"],
            "worker killed": self._kills["worker"],
            "sessions": len(found.spans),
            "results of the worker": sum(found.results.values()),
            "seconds": round(time.monotonic() - self._began),
        }


def read_records(records: list[Path]) -> list[Shown]:
    """Return what the worker saw, in the order of time, from one record per session."""
    found: list[tuple[str, Shown]] = []
    for path in records:
        # Not splitlines: the last line may be half written.
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        for n, line in enumerate(lines):
            if line["type"] == "user":
                number, dup = _read(str(line["text"]))
                ends = [r["status"] for r in lines[n:] if (r["type"], r.get("op")) == _END]
                shown = Shown(
                    place=0,
                    number=number,
                    session=path.stem,
                    dup=dup,
                    finished=ends[:1] == ["done"],
                )
                found.append((line["ts"], shown))
    ordered = [shown for _, shown in sorted(found, key=lambda one: one[0])]
    return [msgspec.structs.replace(shown, place=n) for n, shown in enumerate(ordered)]


def _read(text: str) -> tuple[int | None, bool]:
    """Return the task in a prompt and whether it is marked."""
    try:
        envelope = decode(text.strip())
    except EnvelopeError:
        return None, False
    return task_in(envelope.body), envelope.dup == "maybe"
