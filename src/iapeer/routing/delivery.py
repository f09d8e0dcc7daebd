"""One step of delivery into a live session: look, journal, hand over, or settle what is open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iapeer.core.states import Event, HoldReason, MessageState
from iapeer.sessions.doors.port import Door, HandOver
from iapeer.sessions.evidence import Fact
from iapeer.storage.faults import fault
from iapeer.storage.ledger.rows import MessageRow

from .journal import Journal, envelope_of
from .letters import Observed, Session

if TYPE_CHECKING:
    from .services import LaneServices

SETTLE_POLL_S = 0.25
"""Between two looks at an attempt whose end nobody saw."""


def marker_of(row: MessageRow) -> str:
    """Return the name of a message's newest attempt; what the tmux options hold."""
    return f"{row.id}-{row.attempt}"


class Deliverer:
    """Hands messages over in order, never more than the runtime's window without proof."""

    def __init__(self, journal: Journal, services: LaneServices) -> None:
        self._journal = journal
        self._s = services
        self._unproven: set[str] = set()
        """Landed long ago in a session that is idle: it will not prove them any more."""

    async def step(self, session: Session) -> float | None:
        """Do at most one hand-over; return in how many seconds to look again by oneself.

        0 means at once. Raises SessionGone and TmuxError as the door does.
        """
        door = self._s.doors[session.spec.doors[0]]
        open_rows = await self._journal.outstanding(session.id)
        if not door.acks:
            for row in open_rows:
                if row.state == MessageState.IN_FLIGHT:
                    return await self._settle(session, door, row)
        waiting = [row for row in open_rows if row.id not in self._unproven]
        if len(waiting) >= session.spec.window:
            await self._journal.hold(HoldReason.BUSY)
            return None if door.acks else await self._wait_for_proof(session, door, waiting)
        head = await self._journal.next()
        if head is None:
            return None if door.acks or not waiting else self._s.settings.evidence_s
        reason = await door.probe(session)
        if reason is not None:
            await self._journal.hold(reason)
            return self._poll_s(reason)
        await self._hand_over(session, door, head)
        return 0.0

    def forget(self) -> None:
        """Begin with a new session."""
        self._unproven.clear()

    async def observed(self, observed: Observed) -> None:
        """Take evidence: only ids in flight for that session, only from its own record."""
        open_rows = {row.id: row for row in await self._journal.outstanding(observed.session_id)}
        seen: list[tuple[MessageRow, str]] = []
        for fact in observed.facts:
            await self._take(fact, open_rows, seen)
        await self._journal.observed(seen)
        if observed.offset is not None and (seen or observed.facts):
            await self._journal.set_offset(observed.session_id, observed.offset)
        self._unproven.difference_update(row.id for row, _ in seen)

    async def _take(
        self,
        fact: Fact,
        open_rows: dict[str, MessageRow],
        seen: list[tuple[MessageRow, str]],
    ) -> None:
        for message_id in fact.ids:
            row = open_rows.get(message_id)
            if row is None:
                continue
            if fact.kind == "user":
                del open_rows[message_id]
                seen.append((row, fact.source))
            elif fact.kind == "enqueue" and row.state == MessageState.IN_FLIGHT:
                # The runtime has it in memory only: that is `landed`, never `seen`.
                open_rows[message_id] = await self._journal.advance(
                    row, Event.LAND, evidence=f"enqueue {fact.source}"
                )

    async def _hand_over(self, session: Session, door: Door, row: MessageRow) -> None:
        attempt = await self._journal.begin(row, session.id, door.name)
        fault("delivery.journalled")
        marker = f"{row.id}-{attempt}"
        outcome = await door.hand_over(session, envelope_of(row), marker)
        fault("delivery.handed_over")
        await self._apply(session, row, outcome)

    async def _settle(self, session: Session, door: Door, row: MessageRow) -> float:
        """Complete an attempt whose end nobody saw; only then does the next one get its turn."""
        outcome = await door.finish(session, marker_of(row))
        blocked = outcome == HandOver.BLOCKED
        await self._journal.hold(HoldReason.COMPOSER if blocked else HoldReason.BUSY)
        if blocked:
            return self._poll_s(HoldReason.COMPOSER)
        if outcome == HandOver.UNCERTAIN:
            age = self._s.clock.now() - row.changed_at
            if age > self._s.settings.evidence_s:
                # Pasted, gone from the composer, and no record of it: nobody can tell any more.
                await self._journal.return_all(
                    [row], frozenset({row.id}), "nothing proves that it arrived"
                )
                return 0.0
            return SETTLE_POLL_S
        await self._apply(session, row, outcome)
        return 0.0

    async def _apply(self, session: Session, row: MessageRow, outcome: HandOver) -> None:
        match outcome:
            case HandOver.LANDED:
                await self._journal.advance(row, Event.LAND, final=not session.spec.proves_seen)
                fault("delivery.landed")
            case HandOver.NOT_HANDED:
                await self._journal.return_all([row], frozenset(), "the session took nothing")
            case HandOver.SENT | HandOver.UNCERTAIN | HandOver.BLOCKED:
                # Stays in flight: the ack, the evidence or the next look tells.
                self._s.waits.changed(row.id)

    async def _wait_for_proof(
        self, session: Session, door: Door, waiting: Sequence[MessageRow]
    ) -> float:
        """Free the window when an idle session has had its time to prove and did not."""
        oldest = min(row.changed_at for row in waiting)
        left = self._s.settings.evidence_s - (self._s.clock.now() - oldest)
        if left > 0:
            return left
        if await door.probe(session) is not None or await door.is_busy(session):
            return self._s.settings.evidence_s
        for row in waiting:
            self._unproven.add(row.id)
            self._s.log("unproven", identity=self._journal.identity.address, id=row.id)
        return 0.0

    def _poll_s(self, reason: HoldReason) -> float:
        settings = self._s.settings
        composer = reason == HoldReason.COMPOSER
        return (settings.composer_poll_ms if composer else settings.busy_poll_ms) / 1000
