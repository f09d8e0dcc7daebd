"""When a session is started, when it ends, and what follows: pure tables, no clock, no I/O.

Work waits and nothing runs (`wake`), the first that applies:

| presence | answer |
| --- | --- |
| stopped | hold `stopped`, until `start` |
| connects by itself, or the service manager starts it | hold `offline`, until it is there |
| a fault, and its back-off is not over | hold `waking`: short, doubling |
| `boots_before_broken` faults within `crashloop_window_s` | hold `broken`: long, doubling |
| boots of its runtime fail on `peers_before_broken` peers | hold `broken`, one probe a time |
| else | boot |

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

A session is quiet (`rest`); nothing that is engaged is ever ended, and a turn that is open in the
ledger keeps it too, except where an ephemeral worker's queue would wait for an end that got lost:

| life | quiet longer than | answer |
| --- | --- | --- |
| ephemeral, armed | `ephemeral_quiet_s`, with an open turn the next one | reap `DONE` |
| ephemeral, not armed | `ephemeral_unarmed_idle_s` | reap `UNARMED` |
| any other | `idle_s` | reap `IDLE` |

It has ended (`after`):

| cause | fault | park | task again, if ephemeral and not armed |
| --- | --- | --- | --- |
| death | yes | no | yes |
| death at a quota wall | no | no | yes |
| reaped | no | unless ephemeral | if in mid-turn |
| stopped | no | yes | if in mid-turn |
| ordered | no | no | if in mid-turn |
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from iapeer.core.settings import Settings
from iapeer.core.states import HoldReason
from iapeer.routing.lanes.presence import (
    Aftermath,
    Cause,
    Ending,
    Hold,
    Life,
    Look,
    Outcome,
    Presence,
    Reap,
    Start,
    Stay,
)

JITTER = 0.2
"""Back-offs vary by up to this share, so that a fleet does not come back in one instant."""
FIRST_BROKEN_SHARE = 0.2
"""The first back-off of a broken peer, as a share of the longest: 60 s of 300 s."""
EDGE_S = 0.01
"""A bound must be exceeded: the next look is that much after it."""
_DEATHS = frozenset({Cause.DEATH, Cause.WALL})


def streak(faults: Sequence[float], settings: Settings) -> int:
    """Return how many of the newest faults belong together: no healthy time lies between them."""
    count = 0
    for at in reversed(faults):
        if count and faults[-count] - at > settings.healthy_s:
            break
        count += 1
    return count


def broken_since(faults: Sequence[float], settings: Settings) -> int | None:
    """Return after how many of the faults of a streak the peer was broken, None if it is not."""
    most = settings.boots_before_broken
    for end in range(most, len(faults) + 1):
        if faults[end - 1] - faults[end - most] <= settings.crashloop_window_s:
            return end
    return None


def backoff_s(faults: int, settings: Settings, jitter: float) -> float:
    """Return how long to wait after the newest of `faults` faults; `jitter` is in 0..1."""
    if faults <= 0:
        return 0.0
    return _vary(min(settings.boot_backoff_s * 2 ** min(faults - 1, 30), _most(settings)), jitter)


def broken_backoff_s(tries: int, settings: Settings, jitter: float) -> float:
    """Return how long a broken peer or runtime waits, `tries` failed tries after it broke."""
    first = _most(settings) * FIRST_BROKEN_SHARE
    return _vary(min(first * 2 ** min(tries, 30), _most(settings)), jitter)


def decide(presence: Presence, now: float, settings: Settings, jitter: float = 0.5) -> Start | Hold:
    """Answer for one lane without a session.

    A fault in the future tells of a wall clock that jumped back: then the back-off is over, or
    it would begin anew at each look until the clock has caught up.
    """
    if presence.stopped:
        return Hold(HoldReason.STOPPED)
    if presence.connects_itself or presence.managed:
        return Hold(HoldReason.OFFLINE)
    return (
        _own_faults(presence, now, settings, jitter)
        or _runtime_faults(presence, now, settings, jitter)
        or origin(presence)
    )


def _own_faults(presence: Presence, now: float, settings: Settings, jitter: float) -> Hold | None:
    newest = presence.faults[-streak(presence.faults, settings) :] if presence.faults else ()
    if not newest or now - newest[-1] > settings.healthy_s:
        return None
    broke = broken_since(newest, settings)
    if broke is None:
        wait, reason = backoff_s(len(newest), settings, jitter), HoldReason.WAKING
    else:
        wait = broken_backoff_s(len(newest) - broke, settings, jitter)
        reason = HoldReason.BROKEN
    left = wait - (now - newest[-1])
    return Hold(reason, retry_s=left) if 0 < left <= wait else None


def _runtime_faults(
    presence: Presence, now: float, settings: Settings, jitter: float
) -> Hold | None:
    trouble = presence.trouble
    if trouble.peers < settings.peers_before_broken:
        return None
    tries = trouble.failures - settings.peers_before_broken
    wait = broken_backoff_s(max(0, tries), settings, jitter)
    if trouble.probing:
        return Hold(HoldReason.BROKEN, retry_s=wait, whole_runtime=True)
    left = wait - (now - trouble.last_at)
    if not 0 < left <= wait:
        return None
    return Hold(HoldReason.BROKEN, retry_s=left, whole_runtime=True)


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


def rest(life: Life, settings: Settings) -> Stay | Look | Reap:
    """Answer for a live session that is quiet."""
    if life.managed:
        return Stay(None)
    bound, reap = _bound(life, settings)
    if life.idle_s <= bound:
        return Stay(bound - life.idle_s + EDGE_S)
    if life.engaged is None:
        return Look()
    if life.engaged:
        return Stay(bound)
    if life.turn_open and not life.ephemeral:
        return Stay(bound)
    return reap


def _bound(life: Life, settings: Settings) -> tuple[float, Reap]:
    """Return how long it may be quiet, and what happens then."""
    quiet = f"quiet {int(life.idle_s)}s"
    if not life.ephemeral:
        return settings.idle_s, Reap(Outcome.IDLE, f"idle {int(life.idle_s)}s")
    if not life.armed:
        turn = "its turn never ended" if life.turn_open else "its turn is complete"
        reap = Reap(Outcome.UNARMED, f"unarmed idle {int(life.idle_s)}s ({turn})")
        return settings.ephemeral_unarmed_idle_s, reap
    bound = settings.ephemeral_quiet_s
    if life.turn_open:
        bound = max(bound, settings.ephemeral_unarmed_idle_s)
    return bound, Reap(Outcome.DONE, f"armed, {quiet}")


def after(ending: Ending) -> Aftermath:
    """Say what follows from the end of a session."""
    died = ending.cause in _DEATHS
    unfinished = ending.ephemeral and not ending.armed and (died or ending.mid_turn)
    parks = {Cause.STOPPED: True, Cause.REAPED: not ending.ephemeral}
    return Aftermath(
        fault=ending.cause == Cause.DEATH,
        park=parks.get(ending.cause, False),
        task_again=unfinished,
    )


def _vary(seconds: float, jitter: float) -> float:
    return seconds * (1 + JITTER * (2 * jitter - 1))


def _most(settings: Settings) -> float:
    return settings.boot_backoff_max_s


class LifecycleRules:
    """These tables with one host's settings and a jitter of its own; see `presence.Rules`."""

    def __init__(self, settings: Settings, seed: int | None = None) -> None:
        self._settings = settings
        self._random = Random(seed)  # noqa: S311 - jitter, no secret

    def wake(self, presence: Presence, now: float) -> Start | Hold:
        """Say what becomes of work that waits without a session."""
        return decide(presence, now, self._settings, self._random.random())

    def rest(self, life: Life) -> Stay | Look | Reap:
        """Say whether a session that is quiet goes on."""
        return rest(life, self._settings)

    def after(self, ending: Ending) -> Aftermath:
        """Say what follows from the end of a session."""
        return after(ending)
