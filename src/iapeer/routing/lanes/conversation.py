"""Which conversation an identity's next session goes on with, and what it was about.

Kept as marks of the identity: `parked` (we ended its session, to be gone on with), `topics` (a JSON
list, the newest last) and `fresh_next`. Every start consumes `parked`, or a later crash would be
taken for a clean end; only a fresh one consumes the wish for it.
"""

from __future__ import annotations

from sqlite3 import Connection
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.identity import Identity
from iapeer.routing.ownmarks import NEW_EAGER
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.storage.ledger import marks
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import MessageRow, SessionRow

if TYPE_CHECKING:
    from .services import LaneServices

PARKED = "parked"
TOPICS = "topics"
FRESH_NEXT = "fresh_next"
TOPICS_MAX = 16
"""Topics remembered of one conversation (the contract's bound); the oldest goes first."""


class Past(msgspec.Struct, frozen=True):
    """What an identity looks back on; `native_id` is empty when nothing can be gone on with."""

    native_id: str = ""
    parked: bool = False
    fresh_next: bool = False
    left_queued: bool = False
    topics: tuple[str, ...] = ()


class Conversation:
    """One identity's memory of its sessions."""

    def __init__(self, uid: str, identity: Identity, services: LaneServices) -> None:
        self._uid = uid
        self._runtime = identity.runtime
        self._address = identity.address
        self._s = services
        self._lost = ""
        self._newest = ""

    async def past(self, spec: RuntimeSpec, head: MessageRow | None) -> Past:
        """Look back; `head` is the message that asks for a session, None for a person's wish."""

        def look(conn: Connection) -> Past:
            found = self._marks(conn)
            last = rows.last_of(conn, self._uid, self._runtime)
            return Past(
                native_id=self._resumable(last, spec),
                parked=PARKED in found,
                fresh_next=FRESH_NEXT in found,
                left_queued=_left_queued(last, spec, head),
                topics=_topics(found.get(TOPICS, "")),
            )

        return await self._s.ledger.read(look)

    def _resumable(self, last: SessionRow | None, spec: RuntimeSpec) -> str:
        """Return the conversation of the last session, if anything was said in it.

        Real programs refuse to go on with one in which nothing was said.
        """
        if last is None or not spec.can_resume or not last.heard:
            return ""
        return "" if last.native_id == self._lost else last.native_id

    def lose(self, native_id: str) -> None:
        """A session could not go on with this conversation: don't try again."""
        self._lost = native_id

    async def began(self, *, fresh: bool, topic: str) -> None:
        """A session came up: what it was decided by is consumed."""

        def write(conn: Connection) -> None:
            for mark in (PARKED, *((FRESH_NEXT, TOPICS) if fresh else ())):
                marks.clear_mark(conn, self._uid, self._runtime, mark)
            if topic:
                self._add(conn, topic)

        await self._s.ledger.write(write)
        self._newest = topic

    async def about(self, topic: str) -> None:
        """A message of this topic reached the running session."""
        if topic != self._newest:
            if await self._s.ledger.write(lambda c: self._add(c, topic)):
                self._s.log("topic-note", identity=self._address, topic=topic)
            self._newest = topic

    async def park(self) -> None:
        """The session is ended by us: the next one may go on with it."""
        now = self._s.clock.now()
        await self._s.ledger.write(
            lambda c: marks.set_mark(c, self._uid, self._runtime, PARKED, now)
        )

    async def goes_on(self) -> None:
        """The session lives on: its end was begun by a daemon that did not live to finish it."""

        def parked(conn: Connection) -> bool:
            return PARKED in self._marks(conn)

        if await self._s.ledger.read(parked):
            await self._s.ledger.write(
                lambda c: marks.clear_mark(c, self._uid, self._runtime, PARKED)
            )

    def _marks(self, conn: Connection) -> dict[str, str]:
        return {mark.mark: mark.value for mark in marks.marks_of(conn, self._uid, self._runtime)}

    async def refresh(self) -> None:
        """The next session is to be a fresh one."""
        now = self._s.clock.now()
        await self._s.ledger.write(
            lambda c: marks.set_mark(c, self._uid, self._runtime, FRESH_NEXT, now)
        )

    async def forget(self) -> None:
        """Take back everything that was to be of effect at the next start."""

        def clear(conn: Connection) -> None:
            for mark in (PARKED, NEW_EAGER):
                marks.clear_mark(conn, self._uid, self._runtime, mark)

        await self._s.ledger.write(clear)

    def _add(self, conn: Connection, topic: str) -> bool:
        """Add a topic; return whether the conversation was about something else before."""
        before = _topics(self._marks(conn).get(TOPICS, ""))
        if before and before[-1] == topic:
            return False
        after = (*(t for t in before if t != topic), topic)[-TOPICS_MAX:]
        value = msgspec.json.encode(after).decode()
        now = self._s.clock.now()
        marks.set_mark(conn, self._uid, self._runtime, TOPICS, now, value)
        return True


def _topics(value: str) -> tuple[str, ...]:
    return msgspec.json.decode(value, type=tuple[str, ...]) if value else ()


def _left_queued(last: SessionRow | None, spec: RuntimeSpec, head: MessageRow | None) -> bool:
    if last is None or head is None or spec.queue != "durable":
        return False
    return head.dup and head.session_id == last.id
