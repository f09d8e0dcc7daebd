"""What the lifecycle rules are asked and what they answer; values only."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from iapeer.core.states import HoldReason


class Phase(StrEnum):
    """What a lane's session is doing."""

    ASLEEP = "asleep"
    ADOPTING = "adopting"
    BOOTING = "booting"
    LIVE = "live"


class Settled(msgspec.Struct, frozen=True):
    """Why what comes for a lane waits, as of its step of that number."""

    reason: HoldReason
    step: int


class RuntimeTrouble(msgspec.Struct, frozen=True):
    """Boots of one runtime that fail, over all peers of this host and since the last good one.

    `last_at` is the wall time of the newest; `probing` says that one boot is trying it right now.
    """

    peers: int = 0
    failures: int = 0
    last_at: float = 0.0
    probing: bool = False


class Presence(msgspec.Struct, frozen=True):
    """A peer that has work and no live session.

    `faults` are the wall times, oldest first, of boots that failed and sessions that died by no
    deliberate act.
    """

    stopped: bool
    connects_itself: bool
    managed: bool = False
    """Whether the service manager starts and ends its sessions."""
    faults: tuple[float, ...] = ()
    trouble: RuntimeTrouble = msgspec.field(default_factory=RuntimeTrouble)
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


class Start(msgspec.Struct, frozen=True):
    """Start a session; `cause` is the contract's word for why it is fresh or gone on with."""

    mode: Literal["fresh", "resume"] = "fresh"
    cause: str = "first-wake"


class Hold(msgspec.Struct, frozen=True):
    """Keep the work, for this reason; look again after `retry_s` (None: when something changes).

    `whole_runtime` says that not this peer is at fault but what it runs.
    """

    reason: HoldReason
    retry_s: float | None = None
    whole_runtime: bool = False


class Life(msgspec.Struct, frozen=True):
    """A peer with a live session that has nothing to do right now.

    `idle_s` counts from the newest of: the wake, the last delivery, the last sign of activity.
    `engaged` says that something goes on which must not be cut off (a turn on the screen, a call,
    a person who is attached); None: nobody has looked yet.
    """

    idle_s: float
    ephemeral: bool = False
    armed: bool = False
    """Whether this very session has said its word: a message it sent, or that it is done."""
    turn_open: bool = False
    """Whether the ledger knows of a turn that has not ended."""
    engaged: bool | None = None
    managed: bool = False


class Outcome(StrEnum):
    """Why a session was ended; the words of the contract's log."""

    IDLE = "resume-eligible"
    DONE = "ephemeral-done"
    UNARMED = "ephemeral-unarmed-bound"


class Stay(msgspec.Struct, frozen=True):
    """Let it live; look again after `again_s`, None: never by itself."""

    again_s: float | None


class Look(msgspec.Struct, frozen=True):
    """Its time seems over: find out whether it is engaged, and ask again."""


class Reap(msgspec.Struct, frozen=True):
    """End it."""

    outcome: Outcome
    reason: str


class Cause(StrEnum):
    """What ended a session."""

    DEATH = "death"
    """Nobody meant it."""
    WALL = "wall"
    """It died while its account was used up: no fault of the program."""
    REAPED = "reaped"
    """It was idle, or done."""
    ORDERED = "ordered"
    """Somebody said so: new, self-fresh, remove."""
    STOPPED = "stopped"


class Ending(msgspec.Struct, frozen=True):
    """A session that ends; `mid_turn` tells whether a turn or a tool was running."""

    cause: Cause
    ephemeral: bool = False
    armed: bool = False
    mid_turn: bool = False


class Aftermath(msgspec.Struct, frozen=True):
    """What follows from an end.

    `fault`: it counts against the peer. `park`: the next session may go on with the conversation.
    `task_again`: the task of an ephemeral worker was not finished and is handed over once more.
    """

    fault: bool = False
    park: bool = False
    task_again: bool = False


class Rules(Protocol):
    """The lifecycle table; the same values always give the same answer, but for jitter."""

    def wake(self, presence: Presence, now: float) -> Start | Hold:
        """Say what becomes of work that waits without a session; `now` is wall time."""

    def rest(self, life: Life) -> Stay | Look | Reap:
        """Say whether a session that is quiet goes on."""

    def after(self, ending: Ending) -> Aftermath:
        """Say what follows from the end of a session."""
