"""Which conversation the attached terminal talks in: a person begins anew, or goes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from .frames import LoadedPage, Thread, ThreadTold
from .link import Link
from .wire import Refused, Wire

THREADS = 8
"""Conversations of one terminal that are remembered."""


class Terminal:
    """The conversations of one terminal, across connections.

    `wanted` is the thread that a resumed session goes on in, empty for a fresh one. `moved` is
    called when it talks in another one than before.
    """

    def __init__(self, wanted: str, moved: Callable[[], None]) -> None:
        self._wanted = wanted
        self._moved = moved
        self._strangers: list[str] = []
        self._newest = ""
        """The newest thread that was looked at or followed; ids sort by birth."""
        self.threads: list[str] = []
        """Newest last."""

    @property
    def current(self) -> str:
        """The thread it talks in, empty until one is known."""
        return self.threads[-1] if self.threads else ""

    @property
    def left(self) -> list[str]:
        """The threads it talked in before."""
        return self.threads[:-1]

    def follow(self, thread: str) -> None:
        """Take this thread for the one it talks in now."""
        self._newest = max(self._newest, thread)
        if thread != self.current:
            if thread in self.threads:
                self.threads.remove(thread)
            self.threads = [*self.threads[1 - THREADS :], thread]
            self._moved()

    def took(self, link: Link, thread: Thread) -> None:
        """Follow a new thread, or one that somebody works in; helpers' threads are left alone."""
        if thread.is_main:
            link.met(thread.id, active=thread.status.type == "active")
            self.follow(thread.id)

    def stranger(self, thread: str) -> None:
        """Note that something runs in a thread; one that is not known is looked at later."""
        if thread not in (*self.threads, *self._strangers):
            self._strangers = [*self._strangers[1 - THREADS :], thread]

    async def meet_strangers(self, wire: Wire, link: Link) -> None:
        """See whether a person went on in a thread that was not followed so far."""
        while self._strangers:
            await self._meet(wire, link, self._strangers.pop(0))

    async def find(self, wire: Wire, link: Link) -> None:
        """Take the newest conversation that a person can see.

        One that was begun while no connection told of it is newer than all that were looked at;
        one that was left for an earlier one is not.
        """
        loaded = set((await wire.call("thread/loaded/list", {}, LoadedPage)).data)
        link.loaded = loaded
        known = self._newest
        if self.current not in loaded:
            known = self.current
            if self._wanted in loaded:
                await self._go_on(wire, link)
                known = self.current
        for thread in sorted(loaded)[-THREADS:]:
            if thread > known:
                await self._meet(wire, link, thread)
                self._newest = max(self._newest, thread)
        link.surveyed = True

    async def _go_on(self, wire: Wire, link: Link) -> None:
        """Go on in the wanted thread, and know of those that were left in mid-turn.

        It may have been left itself, a moment before the end of the daemon that noted it.
        """
        earlier = sorted(thread for thread in link.loaded if thread <= self._wanted)
        found = [await self._read(wire, thread) for thread in earlier[-THREADS:]]
        left = [it for it in found if it and it.is_main and it.status.type == "active"]
        for thread in left:
            link.met(thread.id, active=True)
        self.threads = [*[it.id for it in left if it.id not in self.threads], *self.threads]
        self.follow(self._wanted)

    async def _meet(self, wire: Wire, link: Link, thread: str) -> None:
        told = await self._read(wire, thread)
        if told is not None:
            self.took(link, told)

    async def _read(self, wire: Wire, thread: str) -> Thread | None:
        with contextlib.suppress(Refused):
            return (await wire.call("thread/read", {"threadId": thread}, ThreadTold)).thread
        return None
