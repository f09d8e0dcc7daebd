"""What has happened in a thread before its news were heard, joined to the news without a seam.

The server's list of turns lags behind what it tells (measured: up to 20 ms), and what it tells can
come between a list and a look at it. Taken as it stands, a turn that has just ended seems to have
been cut off, and one that has just begun seems to have no message in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from iapeer.sessions.evidence import Fact

from . import requests
from .frames import Turn
from .reading import RUNNING, is_unended, without_ghosts
from .wire import Refused, Wire

AGAIN_S = 0.02
"""Between two looks at a list that lags behind."""
TRIES = 10
"""Looks until a turn that seems to be cut off is; a first turn's record comes that late, too."""


@dataclass
class Held:
    """News of one thread that wait until its past has been read, in order."""

    reads: list[Callable[[], list[Fact]]] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    """Turns whose start is among them."""
    said: set[str] = field(default_factory=set)
    """Turns whose user message is among them."""
    over: set[str] = field(default_factory=set)
    """Turns whose end is among them: it tells how, whatever a list says."""


async def settled(wire: Wire, thread: str, held: Held, runs: Callable[[], bool]) -> list[Turn]:
    """Return a thread's newest turns, oldest first, so that `held` goes on where they end.

    The newest one stands there as running if it runs, or if its end is in `held`. `runs` says
    whether the thread is active, as far as was told by now.

    Raises:
        Refused: the thread has had no turn yet.
        WireError: nobody knows.
    """
    for left in reversed(range(TRIES)):
        try:
            found = await requests.turns(wire, thread)
        except Refused:
            if not left:
                raise
        else:
            if not left or _is_whole(found, held, active=runs()):
                return without_ghosts(found, active=runs(), over=held.over)
        await asyncio.sleep(AGAIN_S)
    raise AssertionError("the last try returns or raises")


def _is_whole(turns: list[Turn], held: Held, *, active: bool) -> bool:
    """Whether no later list can tell more than the news do."""
    if not turns:
        return False
    newest = turns[-1]
    if not is_unended(newest):
        # In an active thread the next turn has begun.
        return not active or not held.begun <= {turn.id for turn in turns}
    has_words = bool(newest.items) or newest.id in held.said
    goes_on = newest.id in held.over or (active and newest.status == RUNNING)
    return goes_on and has_words
