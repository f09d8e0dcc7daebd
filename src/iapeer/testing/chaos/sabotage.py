"""Carries out the plan's steps, and puts right what has to be put right after each."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from iapeer.storage.ledger.rows import SessionRow

from .disk import StateDisk, Unavailable, failing_syncs
from .fleet import Fleet
from .history import Deed, History
from .plan import Step
from .readers import Inboxes
from .senders import Pace

FAULT_S = 4.0
"""How long a daemon may run towards its fault point; then it is killed where it is."""
FAILURE_S = 1.2
"""How long the disk stays bad."""
RECOVERY_S = 20.0


class Saboteur:
    """One thread does one deed at a time; `counts` says what was done, missed and unavailable."""

    def __init__(
        self, fleet: Fleet, inboxes: Inboxes, disk: StateDisk, history: History, pace: Pace
    ) -> None:
        self._fleet = fleet
        self._pace = pace
        self._inboxes = inboxes
        self._disk = disk
        self._history = history
        self._stopped: dict[int, int] = {}
        self._timers: list[threading.Timer] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.kills = 0
        self._deeds: dict[str, Callable[[Step], tuple[str, str]]] = {
            "daemon_kill": self._daemon_kill,
            "daemon_term": self._daemon_term,
            "fault": self._fault,
            "agent_kill": lambda step: self._kill_session(step, "pane"),
            "server_kill": lambda step: self._kill_session(step, "server"),
            "server_stop": self._server_stop,
            "reader_drop": self._reader_drop,
            "disk_full": self._disk_full,
        }

    def do(self, step: Step) -> None:
        """Do one step and write it down. Raises AssertionError when the daemon stays away."""
        self._fleet.ensure_up()
        began = time.time()
        outcome, target = "done", ""
        detail = ""
        try:
            if step.kind == "fsync_error":
                began, ended, target = self._fsync_error()
            else:
                outcome, target = self._deeds[step.kind](step)
                ended = time.time()
        except Unavailable as error:
            outcome, ended, detail = "unavailable", time.time(), str(error)
        self.counts[step.fault or step.kind, outcome] += 1
        # A daemon that misses its fault point is killed where it is.
        self.kills += step.is_kill
        self._history.add(
            Deed(
                kind=step.kind,
                target=target,
                outcome=outcome,  # type: ignore[arg-type] # one of the three by the methods below
                began=began,
                ended=ended,
                detail=detail,
            )
        )

    def end(self) -> None:
        """Let every stopped program go on."""
        for timer in self._timers:
            timer.cancel()
        for pid, start in self._stopped.items():
            self._fleet.signal_if_same(pid, start, signal.SIGCONT)

    def _daemon_kill(self, step: Step) -> tuple[str, str]:
        with self._fleet.exclusively():
            self._fleet.kill()
            # Sometimes the world goes on for a while without a daemon.
            time.sleep(step.pick if step.pick > 0.8 else 0.0)
            self._fleet.start()
        return "done", "daemon"

    def _daemon_term(self, _step: Step) -> tuple[str, str]:
        with self._fleet.exclusively():
            status = self._fleet.kill(signal.SIGTERM)
            if status:
                self._fleet.misdeeds.append(f"ended with exit status {status} at SIGTERM")
            self._fleet.start()
        return "done", f"daemon, exit status {status}"

    def _fault(self, step: Step) -> tuple[str, str]:
        """Restart the daemon so that it dies at the point; give it work that leads there."""
        if step.fault.startswith("offline."):
            return self._command_fault(step.fault)
        with self._fleet.exclusively():
            self._fleet.kill()
            if step.fault.startswith("launch."):
                for row in self._fleet.live_sessions():
                    self._signal(row, "server", signal.SIGKILL)
            died = not self._fleet.start(step.fault)
            deadline = time.monotonic() + FAULT_S
            while not died and time.monotonic() < deadline:
                died = self._fleet.pid is None
                self._pace.nudge()
                time.sleep(0.02)
            self._fleet.kill()
            self._fleet.start()
        return ("done" if died else "missed"), step.fault

    def _command_fault(self, point: str) -> tuple[str, str]:
        """Let a command that writes without a daemon die at the point."""
        with self._fleet.exclusively():
            self._fleet.kill()
            self._fleet.give_command_fault(point)
            deadline = time.monotonic() + FAULT_S
            while not self._fleet.command_died.is_set() and time.monotonic() < deadline:
                self._pace.nudge()
                time.sleep(0.02)
            died = self._fleet.command_died.is_set()
            self._fleet.take_command_fault()
            self._fleet.start()
        return ("done" if died else "missed"), point

    def _kill_session(self, step: Step, which: str) -> tuple[str, str]:
        row = self._pick(step)
        if row is None or not self._signal(row, which, signal.SIGKILL):
            self._daemon_kill(step)
            return "missed", f"{which}; the daemon instead"
        return "done", f"{which} of {row.runtime}-{row.personality}"

    def _server_stop(self, step: Step) -> tuple[str, str]:
        """Freeze a tmux server for a while; a stopped agent it would set going again at once."""
        row = self._pick(step)
        if row is None or not self._signal(row, "server", signal.SIGSTOP):
            return "missed", "server"
        pid, start = row.server_pid or 0, int(row.server_start or 0)
        self._stopped[pid] = start
        seconds = 0.3 + step.pick * 4
        timer = threading.Timer(seconds, self._fleet.signal_if_same, (pid, start, signal.SIGCONT))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)
        return "done", f"server of {row.runtime}-{row.personality} for {seconds:.1f} s"

    def _reader_drop(self, step: Step) -> tuple[str, str]:
        names = self._fleet.inboxes
        if not names:
            return "missed", "inbox"
        name = names[int(step.pick * len(names))]
        self._inboxes.drop(name)
        return "done", name

    def _disk_full(self, _step: Step) -> tuple[str, str]:
        with self._fleet.exclusively():
            pid = self._fleet.pid
            if pid is None:
                return "missed", self._disk.means
            with self._disk.full(pid):
                self._go_on(FAILURE_S)
            self._see_recovery("a full disk")
        return "done", self._disk.means

    def _fsync_error(self) -> tuple[float, float, str]:
        with self._fleet.exclusively():
            pid = self._fleet.pid
            if pid is None:
                raise Unavailable("no daemon")
            with failing_syncs(pid) as (began, until):
                self._go_on(FAILURE_S)
            self._see_recovery("failing syncs")
        return began, until[0], "daemon"

    def _go_on(self, seconds: float) -> None:
        """Let that time pass with messages on their way."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._pace.nudge()
            time.sleep(0.02)

    def _see_recovery(self, what: str) -> None:
        """See that messages are accepted again by themselves, without a restart."""
        before, deadline = self._pace.accepted, time.monotonic() + RECOVERY_S
        while self._pace.accepted == before and not self._pace.is_over:
            if time.monotonic() > deadline:
                self._fleet.misdeeds.append(f"accepted nothing for {RECOVERY_S:g} s after {what}")
                return
            self._pace.nudge()
            time.sleep(0.02)

    def _pick(self, step: Step) -> SessionRow | None:
        rows = self._fleet.live_sessions()
        return rows[int(step.pick * len(rows))] if rows else None

    def _signal(self, row: SessionRow, which: str, number: signal.Signals) -> bool:
        """Signal the server or the program of a session, as the ledger knows it."""
        pid, start = (
            (row.server_pid, row.server_start)
            if which == "server"
            else (row.pane_pid, row.pane_start)
        )
        if not pid or start is None:
            return False
        return self._fleet.signal_if_same(pid, int(start), number)
