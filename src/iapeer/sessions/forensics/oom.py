"""Was it the kernel, for want of memory? Counters of cgroups, and the kernel's own log."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_KMSG = Path("/dev/kmsg")
_KERNEL_MAX_LINES = 5000
_SLACK_S = 10.0
_KILLED = re.compile(r"[Kk]illed process (\d+)|oom-kill:.*\bpid=(\d+)")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Counter(msgspec.Struct, frozen=True):
    """A cgroup's file of out-of-memory kills, empty when there is none, and where it stood."""

    path: str
    kills: int

    def grown(self) -> int:
        """Return how many kills there were since; 0 when nobody knows."""
        now = _kills(Path(self.path)) if self.path else None
        return max(0, now - self.kills) if now is not None else 0


def counter_of(pid: int) -> Counter:
    """Return the counter of the cgroup a process is in, of either version of cgroups."""
    try:
        text = (_PROC / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Counter("", 0)
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            path = _CGROUPS / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            path = _CGROUPS / "memory" / group.lstrip("/") / "memory.oom_control"
        else:
            continue
        found = _kills(path)
        if found is not None:
            return Counter(str(path), found)
    return Counter("", 0)


def named_in(lines: Collection[str], pids: Collection[int]) -> bool:
    """Tell whether the kernel says that it killed one of `pids` for want of memory."""
    for line in lines:
        found = _KILLED.search(line)
        if found is not None and int(found[1] or found[2]) in pids:
            return True
    return False


def kernel_lines(age_s: float) -> list[str]:
    """Return the kernel's log of the last `age_s`, oldest first; never waits.

    Empty where this account may not read it. Older lines are left out: pids come again.
    """
    since = time.monotonic() - age_s - _SLACK_S
    return [f"[{at:.3f}] {text}" for at, text in _read_kmsg(since)]


def _read_kmsg(since: float) -> Iterator[tuple[float, str]]:
    """Yield seconds since the start of the system and text; older lines are not even decoded."""
    try:
        fd = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for _ in range(_KERNEL_MAX_LINES):
            try:
                record = os.read(fd, 8192)
            except BlockingIOError:
                return
            except OSError:
                # EPIPE: overwritten while we read; the next read goes on.
                continue
            at = _seconds(record)
            if at >= since:
                text = record.decode("utf-8", "replace").partition(";")[2]
                yield at, text.splitlines()[0] if text else ""
    finally:
        os.close(fd)


def _seconds(record: bytes) -> float:
    """Return the time of a record: `level,number,microseconds,flags;text`."""
    parts = record.split(b",", 3)
    return int(parts[2]) / 1e6 if len(parts) > 3 and parts[2].isdigit() else 0.0


def _kills(path: Path) -> int | None:
    try:
        found = _COUNT.search(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) if found else None
