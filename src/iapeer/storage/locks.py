"""Locks between processes: `flock`, so that the kernel frees them however their holder ends.

The file is the lock's name and stays; while the lock is held it contains the holder's pid, which
anybody may read to say who is in the way. filelock is imported by the first use: 105 ms.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from iapeer.core.errors import DaemonRunning, LockBusy, StorageError
from iapeer.storage.atomic import storage_error

if TYPE_CHECKING:
    from filelock import FileLock

_POLL_S = 0.02
"""How often a waiter looks again; flock has no wait with a limit."""
_DAEMON_GRACE_S = 1.0
"""How long a starting daemon waits for one that is just ending."""


@contextlib.contextmanager
def hold(path: Path, timeout_s: float, what: str) -> Iterator[None]:
    """Hold the exclusive lock `path` for the block; `what` names the protected thing in errors.

    Excludes other processes and other threads; not re-entrant.

    Raises LockBusy after `timeout_s` seconds, StorageError when the file can't be used.
    """
    lock = _acquire(path, timeout_s, what)
    try:
        yield
    finally:
        _release(lock)


def holder_pid(path: Path) -> int | None:
    """Return the pid noted in a lock file, None without one.

    Only a hint for messages: a holder that was killed leaves its note, though not its lock.
    """
    try:
        text = path.read_text("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and text.isascii() else None


class DaemonLock:
    """The right to be the daemon of a root; held for the daemon's life, freed by its death."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: FileLock | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises DaemonRunning with the other daemon's pid, StorageError.
        """
        if self._lock is not None:
            raise RuntimeError("this daemon lock is already held")
        try:
            self._lock = _acquire(self._path, _DAEMON_GRACE_S, "daemon lock")
        except LockBusy as error:
            pid = holder_pid(self._path)
            who = f"daemon with pid {pid}" if pid else "daemon"
            raise DaemonRunning(
                f"another {who} owns this root (lock {self._path})",
                hint="stop it first, or use another IAPEER_ROOT",
            ) from error

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _release(lock)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class TryLock:
    """An exclusive lock that is asked for in passing: had at once, or almost, or not at all.

    Plain flock without a note, because filelock costs 105 ms. It and `hold` exclude each other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take the lock within `wait_s` seconds; tell whether it is ours.

        Raises StorageError when the file can't be used.
        """
        deadline = time.monotonic() + wait_s
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, self._path, "lock") from error
        while not _try_flock(fd):
            if time.monotonic() >= deadline:
                os.close(fd)
                return False
            time.sleep(_POLL_S)
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def hold_folder(path: Path, timeout_s: float, what: str) -> Iterator[None]:
    """Hold the exclusive lock of a folder itself: for files of the user, who wants no lock file.

    Excludes other processes and other threads that lock the same folder; not re-entrant.

    Raises LockBusy after `timeout_s` seconds, StorageError when the folder can't be opened.
    """
    deadline = time.monotonic() + timeout_s
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, path, "lock") from error
    try:
        while not _try_flock(fd):
            if time.monotonic() >= deadline:
                raise LockBusy(
                    f"{what} is locked (waited {timeout_s:g} s for {path})",
                    hint="try again",
                    retry_after_s=1.0,
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _acquire(path: Path, timeout_s: float, what: str) -> FileLock:
    from filelock import FileLock, Timeout  # noqa: PLC0415 - 105 ms, see the module's docstring

    if not path.parent.is_dir():
        # filelock would make it, with a mode of its own choice.
        raise StorageError(f"could not lock {path}: its folder is missing")
    # No soft lock on file systems without flock: it survives kill -9 and would need a stale timer.
    lock = FileLock(
        path,
        timeout=timeout_s,
        mode=0o600,
        thread_local=False,
        poll_interval=_POLL_S,
        fallback_to_soft=False,
        preserve_lock_file=True,
        on_acquired=_write_note,
    )
    try:
        lock.acquire()
    except Timeout:
        pid = holder_pid(path)
        by = f" by pid {pid}" if pid else ""
        raise LockBusy(
            f"{what} is locked{by} (waited {timeout_s:g} s for {path})",
            hint="try again; if it stays so, look at that process",
            retry_after_s=1.0,
        ) from None
    except OSError as error:
        raise storage_error(error, path, "lock") from error
    return lock


def _release(lock: FileLock) -> None:
    with contextlib.suppress(OSError):
        os.truncate(lock.lock_file, 0)
    lock.release()


def _write_note(fd: int) -> None:
    """Note who holds it; a full disk must not cost the lock, only the note."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
