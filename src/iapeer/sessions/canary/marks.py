"""Pid files of recorders: who records for a session, told by pid and start time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from iapeer.sessions.process import is_alive, start_time

Process = tuple[int, int]
"""pid and start time, as `sessions.process` reads them."""

_CLOCK_SLACK_S = 1.5


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorder wrote about itself; `recorder` and `client` are None when they are gone.

    `counter` is the cgroup's file of out-of-memory kills, `kills` where it stood at the start.
    """

    recorder: Process | None = None
    client: Process | None = None
    counter: str = ""
    kills: int = 0

    @property
    def watches(self) -> bool:
        """Whether somebody waits for the server's end."""
        return self.recorder is not None and self.client is not None


def read_mark(path: Path) -> Mark | None:
    """Read a pid file and look whether its processes live; None when there is no usable one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found: dict[str, Process | None] = {}
    counter, kills = "", 0
    for text in lines:
        what, _, rest = text.partition(" ")
        number, _, tail = rest.partition(" ")
        if not number.isdigit():
            continue
        if what == "counter":
            counter, kills = tail, int(number)
        else:
            found[what] = living(int(number), tail)
    if not found:
        return None
    return Mark(
        recorder=found.get("recorder"), client=found.get("client"), counter=counter, kills=kills
    )


def living(pid: int, born: str) -> Process | None:
    """Return (pid, start time) when the process that began at `born` still runs.

    `born` is what the script wrote: ticks where there is a `/proc`, else the words of `ps`.
    """
    start = start_time(pid)
    if start is None or not is_alive(pid, start):
        return None
    if born.isdigit():
        return (pid, start) if start == int(born) else None
    try:
        told = time.mktime(time.strptime(born, "%a_%b_%d_%H:%M:%S_%Y"))
    except ValueError:
        return None
    return (pid, start) if abs(told - start / 100) < _CLOCK_SLACK_S else None


def orphans(script: Path, socket: Path, channel: str) -> Iterator[Process]:
    """Find recorders and clients of one identity of one root that have no pid file.

    Whole arguments are compared, so neither a longer name nor an editor that shows these words is
    taken for one. Reads the whole process table (measured: 22 ms with 600 processes).
    """
    import psutil  # noqa: PLC0415 - 6 ms of the daemon's start else

    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if channel not in words:
            continue
        at = words.index(channel)
        is_recorder = str(script) in words[:at] and str(socket) in words[at:]
        is_client = str(socket) in words[:at] and words[at - 1] == "wait-for"
        if is_recorder or is_client:
            start = start_time(process.info["pid"])
            if start is not None:
                yield process.info["pid"], start


def forget(path: Path) -> None:
    """Remove a pid file that nobody needs any more."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
