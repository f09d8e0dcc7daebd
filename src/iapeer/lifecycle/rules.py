"""When a session is started for work that waits: a pure table, no clock, no I/O.

| presence | answer |
| --- | --- |
| stopped | hold `stopped`, until `start` |
| connects by itself (inbox) | hold `offline`, until its stream opens |
| no fault in the window | boot |
| fewer faults than `boots_before_broken` | boot, after a short back-off that doubles |
| that many or more | hold `broken`, one try per `boot_backoff_max_s`; `start` forgets the faults |
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from iapeer.core.settings import Settings
from iapeer.core.states import HoldReason
from iapeer.routing.lanes.presence import Hold, Presence, Start

JITTER = 0.2
"""Back-offs vary by up to this share, so that a fleet does not come back in one instant."""


def backoff_s(faults: int, settings: Settings, jitter: float) -> float:
    """Return how long to wait after the newest of `faults` faults; `jitter` is in 0..1."""
    if faults <= 0:
        return 0.0
    if faults >= settings.boots_before_broken:
        base = settings.boot_backoff_max_s
    else:
        base = min(settings.boot_backoff_s * 2 ** (faults - 1), settings.boot_backoff_max_s)
    return base * (1 + JITTER * (2 * jitter - 1))


def decide(presence: Presence, now: float, settings: Settings, jitter: float = 0.5) -> Start | Hold:
    """Answer for one lane; the same values always give the same answer.

    A fault in the future tells of a wall clock that jumped back: then the back-off is over, or
    it would begin anew at each look until the clock has caught up.
    """
    if presence.stopped:
        return Hold(HoldReason.STOPPED)
    if presence.connects_itself:
        return Hold(HoldReason.OFFLINE)
    wait = backoff_s(presence.faults, settings, jitter)
    elapsed = now - presence.last_fault_at
    broken = presence.faults >= settings.boots_before_broken
    if 0 <= elapsed < wait:
        reason = HoldReason.BROKEN if broken else HoldReason.WAKING
        return Hold(reason, retry_s=wait - elapsed)
    return Start()


def bind(settings: Settings, seed: int | None = None) -> Callable[[Presence, float], Start | Hold]:
    """Return `decide` with this host's settings and a jitter of its own."""
    random = Random(seed)  # noqa: S311 - jitter, no secret

    def answer(presence: Presence, now: float) -> Start | Hold:
        return decide(presence, now, settings, random.random())

    return answer
