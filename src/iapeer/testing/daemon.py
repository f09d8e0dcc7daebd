"""A real daemon on a throw-away root, for tests: start, ask, kill, restart, leave nothing.

Everything goes over the public ways in: the command line and the unix socket. What a test
leaves behind is ended by process id with start time: the sessions that the ledger knows, and then
every process that was started with this root's folder in its environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iapeer.client import hot
from iapeer.core import env
from iapeer.sessions.process import is_alive, start_time
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.locks import TryLock, holder_pid
from iapeer.storage.paths import Paths

from .leaks import end_left
from .recorders import end_recorders

START_S = 30.0
"""A cold interpreter on a busy machine imports for several seconds."""
WAIT_S = 45.0
"""An event that has not come by then does not come; a busy machine takes its time."""
POLL_S = 0.02
LEAVE_S = 1.0
"""What ends because its server, its daemon or its terminal did is gone in a few milliseconds."""


class AskFailed(AssertionError):
    """The daemon refused; `error` is its answer's error object."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status
        self.error = error


def free_port() -> int:
    """Return a TCP port that was free a moment ago; for daemons that are restarted on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    what: Callable[[], Any], timeout_s: float = WAIT_S, reason: str | Callable[[], str] = ""
) -> Any:
    """Ask until the answer is truthy and return it. Raises AssertionError at the time-out.

    `reason`, what was waited for; one that tells how things stand is called at the time-out.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > deadline:
            told = reason() if callable(reason) else reason
            raise AssertionError(f"not within {timeout_s} s: {told or what}")
        time.sleep(POLL_S)


