"""What a lane is told, in the order it must hear it: orders first, then reports, then work."""

from __future__ import annotations

import asyncio
from collections import deque

from iapeer.core.clock import Clock

from .letters import Control, Died, Observed, Report


class Mailbox:
    """The two boxes, the bell and the alarm clock of one lane; posting never waits."""

    def __init__(self, clock: Clock) -> None:
        self.control: deque[Control] = deque()
        self.reports: deque[Report] = deque()
        self.work = True
        """There may be something to deliver."""
        self._clock = clock
        self._bell = asyncio.Event()
        self._look_at: float | None = None

    def ring(self) -> None:
        """Wake the lane."""
        self._bell.set()

    def poke(self) -> None:
        """There may be something to deliver."""
        self.work = True
        self.ring()

    def post(self, control: Control) -> None:
        """Post an order or a change of a stream; it overtakes reports and work."""
        self.control.append(control)
        self.ring()

    def report(self, report: Report) -> None:
        """Post a child's report; none is ever dropped, facts that pile up become one report.

        A death overtakes the others: whoever settles it takes the session's facts first, and a
        ledger that refuses those does not keep it a secret.
        """
        if isinstance(report, Died):
            self.reports.appendleft(report)
            self.ring()
            return
        last = self.reports[-1] if self.reports else None
        if isinstance(report, Observed) and isinstance(last, Observed):
            joined = last.joined(report)
            if joined is not None:
                self.reports[-1] = joined
                self.ring()
                return
        self.reports.append(report)
        self.ring()

    def take_observed(self, session_id: str) -> list[Observed]:
        """Take out the facts of one session, in order."""
        mine = [r for r in self.reports if isinstance(r, Observed) and r.session_id == session_id]
        for report in mine:
            self.reports.remove(report)
        return mine

    def look_in(self, seconds: float) -> None:
        """Set the alarm, unless it rings earlier already."""
        at = self._clock.monotonic() + seconds
        self._look_at = at if self._look_at is None else min(at, self._look_at)

    async def wait(self) -> None:
        """Wait until there is anything to do; the alarm counts as work."""
        if self.work or self.control or self.reports:
            return
        self._bell.clear()
        left = None if self._look_at is None else self._look_at - self._clock.monotonic()
        try:
            await asyncio.wait_for(self._bell.wait(), left)
        except TimeoutError:
            self._look_at = None
            self.work = True
