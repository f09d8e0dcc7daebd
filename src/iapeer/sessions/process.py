"""Life and death of processes, told by pid AND start time; death is an event, not a poll."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from iapeer.core.errors import IapeerError

HUP_GRACE_S = 2.5
"""For a program that the end of its terminal does not end (measured: Claude takes 0.1 s)."""

_KILL_WAIT_S = 5.0
_GONE_STATES = frozenset("ZXx")


def start_time(pid: int) -> int | None:
    """Return when `pid` started, or None if there is no such process.

    On Linux: clock ticks since boot (field 22 of `/proc/<pid>/stat`), elsewhere hundredths of a
    second since the epoch. Compare it only with another value of this function. A zombie still
    has its start time: `is_alive` decides about life.
    """
    found = _stat(pid)
    return None if found is None else found[1]


def is_alive(pid: int, start: int) -> bool:
    """Tell whether the process that started at `start` still runs under `pid`.

    Gone means: no entry, state Z or X, or another start time. `kill(pid, 0)` says "alive" for a
    zombie (measured: 0.5 s after SIGKILL where pid 1 reaps late), so it is not asked.
    """
    found = _stat(pid)
    return found is not None and found[1] == start and found[0] not in _GONE_STATES


class Handle(Protocol):
    """One watch."""

    def cancel(self) -> None:
        """End the watch; its callback is never called from now on. Safe to call twice."""


class Deaths(Protocol):
    """Whoever tells about deaths of processes (pidfd on Linux)."""

    def watch(self, pid: int, start: int, callback: Callable[[], None]) -> Handle:
        """Call `callback` once when that process is gone, soon if it is gone already."""

    def close(self) -> None:
        """Cancel every watch."""


class DeathWatch:
    """Deaths through pidfds in the running event loop (measured: 0.8 ms after the kill).

    Needs no parenthood: any process of the machine can be watched. 100 watches cost 100 file
    descriptors and 4 KiB.
    """

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()

    def watch(self, pid: int, start: int, callback: Callable[[], None]) -> Handle:
        """Call `callback` once in the loop when the process is gone, never before this returns.

        Raises:
            IapeerError: the process can't be watched (no descriptor left, for instance).
        """
        watch = _Watch(asyncio.get_running_loop(), callback, self._watches)
        self._watches.add(watch)
        try:
            watch.begin(pid, start)
        except BaseException:
            watch.cancel()
            raise
        return watch

    def close(self) -> None:
        """Cancel every watch and close its descriptor."""
        for watch in tuple(self._watches):
            watch.cancel()


class _Watch:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[], None],
        owner: set[_Watch],
    ) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = callback
        self._owner = owner
        self._pidfd: int | None = None

    def begin(self, pid: int, start: int) -> None:
        self._pidfd = _open_pidfd(pid, start)
        if self._pidfd is None:
            self._loop.call_soon(self._fire)
        else:
            self._loop.add_reader(self._pidfd, self._fire)

    def cancel(self) -> None:
        self._callback = None
        self._owner.discard(self)
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _fire(self) -> None:
        callback = self._callback
        self.cancel()
        if callback is not None:
            callback()


async def wait_gone(pid: int, start: int, timeout_s: float) -> bool:
    """Wait until that process is gone; False when it still runs after `timeout_s`."""
    gone = asyncio.Event()
    watch = DeathWatch()
    watch.watch(pid, start, gone.set)
    try:
        async with asyncio.timeout(timeout_s):
            await gone.wait()
    except TimeoutError:
        return not is_alive(pid, start)
    finally:
        watch.close()
    return True


async def terminate(pid: int, start: int, grace_s: float) -> bool:
    """Send TERM, wait `grace_s`, send KILL; True when the process is gone in the end.

    The signals go through a pidfd whose start time was checked after it was opened, so a reused
    pid is never hit. Already gone is True.

    Raises:
        IapeerError: not allowed to signal it.
    """
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_WAIT_S)):
        if not _send(pid, start, number) or await wait_gone(pid, start, wait_s):
            return True
    return False


def _send(pid: int, start: int, number: signal.Signals) -> bool:
    pidfd = _open_pidfd(pid, start)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise IapeerError(f"not allowed to signal process {pid}", code="process") from error
    finally:
        os.close(pidfd)
    return True


def _open_pidfd(pid: int, start: int) -> int | None:
    """Return a descriptor of exactly that process, or None when it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return None
    except OSError as error:
        raise IapeerError(f"can't watch process {pid}: {error.strerror}", code="process") from error
    if is_alive(pid, start):
        return pidfd
    os.close(pidfd)
    return None


def _stat(pid: int) -> tuple[str, int] | None:
    """Return (state letter, start time) of `pid`."""
    if not sys.platform.startswith("linux"):
        return _stat_portable(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise IapeerError(f"can't read process {pid}: {error.strerror}", code="process") from error
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _stat_portable(pid: int) -> tuple[str, int] | None:
    import psutil  # noqa: PLC0415 - where there is a /proc, a daemon starts without it

    try:
        process = psutil.Process(pid)
        state = "Z" if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else "R"
        return state, round(process.create_time() * 100)
    except psutil.NoSuchProcess:
        return None
    except psutil.Error as error:
        raise IapeerError(f"can't read process {pid}: {error}", code="process") from error


async def end_program(pid: int, start: int) -> None:
    """Wait for a program to follow its terminal; end one that does not."""
    if not await wait_gone(pid, start, HUP_GRACE_S):
        await terminate(pid, start, HUP_GRACE_S)


def unread_input(tty: str) -> int | None:
    """Return how many bytes wait in the terminal at this path to be read; None: nobody knows."""
    try:
        terminal = os.open(tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return int.from_bytes(fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return None
    finally:
        os.close(terminal)
