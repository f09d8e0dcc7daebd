"""Sessions that the ledger says live, from before this lane ran: taken over, or settled and buried.

Only the newest of an identity can be gone on with; an older one is a row that a crash left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iapeer.sessions.model import TmuxSession
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger.rows import SessionRow

from . import endings
from .journal import Journal
from .presence import Cause, Ending

if TYPE_CHECKING:
    from .waking import Waking


class Former:
    """What an identity's earlier daemons left to it; `newest` is still to be looked at."""

    def __init__(self, journal: Journal, waking: Waking) -> None:
        self._journal = journal
        self._waking = waking
        self._s = waking.services
        self.newest: SessionRow | None = None
        self._older: list[SessionRow] = []

    def add(self, row: SessionRow) -> None:
        """Add one, oldest first."""
        if self.newest is not None:
            self._older.append(self.newest)
        self.newest = row

    async def find(self) -> TmuxSession | None:
        """Return the newest if it lives, None when it is provably gone.

        Raises IapeerError when it can't be known.
        """
        row = self.newest
        if row is None or not row.socket:
            return None
        return await self._s.launcher.adopt(row, self._s.catalog.get(row.runtime))

    async def bury_newest(self) -> None:
        """Settle the newest, which is gone or is to be ended; harmless without one."""
        row, self.newest = self.newest, None
        if row is not None:
            await self._bury(row)

    async def bury_older(self) -> None:
        """Settle the rows before the newest."""
        while self._older:
            await self._bury(self._older[0], is_newest=False)
            del self._older[0]

    async def _bury(self, row: SessionRow, *, is_newest: bool = True) -> None:
        server_lived = _server_lives(row)
        stopped = await self._journal.is_stopped()
        why = Ending(
            Cause.STOPPED if stopped else Cause.DEATH, ephemeral=self._waking.is_ephemeral()
        )
        await endings.bury(row, self._journal, self._s, why=why, is_newest=is_newest)
        if row.ready_at is not None:
            await self._tell(stopped=stopped, server_lived=server_lived)

    async def _tell(self, *, stopped: bool, server_lived: bool) -> None:
        """Log a death that nobody watched; one of a stopped peer is a clean end."""
        identity = self._journal.identity.address
        if stopped:
            await self._waking.conversation.park()
            self._s.log(
                "supervise",
                identity=identity,
                action="skipped-stopped",
                outcome="resume-on-start",
            )
            return
        self._s.log(
            "supervise",
            identity=identity,
            action="reaped-gone",
            death="session-gone" if server_lived else "server-dead",
            reason="died while no daemon ran",
            outcome="fresh-next-msg",
        )

    async def bury_leftovers(self) -> None:
        """Settle sessions that ended while the ledger took no writes; only with none of our own.

        Until then their messages are nobody's, and a second row would be a second session.
        """
        for row in await self._journal.open_sessions():
            await self._bury(row)


def _server_lives(row: SessionRow) -> bool:
    """Whether the tmux server of a session is still there."""
    return bool(
        row.server_pid and row.server_start and is_alive(row.server_pid, int(row.server_start))
    )
