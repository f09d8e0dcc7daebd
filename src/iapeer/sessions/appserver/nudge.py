"""Starts a message of ours that is left in a queue: it runs by itself except behind a cut turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import msgspec

from . import requests
from .line import Line, tell_defect
from .wire import Wire, WireError

NUDGE_S = 1.0
"""An interrupted turn pauses the queue (measured): that long after it our message is started."""


class Nudge:
    """Looks into the queues of conversations that were given a message, once they are idle.

    `idle` returns the terminal's conversations in which nothing runs.
    """

    def __init__(self, line: Line, idle: Callable[[], Iterable[str]]) -> None:
        self._line = line
        self._idle = idle
        self._owed: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def owe(self, thread: str) -> None:
        """Note that a message of ours may be in a conversation's queue."""
        self._owed.add(thread)

    def owes(self, thread: str) -> bool:
        """Whether one may be there that has not begun."""
        return thread in self._owed

    def soon(self) -> None:
        """Look in a while; called when something was queued, and at the end of a turn."""
        if self._owed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(tell_defect)

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        with contextlib.suppress(WireError):
            while self._due():
                await asyncio.sleep(NUDGE_S)
                # The end of a turn that runs calls again.
                for thread in self._due():
                    self._owed.discard(thread)
                    await self._start_first(self._line.wire, thread)

    def _due(self) -> list[str]:
        return [thread for thread in self._idle() if thread in self._owed]

    async def _start_first(self, wire: Wire, thread: str) -> None:
        for submission in (await requests.queued(wire, thread)).values():
            self._owed.add(thread)
            wants = {"threadId": thread, "queuedSubmissionId": submission}
            await wire.call("thread/queue/start", wants, msgspec.Raw)
            return
