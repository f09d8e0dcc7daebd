"""A live session as the lane and the doors hold it, and what a launch needs to know."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.identity import Identity
from iapeer.runtimes.spec import RuntimeSpec, applies

from .channel import Relay
from .screen import Dialog, Marks

if TYPE_CHECKING:
    from .channel import Channel
    from .follow import TranscriptFollower
    from .tmux.server import TmuxServer


class LaunchRequest(msgspec.Struct, frozen=True):
    """One session to bring up: whose, where, and as what."""

    uid: str
    identity: Identity
    cwd: Path
    resume: str = ""
    """The conversation to go on with, by the runtime's own id; empty: a fresh one."""
    preface: str = ""
    """What a fresh session is told before its first message (the profile's `initial_prompt`)."""


PROVEN = 64
"""Ids that a session remembers: a door asks only for the message it is handing over."""


class TmuxSession(msgspec.Struct):
    """One session in a tmux server of its own.

    Alive means: the server's pid with its start time, and a pane that is not dead. `server` and
    `pane` are (pid, start time) pairs as `sessions.process` reads them.
    """

    id: str
    uid: str
    identity: Identity
    spec: RuntimeSpec
    cwd: Path
    tmux: TmuxServer
    server: tuple[int, int]
    pane: tuple[int, int]
    marks: Marks
    native_id: str = ""
    transcript: str = ""
    home: str = ""
    """Where the program keeps its configuration, empty when nobody remembers."""
    isolated: bool = False
    """Whether that configuration is the peer's own."""
    endpoint: str = ""
    """Address of the runtime's own server, empty where it has none."""
    aux: tuple[int, int] | None = None
    """The runtime's own server, where it is a process of its own; (pid, start time)."""
    mode: str = "fresh"
    started_at: float = 0.0
    """Wall time of its start; what its program recorded before is of earlier sessions."""
    preface: str = ""
    """Still to be put before the first message; the lane empties it when that has landed."""
    channel: Channel | None = None
    told: Relay = msgspec.field(default_factory=Relay)
    """What the channel tells; the lane listens."""
    follower: TranscriptFollower | None = None
    proven: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=PROVEN))
    """Ids of messages that the program has told to have read or queued, newest last."""
    left: str = ""
    """What `@iap_left` holds: the paste of a message that stayed in the composer after Enter."""
    stops: list[Callable[[], None]] = msgspec.field(default_factory=list)
    """What ends with the session: death watches and followers."""

    @property
    def processes(self) -> tuple[tuple[int, int], ...]:
        """Every process whose end is the session's end."""
        return (self.server, self.pane, *((self.aux,) if self.aux else ()))

    async def release(self) -> None:
        """Stop watching and disconnect; idempotent, bounded."""
        while self.stops:
            self.stops.pop()()
        channel, self.channel = self.channel, None
        if channel is not None:
            await channel.close()


def marks_of(spec: RuntimeSpec, *, isolated: bool = False) -> Marks:
    """Return the screen marks of a runtime in the screen reader's form."""
    screen = spec.screen
    return Marks(
        prompt_glyphs=screen.prompt_glyphs,
        ghost_sgr=screen.ghost_sgr,
        paste_patterns=screen.paste_patterns,
        shortened=screen.shortened,
        ready=screen.ready,
        not_ready=screen.not_ready,
        busy=screen.busy,
        dialogs=tuple(
            Dialog(match=d.match, keys=d.keys)
            for d in screen.dialogs
            if applies(d.when, isolated=isolated)
        ),
    )
