"""Waiting for what becomes of a message: by id, in the entrance, holding nothing.

A waiter only learns that something changed; it then reads the ledger, which alone knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from iapeer.core.states import DELIVERED, FINAL, HoldReason, MessageState

_K = TypeVar("_K")

Key = tuple[str, str]
"""(peer uid, runtime): the lane a message waits in."""


def is_answer(state: MessageState, reason: str) -> bool:
    """Whether the sender is answered now: landed or better, final, or any hold but `waking`."""
    if state in DELIVERED or state in FINAL:
        return True
    return state == MessageState.HELD and reason != HoldReason.WAKING


class Waits:
    """Who waits for which message; several may wait for the same one (a repeated send does)."""

    def __init__(self) -> None:
        self._by_message: dict[str, list[asyncio.Event]] = {}
        self._by_lane: dict[Key, list[asyncio.Event]] = {}

    @contextmanager
    def watch(self, message_id: str, lane: Key) -> Iterator[asyncio.Event]:
        """Give an event that is set at each change; the caller clears it before it reads."""
        event = asyncio.Event()
        _add(self._by_message, message_id, event)
        _add(self._by_lane, lane, event)
        try:
            yield event
        finally:
            _drop(self._by_message, message_id, event)
            _drop(self._by_lane, lane, event)

    def changed(self, message_id: str) -> None:
        """Tell whoever waits for one message."""
        for event in self._by_message.get(message_id, ()):
            event.set()

    def lane_changed(self, lane: Key) -> None:
        """Tell everybody who waits for a message in this lane."""
        for event in self._by_lane.get(lane, ()):
            event.set()


def _add(table: dict[_K, list[asyncio.Event]], key: _K, event: asyncio.Event) -> None:
    table.setdefault(key, []).append(event)


def _drop(table: dict[_K, list[asyncio.Event]], key: _K, event: asyncio.Event) -> None:
    waiting = table[key]
    waiting.remove(event)
    if not waiting:
        del table[key]
