"""People at the terminals of sessions: a line in the log when one comes, one when they leave.

However they attach: the tmux server itself tells its control client. What it tells is a reason to
look, the list of clients is the truth. Which of them the log knows stands in an option of the
session, so that a new daemon goes on where another one stopped and writes nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.errors import SessionGone, TmuxError
from iapeer.core.identity import Identity

from .model import TmuxSession
from .process import is_alive
from .tmux.server import Client, TmuxServer

KNOWN = "@iap_attached"
"""User option that holds the people whose coming was written: `pid:created:terminal`, by commas."""
KNOWN_MAX = 100
"""So many stand there; a request to tmux has an end."""

LOST_S = 0.2
"""Before a look while nothing is heard: a server that ends is not asked who is there."""
RETRY_S, RETRY_MAX_S = 1.0, 60.0
"""Between two looks while nothing is heard; twice as long each time."""

WOKE_S = 10.0
"""Who asked for a session to attach to has attached by then: they wait for it."""

Left = Literal["left", "session-end", "unwatched"]


class _Watch(msgspec.Struct):
    """One session; `present` is who is there by the log."""

    session_id: str
    identity: Identity
    tmux: TmuxServer
    server: tuple[int, int] | None
    adopted: bool = False
    """Whether an earlier daemon may have written something, which has not been read yet."""
    present: dict[tuple[int, int], Client] = msgspec.field(default_factory=dict)
    noted: str = ""
    told: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=KNOWN_MAX))
    """Terminals of which tmux said that they have come."""
    due: bool = False
    looking: asyncio.Task[None] | None = None
    woken_at: float | None = None

    def names(self) -> dict[str, str]:
        """Return what a line says of whose session this is."""
        return {
            "personality": self.identity.personality,
            "identity": self.identity.address,
            "runtime": self.identity.runtime,
            "session": self.session_id,
        }


class Onlookers:
    """Everybody who looks at a session of this root."""

    def __init__(self, clock: Clock, log: Callable[..., None]) -> None:
        self._clock = clock
        self._log = log
        self._watches: dict[str, _Watch] = {}

    def watch(self, session: TmuxSession, *, adopted: bool = False) -> None:
        """Write down who comes and who leaves, until the session is released."""
        watch = _Watch(session.id, session.identity, session.tmux, session.server, adopted)
        self._watches[session.id] = watch
        session.tmux.listen(lambda name: self._hear(watch, name))
        session.stops.append(lambda: _stop(watch))
        self._hear(watch, "")

    def woken(self, session_id: str) -> None:
        """A person has asked for this session, and it was started for them to attach to."""
        watch = self._watches.get(session_id)
        if watch is not None:
            watch.woken_at = self._clock.monotonic()

    async def ended(self, session_id: str) -> None:
        """A session that was released is about to be cleared away: whoever is there, leaves."""
        watch = self._watches.pop(session_id, None)
        if watch is None:
            return
        _stop(watch)
        if watch.due and watch.server is not None and is_alive(*watch.server):
            with contextlib.suppress(TmuxError):
                # What can't be asked any more stays unwritten.
                await self._look(watch)
        for client in watch.present.values():
            self._gone(watch, client, "session-end")

    async def ended_unwatched(
        self, session_id: str, identity: Identity, tmux: TmuxServer, server: tuple[int, int] | None
    ) -> None:
        """The same of a session that ended while no daemon ran, if its server still knows."""
        watch = _Watch(session_id, identity, tmux, server, adopted=True, due=True)
        self._watches[session_id] = watch
        await self.ended(session_id)

    def _hear(self, watch: _Watch, name: str) -> None:
        """Look soon."""
        watch.due = True
        if name.startswith("/"):
            watch.told.append(name)
        if watch.looking is None or watch.looking.done():
            watch.looking = asyncio.create_task(
                self._look_on(watch), name=f"onlookers {watch.identity.address}"
            )

    async def _look_on(self, watch: _Watch) -> None:
        """Look until there is no news, and something that would tell of any."""
        retry_s = RETRY_S
        while watch.due:
            if not watch.tmux.hears:
                await asyncio.sleep(LOST_S)
            try:
                await self._look(watch)
            except SessionGone:
                # Whoever finds that out ends the session, and says who was there.
                return
            except TmuxError:
                # No answer is no news: what was heard is still to be looked at.
                watch.due = True
                await asyncio.sleep(retry_s)
            if not watch.tmux.hears:
                watch.due = True
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)

    async def _look(self, watch: _Watch) -> None:
        """Write down what has changed. Raises SessionGone, TmuxError."""
        first = watch.adopted
        if first:
            watch.noted = await watch.tmux.option(KNOWN) or ""
            watch.present = {(c.pid, c.created): c for c in _read(watch.noted)}
        told = len(watch.told)
        watch.due = False
        clients = await watch.tmux.clients()
        watch.adopted = False
        here = {(c.pid, c.created): c for c in clients if not c.is_control}
        left = [watch.present[key] for key in watch.present.keys() - here.keys()]
        for client in left:
            self._gone(watch, client, "unwatched" if first else "left")
        for key in here.keys() - watch.present.keys():
            self._came(watch, here[key])
        known = {client.name for client in (*here.values(), *left)}
        for name in [watch.told.popleft() for _ in range(min(told, len(watch.told)))]:
            if name not in known:
                self._was_here(watch, name)
        watch.present = here
        note = ",".join(f"{c.pid}:{c.created}:{c.name}" for c in list(here.values())[-KNOWN_MAX:])
        if note != watch.noted:
            await watch.tmux.set_option(KNOWN, note)
            watch.noted = note

    def _came(self, watch: _Watch, client: Client) -> None:
        asked_at, watch.woken_at = watch.woken_at, None
        woke = asked_at is not None and self._clock.monotonic() - asked_at < WOKE_S
        self._log("attach", **watch.names(), tty=client.name, pid=client.pid, woke=woke)

    def _gone(self, watch: _Watch, client: Client, cause: Left) -> None:
        """Write that somebody is not there any more; when they left is not always known."""
        seconds = max(0, int(self._clock.now() - client.created))
        self._log(
            "attach-end",
            **watch.names(),
            tty=client.name,
            pid=client.pid,
            elapsed=None if cause == "unwatched" else seconds,
            cause=cause,
        )

    def _was_here(self, watch: _Watch, name: str) -> None:
        """Write of somebody who was gone again before anybody could look."""
        self._log("attach", **watch.names(), tty=name, woke=False)
        self._log("attach-end", **watch.names(), tty=name, elapsed=0, cause="left")


def _stop(watch: _Watch) -> None:
    """Hear nothing more; who is there stays known. Idempotent."""
    watch.tmux.listen(None)
    if watch.looking is not None and not watch.looking.done():
        watch.due = True
        watch.looking.cancel()


def _read(noted: str) -> list[Client]:
    """Read the option; what somebody else may have put there is left out."""
    found = []
    for entry in noted.split(","):
        pid, _, rest = entry.partition(":")
        created, _, name = rest.partition(":")
        if pid.isdigit() and created.isdigit() and name:
            found.append(Client(False, int(pid), int(created), name))
    return found
