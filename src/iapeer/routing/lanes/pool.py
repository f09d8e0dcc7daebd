"""All lanes: made when there is work, owned here, ended here."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from iapeer.core.errors import IapeerError, StorageError
from iapeer.core.identity import Identity
from iapeer.routing.ownmarks import ARMED, NEW_EAGER
from iapeer.routing.waits import Key
from iapeer.storage.faults import fault
from iapeer.storage.ledger import marks, messages, queries, upkeep
from iapeer.storage.ledger import sessions as rows

from .journal import STOPPED
from .lane import Lane
from .letters import Verb
from .presence import Phase, Settled

if TYPE_CHECKING:
    from sqlite3 import Connection

    from iapeer.storage.ledger.rows import DeathRow, MarkRow, MessageRow, SessionRow, Waiting

    from .services import LaneServices

PURGE_PIECES = 40
"""Most pieces of one audit: 10,000 messages, about 3 s of the writer, and others write between."""
CLOSE_S = 5.0
"""Longest wait for the lanes at shutdown; a step takes 2 s at most."""


class _Loaded(NamedTuple):
    """What a daemon finds in the ledger when it starts."""

    live: list[SessionRow]
    waiting: list[Waiting]
    stopped: list[MarkRow]
    failed: list[DeathRow]
    good: dict[str, float]


class Lanes:
    """One actor per identity that has, or had, something to do."""

    def __init__(self, services: LaneServices) -> None:
        self._s = services
        self._lanes: dict[Key, Lane] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._audit: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._stopped: set[Key] = set()
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._auditing = False
        self._running = False
        services.budget.mended = self._work_all

    async def load(self) -> None:
        """Make the lanes of everything the ledger says is live or waits; nothing runs yet.

        Before the listeners: a message that comes in must find the lane of a session to adopt.
        """
        since = self._s.clock.now() - self._s.settings.healthy_s

        def load(conn: Connection) -> _Loaded:
            return _Loaded(
                rows.live_sessions(conn),
                queries.undelivered_identities(conn),
                marks.marks_named(conn, STOPPED),
                marks.all_deaths_since(conn, since, ("boot",)),
                rows.last_ready(conn),
            )

        live, waiting, stopped, failed, good = await self._s.ledger.read(load)
        self._s.budget.load(failed, good)
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
        self._renewing = asyncio.create_task(self._renew_all(), name="renewals")
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

    def holds(self, session_id: str) -> bool:
        """Whether a session lives and nobody has begun to end it: its row is not ended either."""
        lane = self.of_session(session_id)
        return lane is not None and lane.leaving.suspect != session_id

    def phase(self, key: Key) -> Phase:
        """Return what an identity's session is doing; one that is known to be dead does nothing."""
        lane = self._lanes.get(key)
        if lane is None or lane.leaving.known is not None:
            return Phase.ASLEEP
        return lane.phase

    def settled(self, key: Key) -> Settled | None:
        """Return why a message that comes for an identity now waits, None if its lane must see."""
        lane = self._lanes.get(key)
        return lane.settled if lane else None

    def depth(self, key: Key) -> int:
        """Return the causal depth of what this identity would send now; 0 is a person's own."""
        lane = self._lanes.get(key)
        return lane.depth + 1 if lane else 0

    def is_stopped(self, key: Key) -> bool:
        """Whether `stop` was the last word."""
        lane = self._lanes.get(key)
        return lane.stopped if lane else key in self._stopped

    def broken(self) -> list[Lane]:
        """Return the lanes that are put off by faults of their own, not of their whole runtime."""
        whole = self._s.budget.is_broken
        return [x for x in self._lanes.values() if x.broken and not whole(x.identity.runtime)]

    def is_broken(self, key: Key) -> bool:
        """Whether an identity's sessions failed so often that the next try is put off."""
        lane = self._lanes.get(key)
        return lane is not None and lane.broken

    def calling(self, key: Key) -> AbstractContextManager[None]:
        """Count the session of a caller as active while it waits in a call of ours."""
        lane = self._lanes.get(key)
        return lane.rest.calling() if lane else nullcontext()

    def said_its_word(self, key: Key) -> None:
        """A sender's message was accepted, or it said that it is done: look when it may end."""
        lane = self._lanes.get(key)
        if lane is not None and lane.rest.ephemeral:
            lane.work()

    def renew(self, mark: MarkRow) -> None:
        """Replace a session that asked for it by a fresh one, in the background."""
        if mark.value not in self._renewals:
            task = asyncio.create_task(self._renew(mark), name="renewal")
            self._renewals[mark.value] = task
            task.add_done_callback(lambda _: self._renewals.pop(mark.value, None))

    async def _renew(self, mark: MarkRow) -> None:
        """End it, then start a fresh one on the runtime that the registry names today.

        The mark goes after the start, so that a daemon killed in between finishes it; one that
        fails is not tried for ever.
        """
        peers = self._s.registry.snapshot(allow_stale=True)
        record = next((record for record in peers if record.uid == mark.uid), None)
        if record is None:
            await self._fulfilled(mark)
            return
        lane = self.lane(mark.uid, Identity(mark.runtime, record.personality))
        try:
            await lane.order(Verb.SELF_FRESH, mark.value)
            fault("renew.ended")
            if not lane.rest.ephemeral:
                successor = Identity(record.default_runtime, record.personality)
                await self.lane(mark.uid, successor).order(Verb.LAUNCH)
        except IapeerError as error:
            self._s.log("renewal-failed", identity=lane.identity.address, reason=error.message)
            if isinstance(error, StorageError):
                # The audit finds the wish again; a session that is gone is not ended twice.
                return
        await self._fulfilled(mark)

    async def _fulfilled(self, mark: MarkRow) -> None:
        """Forget a wish, unless the successor has one of its own by now."""

        def clear(conn: Connection) -> None:
            for found in marks.marks_of(conn, mark.uid, mark.runtime):
                if (found.mark, found.value) == (NEW_EAGER, mark.value):
                    marks.clear_mark(conn, mark.uid, mark.runtime, NEW_EAGER)

        try:
            await self._s.ledger.write(clear)
        except StorageError as error:
            self._s.log("renewal-failed", identity=mark.uid, reason=error.message)

    async def _renew_all(self) -> None:
        """Find the wishes that an earlier daemon, or a command line, has left."""
        try:
            for mark in await self._s.ledger.read(lambda c: marks.marks_named(c, NEW_EAGER)):
                self.renew(mark)
        except StorageError as error:
            self._s.log("rescan-failed", reason=str(error))

    def _work_all(self, runtime: str) -> None:
        """Every lane of a runtime that is mended may try at once."""
        for key, lane in self._lanes.items():
            if key[1] == runtime:
                lane.work()

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
        own = [*self._renewals.values(), *(t for t in (self._audit, self._renewing) if t)]
        for task in own:
            task.cancel()
        if own:
            await asyncio.wait(own)
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
        """Expire what is due, purge what is old, look for what events missed.

        Starts no process and asks no terminal: a lane that has nothing to do is left alone. Two
        audits never run side by side. Raises StorageError.
        """
        if self._auditing:
            return
        self._auditing = True
        try:
            await self._expire()
            await self.rescan()
            for lane in self._lanes.values():
                lane.audit()
            await self._purge()
        finally:
            self._auditing = False

    async def _expire(self) -> None:
        now = self._s.clock.now()
        for row in await self._s.ledger.write(lambda c: messages.expire_due(c, now)):
            self._s.waits.changed(row.id)
            self._s.notices.failed(row)

    async def _purge(self) -> None:
        """Forget what is old, piece by piece: others write in between."""
        now, settings = self._s.clock.now(), self._s.settings
        keep = settings.body_retention_s, settings.metadata_retention_s
        for _ in range(PURGE_PIECES):
            done = await self._s.ledger.write(lambda c: upkeep.purge(c, now, *keep))
            if not any(msgspec.structs.astuple(done)):
                return

    async def rescan(self) -> None:
        """Let every identity work that another process wrote something for.

        Raises StorageError.
        """

        def look(conn: Connection) -> tuple[list[Waiting], list[MarkRow], list[MarkRow]]:
            return (
                queries.undelivered_identities(conn),
                marks.marks_named(conn, ARMED),
                marks.marks_named(conn, NEW_EAGER),
            )

        waiting, armed, eager = await self._s.ledger.read(look)
        for item in waiting:
            self.work(item.uid, Identity(item.runtime, item.personality))
        for mark in armed:
            self.said_its_word((mark.uid, mark.runtime))
        for mark in eager:
            self.renew(mark)

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
