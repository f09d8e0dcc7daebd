"""The regular look: lost recorders are armed again, and what deaths leave behind stays small."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from iapeer.core.settings import Settings
from iapeer.sessions.model import TmuxSession
from iapeer.storage.logs import LogFile
from iapeer.storage.paths import Paths
from iapeer.storage.retention import cut, prune

REPORTS_BYTES = 16 << 20
REPORTS = 500
"""Reports of server deaths: 30 KB each, so 500 of them are 15 MB."""
PANE_LOG_BYTES, PANE_LOG_KEPT = 32 << 20, 8 << 20
"""A pane log over 32 MiB keeps its last 8."""
PANE_LOGS_BYTES = 256 << 20
_PANE_LOGS = 1000
_STALE_MARKS = 2000


class Keeper:
    """Runs while the daemon does."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        live: Callable[[], Iterable[TmuxSession]],
        guard: Callable[[TmuxSession], Awaitable[None]],
    ) -> None:
        """Take `live`, the sessions of this daemon, and `guard`, which arms one again."""
        self._paths = paths
        self._settings = settings
        self._live = live
        self._guard = guard
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at every audit from now on."""
        self._task = asyncio.create_task(self._run(), name="keeper")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def look(self) -> None:
        """Arm what has lost its recorder; keep logs and reports in their bounds."""
        for session in tuple(self._live()):
            await self._guard(session)
        await asyncio.to_thread(tidy, self._paths, self._settings)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.audit_s)
            await self.look()


def tidy(paths: Paths, settings: Settings) -> None:
    """Keep exits.log, reports and pane logs in their bounds; a file that resists is left alone."""
    LogFile(paths.exits_log, settings.log_max_bytes, settings.log_keep).tidy()
    with contextlib.suppress(OSError):
        prune(paths.server_deaths, "*.txt", REPORTS_BYTES, REPORTS)
    with contextlib.suppress(OSError):
        # Claims of sessions that nobody cleared, of a root that has lost its ledger.
        prune(paths.canaries, "*.exit", 1 << 20, _STALE_MARKS)
    for path in paths.pane_logs.glob("*.log"):
        with contextlib.suppress(OSError):
            cut(path, PANE_LOG_BYTES, PANE_LOG_KEPT)
    with contextlib.suppress(OSError):
        prune(paths.pane_logs, "*.log", PANE_LOGS_BYTES, _PANE_LOGS)
