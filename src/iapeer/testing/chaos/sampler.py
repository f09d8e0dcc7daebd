"""Looks at the process table all the time: two sessions of one identity, texts on command lines."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from iapeer.core import env
from iapeer.sessions.process import is_alive, start_time

from .bodies import MARKER
from .fleet import Fleet
from .history import History, Leak, Twins

EVERY_S = 0.4
_AGENT = "iapeer.apps.demo_agent"


@dataclass(frozen=True)
class Agent:
    """A running agent program of this root."""

    pid: int
    start: int
    identity: str
    session: str


class Sampler:
    """One thread; `samples` says how often it looked."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._fleet = fleet
        self._history = history
        self._stop = threading.Event()
        self._leaks: set[str] = set()
        self._twins: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.samples = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; bounded."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        """Take one sample and write down what is wrong."""
        self.samples += 1
        by_identity: dict[str, list[Agent]] = defaultdict(list)
        for agent in self.agents():
            by_identity[agent.identity].append(agent)
        for identity, found in by_identity.items():
            if len({agent.session for agent in found}) > 1 and _overlap(found):
                self._note_twins(identity, "run", sorted(agent.session for agent in found))
        rows: dict[str, list[str]] = defaultdict(list)
        for row in self._fleet.live_sessions():
            rows[f"{row.runtime}-{row.personality}"].append(row.id)
        for identity, ids in rows.items():
            if len(ids) > 1:
                self._note_twins(identity, "are open in the ledger", sorted(ids))

    def _note_twins(self, identity: str, how: str, sessions: list[str]) -> None:
        detail = f"{', '.join(s[:8] for s in sessions)} {how}"
        if (identity, detail) not in self._twins:
            self._twins.add((identity, detail))
            self._history.add(Twins(identity=identity, detail=detail, at=time.time()))

    def agents(self) -> Iterator[Agent]:
        """Yield every running agent of this root; bodies on any command line are noted."""
        root = str(self._fleet.daemon.root)
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if any(MARKER in word for word in words):
                    self._note_leak(words)
                if _AGENT not in words:
                    continue
                variables = process.environ()
            except psutil.Error:
                continue
            start = start_time(process.pid)
            if start is not None and variables.get(env.ROOT) == root:
                identity = variables.get(env.PEER_IDENTITY, "")
                yield Agent(process.pid, start, identity, variables.get(env.SESSION_ID, ""))

    def _note_leak(self, words: list[str]) -> None:
        where = f"command line of {words[0]} {words[1] if len(words) > 1 else ''}"
        if where not in self._leaks:
            self._leaks.add(where)
            self._history.add(Leak(where=where))

    def read_logs(self) -> None:
        """Look for bodies in the logs, once all of them are written.

        Pane logs hold screens by design, with the mode of one; nothing else may.
        """
        paths = self._fleet.paths
        logs = [p for p in paths.logs.rglob("*") if p.is_file()]
        for path in [*logs, self._fleet.daemon.base / "daemon.err"]:
            if path.exists() and MARKER.encode() in path.read_bytes():
                self._history.add(Leak(where=f"log {path.name}"))


def _overlap(found: list[Agent]) -> bool:
    """Prove that two of different sessions live at one moment: alive, the other, alive again."""
    for first in found:
        for second in found:
            if first.session != second.session and (
                is_alive(first.pid, first.start)
                and is_alive(second.pid, second.start)
                and is_alive(first.pid, first.start)
            ):
                return True
    return False
