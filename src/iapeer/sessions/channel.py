"""A live connection to a runtime's own server: hands over without typing, tells what it proves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .evidence import Fact

Report = Callable[[Sequence[Fact]], None]
"""Takes facts in the order they happened; called in the event loop, never blocks."""


class Relay:
    """Keeps what a channel tells until somebody listens: it begins to speak during the boot."""

    def __init__(self) -> None:
        self._kept: list[Fact] = []
        self._listener: Report | None = None

    def __call__(self, facts: Sequence[Fact]) -> None:
        """Pass facts on, or keep them."""
        if self._listener is None:
            self._kept.extend(facts)
        else:
            self._listener(facts)

    def listen(self, listener: Report) -> None:
        """Pass on what was kept, and everything from now on."""
        kept, self._kept, self._listener = self._kept, [], listener
        if kept:
            listener(kept)


class Channel(Protocol):
    """What a lane needs of every such connection; the doors know their own kind."""

    @property
    def native_id(self) -> str:
        """The runtime's own id of the conversation, empty until it is known."""

    @property
    def ready(self) -> bool:
        """Whether a message can be handed over now."""

    async def start(self) -> None:
        """Begin to connect, in the background; a server that is not up is tried again."""

    async def close(self) -> None:
        """Disconnect for good; nothing is reported afterwards. Bounded."""

    async def interrupt(self) -> bool:
        """Stop the running turn; False when there is none or it can't be told."""

    async def compact(self) -> bool:
        """Shorten the context; False when the server refuses or can't be reached."""
