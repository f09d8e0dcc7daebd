"""What is noted about the host when a tmux server has died; each may fail by itself.

Names of programs are noted, never their arguments: these may hold secrets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROBE_S = 3.0
"""Longest time one probe gets; the others do not wait for it longer."""

TOP = 25
_LINES = 40
_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}

_FAILURES = (OSError, ValueError, LookupError, psutil.Error, subprocess.SubprocessError)

Probe = Callable[[], str]


def run(name: str, probe: Probe, limit_s: float = PROBE_S) -> str:
    """Return a section: its headline, and what the probe found or why it found nothing."""
    found = [f"(nothing within {limit_s:g} s)"]

    def work() -> None:
        try:
            found[0] = probe() or "(nothing)"
        except _FAILURES as error:
            found[0] = f"(not to be had: {type(error).__name__}: {error})"

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    thread.join(limit_s)
    return f"--- {name}\n{found[0].rstrip()}\n"


def host() -> Iterator[tuple[str, Probe]]:
    """Yield the probes of this system by the names of their sections, the most fleeting first."""
    yield "memory", _memory
    if sys.platform == "darwin":
        yield "vm_stat", lambda: _said("vm_stat")
        yield "swapusage", lambda: _said("sysctl", "vm.swapusage")
    else:
        yield "pressure", _pressure
    yield "top-memory", lambda: _top(by_memory=True)
    yield "top-cpu", lambda: _top(by_memory=False)
    yield "load", _load
    yield "disk", _disk
    if sys.platform == "darwin":
        home = Path.home() / "Library/Logs/DiagnosticReports"
        yield "diagnosticreports-user", lambda: _newest(home)
        yield "diagnosticreports-system", lambda: _newest(Path("/Library/Logs/DiagnosticReports"))
    else:
        yield "core-dumps", _core_dumps
        yield "linger", _linger


def _memory() -> str:
    real, swap = psutil.virtual_memory(), psutil.swap_memory()
    return (
        f"total {_mib(real.total)}, available {_mib(real.available)} ({100 - real.percent:.0f} %)\n"
        f"swap {_mib(swap.total)}, used {_mib(swap.used)}"
    )


def _pressure() -> str:
    out = []
    for name in ("memory", "cpu", "io"):
        path = Path("/proc/pressure") / name
        if path.exists():
            out += [f"{name} {line}" for line in path.read_text(encoding="ascii").splitlines()]
    return "\n".join(out)


def _top(*, by_memory: bool) -> str:
    rows = []
    for process in psutil.process_iter(["pid", "ppid", "name", "memory_info", "cpu_times"]):
        info = process.info
        memory = info["memory_info"].rss if info["memory_info"] else 0
        times = info["cpu_times"]
        spent = times.user + times.system if times else 0.0
        rows.append((memory, spent, info["pid"], info["ppid"], info["name"] or "?"))
    rows.sort(key=lambda row: row[0] if by_memory else row[1], reverse=True)
    lines = [f"{'PID':>8} {'PPID':>8} {'RSS':>12} {'CPU s':>9} NAME"]
    lines += [
        f"{pid:>8} {parent:>8} {_mib(memory):>12} {spent:>9.1f} {name}"
        for memory, spent, pid, parent, name in rows[:TOP]
    ]
    return "\n".join(lines)


def _load() -> str:
    one, five, fifteen = os.getloadavg()
    return f"{one:.2f} {five:.2f} {fifteen:.2f}, {os.cpu_count()} processors"


def _disk() -> str:
    out = []
    for path in ("/", "/tmp", str(Path.home())):  # noqa: S108 - looked at, not written to
        usage = shutil.disk_usage(path)
        out.append(f"{path}: {_mib(usage.free)} free of {_mib(usage.total)}")
    return "\n".join(out)


def _core_dumps() -> str:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8").strip()
    listed = ""
    if shutil.which("coredumpctl", path=_ENV["PATH"]):
        listed = _said("coredumpctl", "--no-pager", "--no-legend", "--since=-1h", "list")
    return f"core_pattern: {pattern}\n{listed}"


def _linger() -> str:
    if not shutil.which("loginctl", path=_ENV["PATH"]):
        return ""
    return _said("loginctl", "show-user", str(os.geteuid()), "--property=Linger")


def _newest(folder: Path) -> str:
    found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    return "\n".join(path.name for path in found[:10])


def _said(*argv: str) -> str:
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        timeout=PROBE_S,
        env=_ENV,
        stdin=subprocess.DEVNULL,
    )
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LINES:])


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"
