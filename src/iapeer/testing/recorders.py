"""The recorders of a throw-away root: they outlive its daemon, and its maker ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from iapeer.sessions.process import is_alive, start_time
from iapeer.storage.paths import Paths

LEAVE_S = 10.0
"""A recorder whose server died writes its report first: that takes 2 s, a cold interpreter and a
look at the machine."""
DISMISS_S = 1.0
"""One that is dismissed leaves after 2 ms."""
_POLL_S = 0.01
_REPORT = "iapeer.sessions.forensics"


@dataclass(frozen=True)
class Recorder:
    """A process of a root's recorder script; `server` is the (pid, start) it waits for.

    `server` is None for the rest: what tmux runs when a program ends, and the writer of a report.
    """

    pid: int
    start: int
    server: tuple[int, int] | None

    def is_running(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return is_alive(self.pid, self.start)


def recorders(root: Path) -> Iterator[Recorder]:
    """Yield what runs of the recorders of `root`. Reads the whole process table."""
    script = str(Paths(root).canary_script)
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        is_ours = words[1:2] == [script] or (_REPORT in words and str(root) in words)
        start = start_time(process.pid) if is_ours else None
        if start is not None and is_alive(process.pid, start):
            yield Recorder(process.pid, start, _server_in(words))


def end_recorders(root: Path) -> None:
    """End all recorders of a `root` that nobody needs any more; bounded.

    They are dismissed: of a server that ends after this comes no report. One that is writing its
    report already can't be dismissed, and is killed a moment later.
    """
    began = time.monotonic()
    told: set[Recorder] = set()
    while (left := list(recorders(root))) and time.monotonic() < began + LEAVE_S:
        late = time.monotonic() > began + DISMISS_S
        for found in left:
            if late:
                _signal(found, signal.SIGKILL)
            elif found.server is not None and found not in told:
                _signal(found, signal.SIGTERM)
        told.update(left)
        time.sleep(_POLL_S)


def _server_in(words: list[str]) -> tuple[int, int] | None:
    """Return the server on the command line of one that watches."""
    # sh, the script, then: watch <channel> <socket> <server> <started> ...
    if words[2:3] != ["watch"] or not all(word.isdigit() for word in words[5:7]):
        return None
    return int(words[5]), int(words[6])


def _signal(found: Recorder, number: signal.Signals) -> None:
    if found.is_running():
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, number)
