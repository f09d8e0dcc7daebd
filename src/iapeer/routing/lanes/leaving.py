"""The end of a lane's session: by its death, by an order, or because nobody needs it any more."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from iapeer.core.errors import LaunchFailed, StorageError, TmuxError
from iapeer.core.states import HoldReason
from iapeer.sessions.model import TmuxSession
from iapeer.storage.faults import fault

from . import endings
from .endings import End, Obituary
from .letters import Session
from .presence import Cause, Ending, Outcome, Phase, Reap

if TYPE_CHECKING:
    from .lane import Lane

EXAMINE_RETRY_S = 1.0
"""Between two looks at a session whose life could not be found out; unknown is not dead."""

_ACTIONS = {
    Outcome.IDLE: "reaped-idle",
    Outcome.DONE: "reaped-ephemeral",
    Outcome.UNARMED: "reaped-ephemeral",
}


class Leaving:
    """Ends one lane's session, whatever the reason, in the same order of steps."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._s = lane.services
        self.suspect: str | None = None
        """Id of a session that may be dead and has not been looked at."""
        self._killed: str | None = None
        """Id of a session that we have killed, and the ledger may not know it yet."""
        self._finish: Callable[[], Awaitable[None]] | None = None
        """Ends that one once more."""
        self.known: Obituary | None = None
        """How the lane's session died, from when it is certain until the ledger has it."""

    async def on_death(self, session_id: str) -> None:
        """Somebody says that this session is dead: find out, say so, and clear up.

        What is certain is said once and before the ledger is asked for anything: a slow disk, or
        one that refuses, delays no news.
        """
        lane = self._lane
        session = lane.session
        if session is None or session.id != session_id or not isinstance(session, TmuxSession):
            return
        if self._killed == session_id and self._finish is not None:
            # The disk refused to take a deliberate end down: it is still that, and no death.
            await self._finish()
            return
        self.suspect = session_id
        if self.known is None:
            try:
                self.known = await endings.examine(session)
            except TmuxError as error:
                lane.tell(error)
                lane.box.look_in(EXAMINE_RETRY_S)
                return
            if self.known is None:
                # It lives after all; whoever found it dead has not gone on with it.
                self.suspect = None
                lane.box.look_in(EXAMINE_RETRY_S)
                return
            self._s.log("death", **self.known.log_fields(lane.identity.address, session_id))
        obituary = self.known
        wall = lane.deliverer.paused == HoldReason.QUOTA
        why = Cause.WALL if wall else Cause.DEATH
        end = await self._leave(session, why, obituary.cause, obituary)
        self._s.log(
            "supervise",
            identity=lane.identity.address,
            action="reaped-gone",
            death=obituary.death,
            reason=obituary.cause,
            outcome="fresh-next-msg",
        )
        if end.aftermath.fault:
            await lane.journal.fault("death", obituary.describe())

    async def reap(self, session: TmuxSession, reap: Reap) -> None:
        """End a session whose time is over."""
        lane = self._lane
        age = f"{int(lane.rest.idle_s)}s"
        self._finish = partial(self.reap, session, reap)
        await self._leave(session, Cause.REAPED, reap.outcome)
        self._s.log(
            "supervise",
            identity=lane.identity.address,
            action=_ACTIONS[reap.outcome],
            age=age,
            reason=reap.reason,
            outcome=reap.outcome,
        )

    async def end(self, cause: str, why: Cause = Cause.ORDERED) -> None:
        """End what runs or boots, deliberately."""
        lane = self._lane
        await lane.arriving.cancel_boot()
        lane.wakers.failed(LaunchFailed(f"{lane.identity.address}: {cause}", code="stopped"))
        await lane.former.bury_older()
        if lane.former.newest is not None:
            await lane.former.bury_newest()
            lane.phase = Phase.ASLEEP
        session = lane.session
        if session is not None:
            self._finish = partial(self.end, cause, why)
            await self._leave(session, why, cause)

    async def drain_evidence(self, session_id: str) -> None:
        """Take what the session's own record has told and nobody has looked at."""
        box = self._lane.box
        mine = box.take_observed(session_id)
        while mine:
            try:
                await self._lane.deliverer.observed(mine[0])
            except StorageError:
                box.reports.extendleft(reversed(mine))
                raise
            del mine[0]

    async def _ending(self, session: Session, why: Cause) -> Ending:
        """Say how a session ends; what it was doing counts only for an ephemeral worker's task."""
        lane = self._lane
        if not lane.rest.ephemeral or not isinstance(session, TmuxSession):
            return Ending(why)
        mid_turn = await lane.journal.turn_open(session.id)
        if why not in (Cause.DEATH, Cause.WALL) and not mid_turn:
            with contextlib.suppress(TmuxError):
                mid_turn = await self._s.doors[session.spec.doors[0]].is_busy(session)
        armed = await lane.journal.armed(session.id)
        return Ending(why, ephemeral=True, armed=armed, mid_turn=mid_turn)

    async def _leave(
        self, session: Session, why: Cause, cause: str, obituary: Obituary | None = None
    ) -> End:
        """Read the last evidence, give back what is unproven, clear the rest.

        Every step may be done twice: when the ledger fails in between, the session is still ours.
        """
        lane = self._lane
        if isinstance(session, TmuxSession) and session.follower is not None:
            session.follower.read_new()
            await self.drain_evidence(session.id)
        ending = await self._ending(session, why)
        end = End(cause, ending, self._s.rules.after(ending), obituary)
        if end.aftermath.park:
            await lane.waking.conversation.park()
        fault("leave.parked")
        await endings.give_back(session, lane.journal, end)
        fault("leave.settled")
        if obituary is None and isinstance(session, TmuxSession):
            self._killed = self.suspect = session.id
        await endings.clear(session, lane.journal, self._s, cause)
        lane.session, lane.phase, self.suspect = None, Phase.ASLEEP, None
        self._killed = self._finish = self.known = None
        # Whoever told of the end, and in whatever way: what waits is looked at now.
        lane.box.work = True
        lane.controls.over(cause)
        lane.given_back.over()
        self._s.log("end", **lane.names(), session=session.id, cause=cause)
        return end
