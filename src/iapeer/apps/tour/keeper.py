"""Owns the throw-away root and clears it away, however the tour ends: `kill -9` included.

    python -m iapeer.apps.tour.keeper

Makes the root, prints its path and waits for the end of its stdin, which comes when the tour
closes its end of the pipe or dies. Then it ends what runs there in order (sessions by
`iapeer stop --all`, the daemon by SIGTERM), kills what is left, removes the folder and prints a
`Report` as JSON. It is a session of its own: no Ctrl-C of the terminal reaches it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import msgspec
import psutil

from iapeer.core import env

from .leftovers import Seen, is_running, processes_of

SHORT = "/tmp"  # noqa: S108 - a unix socket's path holds 107 bytes; a TMPDIR may use up most of them
STOP_S = 10.0
TERM_S = 6.0
"""How long the daemon may take: its own stop is bounded by 5 s."""
KILL_S = 3.0
_LOOK_S = 0.1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was cleared away. `left` is empty unless something survived SIGKILL."""

    ended: tuple[Seen, ...]
    left: tuple[Seen, ...]
    removed: bool


def root_of(base: Path) -> Path:
    """Return the iapeer root in a throw-away folder."""
    return base / "root"


def iapeer_argv(*words: str) -> list[str]:
    """Return the argv of an `iapeer` command line; -P: the folder can't shadow a module."""
    return [sys.executable, "-P", "-m", "iapeer", *words]


def environment(base: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without what belongs to another root, session or terminal, on this root."""
    foreign = {*env.PEER_VARIABLES, "TMUX", "TMUX_PANE"}
    kept = {
        name: value
        for name, value in environ.items()
        if name not in foreign and (not name.startswith("IAPEER_") or name == env.TMUX)
    }
    return {**kept, env.ROOT: str(root_of(base))}


def clean(base: Path) -> Report:
    """End every process of the root and remove the folder; bounded by 20 s, safe to repeat."""
    root = root_of(base)
    seen = {found for _process, found in processes_of(root)}
    if any(found.what == "daemon" for found in seen):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                iapeer_argv("stop", "--all"),
                env=environment(base, os.environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=STOP_S,
                check=False,
            )
    seen |= _end(root, signal.SIGTERM, TERM_S)
    seen |= _end(root, signal.SIGKILL, KILL_S)
    with contextlib.suppress(OSError):
        shutil.rmtree(base)
    return Report(
        ended=tuple(sorted(found for found in seen if not is_running(found))),
        left=tuple(sorted(found for found in seen if is_running(found))),
        removed=not base.exists(),
    )


def main() -> int:
    """Hold one root until the tour is over; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _let_go)
    base = Path(tempfile.mkdtemp(prefix="iap-", dir=SHORT))
    try:
        # With the tour dead there is nobody to read this, and all the more to clear away.
        with contextlib.suppress(BrokenPipeError):
            print(base, flush=True)
        sys.stdin.buffer.read()
    except _Ended:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report = clean(base)
    with contextlib.suppress(BrokenPipeError):
        os.write(1, msgspec.json.encode(report) + b"\n")
    return 0 if report.removed and not report.left else 1


class _Ended(Exception):
    """The host goes down, or somebody ends the keeper: the root goes with it."""


def _let_go(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


def _end(root: Path, number: signal.Signals, grace_s: float) -> set[Seen]:
    """Signal the root's processes once each, until none is left or the time is over.

    Looks again after each wait: a session that was just being born appears late.
    """
    told: set[Seen] = set()
    until = time.monotonic() + grace_s
    while time.monotonic() < until:
        found = list(processes_of(root))
        if not found:
            break
        for process, seen in found:
            if seen not in told:
                told.add(seen)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        psutil.wait_procs([process for process, _seen in found], timeout=_LOOK_S)
    return told


if __name__ == "__main__":
    sys.exit(main())
