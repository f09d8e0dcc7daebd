"""When a session is started for work that waits: a pure table, no clock, no I/O.

| presence | answer |
| --- | --- |
| stopped | hold `stopped`, until `start` |
| connects by itself (inbox) | hold `offline`, until its stream opens |
| no fault in the window | boot |
| fewer faults than `boots_before_broken` | boot, after a short back-off that doubles |
| that many or more | hold `broken`, one try per `boot_backoff_max_s`; `start` forgets the faults |

A boot is fresh unless one of these holds, the first that applies:

| presence | mode, cause |
| --- | --- |
| a fresh one was asked for | fresh, `soft-reload` |
| one session per task | fresh, `ephemeral-policy` |
| messages are in the queue that its runtime kept | resume, `queue-survived` |
| its last session was not parked | fresh, `first-wake` or `crash-or-self-close` |
| parked, a person speaks with it | resume, `idle-reaped-human` |
| parked, the message has no topic | fresh, `idle-reaped-no-topic` |
| parked, a topic of that conversation | resume, `idle-reaped-resume` |
| parked, another topic | fresh, `idle-reaped-new-topic` |

Where nothing can be gone on with, the mode is fresh and the cause ends in `-no-resume`.
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
    return origin(presence)


def origin(presence: Presence) -> Start:
    """Say whether a session begins anew or goes on with the earlier conversation, and why."""
    resume, cause = _origin(presence)
    if resume and not presence.can_resume:
        return Start("fresh", f"{cause.removesuffix('-resume')}-no-resume")
    return Start("resume" if resume else "fresh", cause)


def _origin(presence: Presence) -> tuple[bool, str]:
    """Return whether to go on, and why."""
    rows = (
        (presence.fresh_next, (False, "soft-reload")),
        (presence.ephemeral, (False, "ephemeral-policy")),
        (presence.left_queued and presence.can_resume, (True, "queue-survived")),
        (not presence.parked and presence.can_resume, (False, "crash-or-self-close")),
        (not presence.parked, (False, "first-wake")),
        (presence.human, (True, "idle-reaped-human")),
        (not presence.topic, (False, "idle-reaped-no-topic")),
        (presence.topic in presence.topics, (True, "idle-reaped-resume")),
    )
    found = (answer for holds, answer in rows if holds)
    return next(found, (False, "idle-reaped-new-topic"))


def bind(settings: Settings, seed: int | None = None) -> Callable[[Presence, float], Start | Hold]:
    """Return `decide` with this host's settings and a jitter of its own."""
    random = Random(seed)  # noqa: S311 - jitter, no secret

    def answer(presence: Presence, now: float) -> Start | Hold:
        return decide(presence, now, settings, random.random())

    return answer
