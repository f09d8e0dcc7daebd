"""Waiting for what becomes of a message: by id, in the entrance, holding nothing.

A waiter only learns that something changed; it then reads the ledger, which alone knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.states import DELIVERED, FINAL, HoldReason, MessageState

Key = tuple[str, str]
"""(peer uid, runtime): the lane a message waits in."""


def is_answer(state: MessageState, reason: str) -> bool:
    """Whether the sender is answered now: landed or better, final, or any hold but `waking`."""
    if state in DELIVERED or state in FINAL:
        return True
    return state == MessageState.HELD and reason != HoldReason.WAKING


class Waits:
    """Who waits for which message."""

    def __init__(self) -> None:
        self._by_message: dict[str, asyncio.Event] = {}
        self._by_lane: dict[Key, set[str]] = {}

    @contextmanager
    def watch(self, message_id: str, lane: Key) -> Iterator[asyncio.Event]:
        """Give an event that is set at each change; the caller clears it before it reads."""
        event = asyncio.Event()
        self._by_message[message_id] = event
        self._by_lane.setdefault(lane, set()).add(message_id)
        try:
            yield event
        finally:
            del self._by_message[message_id]
            waiting = self._by_lane[lane]
            waiting.discard(message_id)
            if not waiting:
                del self._by_lane[lane]

    def changed(self, message_id: str) -> None:
        """Tell the waiter of one message, if there is one."""
        event = self._by_message.get(message_id)
        if event is not None:
            event.set()

    def lane_changed(self, lane: Key) -> None:
        """Tell everybody who waits for a message in this lane."""
        for message_id in self._by_lane.get(lane, ()):
            self._by_message[message_id].set()
