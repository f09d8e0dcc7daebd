"""Which processes a test has left: those whose environment names its folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_POLL_S = 0.05
_KILLED_S = 5.0


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the living processes that were started with `home` anywhere in their environment.

    The caller isn't among them, nor what can't be looked at (other users' processes).
    """
    return list(_find(str(home)))


def wait_for_none(home: Path, timeout_s: float = 5.0) -> list[str]:
    """Give the processes of `home` time to end, kill the rest and describe each that was killed."""
    return [described for _, described in end_left(home, timeout_s)]


def end_left(home: Path, timeout_s: float) -> list[tuple[int, str]]:
    """Give the processes of `home` time to end, kill the rest; ids and descriptions of those.

    psutil knows a process by its id and its start time, so nothing else can be hit.
    """
    left = _left_after(home, timeout_s)
    described = [(process.pid, _describe(process)) for process in left]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # Not psutil's wait: it would take the exit status of a child away from whoever started it.
    _left_after(home, _KILLED_S)
    return described


def _left_after(home: Path, timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def _find(home: str) -> Iterator[psutil.Process]:
    me = psutil.Process().pid
    for process in psutil.process_iter():
        if process.pid == me:
            continue
        try:
            values = process.environ().values()
            if any(home in value for value in values):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # Ended meanwhile (a zombie is such a one too), or somebody else's.
            continue


def _describe(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        words = "(ended)"
    return f"{process.pid}: {words[:200]}"
