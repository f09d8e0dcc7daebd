"""What the lifecycle rules are asked and what they answer; values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

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
    can_resume: bool = False
    """Whether there is an earlier conversation that its runtime can go on with."""
    parked: bool = False
    """Whether the last session was ended by us, to be gone on with."""
    fresh_next: bool = False
    """Whether somebody asked for the next session to be a fresh one."""
    ephemeral: bool = False
    """Whether each task gets a session of its own."""
    human: bool = False
    """Whether a person speaks with it through an interface of theirs."""
    left_queued: bool = False
    """Whether messages went down with a session whose runtime keeps its queue over a crash."""
    topic: str = ""
    """Topic of the message that asks for the session."""
    topics: frozenset[str] = frozenset()
    """Topics the earlier conversation was about."""


@dataclass(frozen=True)
class Start:
    """Start a session; `cause` is the contract's word for why it is fresh or gone on with."""

    mode: Literal["fresh", "resume"] = "fresh"
    cause: str = "first-wake"


@dataclass(frozen=True)
class Hold:
    """Keep the work, for this reason; look again after `retry_s` (None: when something changes)."""

    reason: HoldReason
    retry_s: float | None = None


Decide = Callable[[Presence, float], Start | Hold]
"""(presence, wall time) -> what to do with work that waits."""
