"""Which processes belong to a throw-away root, and whether one still runs; found, never guessed.

A process belongs to the root if its environment says so (daemon, agents and whatever they start
inherit `IAPEER_ROOT`), if it is a tmux on a socket below it (a tmux server's environment is an
allow list) or the recorder of such a server's death, whose script lies below it. A shell that
merely stands in the folder does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil

from iapeer.core import env
from iapeer.storage.paths import Paths

_CLOCK_S = 2.0
"""psutil adds ticks to the boot time, which moves by a second when the clock is set; no pid is
used again that soon."""


class Seen(msgspec.Struct, frozen=True, order=True):
    """A process as it was seen; pid and start (seconds since the epoch) make it unmistakable."""

    pid: int
    started: float
    what: str


def processes_of(root: Path) -> Iterator[tuple[psutil.Process, Seen]]:
    """Yield the living processes of this account that belong to `root`, but for the caller."""
    me, uid = os.getpid(), os.getuid()
    for process in psutil.process_iter():
        try:
            if process.pid == me or process.uids().real != uid:
                continue
            with process.oneshot():
                what = _role(process, root)
                if what and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, Seen(process.pid, process.create_time(), what)
        except psutil.Error:
            continue  # it ended meanwhile, or is none of ours


def is_running(seen: Seen) -> bool:
    """Tell whether exactly this process still runs; a zombie does not."""
    try:
        process = psutil.Process(seen.pid)
        same = abs(process.create_time() - seen.started) < _CLOCK_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _role(process: psutil.Process, root: Path) -> str:
    """Return what the process is for the root; empty when it does not belong to it."""
    argv = process.cmdline()
    sockets = [after for flag, after in pairwise(argv) if flag == "-S"]
    if argv and Path(argv[0]).name == "tmux":
        if not any(Path(socket).is_relative_to(root) for socket in sockets):
            return ""
        return "tmux client" if "-C" in argv else "tmux server"
    if argv[1:2] == [str(Paths(root).canary_script)]:
        return "recorder"
    environ = process.environ()
    if environ.get(env.ROOT) != str(root):
        return ""
    identity = environ.get(env.PEER_IDENTITY)
    if identity:
        return identity
    return "daemon" if "daemon" in argv else "command"
