"""Noticing at once what another process has written into the ledger while this daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from iapeer.core.errors import StorageError
from iapeer.sessions.notify import Notifier
from iapeer.storage.ledger.store import Ledger

from .lanes.pool import Lanes
from .lanes.services import LifecycleLog


class ForeignServices(msgspec.Struct, frozen=True):
    """What the watch works with; `folder` is where other processes leave their pokes."""

    ledger: Ledger
    lanes: Lanes
    notifier: Notifier
    folder: Path
    log: LifecycleLog


class ForeignWrites:
    """Looks for new work whenever a poke comes in and the ledger has a foreign commit.

    Begin before the lanes are loaded, so that nothing falls between the two; the audit finds what
    this misses (no watch to be had, a writer killed before its poke).
    """

    def __init__(self, services: ForeignServices) -> None:
        self._s = services
        self._known = -1
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self._stop: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to watch; call it inside the running loop."""
        self._known = self._s.ledger.data_version()
        try:
            self._stop = self._s.notifier.watch(self._s.folder, self._touched)
        except OSError as error:
            self._s.log("pokes-unwatched", reason=str(error))

    async def close(self) -> None:
        """Stop watching; a look that is under way is cancelled."""
        self._stop()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _touched(self) -> None:
        self._again = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="foreign writes")

    async def _look(self) -> None:
        while self._again:
            self._again = False
            version = self._s.ledger.data_version()
            if version == self._known:
                continue
            try:
                await self._s.lanes.rescan()
            except StorageError as error:
                self._s.log("rescan-failed", reason=str(error))
            else:
                self._known = version
