"""The lane's hand in the ledger: every step of its messages, told to whoever waits.

A method returns only after its transaction is on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import TYPE_CHECKING

from iapeer.core.errors import RuntimeUnknown
from iapeer.core.identity import CORE_ADDRESS, Identity
from iapeer.core.states import Event, HoldReason, MessageState, TurnEnd
from iapeer.routing.ownmarks import is_armed
from iapeer.sessions.evidence import Fact
from iapeer.storage.ledger import marks, messages, queries, turns
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import MessageRow, NewSession, SessionRow
from iapeer.storage.ledger.schema import UNDELIVERED_SQL

from . import proofs, tasks

if TYPE_CHECKING:
    from iapeer.sessions.doors.inbox import InboxSession

    from .services import LaneServices

STOPPED = "stopped"
"""The mark of an identity that takes no messages."""
FAULT_KINDS = ("boot", "death")
"""Deaths that count as faults: nobody meant them."""
DEATHS_PER_MESSAGE = 2
"""Sessions that may die in the turn that read a message before it is a dead letter."""
FAULTS_REMEMBERED_S = 86_400.0
"""Faults older than this play no part: a run of them that long would be one an hour."""
MAX_ATTEMPTS = 5
"""Hand-overs that may have been seen and ended without proof; then the message fails instead of
going round for ever. One that provably never reached its reader goes round until it does."""


class Journal:
    """One identity's messages, marks and faults."""

    def __init__(self, uid: str, identity: Identity, services: LaneServices) -> None:
        self.uid = uid
        self.identity = identity
        self._s = services
        self._key = (uid, identity.runtime)
        self.held: HoldReason | None = None
        """Why everything waits since the lane's newest step; None where that step held nothing, or
        not everything for one reason."""

    async def next(self) -> MessageRow | None:
        """Return the oldest message that waits."""
        found = await self._s.ledger.read(
            lambda c: queries.pending(c, self.uid, self.identity.runtime, 1)
        )
        return found[0] if found else None

    async def look(self, session_id: str) -> tuple[list[MessageRow], MessageRow | None]:
        """Return what `outstanding` and `next` do, of one moment."""

        def look(conn: Connection) -> tuple[list[MessageRow], MessageRow | None]:
            waiting = queries.pending(conn, *self._key, 1)
            return queries.outstanding(conn, session_id), waiting[0] if waiting else None

        return await self._s.ledger.read(look)

    async def in_turn(self, session_id: str) -> list[MessageRow]:
        """Return what a session's running turn has read, or has just been given.

        Empty while something is on its way to it: nobody knows what will be read with it.
        """

        def find(conn: Connection) -> list[MessageRow]:
            given = queries.outstanding(conn, session_id)
            if any(row.state == MessageState.IN_FLIGHT for row in given):
                return []
            return turns.open_messages(conn, session_id) or given

        return await self._s.ledger.read(find)

    async def waiting(self) -> list[MessageRow]:
        """Return what waits, the oldest first, at most a hundred."""
        return await self._s.ledger.read(
            lambda c: queries.pending(c, self.uid, self.identity.runtime)
        )

    async def wants_reader(self) -> bool:
        """Whether a session should be started: a notice of the core alone wakes nobody."""
        where = f"to_uid = ? AND runtime = ? AND sender <> ? AND {UNDELIVERED_SQL}"
        values = (self.uid, self.identity.runtime, CORE_ADDRESS)
        return bool(await self._s.ledger.read(lambda c: queries.select(c, where, values, 1)))

    async def next_notice(self) -> MessageRow | None:
        """Return the oldest notice of the core that waits."""
        found = await self.waiting()
        return next((row for row in found if row.sender == CORE_ADDRESS), None)

    async def outstanding(self, session_id: str) -> list[MessageRow]:
        """Return what a session has in flight, or landed and not proven."""
        return await self._s.ledger.read(lambda c: queries.outstanding(c, session_id))

    async def hold(self, reason: HoldReason) -> None:
        """Hold everything that waits, for one reason."""
        self.held = None
        now = self._s.clock.now()
        uid, runtime = self._key
        changed = await self._s.ledger.write(
            lambda c: messages.hold_pending(c, uid, runtime, reason, now)
        )
        self.held = reason
        if changed:
            self._s.waits.lane_changed(self._key)

    async def hold_serially(self, reason: HoldReason, head: str) -> None:
        """Hold the head of an ephemeral worker's queue for `reason`, the rest behind it.

        `head` is the message that is to be its next task, empty where a task runs already.
        """
        self.held = None
        now = self._s.clock.now()
        uid, runtime = self._key

        def hold(conn: Connection) -> int:
            changed = messages.hold_pending(conn, uid, runtime, HoldReason.SERIAL, now, but=head)
            if head:
                changed += messages.hold_pending(conn, uid, runtime, reason, now, only=head)
            return changed

        if await self._s.ledger.write(hold):
            self._s.waits.lane_changed(self._key)

    async def begin(
        self, row: MessageRow, session_id: str, door: str, *, task: bool = False
    ) -> int:
        """Journal an attempt before it is made; returns its number.

        `task`: it is what this session was started for, and the only one it gets.
        """
        now = self._s.clock.now()

        def begin(conn: Connection) -> int:
            if task:
                tasks.note(conn, row, session_id, now)
            return messages.begin_attempt(conn, row.id, session_id, door, now)

        return await self._s.ledger.write(begin)

    async def advance(  # noqa: PLR0913 - one step, with what it may say
        self,
        row: MessageRow,
        event: Event,
        *,
        reason: str = "",
        evidence: str = "",
        final: bool = False,
        dup: bool = False,
    ) -> MessageRow:
        """Take one step of the table and tell the waiter."""
        now = self._s.clock.now()

        def step(conn: Connection) -> MessageRow:
            after = messages.advance(
                conn,
                row.id,
                event,
                now=now,
                reason=reason,
                door=row.door,
                evidence=evidence,
                mark_dup=dup,
                final=final,
            )
            if event == Event.LAND:
                rows.mark_heard(conn, after.session_id)
            return after

        after = await self._s.ledger.write(step)
        self._s.waits.changed(row.id)
        return after

    async def return_all(
        self, unproven: Sequence[MessageRow], marked: frozenset[str], reason: str
    ) -> None:
        """Give messages back, those in `marked` as possibly shown; too many attempts fail."""
        now = self._s.clock.now()

        def give(conn: Connection) -> list[MessageRow]:
            after = []
            for row in unproven:
                dup = row.id in marked
                back = messages.advance(
                    conn, row.id, Event.RETURN, now=now, reason=reason, mark_dup=dup
                )
                if dup and back.attempt >= MAX_ATTEMPTS:
                    why = f"{back.attempt} attempts without proof; last: {reason}"
                    back = messages.advance(conn, row.id, Event.FAIL, now=now, reason=why)
                after.append(back)
            return after

        self._told(await self._s.ledger.write(give))

    async def take(
        self, session_id: str, facts: Sequence[Fact], offset: int | None
    ) -> proofs.Taken:
        """Take facts and the offset up to which the record was read, in one transaction."""
        now = self._s.clock.now()
        try:
            has_turns = self._s.catalog.get(self.identity.runtime).tells_turns
        except RuntimeUnknown:
            has_turns = False

        def apply(conn: Connection) -> proofs.Taken:
            taken = proofs.take(conn, session_id, facts, now, has_turns=has_turns)
            if offset is not None:
                proofs.set_offset(conn, session_id, offset)
            return taken

        taken = await self._s.ledger.write(apply)
        for message_id in taken.changed:
            self._s.waits.changed(message_id)
        return taken

    async def task(self, session_id: str) -> str:
        """Return the id of the task that an ephemeral worker's session has, empty without one."""
        return await self._s.ledger.read(lambda c: tasks.task_of(c, *self._key, session_id))

    async def armed(self, session_id: str) -> bool:
        """Whether this very session has said its word."""
        return await self._s.ledger.read(lambda c: is_armed(c, *self._key, session_id))

    async def turn_open(self, session_id: str) -> bool:
        """Whether a turn of this session has not ended, as far as anybody told."""
        return bool(await self._s.ledger.read(lambda c: turns.open_messages(c, session_id)))

    async def last_change(self, session_id: str) -> float:
        """Return when a message of this session changed last (wall time), 0 without any."""
        return await self._s.ledger.read(lambda c: queries.last_change(c, session_id))

    async def was_heard(self, session_id: str) -> bool:
        """Whether something was said in a session."""
        row = await self._s.ledger.read(lambda c: rows.get_session(c, session_id))
        return row is not None and row.heard

    async def heard(self, session_id: str) -> None:
        """Remember that something was said in a session."""
        await self._s.ledger.write(lambda c: rows.mark_heard(c, session_id))

    async def move(self, session_id: str, native_id: str, transcript: str) -> None:
        """Remember that a session talks in another conversation now."""
        await self._s.ledger.write(
            lambda c: rows.set_conversation(c, session_id, transcript, native_id)
        )

    async def end_task(self, session_id: str, *, died: bool, again: bool) -> None:
        """Settle the turn and the task of an ephemeral worker's session.

        `again`: the task was not finished and goes round once more, marked; the second time it
        fails.
        """
        now = self._s.clock.now()

        def end(conn: Connection) -> MessageRow | None:
            turns.end_turn(conn, session_id, TurnEnd.DIED if died else TurnEnd.UNKNOWN, now)
            return tasks.settle(conn, self._key, session_id, again=again, now=now)

        changed = await self._s.ledger.write(end)
        self._told([changed] if changed else [])

    async def disarm(self, session_id: str) -> None:
        """Forget the word of a session that is gone; until then a new daemon would ask for it."""
        if await self.armed(session_id):
            await self._s.ledger.write(lambda c: tasks.disarm(c, self._key, session_id))

    async def end_session_turn(self, session_id: str, *, died: bool) -> None:
        """Settle the turn a session did not finish.

        When the session died by nobody's will, what it had read and not answered goes round once
        more, marked; the second time it fails. A deliberate end leaves it `seen`.
        """
        now = self._s.clock.now()

        def settle(conn: Connection) -> list[MessageRow]:
            running = turns.open_messages(conn, session_id)
            before = {row.id: turns.times_died(conn, row.id) for row in running}
            turns.end_turn(conn, session_id, TurnEnd.DIED if died else TurnEnd.UNKNOWN, now)
            if not died:
                return []
            after = []
            for row in running:
                if row.answered_by or row.state != MessageState.SEEN:
                    continue
                back = messages.advance(
                    conn,
                    row.id,
                    Event.RETURN,
                    now=now,
                    reason="the session died in the turn that read it",
                    mark_dup=True,
                )
                if before[row.id] >= DEATHS_PER_MESSAGE - 1:
                    why = f"the session died {before[row.id] + 1} times in the turn that read it"
                    back = messages.advance(conn, row.id, Event.FAIL, now=now, reason=why)
                after.append(back)
            return after

        self._told(await self._s.ledger.write(settle))

    def _told(self, changed: Sequence[MessageRow]) -> None:
        for row in changed:
            self._s.waits.changed(row.id)
            if row.state == MessageState.FAILED:
                self._s.notices.failed(row)

    async def fault(self, kind: str, detail: str) -> None:
        """Remember that a boot failed or a session died by nobody's will."""
        now = self._s.clock.now()
        await self._s.ledger.write(
            lambda c: marks.record_death(c, self.uid, self.identity.runtime, kind, now, detail)
        )

    async def faults(self) -> tuple[float, ...]:
        """Return the wall times of this identity's faults, oldest first."""
        since = self._s.clock.now() - FAULTS_REMEMBERED_S
        found = await self._s.ledger.read(
            lambda c: marks.deaths_since(c, self.uid, self.identity.runtime, since, FAULT_KINDS)
        )
        return tuple(row.at for row in found)

    async def newest_fault(self) -> str:
        """Return what is known of the newest fault, empty without one."""
        found = await self._s.ledger.read(
            lambda c: marks.deaths_since(c, self.uid, self.identity.runtime, 0.0, FAULT_KINDS)
        )
        return found[-1].detail if found else ""

    async def mark_stopped(self) -> None:
        """Refuse new messages from now on."""
        now = self._s.clock.now()
        await self._s.ledger.write(
            lambda c: marks.set_mark(c, self.uid, self.identity.runtime, STOPPED, now)
        )

    async def is_stopped(self) -> bool:
        """Whether `stop` was the last word."""
        return await self._s.ledger.read(lambda c: marks.has_mark(c, *self._key, STOPPED))

    async def clear_stopped(self) -> None:
        """Take messages again and forget old faults."""

        def clear(conn: Connection) -> None:
            marks.clear_mark(conn, self.uid, self.identity.runtime, STOPPED)
            marks.clear_deaths(conn, self.uid, self.identity.runtime)

        await self._s.ledger.write(clear)

    async def open_sessions(self) -> list[SessionRow]:
        """Return every session of this identity whose end is not written down, oldest first."""
        live = await self._s.ledger.read(rows.live_sessions)
        return [row for row in live if (row.uid, row.runtime) == self._key]

    async def open_stream(self, session: InboxSession) -> None:
        """Store an inbox stream as a session that is ready; it holds no token of its own."""
        now = self._s.clock.now()
        new = NewSession(
            id=session.id,
            uid=self.uid,
            runtime=self.identity.runtime,
            personality=self.identity.personality,
            token_sha256="",
            cwd="",
            socket="",
            mode="stream",
            started_at=now,
        )

        def open_row(conn: Connection) -> None:
            rows.open_session(conn, new)
            rows.mark_ready(conn, new.id, now)

        await self._s.ledger.write(open_row)

    async def close_stream(self, session_id: str, cause: str) -> None:
        """End a stream's row."""
        now = self._s.clock.now()
        await self._s.ledger.write(lambda c: rows.end_session(c, session_id, cause, now))
