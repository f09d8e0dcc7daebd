"""The `inbox` door: a program holds a stream open and acknowledges each message by its id."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

from iapeer.core.envelope import Envelope
from iapeer.core.identity import Identity
from iapeer.core.states import HoldReason
from iapeer.runtimes.spec import RuntimeSpec

from .port import HandOver


@dataclass
class InboxSession:
    """One open stream. The queue is as long as the runtime's window, so it never overflows."""

    uid: str
    identity: Identity
    spec: RuntimeSpec
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    queue: asyncio.Queue[Envelope | None] = field(init=False)
    """Messages for the stream; None ends it."""
    closed: bool = False

    def __post_init__(self) -> None:
        self.queue = asyncio.Queue(maxsize=self.spec.window + 1)

    def end(self) -> None:
        """End the stream from our side; idempotent."""
        if not self.closed:
            self.closed = True
            while self.queue.full():
                self.queue.get_nowait()
            self.queue.put_nowait(None)

    def release(self) -> None:
        """The same as `end`: a stream has nothing else to let go of."""
        self.end()


class InboxDoor:
    """Puts messages on the stream; only the reader's ack makes one `seen`."""

    name = "inbox"
    acks = True

    async def probe(self, session: InboxSession) -> HoldReason | None:
        """A stream that is open and has room takes the next message."""
        if session.closed:
            return HoldReason.OFFLINE
        return HoldReason.BUSY if session.queue.full() else None

    async def is_busy(self, session: InboxSession) -> bool:
        """A stream has no turns."""
        del session
        return False

    async def hand_over(self, session: InboxSession, envelope: Envelope, marker: str) -> HandOver:
        """Queue one message for the stream; `marker` is not needed: the ack carries the id."""
        del marker
        if session.closed or session.queue.full():
            return HandOver.NOT_HANDED
        session.queue.put_nowait(envelope)
        return HandOver.SENT

    async def say(self, session: InboxSession, text: str, marker: str) -> HandOver:
        """A program that reads its stream needs no preface: nothing is told, and that is done."""
        del session, text, marker
        return HandOver.LANDED

    async def finish(self, session: InboxSession, marker: str) -> HandOver:
        """Nothing can be looked up: the ack comes, or the stream ends and gives it back."""
        del session, marker
        return HandOver.SENT
