"""All lanes: made when there is work, owned here, ended here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iapeer.core.identity import Identity
from iapeer.routing.waits import Key
from iapeer.storage.ledger import marks, messages, queries, upkeep
from iapeer.storage.ledger import sessions as rows

from .journal import STOPPED
from .lane import Lane
from .presence import Phase

if TYPE_CHECKING:
    from sqlite3 import Connection

    from iapeer.storage.ledger.rows import MarkRow, MessageRow, SessionRow, Waiting

    from .services import LaneServices

CLOSE_S = 5.0
"""Longest wait for the lanes at shutdown; a step takes 2 s at most."""


class Lanes:
    """One actor per identity that has, or had, something to do."""

    def __init__(self, services: LaneServices) -> None:
        self._s = services
        self._lanes: dict[Key, Lane] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._audit: asyncio.Task[None] | None = None
        self._stopped: set[Key] = set()
        self._running = False

    async def load(self) -> None:
        """Make the lanes of everything the ledger says is live or waits; nothing runs yet.

        Before the listeners: a message that comes in must find the lane of a session to adopt.
        """

        def load(conn: Connection) -> tuple[list[SessionRow], list[Waiting], list[MarkRow]]:
            return (
                rows.live_sessions(conn),
                queries.undelivered_identities(conn),
                marks.marks_named(conn, STOPPED),
            )

        live, waiting, stopped = await self._s.ledger.read(load)
        self._stopped = {(mark.uid, mark.runtime) for mark in stopped}
        for row in live:
            lane = self._make(row.uid, Identity(row.runtime, row.personality))
            lane.adopt(row)
        for item in waiting:
            self._make(item.uid, Identity(item.runtime, item.personality))

    def start(self) -> None:
        """Let the lanes run: they adopt, boot and deliver. Begin the audit."""
        self._running = True
        for key in self._lanes:
            self._run(key)
        self._audit = asyncio.create_task(self._audits(), name="audit")

    def work(self, uid: str, identity: Identity) -> None:
        """There may be something to deliver to this identity."""
        self.lane(uid, identity).work()

    def lane(self, uid: str, identity: Identity) -> Lane:
        """Return the lane of an identity, made and running."""
        key = (uid, identity.runtime)
        if key not in self._lanes:
            self._make(uid, identity)
            if self._running:
                self._run(key)
        return self._lanes[key]

    def of_session(self, session_id: str) -> Lane | None:
        """Return the lane a live session belongs to."""
        return self._s.by_session.get(session_id)

    def phase(self, key: Key) -> Phase:
        """Return what an identity's session is doing."""
        lane = self._lanes.get(key)
        return lane.phase if lane else Phase.ASLEEP

    def depth(self, key: Key) -> int:
        """Return the causal depth of what this identity would send now; 0 is a person's own."""
        lane = self._lanes.get(key)
        return lane.depth + 1 if lane else 0

    def is_stopped(self, key: Key) -> bool:
        """Whether `stop` was the last word."""
        lane = self._lanes.get(key)
        return lane.stopped if lane else key in self._stopped

    def is_broken(self, key: Key) -> bool:
        """Whether an identity's sessions failed so often that the next try is put off."""
        lane = self._lanes.get(key)
        return lane is not None and lane.broken

    async def drop(self, uid: str) -> None:
        """End the lanes of a peer that is removed or renamed; their sessions are ended already."""
        for key in [key for key in self._lanes if key[0] == uid]:
            self._lanes.pop(key).finish()
            task = self._tasks.pop(key, None)
            if task is not None:
                await _end_tasks([task])
        self._stopped = {key for key in self._stopped if key[0] != uid}

    async def close(self) -> None:
        """Let every lane finish its step; the sessions run on for the next daemon."""
        self._running = False
        if self._audit is not None:
            self._audit.cancel()
            await asyncio.wait({self._audit})
        for lane in self._lanes.values():
            lane.finish()
        await _end_tasks(list(self._tasks.values()))
        self._lanes.clear()
        self._tasks.clear()

    def _make(self, uid: str, identity: Identity) -> Lane:
        key = (uid, identity.runtime)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(uid, identity, self._s)
            lane.stopped = key in self._stopped
            self._stopped.discard(key)
        return lane

    def _run(self, key: Key) -> None:
        lane = self._lanes[key]
        self._tasks[key] = asyncio.create_task(lane.run(), name=f"lane {lane.identity.address}")

    async def _audits(self) -> None:
        """Look at everything again now and then, whatever events said."""
        while True:
            await asyncio.sleep(self._s.settings.audit_s)
            try:
                await self.audit()
            except Exception as error:  # noqa: BLE001 - the root of this task
                self._s.log("audit-failed", reason=repr(error))

    async def audit(self) -> None:
        """Expire what is due, purge what is old, poke every lane. Raises StorageError."""
        now = self._s.clock.now()
        settings = self._s.settings
        expired = await self._s.ledger.write(lambda c: messages.expire_due(c, now))
        for row in expired:
            self._s.waits.changed(row.id)
            self._s.notices.failed(row)
        await self._s.ledger.write(
            lambda c: upkeep.purge(c, now, settings.body_retention_s, settings.metadata_retention_s)
        )
        await self.rescan()
        for lane in self._lanes.values():
            lane.work()

    async def rescan(self) -> None:
        """Let every identity with undelivered messages work, whoever stored them.

        Raises StorageError.
        """
        for item in await self._s.ledger.read(queries.undelivered_identities):
            self.work(item.uid, Identity(item.runtime, item.personality))

    async def fail_all(self, uid: str, reason: str) -> list[MessageRow]:
        """Fail everything undelivered of a peer that goes away, and tell the senders."""
        now = self._s.clock.now()
        failed = await self._s.ledger.write(lambda c: messages.fail_for_uid(c, uid, reason, now))
        for row in failed:
            self._s.waits.changed(row.id)
            self._s.notices.failed(row)
        return failed


async def _end_tasks(tasks: list[asyncio.Task[None]]) -> None:
    """Wait until the tasks end by themselves, a bounded time; then cancel."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=CLOSE_S)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=CLOSE_S)
