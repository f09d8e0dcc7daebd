"""After a turn that ended with an API error: new messages wait, then the reader carries on.

What the turn had read is not handed over again. The pause is a mark in the ledger, so it outlives
the daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from iapeer.storage.ledger import marks

from .journal import Journal

if TYPE_CHECKING:
    from .services import LaneServices

API_ERROR = "api_error"
"""The mark; its value is a `_Pause` as JSON."""


class _Pause(msgspec.Struct, frozen=True):
    """Until when (wall time), and which messages the turn had read."""

    until: float
    ids: tuple[str, ...]


class ApiPause:
    """One identity's pause, if any."""

    def __init__(self, journal: Journal, services: LaneServices) -> None:
        self._journal = journal
        self._s = services
        self._loaded = False
        self._pause: _Pause | None = None

    async def begin(self, ids: Sequence[str]) -> None:
        """Hold new messages for the settings' time; a running pause is prolonged."""
        before = self._pause.ids if self._pause else ()
        until = self._s.clock.now() + self._s.settings.api_error_hold_s
        pause = _Pause(until, (*before, *(i for i in ids if i not in before)))
        value = msgspec.json.encode(pause).decode()
        uid, runtime, now = self._journal.uid, self._journal.identity.runtime, self._s.clock.now()
        await self._s.ledger.write(lambda c: marks.set_mark(c, uid, runtime, API_ERROR, now, value))
        self._pause, self._loaded = pause, True
        self._s.log("api-error", identity=self._journal.identity.address, until=round(until))

    async def left_s(self) -> float | None:
        """Return how long the pause still lasts, None without one; at its end tell the reader."""
        await self._load()
        pause = self._pause
        if pause is None:
            return None
        # A clock that jumped back never makes a pause longer than a whole one.
        left = min(pause.until - self._s.clock.now(), self._s.settings.api_error_hold_s)
        if left > 0:
            return left
        uid, runtime = self._journal.uid, self._journal.identity.runtime
        await self._s.ledger.write(lambda c: marks.clear_mark(c, uid, runtime, API_ERROR))
        self._pause = None
        if pause.ids:
            self._s.notices.carry_on(uid, self._journal.identity, pause.ids, "an API error")
        return None

    async def _load(self) -> None:
        if self._loaded:
            return
        uid, runtime = self._journal.uid, self._journal.identity.runtime
        found = await self._s.ledger.read(lambda c: marks.marks_of(c, uid, runtime))
        for mark in found:
            if mark.mark == API_ERROR:
                self._pause = msgspec.json.decode(mark.value, type=_Pause)
        self._loaded = True
