"""When a live session is ended because nobody needs it: a clock, and one look when it has run out.

No timer of its own: the lane sets its alarm to what `step` returns. Time is the monotonic clock's,
so that a wall clock that jumps ends nothing; only what an earlier daemon knew has wall times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iapeer.core.errors import SessionGone, TmuxError
from iapeer.core.states import HoldReason, MessageState
from iapeer.registry.units import Unit
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession

from .presence import Life, Look, Reap, Stay

if TYPE_CHECKING:
    from iapeer.storage.ledger.rows import SessionRow

    from .delivery import Deliverer
    from .journal import Journal
    from .waking import Waking

UNSURE_S = 1.0
"""Until the next look at a session whose terminal did not answer; unknown is not idle."""


class Rest:
    """The quiet of one identity's session."""

    def __init__(self, journal: Journal, waking: Waking, deliverer: Deliverer) -> None:
        self._journal = journal
        self._waking = waking
        self._deliverer = deliverer
        self._s = waking.services
        self._active_at = 0.0
        self._calls = 0
        self.ephemeral = False

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """The session waits in a call of ours: it is active until the call has returned."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self.touch()

    @property
    def idle_s(self) -> float:
        """For how long nothing has gone on."""
        return self._s.clock.monotonic() - self._active_at

    def touch(self) -> None:
        """Something went on just now."""
        self._active_at = self._s.clock.monotonic()

    def heard(self, session: TmuxSession, facts: Sequence[Fact]) -> None:
        """Something was read in the session's record, or told by its hook: it may be old news."""
        if facts:
            wall = self._s.clock.now()
            known = [fact.at for fact in facts if fact.at] or _written(session) or [wall]
            age = max(0.0, wall - max(known))
            self._active_at = max(self._active_at, self._s.clock.monotonic() - age)

    async def begin(self, session: TmuxSession, row: SessionRow | None) -> None:
        """Begin with a new session; `row` is what an earlier daemon knew of it."""
        self.ephemeral = self._waking.is_ephemeral()
        self.touch()
        if row is None:
            return
        delivered = await self._journal.last_change(session.id)
        known = [row.ready_at or row.started_at, delivered, *_written(session)]
        quiet = self._s.clock.now() - max(known)
        self._active_at -= max(0.0, quiet)

    async def step(self, session: TmuxSession, *, working: bool) -> Reap | float | None:
        """Return its end, or in how many seconds to look again (None: not by itself).

        `working` says that a child of the lane is at work on it.
        """
        if session.spec.kind != "tui":
            # A bridge that listens for others must be there before anybody writes to it.
            return None
        armed = self.ephemeral and await self._journal.armed(session.id)
        answer = self._s.rules.rest(Life(self.idle_s, ephemeral=self.ephemeral, armed=armed))
        if isinstance(answer, Look):
            answer = await self._look(session, armed=armed, working=working)
        return answer if isinstance(answer, Reap) else answer.again_s

    async def _look(self, session: TmuxSession, *, armed: bool, working: bool) -> Stay | Reap:
        """Ask again, with all that can be known."""
        self.ephemeral = self._waking.is_ephemeral()
        now, wall = self._s.clock.monotonic(), self._s.clock.now()
        for written in _written(session):
            if written <= wall:
                self._active_at = max(self._active_at, now - (wall - written))
        try:
            engaged = working or await self._is_engaged(session)
        except SessionGone:
            raise
        except TmuxError:
            return Stay(UNSURE_S)
        if engaged:
            self.touch()
        life = Life(
            idle_s=now - self._active_at,
            ephemeral=self.ephemeral,
            armed=armed,
            turn_open=await self._journal.turn_open(session.id),
            engaged=engaged,
            managed=self._waking.unit() != Unit.NONE,
        )
        answer = self._s.rules.rest(life)
        return Stay(UNSURE_S) if isinstance(answer, Look) else answer

    async def _is_engaged(self, session: TmuxSession) -> bool:
        """Whether something goes on that must not be cut off. Raises TmuxError."""
        if self._calls or self._deliverer.paused is not None:
            return True
        rows = await self._journal.outstanding(session.id)
        if any(row.state == MessageState.IN_FLIGHT for row in rows):
            return True
        if not self.ephemeral and await self._journal.next() is not None:
            return True
        door = self._s.doors[session.spec.doors[0]]
        if await door.is_busy(session) or await session.tmux.people():
            return True
        # A draft that somebody has left in the composer is never thrown away.
        return not self.ephemeral and await door.probe(session) == HoldReason.COMPOSER


def _written(session: TmuxSession) -> list[float]:
    """Return when its record was written last (wall time), nothing where there is none."""
    with contextlib.suppress(OSError):
        if session.transcript:
            return [Path(session.transcript).stat().st_mtime]
    return []
