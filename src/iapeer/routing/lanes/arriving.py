"""How a lane gets its session: booted, taken over from an earlier daemon, or waited for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iapeer.core.errors import IapeerError, LaunchFailed, StorageError, TmuxError
from iapeer.core.states import HoldReason, MessageState
from iapeer.registry.units import Unit
from iapeer.sessions.doors import leftover
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.tmux.options import PASTED
from iapeer.storage.ledger import queries
from iapeer.storage.ledger.rows import MessageRow, SessionRow

from .budget import PEERS_OWN
from .delivery import seed_marker
from .letters import Booted, Session
from .presence import Hold, Phase
from .waking import Beginning
from .watching import watch

if TYPE_CHECKING:
    from .lane import Lane

ADOPT_RETRY_S = 1.0
"""Between two looks at a session whose life could not be found out; unknown is not dead."""


class Arriving:
    """Brings up one lane's session, at most one at a time."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._s = lane.services

    async def wake(self) -> None:
        """Ask the rules what becomes of work that waits, and do it."""
        lane = self._lane
        answer = await lane.waking.ask(stopped=lane.stopped)
        self._note_broken(answer)
        if isinstance(answer, Beginning):
            await self.boot(answer)
            await lane.hold(lane.booting.reason)
            return
        await lane.journal.hold(answer.reason)
        if lane.waking.unit() != Unit.NONE:
            # A unit file can go at any time and nobody tells: the next message asks again.
            lane.journal.held = None
        if answer.retry_s is not None:
            lane.box.look_in(answer.retry_s)

    def _note_broken(self, answer: Beginning | Hold) -> None:
        """Remember whether the next try is put off; the log says so once."""
        lane = self._lane
        was = lane.broken
        lane.broken = isinstance(answer, Hold) and answer.reason == HoldReason.BROKEN
        if isinstance(answer, Hold) and lane.broken and not was:
            why = "boots of its runtime fail everywhere" if answer.whole_runtime else "its own"
            self._s.log(
                "wake",
                **lane.names(),
                mode="refused",
                cause="crash-loop",
                reason=f"crash-loop guard: {why} faults, leaving asleep for {answer.retry_s:.0f}s",
            )

    async def boot(self, beginning: Beginning) -> None:
        """Start the child that brings a session up; only with none of our own."""
        lane = self._lane
        await lane.former.bury_leftovers()
        lane.rest.ephemeral = lane.waking.is_ephemeral()
        waiting = await lane.journal.waiting() if lane.rest.ephemeral else []
        self._s.budget.begin(lane.identity.runtime, lane.uid)
        lane.phase = Phase.BOOTING
        lane.booting.begin(beginning, lambda: self._began(beginning, waiting))

    def _began(self, beginning: Beginning, waiting: Sequence[MessageRow]) -> None:
        """Log a boot that the host has let begin; `waiting` are the tasks of a worker."""
        lane = self._lane
        self._s.log(
            "wake",
            **lane.names(),
            mode=beginning.start.mode,
            cause=beginning.start.cause,
            ref=beginning.native_id,
        )
        if waiting:
            self._s.log(
                "ephemeral-drain",
                identity=lane.identity.address,
                seq=waiting[0].seq,
                depth=len(waiting),
            )

    async def cancel_boot(self) -> None:
        """Take a boot back. One that is ready already is ended like a live session."""
        lane = self._lane
        await lane.booting.cancel()
        if lane.phase == Phase.BOOTING:
            lane.phase = Phase.ASLEEP
        for report in [r for r in lane.box.reports if isinstance(r, Booted)]:
            lane.box.reports.remove(report)
            await self._s.launcher.end(report.session, "boot:cancelled")

    async def adopt(self) -> None:
        """Look at what earlier daemons left: take it over, or settle it."""
        lane = self._lane
        await lane.former.bury_older()
        row = lane.former.newest
        if row is None:
            lane.phase = Phase.ASLEEP
            return
        try:
            session = await lane.former.find()
        except IapeerError as error:
            lane.tell(error)
            await lane.journal.hold(HoldReason.BUSY)
            lane.box.look_in(ADOPT_RETRY_S)
            return
        if session is None:
            lane.phase = Phase.ASLEEP
            await lane.former.bury_newest()
            if lane.wakers:
                await self.boot(await lane.waking.wish())
        else:
            self._s.log("adopt", identity=lane.identity.address, session=session.id)
            if session.mode == "fresh" and not row.heard:
                session.preface = lane.waking.preface()
            seeding = bool(session.preface) and await self._was_seeding(session)
            await lane.waking.conversation.goes_on()
            await self.go_live(session, row, seed_alone=seeding)
            lane.former.newest = None
            lane.wakers.woke()
            with contextlib.suppress(TmuxError):
                await lane.given_back.resume(session)
                await self._resume_left_over(session)
        lane.box.work = True

    async def _resume_left_over(self, session: TmuxSession) -> None:
        """Tell the door what the ledger knows of a paste that was left in the composer."""
        message_id = await leftover.resume(session)
        row = await self._s.ledger.read(lambda c: queries.get(c, message_id))
        if row is not None and row.state == MessageState.SEEN:
            session.proven.append(row.id)

    async def _was_seeding(self, session: TmuxSession) -> bool:
        """Whether an earlier daemon was just telling a session its preface alone."""
        with contextlib.suppress(TmuxError):
            return await session.tmux.option(PASTED) == seed_marker(session.id)
        return False

    async def go_live(
        self,
        session: Session,
        row: SessionRow | None = None,
        *,
        seed_alone: bool = False,
        for_people: bool = True,
    ) -> None:
        """Watch the session's life and record, and begin to deliver.

        `row` is what an earlier daemon knew of it. `seed_alone`: the preface needs no message.
        `for_people`: no message asked for it.
        """
        lane = self._lane
        if isinstance(session, TmuxSession):
            await lane.rest.begin(session, row)
        serial = lane.rest.ephemeral and isinstance(session, TmuxSession)
        await lane.deliverer.begin(
            session, ephemeral=serial, seed_alone=seed_alone, for_people=for_people
        )
        if isinstance(session, TmuxSession):
            try:
                await watch(session, self._s, lane.box.report)
            except StorageError:
                await session.release()
                raise
        lane.session, lane.phase, lane.broken = session, Phase.LIVE, False
        self._s.by_session[session.id] = lane
        lane.box.work = True

    async def on_boot_failed(self, error: LaunchFailed) -> None:
        """No session came of it: remember why, and answer whoever waits."""
        lane = self._lane
        lane.phase = Phase.ASLEEP
        native_id = lane.booting.beginning.native_id
        self._s.log("wake", **lane.names(), mode="fail", reason=error.message)
        lane.waking.conversation.lose(native_id)
        runtime = lane.identity.runtime
        if native_id or error.code in PEERS_OWN:
            # A conversation that is gone is no fault of the program: the next is fresh.
            self._s.budget.taken_back(runtime, lane.uid)
        else:
            now = self._s.clock.now()
            self._s.budget.failed(runtime, lane.uid, now, error.message)
        if not native_id:
            why = f"{error.message} ({error.hint})" if error.hint else error.message
            await lane.journal.fault("boot", why)
        lane.wakers.failed(error)

    async def on_booted(self, session: TmuxSession) -> None:
        """A session is ready: what it was decided by is consumed."""
        lane = self._lane
        begun = lane.booting.beginning
        self._s.budget.came_up(lane.identity.runtime)
        self._s.log("ready", **lane.names(), session=session.id, mode=session.mode)
        fresh = session.mode == "fresh"
        await lane.waking.conversation.began(fresh=fresh, topic=begun.topic)
        await self.go_live(session, seed_alone=begun.alone, for_people=begun.forced)
        lane.wakers.woke()
