"""What a person may ask of a running session besides messages: stop the turn, shorten the context.

A compaction takes as long as a model takes: nothing waits for it here. The lane looks again now and
then, and meanwhile hands nothing over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.errors import ControlRefused
from iapeer.core.identity import Identity
from iapeer.core.ids import new_message_id
from iapeer.sessions.doors.paste import PasteDoor
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.model import TmuxSession

from .letters import Session

if TYPE_CHECKING:
    from .services import LaneServices

INTERRUPT_GAP_S = 1.0
"""Two quick interrupts open a menu in real programs that swallows what comes after (measured:
Claude Code 2.1.197): the second one within this time is not pressed."""
LOOK_S = 0.5
"""Between two looks at a running compaction."""


class _Compaction(msgspec.Struct):
    done: asyncio.Future[str]
    deadline: float
    refusals: int
    """How often the screen said that it refuses before we asked."""
    begun: bool = False


class Controls:
    """Interrupt and compact of one identity's session."""

    def __init__(self, identity: Identity, services: LaneServices) -> None:
        self._identity = identity
        self._s = services
        self._running: _Compaction | None = None
        self._interrupted_at: float | None = None

    @property
    def compacting(self) -> bool:
        """Whether a compaction was asked for and has not ended."""
        return self._running is not None

    async def interrupt(
        self, session: Session | None, before: Callable[[TmuxSession], Awaitable[None]]
    ) -> str:
        """Stop the running turn as a person would; returns what to say.

        `before` is called when a key is about to be pressed.
        Raises ControlRefused when nothing runs or the runtime has no such control, TmuxError.
        """
        live = self._live(session, "interrupt")
        if live.channel is not None and await live.channel.interrupt():
            return "interrupted"
        key = live.spec.control.interrupt
        if not key:
            raise self._unsupported("interrupt")
        now = self._s.clock.monotonic()
        if self._interrupted_at is not None and now - self._interrupted_at < INTERRUPT_GAP_S:
            return "interrupted"
        await before(live)
        self._interrupted_at = now
        await live.tmux.keys(key)
        return "interrupted"

    async def ask_compact(self, session: Session, done: asyncio.Future[str]) -> None:
        """Take the wish; `done` gets its end. It begins when the session is idle.

        Raises ControlRefused.
        """
        live = self._live(session, "compact")
        if live.channel is None and not live.spec.control.compact:
            raise self._unsupported("compact")
        if self._running is not None:
            raise ControlRefused(
                f"{self._identity.address} is being compacted already", code="busy"
            )
        deadline = self._s.clock.monotonic() + self._s.settings.compact_done_timeout_ms / 1000
        self._running = _Compaction(done, deadline, await self._refusals(live))

    async def go_on(self, session: TmuxSession) -> float | None:
        """Begin or look after the compaction; returns when to look again, None when it is over."""
        running = self._running
        if running is None:
            return None
        if self._s.clock.monotonic() > running.deadline:
            self._fail("no sign of its end in time", "timeout")
            return None
        if not running.begun:
            running.begun = await self._begin(session)
        elif await self._refusals(session) > running.refusals:
            self._fail("there is nothing to compact", "nothing_to_compact")
            return None
        return LOOK_S

    def compacted(self) -> None:
        """The runtime itself says that the context is short now."""
        running, self._running = self._running, None
        if running is not None and not running.done.done():
            running.done.set_result("compacted")

    def over(self, cause: str) -> None:
        """The session ended: whatever was asked of it is answered."""
        if self._running is not None:
            self._fail(f"the session ended: {cause}", "session_ended")

    async def _begin(self, session: TmuxSession) -> bool:
        """Ask the runtime, when nothing runs and nobody is typing."""
        if session.channel is not None:
            return await session.channel.compact()
        door = self._s.doors["paste"]
        if not isinstance(door, PasteDoor) or await door.is_busy(session):
            return False
        marker = f"compact-{new_message_id()}"
        typed = await door.type_line(session, session.spec.control.compact, marker)
        return typed == HandOver.LANDED

    async def _refusals(self, session: TmuxSession) -> int:
        expressions = session.spec.control.compact_refused
        if not expressions:
            return 0
        text = await session.tmux.capture()
        return sum(len(re.findall(expression, text, re.MULTILINE)) for expression in expressions)

    def _live(self, session: Session | None, what: str) -> TmuxSession:
        if isinstance(session, TmuxSession):
            return session
        if session is not None:
            raise self._unsupported(what, "it connects by itself and has no terminal")
        hint = f"iapeer send {self._identity.personality} wakes it"
        if self._s.catalog.get(self._identity.runtime).kind == "service":
            hint = "it connects by itself: start its program"
        raise ControlRefused(
            f"cannot {what} {self._identity.address}: no session of it runs",
            hint=hint,
            code="not_live",
        )

    def _unsupported(
        self, what: str, hint: str = "its manifest names the keys in [control]"
    ) -> ControlRefused:
        return ControlRefused(
            f"runtime {self._identity.runtime} does not support control command {what}",
            hint=hint,
            code="unsupported",
        )

    def _fail(self, why: str, code: str) -> None:
        running, self._running = self._running, None
        if running is not None and not running.done.done():
            running.done.set_exception(
                ControlRefused(f"compact {self._identity.address}: {why}", code=code)
            )
