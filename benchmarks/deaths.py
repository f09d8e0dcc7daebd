"""How soon the daemon says that a killed tmux server is dead; the limit is a bare pidfd."""

from __future__ import annotations

import asyncio
import os
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

_POLL_S = 0.0002
_PATIENCE_S = 10.0


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
    return [
        Figure(
            row="death",
            what="kill -9 of a tmux server -> the daemon's line about it",
            limit_what="a bare pidfd in asyncio",
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(ours, 1000),
            budget=Budget(ratio=10, most=10),
            note="the line in `lifecycle.log`, written when the death is in the ledger",
        ),
        Figure(
            row="death",
            what="the same until the daemon's death watch calls back",
            limit_what="a bare pidfd in asyncio",
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(watched, 1000),
            budget=Budget(ratio=10, most=10),
        ),
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


def _ours(daemon: TestDaemon, name: str) -> float:
    pid = session_of(daemon, name).server_pid
    if pid is None:
        raise RuntimeError(f"{name} has no server")
    with Paths(daemon.root).lifecycle_log.open("rb") as log:
        log.seek(0, os.SEEK_END)
        wanted = f"identity={LINE}-{name}".encode()
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        said = b""
        while wanted not in said:
            if time.perf_counter() - began > _PATIENCE_S:
                raise RuntimeError(f"nothing was said about the death of {name}")
            time.sleep(_POLL_S)
            said += log.read()
        return time.perf_counter() - began


ROWS = (Row("death", death),)
