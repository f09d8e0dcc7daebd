"""Inbox streams: the `inbox` door seen from the edge that holds the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from iapeer.core.envelope import Envelope
from iapeer.core.errors import SendRefused
from iapeer.core.states import MessageState
from iapeer.registry.caller import Caller
from iapeer.sessions.doors.inbox import InboxSession
from iapeer.sessions.evidence import Fact
from iapeer.storage.ledger import queries

from .lanes.letters import Attached, Detached, Observed
from .lanes.pool import Lanes
from .ports import InboxMessage

if TYPE_CHECKING:
    from .lanes.services import LaneServices


class Inboxes:
    """Opens streams for services and takes their acks."""

    def __init__(self, lanes: Lanes, services: LaneServices) -> None:
        self._lanes = lanes
        self._s = services
        self._open: dict[tuple[str, str], InboxSession] = {}

    async def open(self, caller: Caller) -> AsyncIterator[InboxMessage]:
        """Stream messages until the consumer stops; see `ports.Inbox`."""
        spec = self._s.catalog.get(caller.identity.runtime)
        if "inbox" not in spec.doors:
            raise SendRefused(
                f"{caller.identity.address} is no service: runtime {spec.id} has no inbox",
                hint="its messages come through its own session",
                code="no_inbox",
            )
        key = (caller.record.uid, caller.identity.runtime)
        session = InboxSession(uid=caller.record.uid, identity=caller.identity, spec=spec)
        lane = self._lanes.lane(caller.record.uid, caller.identity)
        self._open[key] = session
        lane.post(Attached(session))
        try:
            while (envelope := await session.queue.get()) is not None:
                yield _message(envelope)
        finally:
            session.closed = True
            if self._open.get(key) is session:
                del self._open[key]
            lane.post(Detached(session.id))

    async def ack(self, caller: Caller, message_id: str) -> bool:
        """Take the reader's word; see `ports.Inbox`."""
        session = self._open.get((caller.record.uid, caller.identity.runtime))
        lane = self._lanes.of_session(session.id) if session else None
        if session is None or lane is None:
            return False
        waiting = await self._s.ledger.read(lambda c: queries.outstanding(c, session.id))
        if not any(m.id == message_id and m.state == MessageState.IN_FLIGHT for m in waiting):
            return False
        lane.observe(Observed(session.id, (Fact("user", (message_id,), source="ack"),)))
        return True


def _message(envelope: Envelope) -> InboxMessage:
    return InboxMessage(
        id=envelope.id or "",
        sender=f"{envelope.from_runtime}-{envelope.from_personality}",
        intelligence=envelope.from_intelligence or "",
        body=envelope.body,
        topic=envelope.topic,
        attachments=envelope.attachments,
        ts=envelope.ts or "",
        dup=envelope.dup or "",
    )
