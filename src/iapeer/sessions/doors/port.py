"""What every door promises the lane."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from iapeer.core.envelope import Envelope
from iapeer.core.states import HoldReason


class HandOver(StrEnum):
    """What became of one attempt to hand a text over."""

    LANDED = "landed"
    """The runtime has it."""
    SENT = "sent"
    """On its way to a reader who will answer with an ack."""
    NOT_HANDED = "not_handed"
    """Provably nothing reached the runtime; the same text may be handed over again."""
    BLOCKED = "blocked"
    """Our text is in the composer together with a person's: only they may send or clear it."""
    UNSHOWN = "unshown"
    """In the terminal, but the program has not drawn it and no Enter was pressed: it may be
    hanging. A second copy would stand in its composer beside the first."""
    UNCERTAIN = "uncertain"
    """Part of the step may have happened; only `finish` or evidence can tell."""


class Door(Protocol):
    """One way into a runtime. No call takes longer than 2 s: a lane's step.

    `session` is the door's own kind of live session; `marker` names the attempt and is what a
    second look after a crash goes by.
    """

    name: str
    acks: bool
    """Whether the reader acknowledges each message (`SENT` is then followed by an ack)."""

    async def probe(self, session: Any) -> HoldReason | None:
        """Return why nothing may be handed over right now, None when it may."""

    async def is_busy(self, session: Any) -> bool:
        """Whether a turn is running."""

    async def hand_over(self, session: Any, envelope: Envelope, marker: str) -> HandOver:
        """Hand one message over. The caller has journalled the attempt."""

    async def say(self, session: Any, text: str, marker: str) -> HandOver:
        """Tell a text that is no message, once for each `marker`; call again until `LANDED`.

        Nothing is typed beside what somebody else is writing.
        """

    async def finish(self, session: Any, marker: str) -> HandOver:
        """Look again at an attempt whose end nobody saw, and complete it if that is safe."""