@dataclass
class TestDaemon:
    """One root and the daemon that serves it, if any."""

    __test__ = False

    base: Path
    port: int
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @classmethod
    def make(cls, **variables: str) -> TestDaemon:
        """Make a short private root with a port of its own; nothing runs yet."""
        base = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
        (base / "h").mkdir(mode=0o700)
        return cls(base=base, port=free_port(), variables=variables)

    @property
    def root(self) -> Path:
        """The root under test."""
        return self.base / "r"

    @property
    def environ(self) -> dict[str, str]:
        """A clean environment: this root, this HOME, nothing of a surrounding agent."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            env.HOME: str(self.base / "h"),
            env.ROOT: str(self.root),
            env.PORT: str(self.port),
            env.TEST_SANDBOX: "1",
            **self.variables,
        }

    def run(
        self, *words: str, expect: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command line; `expect` is its exit status, None for any."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "iapeer", *words],
            env={**self.environ, **variables},
            cwd=self.base,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        if expect is not None:
            assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stderr}"
        return done

    def create(self, *names: str, runtime: str = "demo") -> None:
        """Register peers of one runtime."""
        for name in names:
            self.run("create", name, "--runtime", runtime)

    def start(self, **variables: str) -> None:
        """Start the daemon and wait for its READY line."""
        log = self.base / "daemon.err"
        with log.open("a", encoding="utf-8") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "iapeer", "daemon"],
                env={**self.environ, **variables},
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                encoding="utf-8",
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                hot.request("GET", "/api/v1/ping", socket_path=self.socket, timeout_s=5)
            except (hot.DaemonUnreachable, hot.BadAnswer):
                assert self.process.poll() is None, f"daemon ended:\n{self.errors()}"
                assert time.monotonic() < deadline, f"daemon not ready:\n{self.errors()}"
                time.sleep(POLL_S)
            else:
                return

    @property
    def socket(self) -> str:
        """Where the daemon listens."""
        return str(self.root / "state" / "iapeer" / "router.sock")

    def errors(self) -> str:
        """What the daemon said on stderr so far."""
        log = self.base / "daemon.err"
        return log.read_text(encoding="utf-8") if log.exists() else ""

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        """Make one request on the unix socket. Raises AskFailed when it is refused."""
        status, answer = hot.request(
            method, path, body, socket_path=self.socket, headers=headers, timeout_s=60
        )
        assert isinstance(answer, dict)
        if status >= 400:
            raise AskFailed(status, answer["error"])
        return answer

    def send(self, to: str, message: str, sender: str, **more: Any) -> dict[str, Any]:
        """Send as the operator in a registered peer's name."""
        return self.ask(
            "POST", "/api/v1/send", {"to": to, "message": message, "from": sender, **more}
        )

    def state(self, message_id: str) -> str:
        """Return the state of one message."""
        return str(self.trace(message_id)["state"])

    def trace(self, message_id: str) -> dict[str, Any]:
        """Return the way of one message."""
        found: dict[str, Any] = self.ask("GET", f"/api/v1/messages/{message_id}")["message"]
        return found

    def wait_state(self, message_id: str, *states: str, timeout_s: float = WAIT_S) -> str:
        """Wait until a message is in one of the states, and return it."""
        found: str = wait_until(
            lambda: (s := self.state(message_id)) in states and s,
            timeout_s,
            f"{message_id} to be {states}",
        )
        return found

    def records(self, personality: str, runtime: str = "demo") -> list[dict[str, Any]]:
        """Return what a demo agent wrote down, over all its sessions in order of time."""
        folder = self.root / "peers" / personality / ".iapeer" / "state" / runtime
        found = []
        for path in sorted(folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime):
            # Not splitlines: a text may hold U+2028, and the last line may be half written.
            lines = path.read_bytes().split(b"\n")[:-1]
            found += [json.loads(line) for line in lines]
        return found

    def prompts(self, personality: str) -> list[str]:
        """Return the texts a demo agent was given as user input, in order."""
        return [str(r["text"]) for r in self.records(personality) if r["type"] == "user"]

    def kill(self) -> None:
        """SIGKILL the daemon: no shutdown of any kind."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> int:
        """Ask the daemon to end and return its exit status; sessions go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def session_processes(self) -> list[tuple[int, int]]:
        """Return (pid, start) of every session the ledger ever knew: servers and programs."""
        ledger = Paths(self.root).ledger
        if not ledger.exists():
            return []
        with offline_read(ledger) as conn:
            found = rows.all_sessions(conn)
        pairs = [(r.server_pid, r.server_start) for r in found]
        pairs += [(r.pane_pid, r.pane_start) for r in found]
        return [(pid, int(start)) for pid, start in pairs if pid and start is not None]

    def owner(self) -> tuple[int, int] | None:
        """Return (pid, start) of the daemon that owns the root, also one started on demand.

        One that is just starting is waited for.
        """
        paths = Paths(self.root)
        if not paths.state.is_dir():
            return None
        wait_until(lambda: _is_free(paths.start_lock), START_S, "a starting daemon to answer")
        if _is_free(paths.daemon_lock):
            return None
        pid = holder_pid(paths.daemon_lock)
        start = start_time(pid) if pid else None
        return (pid, start) if pid and start is not None else None

    def end_owner(self) -> bool:
        """End the daemon that owns the root, if any, and wait until it is gone."""
        found = self.owner()
        if found is None:
            return False
        os.kill(found[0], signal.SIGTERM)
        wait_until(lambda: not is_alive(*found), reason="the daemon to end")
        return True

    def clean_up(self) -> list[int]:
        """End everything and remove the root; returns ids of processes that had to be killed."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)
        self.end_owner()
        # Before the servers: what is done to these is nothing to report.
        end_recorders(self.root)
        # A command that was under way may have started one meanwhile.
        self.end_owner()
        left = [pair for pair in self.session_processes() if is_alive(*pair)]
        for pid, start in left:
            if is_alive(pid, start):
                os.kill(pid, signal.SIGKILL)
        # A session that was being born when its daemon was killed stands in no ledger.
        unknown = end_left(self.base, LEAVE_S)
        shutil.rmtree(self.base, ignore_errors=True)
        return [pid for pid, _ in left] + [pid for pid, _ in unknown]


def _is_free(path: Path) -> bool:
    lock = TryLock(path)
    mine = lock.acquire()
    lock.release()
    return mine


def run_all(calls: Sequence[Callable[[], Any]], workers: int = 16) -> list[Any]:
    """Call everything at once from threads and return the results in order."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda call: call(), calls))
