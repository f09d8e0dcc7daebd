"""One step of delivery into a live session: look, journal, hand over, or settle what is open."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iapeer.core.identity import CORE_ADDRESS
from iapeer.core.ids import MESSAGE_ID_LENGTH
from iapeer.core.states import Event, HoldReason, MessageState, TurnEnd
from iapeer.sessions.doors.port import Door, HandOver
from iapeer.sessions.model import TmuxSession
from iapeer.storage.faults import fault
from iapeer.storage.ledger.rows import MessageRow

from .apipause import ApiPause, Left
from .conversation import Conversation
from .envelopes import envelope_of
from .journal import Journal
from .letters import Observed, Session
from .order import TurnOrder
from .proofs import HUMAN_DEPTH, Taken

if TYPE_CHECKING:
    from .services import LaneServices

_UNKNOWN = frozenset({HandOver.UNCERTAIN, HandOver.UNSHOWN})
COMPOSER_NOTICE = "someone is typing there; it will arrive, do not resend"
CHANNEL_PATIENCE_S = 30.0
"""A program's own server that took nothing for this long is passed by, where there is another door
(measured: Codex' comes back after a SIGKILL within 2 s)."""
SETTLE_POLL_S = 0.25
"""Between two looks at an attempt whose end nobody saw."""


def marker_of(row: MessageRow) -> str:
    """Return the name of a message's newest attempt; what the tmux options hold."""
    return f"{row.id}-{row.attempt}"


def seed_marker(session_id: str) -> str:
    """Return the name of the attempt to tell a session its preface; it has the form of the others.

    Always the same for one session, so that a later look finds how far it got.
    """
    digest = hashlib.sha256(session_id.encode()).digest()
    return f"{base64.b32encode(digest).decode().lower()[:MESSAGE_ID_LENGTH]}-0"


class Deliverer:
    """Hands messages over in order, never more than the runtime's window without proof."""

    def __init__(
        self, journal: Journal, services: LaneServices, conversation: Conversation
    ) -> None:
        self._journal = journal
        self._conversation = conversation
        self._s = services
        self.depth = HUMAN_DEPTH
        """Causal depth of the newest input of the running turn."""
        self._since: dict[tuple[str, MessageState], float] = {}
        self._pause = ApiPause(journal, services)
        self._order = TurnOrder()
        self._composer_since: float | None = None
        self._composer_told = False
        self._channel_seen_at: float | None = None
        self._door_told = False
        self._unproven: set[str] = set()
        """Landed long ago in a session that is idle: it will not prove them any more."""
        self.paused: HoldReason | None = None
        """Why messages wait after a turn that failed, None if they do not."""
        self.seeding = False
        """Whether the preface is to be told without a message."""
        self._serial = False
        self._task = ""
        self._said = False
        self._for_people = False

    async def step(self, session: Session) -> float | None:
        """Do at most one hand-over; return in how many seconds to look again by oneself.

        0 means at once. Raises SessionGone and TmuxError as the door does.
        """
        door = self._door(session)
        open_rows, oldest = await self._journal.look(session.id)
        if not door.acks:
            for row in open_rows:
                if row.state == MessageState.IN_FLIGHT:
                    return await self._settle(session, self._s.doors[row.door], row)
        waiting = [row for row in open_rows if row.id not in self._unproven]
        if len(waiting) >= session.spec.window:
            await self._hold(HoldReason.BUSY)
            return None if door.acks else await self._wait_for_proof(session, door, waiting)
        left = await self._pause.left()
        self.paused = left.reason if left else None
        head = await self._next(oldest)
        if head is not None:
            return await self._take_on(session, door, head, left)
        self._composer_since = None
        if self.seeding and isinstance(session, TmuxSession):
            return await self._seed(session, door)
        left_s = left.seconds if left else None
        return left_s if door.acks or not waiting else self._s.settings.evidence_s

    async def _take_on(
        self, session: Session, door: Door, head: MessageRow, left: Left | None
    ) -> float:
        """Hand this one over, or hold what waits for the reason it can't be."""
        if left is not None:
            await self._hold(left.reason, head)
            return left.seconds
        reason = await door.probe(session)
        await self._mind_composer(reason)
        if reason is not None:
            await self._hold(reason, head)
            return self._poll_s(reason)
        await self._hand_over(session, door, head)
        return 0.0

    async def _next(self, head: MessageRow | None) -> MessageRow | None:
        """Return what is to be handed over next; `head` is the oldest message that waits.

        An ephemeral worker's session gets one task, and only while nobody else has spoken to it;
        notices of the core are about that task.
        """
        if head is None or not self._serial or head.sender == CORE_ADDRESS:
            return head
        if head.id == self._task or not (self._task or self._said):
            return head
        await self._journal.hold_serially(HoldReason.SERIAL, "")
        return await self._journal.next_notice()

    async def _hold(self, reason: HoldReason, head: MessageRow | None = None) -> None:
        if not self._serial:
            await self._journal.hold(reason)
            return
        await self._journal.hold_serially(reason, head.id if head else "")

    async def _seed(self, session: TmuxSession, door: Door) -> float | None:
        """Tell a fresh session its preface alone; the marker keeps it from being told twice."""
        if not session.preface:
            self.seeding = False
            return None
        outcome = await door.say(session, session.preface, seed_marker(session.id))
        if outcome in (HandOver.LANDED, HandOver.SENT):
            session.preface, self.seeding = "", False
            await self._journal.heard(session.id)
            return 0.0
        return self._poll_s(HoldReason.BUSY)

    def _door(self, session: Session) -> Door:
        """Return the first door, or the next one where the program's own server stays silent."""
        names = session.spec.doors
        if len(names) > 1 and isinstance(session, TmuxSession) and session.spec.has_channel:
            now = self._s.clock.monotonic()
            if self._channel_seen_at is None or (session.channel and session.channel.ready):
                self._channel_seen_at = now
            if now - self._channel_seen_at > CHANNEL_PATIENCE_S:
                if not self._door_told:
                    address = self._journal.identity.address
                    self._s.log("door", identity=address, door=names[1], instead=names[0])
                self._door_told = True
                return self._s.doors[names[1]]
            self._door_told = False
        return self._s.doors[names[0]]

    async def _mind_composer(self, reason: HoldReason | None) -> None:
        """Once per episode: tell the senders that somebody has been typing for long."""
        now = self._s.clock.monotonic()
        if reason != HoldReason.COMPOSER:
            self._composer_since = None
            return
        if self._composer_since is None:
            self._composer_since, self._composer_told = now, False
        limit_s = self._s.settings.composer_timeout_ms / 1000
        if not self._composer_told and now - self._composer_since >= limit_s:
            self._composer_told = True
            rows = await self._journal.waiting()
            self._s.notices.waiting(rows, COMPOSER_NOTICE)
            self._s.log(
                "composer-draft", identity=self._journal.identity.address, waiting=len(rows)
            )

    async def begin(
        self, session: Session, *, ephemeral: bool, seed_alone: bool, for_people: bool
    ) -> None:
        """Begin with a new session, or one that an earlier daemon has begun with.

        `for_people`: no message asked for it, so what is typed there is a task of its own.
        """
        self._serial, self.seeding, self.paused = ephemeral, seed_alone, None
        self._for_people = for_people
        self._task = await self._journal.task(session.id) if ephemeral else ""
        self._said = ephemeral and not self._task and await self._journal.was_heard(session.id)
        self._composer_since = None
        self._channel_seen_at = None
        self._door_told = False
        self._unproven.clear()
        self._order = TurnOrder()
        self._since.clear()
        self.depth = HUMAN_DEPTH

    async def observed(self, observed: Observed) -> Taken:
        """Take evidence of this session's own record or hook, and how far it was read."""
        # What the ledger does not take comes again.
        order = self._order.copy()
        facts = order.place(observed)
        taken = await self._journal.take(observed.session_id, facts, observed.offset)
        self._order = order
        self._unproven.difference_update(taken.seen)
        if self._for_people:
            self._said |= any(fact.kind == "user" and not fact.ids for fact in observed.facts)
        if taken.depth is not None:
            self.depth = taken.depth
        for fact, end, ids in taken.ended:
            if end == TurnEnd.API_ERROR:
                await self._pause.begin(ids, fact)
        return taken

    async def _hand_over(self, session: Session, door: Door, row: MessageRow) -> None:
        is_task = self._serial and row.sender != CORE_ADDRESS
        if is_task:
            self._task = row.id
        attempt = await self._journal.begin(row, session.id, door.name, task=is_task)
        fault("delivery.journalled")
        marker = f"{row.id}-{attempt}"
        outcome = await door.hand_over(session, envelope_of(row), marker)
        fault("delivery.handed_over")
        await self._apply(session, row, outcome)

    async def _settle(self, session: Session, door: Door, row: MessageRow) -> float:
        """Complete an attempt whose end nobody saw; only then does the next one get its turn."""
        outcome = await door.finish(session, marker_of(row))
        blocked = outcome == HandOver.BLOCKED
        await self._hold(HoldReason.COMPOSER if blocked else HoldReason.BUSY)
        if blocked:
            return self._poll_s(HoldReason.COMPOSER)
        if outcome in _UNKNOWN:
            limit = self._s.settings.evidence_s
            if outcome == HandOver.UNSHOWN:
                limit = self._s.settings.composer_timeout_ms / 1000
            if self._waited_s([row]) > limit:
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
                if isinstance(session, TmuxSession):
                    session.preface = ""
                if row.topic:
                    await self._conversation.about(row.topic)
                await self._journal.advance(row, Event.LAND, final=not session.spec.proves_seen)
                fault("delivery.landed")
            case HandOver.NOT_HANDED:
                await self._journal.return_all([row], frozenset(), "the session took nothing")
            case HandOver.SENT | HandOver.UNCERTAIN | HandOver.UNSHOWN | HandOver.BLOCKED:
                # Stays in flight: the ack, the evidence or the next look tells.
                self._s.waits.changed(row.id)

    async def _wait_for_proof(
        self, session: Session, door: Door, waiting: Sequence[MessageRow]
    ) -> float:
        """Free the window when an idle session has had its time to prove and did not."""
        left = self._s.settings.evidence_s - self._waited_s(waiting)
        if left > 0:
            return left
        if await door.probe(session) is not None or await door.is_busy(session):
            return self._s.settings.evidence_s
        for row in waiting:
            self._unproven.add(row.id)
            self._s.log("unproven", identity=self._journal.identity.address, id=row.id)
        return 0.0

    def _waited_s(self, waiting: Sequence[MessageRow]) -> float:
        """Return for how long we have looked at these as they are, whatever the wall clock does."""
        now = self._s.clock.monotonic()
        steps = {(marker_of(row), row.state) for row in waiting}
        self._since = {step: self._since.get(step, now) for step in steps}
        return now - min(self._since.values())

    def _poll_s(self, reason: HoldReason) -> float:
        settings = self._s.settings
        composer = reason == HoldReason.COMPOSER
        return (settings.composer_poll_ms if composer else settings.busy_poll_ms) / 1000
