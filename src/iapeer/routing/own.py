"""What a session says about itself: it is done, or wants to begin anew."""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

from iapeer.core.clock import Clock
from iapeer.core.errors import ControlRefused, Unauthorized
from iapeer.core.identity import Identity
from iapeer.core.settings import Settings
from iapeer.registry.index import Registry
from iapeer.registry.profiles import is_ephemeral
from iapeer.registry.units import Unit, unit_of
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import MarkRow, SessionRow
from iapeer.storage.ledger.store import Ledger

from .lanes.pool import Lanes
from .ownmarks import NEW_EAGER, arm, want_fresh
from .ports import SelfAnswer


class OwnSessions:
    """Writes the mark, then tells the lanes; a daemon that comes later finds the mark."""

    def __init__(
        self, settings: Settings, ledger: Ledger, registry: Registry, lanes: Lanes, clock: Clock
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._registry = registry
        self._lanes = lanes
        self._clock = clock

    async def done(self, session_id: str) -> SelfAnswer:
        """Its task is finished; it ends when it has been quiet. Wakes nobody."""
        row = await self._note(session_id, arm)
        self._lanes.said_its_word((row.uid, row.runtime))
        return answer_of(row, self._registry)

    async def fresh(self, session_id: str) -> SelfAnswer:
        """End it and start a fresh one; the answer comes before the end."""
        check_may_renew(self._settings, await self._row(session_id))
        row = await self._note(session_id, want_fresh)
        now = self._clock.now()
        self._lanes.renew(
            MarkRow(uid=row.uid, runtime=row.runtime, mark=NEW_EAGER, set_at=now, value=row.id)
        )
        return answer_of(row, self._registry)

    async def _note(
        self, session_id: str, note: Callable[[Connection, SessionRow, float], None]
    ) -> SessionRow:
        now = self._clock.now()

        def write(conn: Connection) -> SessionRow:
            row = _live(rows.get_session(conn, session_id))
            note(conn, row, now)
            return row

        return await self._ledger.write(write)

    async def _row(self, session_id: str) -> SessionRow:
        return _live(await self._ledger.read(lambda c: rows.get_session(c, session_id)))


def answer_of(row: SessionRow, registry: Registry) -> SelfAnswer:
    """Return what a session is told that said something about itself."""
    record = registry.snapshot(allow_stale=True).get(row.personality)
    ephemeral = record is not None and is_ephemeral(record.cwd)
    address = Identity(row.runtime, row.personality).address
    return SelfAnswer(identity=address, ephemeral=ephemeral)


def check_may_renew(settings: Settings, row: SessionRow) -> None:
    """Refuse a peer that the service manager owns. Raises ControlRefused."""
    if unit_of(settings.units_dir, row.personality) != Unit.NONE:
        raise ControlRefused(
            f'"{row.personality}" is launchd-managed; its service manager restarts it',
            code="service_managed",
        )


def _live(row: SessionRow | None) -> SessionRow:
    if row is None or row.ended_at is not None:
        raise Unauthorized("the session has ended")
    return row
