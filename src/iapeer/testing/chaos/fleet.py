"""The system under test: a throw-away root, its peers, and a daemon that dies and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.errors import StorageError
from iapeer.sessions.process import start_time
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths, launch_env_path
from iapeer.testing.daemon import TestDaemon, run_all

from .options import AGENT_ENV, SETTINGS, ChaosOptions

RESTART_S = 40.0
"""Longest time a daemon may take to come back; then the run fails."""


class Fleet:
    """Names of all peers, and the daemon's process; one thread at a time may change the latter."""

    def __init__(self, options: ChaosOptions, daemon: TestDaemon) -> None:
        self.daemon = daemon
        self.paths = Paths(daemon.root)
        self.agents = [f"agent{n}" for n in range(options.agents)]
        self.inboxes = [f"inbox{n}" for n in range(options.inboxes)]
        self.senders = [f"sender{n}" for n in range(options.senders)]
        self.commanders = [f"shell{n}" for n in range(options.command_senders)]
        self.speakers = self.agents[: options.mcp_senders]
        self.starts = 0
        self.misdeeds: list[str] = []
        """What the daemon did that no history tells: died by itself, did not recover."""
        self.up = threading.Event()
        self.command_died = threading.Event()
        self._command_fault = ""
        self._lock = threading.RLock()

    @property
    def readers(self) -> list[str]:
        """Everybody who gets messages, as personalities."""
        return [*self.agents, *self.inboxes]

    def address(self, personality: str) -> str:
        """Return the identity a personality has here."""
        return f"{'demo' if personality in self.agents else 'api'}-{personality}"

    def prepare(self) -> None:
        """Write the settings and register every peer; nothing runs yet."""
        root = self.daemon.root
        root.mkdir(mode=0o700, exist_ok=True)
        lines = [f"{name} = {value}" for name, value in SETTINGS.items()]
        (root / "iapeer.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        services = [*self.inboxes, *self.senders, *self.commanders]
        calls = [lambda n=name: self.daemon.create(n) for name in self.agents]
        calls += [lambda n=name: self.daemon.create(n, runtime="api") for name in services]
        run_all(calls, workers=4)
        for position, name in enumerate(self.agents):
            path = launch_env_path(self.paths.peer_home(name), "demo")
            path.parent.mkdir(parents=True, exist_ok=True)
            values = AGENT_ENV[position % len(AGENT_ENV)]
            text = "".join(f"{key}={value}\n" for key, value in values.items())
            path.write_text(text, encoding="utf-8")

    def give_command_fault(self, point: str) -> None:
        """Let the next command that sends die at a point; `command_died` tells when it did."""
        self.command_died.clear()
        self._command_fault = point

    def take_command_fault(self) -> str:
        """Return the point the next command shall die at, once."""
        point, self._command_fault = self._command_fault, ""
        return point

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep everybody else from starting or ending the daemon."""
        with self._lock:
            yield

    @property
    def pid(self) -> int | None:
        """The running daemon's process id."""
        process = self.daemon.process
        return process.pid if process is not None and process.poll() is None else None

    def start(self, fault: str = "") -> bool:
        """Start the daemon, to die at a fault point if one is named; True when it answers.

        Without a fault it is tried again until it runs. Raises AssertionError when it does not
        within `RESTART_S`.
        """
        deadline = time.monotonic() + RESTART_S
        while True:
            self.starts += 1
            try:
                self.daemon.start(**({env.FAULT: fault} if fault else {}))
            except AssertionError:
                self._end(signal.SIGKILL)
                if fault:
                    return False
                if time.monotonic() > deadline:
                    raise
            else:
                self.up.set()
                return True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        """End the daemon by a signal and return its exit status, None when none ran."""
        self.up.clear()
        return self._end(number)

    def _end(self, number: signal.Signals) -> int | None:
        process = self.daemon.process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(timeout=30)

    def ensure_up(self) -> None:
        """Start the daemon if it died without being told to; that is remembered."""
        with self._lock:
            process = self.daemon.process
            if process is not None and process.poll() is not None and self.up.is_set():
                self.up.clear()
                self.misdeeds.append(f"died by itself with exit status {process.returncode}")
            if self.pid is None:
                self.start()

    def live_sessions(self) -> list[SessionRow]:
        """Return the ledger's live tmux sessions; empty while it can't be read."""
        if not self.paths.ledger.exists():
            return []
        try:
            with offline_read(self.paths.ledger) as conn:
                return [row for row in rows.live_sessions(conn) if row.socket]
        except StorageError:
            return []

    def signal_if_same(self, pid: int, start: int, number: signal.Signals) -> bool:
        """Send a signal to the process with that id AND start time; False when it is gone."""
        if sys.platform != "linux":
            return _signal_after_a_look(pid, start, number)
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor holds the process: its id can't change hands between look and signal.
            if start_time(pid) != start:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def answers(self) -> bool:
        """Whether the daemon answers a ping now."""
        try:
            hot.request("GET", "/api/v1/ping", socket_path=self.daemon.socket, timeout_s=5)
        except (hot.DaemonUnreachable, hot.BadAnswer):
            return False
        return True


def _signal_after_a_look(pid: int, start: int, number: signal.Signals) -> bool:
    """Do the same where no descriptor can hold a process: as short after the look as can be."""
    try:
        if start_time(pid) != start:
            return False
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
