"""How coroutines hand work to a thread and get its results back, in batches.

One wake-up of the event loop per batch, not per job: that is what lets a group commit pay off.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from iapeer.core.errors import StorageError


class Job:
    """One function to run on a connection, and the future its caller waits for."""

    __slots__ = ("error", "fn", "future", "loop", "refuses_first", "result")

    def __init__(
        self, fn: Callable[[sqlite3.Connection], Any], *, refuses_first: bool = False
    ) -> None:
        self.fn = fn
        self.refuses_first = refuses_first
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, conn: sqlite3.Connection) -> None:
        """Run the function and keep what it returned; what it raises passes through."""
        self.result = self.fn(conn)

    def fail(self, error: BaseException) -> None:
        """Let the caller get `error`; the first one stays. What is no Exception comes wrapped."""
        if self.error is None:
            if isinstance(error, StopIteration) or not isinstance(error, Exception):
                # A future refuses the first, and the others would end the caller's loop.
                wrapped = RuntimeError(f"the function raised {type(error).__name__}")
                wrapped.__cause__ = error
                error = wrapped
            self.error = error


class Mailbox:
    """A bounded first-in-first-out queue between event loops and one thread.

    With `gathers`, what a loop puts in one round is handed over together at the end of that, so
    that a group is as large as it can be, and the thread does not fight the loop for the
    interpreter (measured with 32 senders: five forced switches for each message, and a third fewer
    messages).

    The queue is the interpreter's own: handing over with a `threading.Condition` takes half as much
    again of the processor, and twice the time (measured).
    """

    def __init__(self, limit: int, *, gathers: bool) -> None:
        self._limit = limit
        self._gathers = gathers
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._arriving: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        self._size = 0
        self._closed = False
        self._taken: deque[Job] = deque()
        self._drained = False

    def __len__(self) -> int:
        return self._size

    def put(self, job: Job) -> None:
        """Append a job.

        Raises StorageError when the queue is closed or, with `retry_after_s`, full.
        """
        with self._lock:
            if self._closed:
                raise StorageError("the ledger is closed", code="closed")
            if self._size >= self._limit:
                raise StorageError(
                    f"the ledger has {self._limit} requests waiting",
                    hint="try again in a moment",
                    code="overloaded",
                    retry_after_s=1.0,
                )
            self._size += 1
            if not self._gathers:
                self._queue.put([job])
                return
            arriving = self._arriving.setdefault(job.loop, [])
            arriving.append(job)
        if len(arriving) == 1:
            job.loop.call_soon(self._hand_over, job.loop)

    def take(self, most: int) -> list[Job]:
        """Wait for work and return up to `most` jobs; empty only once closed and drained.

        For one thread.
        """
        while not self._drained and (not self._taken or not self._queue.empty()):
            jobs = self._queue.get()
            if jobs is None:
                self._drained = True
            else:
                self._taken.extend(jobs)
        taken = [self._taken.popleft() for _ in range(min(most, len(self._taken)))]
        with self._lock:
            self._size -= len(taken)
        return taken

    def close(self) -> None:
        """Take no more jobs; those that wait are still handed out."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for jobs in self._arriving.values():
                    self._queue.put(jobs)
                self._arriving.clear()
                self._queue.put(None)

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            jobs = self._arriving.pop(loop, None)
            if jobs:
                self._queue.put(jobs)


def deliver(jobs: list[Job]) -> None:
    """Give every job's outcome to its caller, on the caller's own event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, group in by_loop.items():
        # A loop that was closed meanwhile has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, group)


def _settle(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
