"""Disks that fail: full, or refusing to sync; each means says when this machine lacks it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

TMPFS_BYTES = 96 << 20
LIMIT_BYTES = 4096
"""With files limited to this, no page of the ledger's log can be written."""
ATTACH_S = 10.0


class Unavailable(Exception):
    """This machine can't do it; the text says why."""


class StateDisk:
    """Where the ledger lies: a small file system of its own, if this machine lets us mount one."""

    def __init__(self, folder: Path, means: Literal["auto", "tmpfs", "rlimit"]) -> None:
        self.folder = folder
        self.means: Literal["tmpfs", "rlimit"] = "rlimit"
        self._want = means

    def mount(self) -> None:
        """Mount it on the (made) folder, if that is wanted and possible.

        Raises Unavailable when it was asked for by name.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._want == "rlimit":
            return
        options = f"size={TMPFS_BYTES},mode=0700,uid={os.getuid()},gid={os.getgid()}"
        why = "no mount program"
        if shutil.which("mount"):
            done = _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder))
            if done.returncode == 0:
                self.means = "tmpfs"
                return
            why = done.stderr.strip()
        if self._want == "tmpfs":
            raise Unavailable(why)

    def unmount(self) -> None:
        """Take it away again; processes that still hold it do not stop that."""
        if self.means == "tmpfs":
            _run("umount", "-l", str(self.folder))
            self.means = "rlimit"

    @contextlib.contextmanager
    def full(self, pid: int) -> Iterator[None]:
        """Let the daemon `pid` find no room for what it writes while the block runs."""
        if self.means == "tmpfs":
            ballast = self.folder / "ballast"
            try:
                _fill(ballast)
                yield
            finally:
                ballast.unlink(missing_ok=True)
            return
        with contextlib.suppress(ProcessLookupError):
            _limit(pid, LIMIT_BYTES)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                _limit(pid, None)


@contextlib.contextmanager
def failing_syncs(pid: int) -> Iterator[tuple[float, list[float]]]:
    """Let every fsync and fdatasync of `pid` fail with EIO while the block runs.

    Yields the moment from which all fail and a list to put the moment into up to which they did.
    Raises Unavailable where strace is missing or may not attach.
    """
    if shutil.which("strace") is None:
        raise Unavailable("no strace program")
    calls = "fsync,fdatasync"
    options = ["-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until: list[float] = []
    try:
        _await_attached(tracer)
        yield time.time(), until
    finally:
        until.append(time.time())
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(timeout=10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait(timeout=10)
        if tracer.stderr is not None:
            tracer.stderr.close()


def _await_attached(tracer: subprocess.Popen[bytes]) -> None:
    """Wait for strace's word that it has the process with all its threads."""
    said: list[bytes] = []
    attached = threading.Event()

    def listen() -> None:
        assert tracer.stderr is not None
        with contextlib.suppress(ValueError):
            for line in tracer.stderr:
                said.append(line)
                if b" attached" in line:
                    attached.set()
        attached.set()

    threading.Thread(target=listen, name="strace", daemon=True).start()
    attached.wait(ATTACH_S)
    if tracer.poll() is not None or not any(b" attached" in line for line in said):
        why = b" ".join(said).decode("utf-8", "replace").strip()
        raise Unavailable(f"strace can't attach: {why or 'no answer'}"[:200])


def _fill(path: Path) -> None:
    block = bytes(1 << 16)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        for size in (len(block), 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, block[:size])
    finally:
        os.close(descriptor)


def _limit(pid: int, size: int | None) -> None:
    """Limit the size of files that a process writes; None takes the limit away."""
    if sys.platform != "linux":
        raise Unavailable("another process' limits can't be set on this system")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, encoding="utf-8", check=False, timeout=30)
