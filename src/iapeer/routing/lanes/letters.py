"""What a lane is told: orders from outside, reports from its own children."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from iapeer.core.errors import LaunchFailed
from iapeer.sessions.doors.inbox import InboxSession
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession

Session = TmuxSession | InboxSession


class Verb(StrEnum):
    """What an operator may order of a lane."""

    STOP = "stop"
    START = "start"
    WAKE = "wake"
    INTERRUPT = "interrupt"
    COMPACT = "compact"
    NEW = "new"
    """End what runs and start a fresh session."""
    LAUNCH = "launch"
    """Start a fresh session unless one lives."""
    SELF_FRESH = "self-fresh"
    """End the session that asked for it; what is started instead is not this lane's to say."""
    END = "end"
    """End the session without a mark: before a remove or a rename."""


@dataclass(frozen=True)
class Order:
    """One order; `done` gets the answer, or the error.

    With `session_id` it is about that session only.
    """

    verb: Verb
    done: asyncio.Future[str] = field(compare=False)
    session_id: str = ""


class Attached(msgspec.Struct, frozen=True):
    """A program opened its inbox stream."""

    session: InboxSession


class Detached(msgspec.Struct, frozen=True):
    """An inbox stream ended."""

    session_id: str


class BootBegan(msgspec.Struct, frozen=True):
    """The host's boot permit was given."""


class BootPutOff(msgspec.Struct, frozen=True):
    """The permit was given, but meanwhile boots of that runtime fail everywhere."""


class Booted(msgspec.Struct, frozen=True):
    """A session is ready."""

    session: TmuxSession


class BootFailed(msgspec.Struct, frozen=True):
    """No session came of it."""

    error: LaunchFailed


class Died(msgspec.Struct, frozen=True):
    """The tmux server or the program of a session is gone."""

    session_id: str


class Observed(msgspec.Struct, frozen=True):
    """Facts of a session's own record or hook; `offset` is set by the follower only."""

    session_id: str
    facts: tuple[Fact, ...]
    offset: int | None = None

    def joined(self, later: Observed) -> Observed | None:
        """Return both as one, None when they are of different sessions or sources."""
        same = self.session_id == later.session_id
        if not same or (self.offset is None) != (later.offset is None):
            return None
        return Observed(self.session_id, (*self.facts, *later.facts), later.offset)


Control = Order | Attached | Detached
Report = BootBegan | BootPutOff | Booted | BootFailed | Died | Observed


class Wakers:
    """People who wait for a session to come up."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[str]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, done: asyncio.Future[str]) -> None:
        """Answer this one too when it is up."""
        self._waiting.append(done)

    def woke(self) -> None:
        """It is up."""
        for done in self._take():
            done.set_result("woke")

    def failed(self, error: LaunchFailed) -> None:
        """It will not come up."""
        for done in self._take():
            done.set_exception(error)

    def _take(self) -> list[asyncio.Future[str]]:
        waiting, self._waiting = self._waiting, []
        return [done for done in waiting if not done.done()]
