"""The daemon at rest: memory alone and for each live session, processor time and wake-ups."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.figures import Budget, Figure, Row, Size, spread
from benchmarks.house import house, live_sessions, wake
from iapeer.testing.daemon import TestDaemon

SESSIONS = 100
REST_S = 75.0
"""Longer than one audit interval (60 s), so that an audit is in it."""
_QUIET_S = 5.0
_IMPORTS = "import iapeer.host.run, iapeer.cli.daemonctl, iapeer.cli.verbs"
_MIB = 1 << 20


def rest(size: Size) -> list[Figure]:
    """One house: measured empty, then with all its sessions live."""
    sessions = size.times(SESSIONS, least=4)
    with house(peers=sessions) as daemon:
        time.sleep(_QUIET_S)
        pid = _pid(daemon)
        empty = _uss(pid)
        idle = _idle(pid, size)
        wake(daemon, [f"p{number}" for number in range(sessions)])
        time.sleep(_QUIET_S)
        live = live_sessions(daemon)
        if len(live) != sessions:
            raise RuntimeError(f"{len(live)} of {sessions} sessions live")
        others = _others(daemon, {row.pane_pid for row in live if row.pane_pid})
        full = _uss(pid)
        busy = _idle(pid, size, others)
        around = sum(map(_pss, others)) / sessions
    inside = (full - empty) / sessions
    note = (
        f"{sessions} sessions of a line-reading program (`cat`): daemon "
        f"{inside / _MIB:.2f} MiB each, tmux server, control client and "
        f"recorder {around / _MIB:.2f} MiB each (PSS)"
    )
    return [
        Figure(
            row="rest",
            what="daemon memory idle (USS)",
            limit_what="python with the same imports",
            unit="MiB",
            limit=spread([_same_imports() / _MIB]),
            ours=spread([empty / _MIB]),
            budget=Budget(ratio=1.3),
        ),
        Figure(
            row="rest",
            what="memory per live session beyond the agent",
            unit="MiB",
            ours=spread([(inside + around) / _MIB]),
            budget=Budget(most=2.5),
            note=note,
        ),
        *_figures(sessions, idle, busy),
    ]


def _figures(sessions: int, idle: _Rest, busy: _Rest) -> list[Figure]:
    return [
        Figure(
            row="rest",
            what=f"daemon idle with {sessions} live sessions: processor",
            unit="% of a core",
            ours=spread([busy.percent]),
            budget=Budget(most=0.5),
            note=f"without a session {idle.percent:.2f} %; all of tmux and the recorders together "
            f"{busy.others_percent:.2f} %; over {busy.seconds:.0f} s, an audit among them",
        ),
        Figure(
            row="rest",
            what=f"daemon idle with {sessions} live sessions: wake-ups",
            unit="/s",
            ours=spread([busy.wakeups]),
            budget=Budget(most=5),
            note=f"voluntary context switches of all its threads; without a session "
            f"{idle.wakeups:.2f} /s",
        ),
    ]


class _Rest:
    """What was used between two looks."""

    def __init__(self, pid: int, others: Sequence[int]) -> None:
        self._pid, self._others = pid, others
        self._began = time.monotonic()
        self._first = self._look()
        self.seconds = self.percent = self.wakeups = self.others_percent = 0.0

    def end(self) -> None:
        """Look again and keep the difference, per second."""
        self.seconds = time.monotonic() - self._began
        used, woken, others = (
            after - before for before, after in zip(self._first, self._look(), strict=True)
        )
        self.percent = used / self.seconds * 100
        self.wakeups = woken / self.seconds
        self.others_percent = others / self.seconds * 100

    def _look(self) -> tuple[float, float, float]:
        tasks = list(Path(f"/proc/{self._pid}/task").iterdir())
        switches = sum(_switches(task / "status") for task in tasks)
        return (
            sum(_cpu_s(task) for task in tasks),
            switches,
            sum(_cpu_s(Path(f"/proc/{pid}")) for pid in self._others),
        )


def _idle(pid: int, size: Size, others: Sequence[int] = ()) -> _Rest:
    watched = _Rest(pid, others)
    time.sleep(max(3.0, REST_S * min(1.0, size.factor)) if others else _QUIET_S)
    watched.end()
    return watched


def _pid(daemon: TestDaemon) -> int:
    if daemon.process is None:
        raise RuntimeError("no daemon")
    return daemon.process.pid


def _others(daemon: TestDaemon, programs: set[int]) -> list[int]:
    """Return the ids of every process that works for this house, but daemon and programs."""
    mark = str(daemon.base)
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in programs
        and process.pid != _pid(daemon)
        and any(mark in word for word in process.info["cmdline"] or ())
    ]


def _same_imports() -> float:
    """Return the USS of an interpreter that imported what the daemon imports and does nothing."""
    script = f"{_IMPORTS}\nimport sys\nprint('there', flush=True)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        if process.stdout is None or process.stdout.readline() != b"there\n":
            raise RuntimeError("the imports failed")
        return _uss(process.pid)
    finally:
        process.communicate()


def _uss(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss)


def _pss(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().pss)


def _cpu_s(task: Path) -> float:
    """Return the seconds a task ran; the first field of `schedstat` is nanoseconds."""
    return int((task / "schedstat").read_text().split()[0]) / 1e9


def _switches(status: Path) -> int:
    lines = status.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("voluntary_")).split()[1])


ROWS = (Row("rest", rest),)
