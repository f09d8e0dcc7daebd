"""What one connection knows of the server's threads; the next one begins anew."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from iapeer.sessions.evidence import Fact

from .past import Held
from .wire import WireError

HELD_MAX = 1_000
"""News that wait while a thread's past is read."""


class Link(msgspec.Struct):
    """Threads as one connection has been told of them."""

    subscribed: str = ""
    """The terminal's thread, once its past has been read."""
    heard: set[str] = msgspec.field(default_factory=set)
    """Threads whose news come, the terminal's earlier ones too."""
    reading: str = ""
    """The thread whose past is being read."""
    loaded: set[str] = msgspec.field(default_factory=set)
    """Threads that this server has in its memory."""
    surveyed: bool = False
    """Whether it was looked for conversations that were begun before the connection."""
    active: dict[str, bool] = msgspec.field(default_factory=dict)
    """Whether a turn runs, by thread."""
    turns: dict[str, str] = msgspec.field(default_factory=dict)
    """Turns that run, by thread."""
    held: dict[str, Held] = msgspec.field(default_factory=dict)
    """News that wait, by thread."""

    def met(self, thread: str, *, active: bool) -> None:
        """Note a thread in the server's memory; what a notification has told of it is newer."""
        self.loaded.add(thread)
        self.active.setdefault(thread, active)

    def closed(self, thread: str) -> None:
        """Forget a thread that has left the server's memory."""
        self.active.pop(thread, None)
        self.turns.pop(thread, None)
        self.loaded.discard(thread)
        self.heard.discard(thread)
        if self.subscribed == thread:
            self.subscribed = ""

    def waits(self, thread: str, current: str) -> bool:
        """Whether a thread's past is read before its news are told; `current` is the terminal's."""
        return thread == self.reading or thread == current != self.subscribed

    def hold(self, thread: str, read: Callable[[], list[Fact]]) -> Held:
        """Keep one thing of a thread, with all that waits; raises WireError when it is too much."""
        if sum(len(held.reads) for held in self.held.values()) >= HELD_MAX:
            raise WireError("too many notifications before a thread's past was read")
        held = self.held.setdefault(thread, Held())
        held.reads.append(read)
        return held

    def let_go(self, current: str) -> list[Fact]:
        """Read what has waited, of threads that need not wait any more."""
        found = [thread for thread in self.held if not self.waits(thread, current)]
        return [fact for thread in found for read in self.held.pop(thread).reads for fact in read()]
