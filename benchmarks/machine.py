"""The machine a run was made on, in a few words: figures mean nothing without it."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
import psutil


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was there; `load` is the one-minute average when the run began, `fsync_ms` a median."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    tmux: str
    sqlite: str
    fsync_ms: float
    load: float
    date: str

    def words(self) -> str:
        """Return all of it as one sentence."""
        return (
            f"{self.date}: {self.cores} cores ({self.cpu}), {self.memory_gib:.0f} GiB, "
            f"{self.system}, Python {self.python}, {self.tmux}, SQLite {self.sqlite}; append + "
            f"fsync of 2 KB {self.fsync_ms:.2f} ms; load average before the run {self.load:.1f}"
        )


def describe() -> Machine:
    """Look at the machine; takes a tenth of a second."""
    tmux = subprocess.run(["tmux", "-V"], capture_output=True, encoding="utf-8", check=True)
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gib=psutil.virtual_memory().total / 2**30,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        tmux=tmux.stdout.strip(),
        sqlite=sqlite3.sqlite_version,
        fsync_ms=_fsync_ms(),
        load=os.getloadavg()[0],
        date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _fsync_ms() -> float:
    samples = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 2048)
            file.flush()
            os.fsync(file.fileno())
            samples.append(time.perf_counter() - began)
    return statistics.median(samples) * 1000
