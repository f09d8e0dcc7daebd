"""What is asked of an app-server in one connection; each function raises WireError."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from .frames import QueuePage, ThreadTold, Turn, TurnPage
from .reading import CUT, RUNNING, is_unended, message_id_of
from .wire import Refused, Wire

TURNS = 50
"""Turns of one look back."""
CUT_TRIES = 4
CUT_AGAIN_S = 0.03
"""Between two looks at a turn that seems to be cut off: the list lags 20 ms behind (measured)."""

# What nobody here reads, and what there is most of.
_UNWANTED = (
    "item/agentMessage/delta",
    "item/plan/delta",
    "item/reasoning/summaryTextDelta",
    "item/reasoning/summaryPartAdded",
    "item/reasoning/textDelta",
    "item/commandExecution/outputDelta",
    "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated",
    "item/started",
    "thread/tokenUsage/updated",
    "turn/diff/updated",
    "turn/plan/updated",
)


class Whereabouts(StrEnum):
    """Where a message is on the other side."""

    QUEUED = "queued"
    SHOWN = "shown"
    """It stands in the conversation."""
    CUT = "cut"
    """It stands there, but its turn was cut off and does not run."""
    ABSENT = "absent"


async def greet(wire: Wire) -> None:
    """Open the conversation with the server, as every client must."""
    client = {"name": "iapeer", "title": "iapeer", "version": "0"}
    wants = {"experimentalApi": True, "optOutNotificationMethods": list(_UNWANTED)}
    await wire.call("initialize", {"clientInfo": client, "capabilities": wants}, msgspec.Raw)
    await wire.notify("initialized")


async def turns(wire: Wire, thread: str) -> list[Turn]:
    """Return the newest turns, oldest first, each with its first user message.

    The whole items can be larger than a frame; the summary never is.
    """
    wants = {"threadId": thread, "limit": TURNS, "itemsView": "summary"}
    page = await wire.call("thread/turns/list", wants, TurnPage)
    return list(reversed(page.data))


async def running(wire: Wire, thread: str) -> str:
    """Return the id of the turn that runs, empty when none does."""
    found = await turns(wire, thread)
    # Any other that seems to run was cut off with an earlier server.
    return found[-1].id if found and found[-1].status == RUNNING else ""


async def interrupt(wire: Wire, thread: str, turn: str = "") -> bool:
    """Stop a turn, the one that runs if none is named; False when none does."""
    turn = turn or await running(wire, thread)
    if turn:
        await wire.call("turn/interrupt", {"threadId": thread, "turnId": turn}, msgspec.Raw)
    return bool(turn)


async def compact(wire: Wire, thread: str) -> bool:
    """Shorten a thread's context; False when something runs or waits in it.

    On a busy thread the request would cut the running turn off, and swallow a message whose
    turn has just begun (measured).
    """
    if await queued(wire, thread):
        return False
    found = await wire.call("thread/read", {"threadId": thread}, ThreadTold)
    if found.thread.status.type == "active":
        return False
    await wire.call("thread/compact/start", {"threadId": thread}, msgspec.Raw)
    return True


async def queued(wire: Wire, thread: str) -> dict[str, str]:
    """Return our queued messages in order: client id -> the queue's own id."""
    page = await wire.call("thread/queue/list", {"threadId": thread}, QueuePage)
    return {
        entry.client_user_message_id: entry.id
        for entry in page.data
        if message_id_of(entry.client_user_message_id)
    }


async def find(wire: Wire, thread: str, is_it: Callable[[str], bool]) -> Whereabouts:
    """Look for a client id in a thread: conversation, queue, conversation again.

    On its way from the queue to the conversation a message is in neither for a moment.
    """
    if await _shown(wire, thread, is_it) == Whereabouts.SHOWN:
        return Whereabouts.SHOWN
    if any(is_it(client_id) for client_id in await queued(wire, thread)):
        return Whereabouts.QUEUED
    return await _shown(wire, thread, is_it)


async def find_in(wire: Wire, threads: Iterable[str], is_it: Callable[[str], bool]) -> Whereabouts:
    """Look for a client id in some threads, in this order; one that was cut off counts last."""
    found = Whereabouts.ABSENT
    for thread in threads:
        there = await find(wire, thread, is_it)
        if there in {Whereabouts.SHOWN, Whereabouts.QUEUED}:
            return there
        found = there if there == Whereabouts.CUT else found
    return found


async def _shown(wire: Wire, thread: str, is_it: Callable[[str], bool]) -> Whereabouts:
    """Look into the conversation; a turn without an end is looked at again before it counts as cut.

    The list lags behind, and the turn may have ended since it was made.
    """
    for left in reversed(range(CUT_TRIES)):
        found, is_certain = await _look(wire, thread, is_it)
        if is_certain or not left:
            return found
        await asyncio.sleep(CUT_AGAIN_S)
    raise AssertionError("the last try returns")


async def _look(wire: Wire, thread: str, is_it: Callable[[str], bool]) -> tuple[Whereabouts, bool]:
    """Return where a message is, and whether a later look can't say that it was answered."""
    try:
        past = await turns(wire, thread)
    except Refused:
        # No turn yet.
        return Whereabouts.ABSENT, True
    holding = [turn for turn in past if any(is_it(item.client_id or "") for item in turn.items)]
    if not holding:
        return Whereabouts.ABSENT, True
    if any(turn.status not in {RUNNING, CUT} for turn in holding):
        return Whereabouts.SHOWN, True
    if holding[-1].status == RUNNING and holding[-1] is past[-1]:
        told = await wire.call("thread/read", {"threadId": thread}, ThreadTold)
        if told.thread.status.type == "active":
            return Whereabouts.SHOWN, True
    is_newest = holding[-1] is past[-1]
    return Whereabouts.CUT, not (is_newest and is_unended(holding[-1]))


async def shown_in(wire: Wire, thread: str, message_id: str) -> list[Turn]:
    """Return the turns of a thread in which a message stands and that were not cut off."""
    try:
        past = await turns(wire, thread)
    except Refused:
        return []
    return [
        turn
        for turn in past
        if turn.status != CUT
        and any(message_id_of(item.client_id) == message_id for item in turn.items)
    ]
