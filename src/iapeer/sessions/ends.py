"""What a session's end was: wanted, or a death whose traces are taken before they are cleared."""

from __future__ import annotations

import asyncio
import contextlib
from sqlite3 import Connection

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.errors import SessionGone, TmuxError
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.ledger.store import Ledger

from .canary.canaries import Canaries, Watched
from .forensics.coroner import Scene, kernel_lines, postmortem
from .model import TmuxSession
from .process import is_alive
from .screen import DEAD_PANE
from .tmux.server import PaneFacts, TmuxServer

_SCREEN_HISTORY = 20
"""Rows above the screen that are taken too: what a small screen has just scrolled away."""
_REMEMBERED = 1000
"""So many looks are kept whose session's end the ledger has not taken yet."""


class Remains(msgspec.Struct, frozen=True):
    """A session that is about to be cleared away.

    `started_at` is wall time. `own_server` is the runtime's own server where there is one. `seen`:
    a daemon was there when it ended, if it has.
    """

    watched: Watched
    tmux: TmuxServer
    started_at: float
    own_server: tuple[int, int] | None = None
    seen: bool = True


class Ends:
    """Looks at sessions before they are cleared, and writes down what they died of."""

    def __init__(
        self, canaries: Canaries, ledger: Ledger, clock: Clock, *, stopped: bool = False
    ) -> None:
        """Take `stopped`: the daemon before this one was stopped in order."""
        self._canaries = canaries
        self._ledger = ledger
        self._clock = clock
        self._stopped = stopped
        self._looks: dict[str, Scene | None] = {}

    async def look(self, remains: Remains) -> Scene | None:
        """Return how a session died, None when it lives: its end is wanted then.

        Nobody records what happens to its server after this, unless that is gone already: then its
        recorder is left to do its work. Until `write` has done its part the answer stays the same:
        a second look would see what we have cleared away ourselves.
        """
        watched = remains.watched
        if watched.server is None:
            return None
        if watched.session_id not in self._looks:
            self._looks[watched.session_id] = await self._look(remains)
            while len(self._looks) > _REMEMBERED:
                del self._looks[next(iter(self._looks))]
        return self._looks[watched.session_id]

    async def _look(self, remains: Remains) -> Scene | None:
        watched = remains.watched
        kills = self._canaries.counter(watched.session_id).grown()
        scene, facts = await self._scene(remains)
        recorder = self._see_to_recorder(remains, scene, facts)
        if scene is None:
            await recorder
            return None
        _, kernel = await asyncio.gather(
            recorder, asyncio.to_thread(kernel_lines, remains.started_at, self._clock.now())
        )
        return msgspec.structs.replace(
            scene,
            watched=remains.seen,
            stopped=self._stopped and not remains.seen,
            line=self._canaries.line_of(watched.session_id),
            memory_kills=kills,
            kernel=kernel,
        )

    async def _see_to_recorder(
        self, remains: Remains, scene: Scene | None, facts: PaneFacts | None
    ) -> None:
        """Have a server's end recorded that is no wish of ours, and none that is."""
        watched = remains.watched
        if scene is not None and scene.what == "server":
            if remains.seen:
                await self._canaries.stand_in(watched)
            return
        if facts is not None and facts.pane_dead:
            await self._canaries.told(watched, facts.dead_status, facts.dead_signal)
        await self._canaries.silence(watched)

    async def write(self, session_id: str, cause: str, scene: Scene | None) -> None:
        """End a session in the ledger, with what it died of."""
        now = self._clock.now()

        def end(conn: Connection) -> None:
            is_new = rows.end_session(conn, session_id, cause, now)
            row = rows.get_session(conn, session_id)
            if is_new and scene is not None and row is not None:
                postmortem(conn, row, scene)

        await self._ledger.write(end)
        self._looks.pop(session_id, None)

    async def _scene(self, remains: Remains) -> tuple[Scene | None, PaneFacts | None]:
        now, server = self._clock.now(), remains.watched.server
        facts: PaneFacts | None = None
        gone = server is None or not is_alive(*server)
        if not gone:
            with contextlib.suppress(SessionGone, TmuxError):
                facts = await remains.tmux.facts()
                gone = facts is None
        if gone:
            return Scene(what="server", at=now), None
        if facts is not None and facts.pane_dead:
            return (
                Scene(
                    what="program",
                    at=now,
                    status=facts.dead_status,
                    signal=facts.dead_signal,
                    screen=await _screen(remains.tmux),
                ),
                facts,
            )
        if remains.own_server is not None and not is_alive(*remains.own_server):
            return Scene(what="own-server", at=now, screen=await _screen(remains.tmux)), facts
        return None, facts


def remains_of(session: TmuxSession) -> Remains:
    """Return a session of ours as something to look at."""
    watched = Watched(session.id, session.identity.address, session.tmux.socket, session.server)
    return Remains(watched, session.tmux, session.started_at, session.aux)


def remains_of_row(row: SessionRow, tmux: TmuxServer, server: tuple[int, int] | None) -> Remains:
    """Return a session nobody watched as something to look at."""
    watched = Watched(row.id, f"{row.runtime}-{row.personality}", tmux.socket, server)
    return Remains(watched, tmux, row.started_at, seen=False)


async def _screen(tmux: TmuxServer) -> list[str]:
    with contextlib.suppress(TmuxError):
        text = await tmux.capture(history_lines=_SCREEN_HISTORY)
        return [row for row in text.split("\n") if not DEAD_PANE.fullmatch(row.strip())]
    return []
