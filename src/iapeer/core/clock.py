"""One clock for everything that decides by time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall clock for records, monotonic clock for waits; a clock jump moves only the first."""

    def now(self) -> float:
        """Return seconds since the epoch (wall clock)."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return time.monotonic()


class FakeClock:
    """A clock that moves only when told; for tests of rules."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        """Return the told wall time."""
        return self._now

    def monotonic(self) -> float:
        """Return the told monotonic time."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock only, as an administrator or NTP would."""
        self._now += seconds
