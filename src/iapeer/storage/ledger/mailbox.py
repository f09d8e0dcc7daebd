"""How coroutines hand work to a thread and get its results back, in batches.

One wake-up of the event loop per batch, not per job: that is what lets a group commit pay off.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from iapeer.core.errors import StorageError


class Job:
    """One function to run on a connection, and the future its caller waits for."""

    __slots__ = ("error", "fn", "future", "loop", "result")

    def __init__(self, fn: Callable[[sqlite3.Connection], Any]) -> None:
        self.fn = fn
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

    The queue is the interpreter's own: handing over with a `threading.Condition` takes half as much
    again of the processor, and twice the time (measured).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._putting = threading.Lock()
        self._closed = False
        self._drained = False

    def __len__(self) -> int:
        return self._jobs.qsize()

    def put(self, job: Job) -> None:
        """Append a job.

        Raises StorageError when the queue is closed or, with `retry_after_s`, full.
        """
        with self._putting:
            if self._closed:
                raise StorageError("the ledger is closed", code="closed")
            if self._jobs.qsize() >= self._limit:
                raise StorageError(
                    f"the ledger has {self._limit} requests waiting",
                    hint="try again in a moment",
                    code="overloaded",
                    retry_after_s=1.0,
                )
            self._jobs.put(job)

    def take(self, most: int) -> list[Job]:
        """Wait for work and return up to `most` jobs; empty only once closed and drained.

        For one thread.
        """
        taken: list[Job] = []
        while not self._drained and len(taken) < most and (not taken or len(self)):
            job = self._jobs.get()
            if job is None:
                self._drained = True
            else:
                taken.append(job)
        return taken

    def close(self) -> None:
        """Take no more jobs; those that wait are still handed out."""
        with self._putting:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)


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
