"""What the lifecycle rules are asked and what they answer; values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from iapeer.core.states import HoldReason

FAULT_WINDOW_S = 300.0
"""Faults older than this are forgotten (the contract's crash-loop window)."""


class Phase(StrEnum):
    """What a lane's session is doing."""

    ASLEEP = "asleep"
    ADOPTING = "adopting"
    BOOTING = "booting"
    LIVE = "live"


@dataclass(frozen=True)
class Presence:
    """A peer that has work and no live session.

    `faults` counts boots that failed and sessions that died by no deliberate act within the
    window of the rules, `last_fault_at` is the newest one's wall time (0 without any).
    """

    stopped: bool
    connects_itself: bool
    faults: int = 0
    last_fault_at: float = 0.0


@dataclass(frozen=True)
class Start:
    """Start a session."""


@dataclass(frozen=True)
class Hold:
    """Keep the work, for this reason; look again after `retry_s` (None: when something changes)."""

    reason: HoldReason
    retry_s: float | None = None


Decide = Callable[[Presence, float], Start | Hold]
"""(presence, wall time) -> what to do with work that waits."""
