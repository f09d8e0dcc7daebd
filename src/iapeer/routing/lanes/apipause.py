"""After a turn that ended with an API error: new messages wait, then the reader carries on.

What the turn had read is not handed over again. The pause is a mark in the ledger, so it outlives
the daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.states import HoldReason
from iapeer.sessions.evidence import Fact
from iapeer.sessions.failure import hold_of, reset_of
from iapeer.storage.ledger import marks

from .journal import Journal

if TYPE_CHECKING:
    from .services import LaneServices

API_ERROR = "api_error"
"""The mark; its value is a `_Pause` as JSON."""


_WHY = {HoldReason.API_ERROR: "an API error", HoldReason.QUOTA: "a used-up quota"}


class _Pause(msgspec.Struct, frozen=True):
    """Until when (wall time), and which messages the turn had read.

    `told` says that the runtime itself gave the time.
    """

    until: float
    ids: tuple[str, ...]
    reason: HoldReason = HoldReason.API_ERROR
    told: bool = False
    began: float = 0.0


class Left(msgspec.Struct, frozen=True):
    """How long new messages still wait, and why."""

    seconds: float
    reason: HoldReason


class ApiPause:
    """One identity's pause, if any."""

    def __init__(self, journal: Journal, services: LaneServices) -> None:
        self._journal = journal
        self._s = services
        self._loaded = False
        self._pause: _Pause | None = None

    async def begin(self, ids: Sequence[str], fact: Fact) -> None:
        """Hold new messages until the failure is over, or for the settings' time.

        One failure is told by several sources, a hook and the record, and not each knows when it
        is over: a time that was told is kept.
        """
        await self._load()
        pause = self._merged(self._made(fact), ids)
        value = msgspec.json.encode(pause).decode()
        uid, runtime, now = self._journal.uid, self._journal.identity.runtime, self._s.clock.now()
        await self._s.ledger.write(lambda c: marks.set_mark(c, uid, runtime, API_ERROR, now, value))
        self._pause, self._loaded = pause, True
        self._s.log(
            "api-error",
            identity=self._journal.identity.address,
            hold=pause.reason,
            category=fact.error,
            until=round(pause.until),
        )

    def _made(self, fact: Fact) -> _Pause:
        """Return the pause that one failure asks for."""
        now, settings = self._s.clock.now(), self._s.settings
        errors = self._s.catalog.get(self._journal.identity.runtime).errors
        reason, reset = hold_of(fact, errors), reset_of(fact, errors, now)
        if reset is not None:
            return _Pause(reset, (), reason, told=True, began=now)
        quota = reason == HoldReason.QUOTA
        hold_s = settings.quota_hold_s if quota else settings.api_error_hold_s
        return _Pause(now + hold_s, (), reason, began=now)

    def _merged(self, new: _Pause, ids: Sequence[str]) -> _Pause:
        old = self._pause
        if old is None:
            return msgspec.structs.replace(new, ids=tuple(ids))
        all_ids = (*old.ids, *(i for i in ids if i not in old.ids))
        kept = old if old.told and not new.told else new
        return msgspec.structs.replace(kept, ids=all_ids)

    async def left(self) -> Left | None:
        """Return what is left of the pause, None without one; at its end tell the reader."""
        await self._load()
        pause = self._pause
        if pause is None:
            return None
        # A clock that jumped back never makes a pause longer than a whole one.
        left = min(pause.until - self._s.clock.now(), pause.until - pause.began)
        if left > 0:
            return Left(left, pause.reason)
        uid, runtime = self._journal.uid, self._journal.identity.runtime
        await self._s.ledger.write(lambda c: marks.clear_mark(c, uid, runtime, API_ERROR))
        self._pause = None
        if pause.ids:
            self._s.notices.carry_on(uid, self._journal.identity, pause.ids, _WHY[pause.reason])
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
