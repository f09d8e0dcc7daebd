"""How soon the daemon says that a killed tmux server is dead; the limit is a bare pidfd.

What counts is what a reader of `lifecycle.log` can see: the file is polled from another
process, which adds up to `_POLL_S` to each figure of ours and nothing to the limit.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Budget, Figure, Row, Size, spread
from benchmarks.house import LINE, house, session_of, wake
from iapeer.sessions.process import DeathWatch, start_time
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon

_POLL_S = 0.0001
_PATIENCE_S = 10.0
_EVENTS = (b" ev=death ", b" ev=end ")


def death(size: Size) -> list[Figure]:
    """A server of ours and one that nobody else knows are killed by turns."""
    names = [f"p{number}" for number in range(size.times(20))]
    limit, ours, watched = [], [], []
    with house(peers=len(names)) as daemon, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        wake(daemon, names)
        time.sleep(1)
        for name in names:
            limit.append(_kill(Path(folder) / f"{name}.sock", _pidfd))
            watched.append(_kill(Path(folder) / f"w{name}.sock", _death_watch))
            ours.append(_ours(daemon, name))
    said, settled, kernel = zip(*ours, strict=True)
    note = "the line `ev=death`: what ended, and its pid; a bare pidfd of the very same server, "
    note += f"which has clients and dies slower, tells after {spread(kernel, 1000).median:.2f} ms"
    what = "kill -9 of a tmux server -> the daemon's word of it"
    rows = (
        (what, said, Budget(ratio=10, most=10), note),
        (
            "the same until it is settled",
            settled,
            Budget(most=10),
            "the line `ev=end`: its messages given back, its end and cause in the ledger",
        ),
        (
            "the same until the daemon's death watch calls back",
            watched,
            Budget(ratio=10, most=10),
            "measured outside of a daemon",
        ),
    )
    return [
        Figure(
            row="death",
            what=name,
            limit_what="a bare pidfd in asyncio",
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(samples, 1000),
            budget=budget,
            note=words,
        )
        for name, samples, budget, words in rows
    ]


def _kill(socket: Path, watch: Callable[[int, asyncio.Event], Callable[[], None]]) -> float:
    """Start a tmux server, kill it, return the seconds until the watcher tells."""
    tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
    subprocess.run([*tmux, "new-session", "-d", "cat"], check=True)
    shown = subprocess.run(
        [*tmux, "display-message", "-p", "#{pid}"], check=True, capture_output=True
    )
    pid = int(shown.stdout)

    async def kill() -> float:
        gone = asyncio.Event()
        end = watch(pid, gone)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await gone.wait()
        taken = time.perf_counter() - began
        end()
        return taken

    return asyncio.run(kill())


def _pidfd(pid: int, gone: asyncio.Event) -> Callable[[], None]:
    loop = asyncio.get_running_loop()
    handle = os.pidfd_open(pid)
    loop.add_reader(handle, gone.set)

    def end() -> None:
        loop.remove_reader(handle)
        os.close(handle)

    return end


def _death_watch(pid: int, gone: asyncio.Event) -> Callable[[], None]:
    start = start_time(pid)
    if start is None:
        raise RuntimeError(f"process {pid} is gone already")
    deaths = DeathWatch()
    deaths.watch(pid, start, gone.set)
    return deaths.close


def _ours(daemon: TestDaemon, name: str) -> tuple[float, float, float]:
    """Kill a session's server; return the seconds until its `death` and its `end` are written.

    The third are those until a pidfd of our own tells of it, looked at as often as the log is.
    """
    pid = session_of(daemon, name).server_pid
    if pid is None:
        raise RuntimeError(f"{name} has no server")
    found: dict[bytes, float] = {}
    told: float | None = None
    with Paths(daemon.root).lifecycle_log.open("rb") as log, os.fdopen(os.pidfd_open(pid)) as gone:
        log.seek(0, os.SEEK_END)
        owner = f" identity={LINE}-{name} ".encode()
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        said = b""
        while told is None or len(found) < len(_EVENTS):
            taken = time.perf_counter() - began
            if told is None and select.select([gone], [], [], 0)[0]:
                told = taken
            if taken > _PATIENCE_S:
                raise RuntimeError(f"only {sorted(found)} was said about the death of {name}")
            said += log.read()
            mine = [line for line in said.splitlines() if owner in line]
            for event in _EVENTS:
                if any(event in line for line in mine):
                    found.setdefault(event, time.perf_counter() - began)
            time.sleep(_POLL_S)
    word, end = (found[event] for event in _EVENTS)
    return word, end, told


ROWS = (Row("death", death),)
