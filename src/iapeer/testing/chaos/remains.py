"""What still runs when a run is over: each process is known and may, or it is a stray."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psutil

from iapeer.core import env
from iapeer.sessions.process import is_alive, start_time
from iapeer.testing.recorders import LEAVE_S, Recorder, end_recorders, recorders

from .fleet import Fleet
from .history import History, Stray
from .sampler import Sampler

CLIENT_S = 3.0
"""A control client of the daemon that has just ended needs a moment to end too."""
_POLL_S = 0.05
_CONTROL = "-C"
_WAITS = "wait-for"


class Remains:
    """Looks twice: with the daemon gone and the sessions alive, then with these ended too.

    `clients_left` are control clients of killed daemons: they hold nothing and end with their
    server. `recorders_left` are those that watched a session of the ledger at the first look.
    """

    def __init__(self, fleet: Fleet, sampler: Sampler, history: History) -> None:
        self._fleet = fleet
        self._sampler = sampler
        self._history = history
        self.clients_left = 0
        self.recorders_left = 0

    def at_rest(self) -> None:
        """Write down what runs and is neither in the ledger nor watches what is there."""
        known = set(self._known())
        for agent in self._sampler.agents():
            if (agent.pid, agent.start) not in known and is_alive(agent.pid, agent.start):
                self._stray(f"agent of {agent.identity}, {agent.session}")
        self._wait(lambda: not self._needless(known), LEAVE_S)
        watching = [one for one in recorders(self._fleet.daemon.root) if one.server in known]
        self.recorders_left = len(watching)
        for found in self._needless(known):
            self._stray(f"recorder: {_words(found.pid)}")
        may = {*known, *((one.pid, one.start) for one in watching)}
        # The client in which a recorder waits lives and dies with it.
        may |= {pair for pair in self.servers() if _waits_for(pair[0], may)}
        self._look_at_servers(may)

    def at_end(self) -> None:
        """End the sessions; what is there when their recorders had time to report is a stray."""
        for pid, start in self._known():
            self._fleet.signal_if_same(pid, start, signal.SIGKILL)
        self._wait(lambda: not any(self._all()), LEAVE_S)
        for pid, _start in self._all():
            self._stray(f"after the end: {_words(pid)}")

    def clear(self) -> None:
        """End whatever is there, by id with start time.

        That may be a daemon whose start was interrupted: nobody else knows of it.
        """
        end_recorders(self._fleet.daemon.root)
        for pid, start in [*self._all()]:
            self._fleet.signal_if_same(pid, start, signal.SIGKILL)

    def servers(self) -> Iterator[tuple[int, int]]:
        """Yield (pid, start) of every living tmux process on a socket of this root."""
        folder = str(self._fleet.daemon.root)
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            is_tmux = bool(words) and "tmux" in words[0].rpartition("/")[2]
            if is_tmux and any(word.startswith(folder) for word in words):
                start = start_time(process.pid)
                if start is not None and is_alive(process.pid, start):
                    yield process.pid, start

    def _known(self) -> Iterator[tuple[int, int]]:
        """Yield (pid, start) of the servers and agents of the ledger's living sessions."""
        for row in self._fleet.live_sessions():
            for pid, start in (
                (row.server_pid, row.server_start),
                (row.pane_pid, row.pane_start),
            ):
                if pid and start is not None:
                    yield pid, int(start)

    def _all(self) -> Iterator[tuple[int, int]]:
        yield from self.servers()
        yield from ((one.pid, one.start) for one in recorders(self._fleet.daemon.root))
        yield from self._of_root()

    def _of_root(self) -> Iterator[tuple[int, int]]:
        """Yield (pid, start) of all daemons, commands and agents: their environment says so."""
        root = str(self._fleet.daemon.root)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                start = start_time(process.pid)
                is_ours = process.environ().get(env.ROOT) == root
                if is_ours and start is not None and is_alive(process.pid, start):
                    yield process.pid, start

    def _needless(self, known: set[tuple[int, int]]) -> list[Recorder]:
        """Return the recorders that should have ended: no such server, or it has another one."""
        found = list(recorders(self._fleet.daemon.root))
        often = Counter(one.server for one in found)
        return [
            one
            for one in found
            if one.server is None
            or one.server not in known
            or not is_alive(*one.server)
            or often[one.server] > 1
        ]

    def _look_at_servers(self, may: set[tuple[int, int]]) -> None:
        unknown = [server for server in self.servers() if server not in may]
        self._wait(lambda: not any(is_alive(*server) for server in unknown), CLIENT_S)
        for pid, start in unknown:
            words = _words(pid)
            if is_alive(pid, start) and f" {_CONTROL} " in words:
                self.clients_left += 1
            elif is_alive(pid, start):
                self._stray(f"tmux: {words}")

    def _stray(self, detail: str) -> None:
        self._history.add(Stray(detail=detail))

    @staticmethod
    def _wait(what: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not what() and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _waits_for(pid: int, may: set[tuple[int, int]]) -> bool:
    """Whether it is the tmux client of a recorder that may run."""
    try:
        process = psutil.Process(pid)
        parent = process.ppid()
        return _WAITS in process.cmdline() and (parent, start_time(parent)) in may
    except psutil.Error:
        return False


def _words(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        words = " ".join(process.cmdline())[:200]
        age = time.time() - process.create_time()
        return f"{words} (parent {process.ppid()}, {age:.0f} s old, {process.status()})"
    except psutil.Error:
        return "gone meanwhile"
