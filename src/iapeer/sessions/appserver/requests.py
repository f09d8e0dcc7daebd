"""What is asked of an app-server in one connection; each function raises WireError."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from .frames import QueuePage, ThreadTold, Turn, TurnPage
from .reading import RUNNING, message_id_of, without_ghosts
from .wire import Refused, Wire

TURNS = 50
"""Turns of one look back."""

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
    return next((turn.id for turn in found if turn.status == RUNNING), "")


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


async def _shown(wire: Wire, thread: str, is_it: Callable[[str], bool]) -> Whereabouts:
    found = Whereabouts.ABSENT
    try:
        past = await turns(wire, thread)
    except Refused:
        # No turn yet.
        return found
    if any(turn.status == RUNNING for turn in past):
        told = await wire.call("thread/read", {"threadId": thread}, ThreadTold)
        past = without_ghosts(past, active=told.thread.status.type == "active")
    for turn in past:
        if any(is_it(item.client_id or "") for item in turn.items):
            if turn.status != "interrupted":
                return Whereabouts.SHOWN
            found = Whereabouts.CUT
    return found


async def shown_in(wire: Wire, thread: str, message_id: str) -> list[Turn]:
    """Return the turns of a thread in which a message stands and that were not cut off."""
    try:
        past = await turns(wire, thread)
    except Refused:
        return []
    return [
        turn
        for turn in past
        if turn.status != "interrupted"
        and any(message_id_of(item.client_id) == message_id for item in turn.items)
    ]
