"""One identity's lane: an actor that takes one short step at a time and never waits.

Boots, deaths and evidence are watched by children that post reports; orders from outside overtake
work. Only the lane changes the state of its messages after they were accepted, so no two steps
can disagree about one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iapeer.core.errors import (
    IapeerError,
    LaunchFailed,
    SendRefused,
    SessionGone,
    StorageError,
    TmuxError,
)
from iapeer.core.identity import Identity
from iapeer.core.states import HoldReason
from iapeer.sessions.doors.inbox import InboxSession
from iapeer.sessions.model import TmuxSession
from iapeer.storage.ledger.rows import SessionRow

from . import endings
from .boot import Boot
from .controls import Controls
from .delivery import Deliverer
from .former import Former
from .journal import Journal
from .letters import (
    Attached,
    BootBegan,
    Booted,
    BootFailed,
    Control,
    Detached,
    Died,
    Observed,
    Order,
    Report,
    Session,
    Verb,
    Wakers,
)
from .mailbox import Mailbox
from .orders import Orders
from .presence import Hold, Phase
from .waking import Beginning, Waking
from .watching import follow, tell, watch

if TYPE_CHECKING:
    from .services import LaneServices

ADOPT_RETRY_S = 1.0
"""Between two looks at a session whose life could not be found out; unknown is not dead."""
LETTER_RETRY_S = 1.0
"""Longest pause before a letter that the ledger refused is dealt with again."""


class Lane:
    """Everything about one identity, in one place, one step at a time."""

    def __init__(self, uid: str, identity: Identity, services: LaneServices) -> None:
        self.uid = uid
        self.identity = identity
        self.key = (uid, identity.runtime)
        self.phase = Phase.ASLEEP
        self.session: Session | None = None
        self.services = services
        self.journal = Journal(uid, identity, services)
        self.waking = Waking(self.journal, identity, services)
        self.controls = Controls(identity, services)
        self.wakers = Wakers()
        self._deliverer = Deliverer(self.journal, services, self.waking.conversation)
        self._box = Mailbox(services.clock)
        self._boot = Boot(uid, identity, services, self._box.report)
        self._former = Former(self.journal, services)
        self._orders = Orders(self)
        self.stopped = False
        self.broken = False
        """Whether so many sessions failed that the next try is put off."""
        self._finishing = False
        self._failures = 0
        self._suspect: str | None = None

    # -- what others may call: never waits, never fails -------------------------------------

    def work(self) -> None:
        """There may be something to deliver."""
        self._box.poke()

    def order(self, verb: Verb) -> asyncio.Future[str]:
        """Post an order; the future holds what came of it. Overtakes all work."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if len(self._box.control) >= self.services.settings.lane_mailbox:
            done.set_exception(
                SendRefused(
                    f"{self.identity.address} has too many orders waiting",
                    hint="try again in a moment",
                    code="busy",
                )
            )
            return done
        self.post(Order(verb, done))
        return done

    def post(self, control: Control) -> None:
        """Post an order or a change of an inbox stream."""
        self._box.post(control)

    def observe(self, observed: Observed) -> None:
        """Post evidence of this session's own hook or reader."""
        self._box.report(observed)

    @property
    def depth(self) -> int:
        """Causal depth of what its session read last in the running turn; -1 without one."""
        return self._deliverer.depth

    def adopt(self, row: SessionRow) -> None:
        """Before `run`: the ledger says that this session lives."""
        self._former.add(row)
        self.phase = Phase.ADOPTING

    def finish(self) -> None:
        """End after the step that is being taken; the session runs on."""
        self._finishing = True
        self._box.ring()

    # -- the actor --------------------------------------------------------------------------

    async def run(self) -> None:
        """Take steps until `finish`; an error in one step is told and the lane goes on."""
        try:
            while not self._finishing:
                try:
                    await self._step()
                    self._failures = 0
                except Exception as error:  # noqa: BLE001 - the root of this task
                    self._tell(error)
                    self._failures += 1
                    wait = self.services.settings.busy_poll_ms / 1000 * 2 ** min(self._failures, 6)
                    self._box.look_in(wait)
                    if self._box.control or self._box.reports:
                        await asyncio.sleep(min(wait, LETTER_RETRY_S))
        finally:
            await self._cancel_boot()
            self.wakers.failed(LaunchFailed(f"{self.identity.address}: the daemon is stopping"))
            match self.session:
                case TmuxSession() as session:
                    await session.release()
                    await session.tmux.close()
                case InboxSession() as session:
                    session.release()

    async def _step(self) -> None:
        box = self._box
        if not self._finishing:
            await box.wait()
        while box.control:
            control = box.control.popleft()
            try:
                await self._on_control(control)
            except StorageError:
                # A stream that came or went stays so: heard again when the ledger is back.
                if not isinstance(control, Order):
                    box.control.appendleft(control)
                raise
        while box.reports and not box.control:
            report = box.reports.popleft()
            try:
                await self._on_report(report)
            except StorageError:
                box.reports.appendleft(report)
                raise
        if box.work and not box.control and not box.reports:
            box.work = False
            await self._pump()

    async def _pump(self) -> None:
        """One step of work."""
        if self.phase == Phase.ASLEEP:
            await self._former.bury_leftovers()
        if self.stopped:
            await self.journal.hold(HoldReason.STOPPED)
        elif self.phase == Phase.ADOPTING:
            await self._adopt()
        elif self.phase == Phase.BOOTING:
            await self.journal.hold(self._boot.reason)
        elif self.phase == Phase.LIVE and self.session is not None:
            await self._deliver(self.session)
        elif await self.journal.wants_reader():
            await self._wake()

    async def _deliver(self, session: Session) -> None:
        if self._suspect == session.id:
            await self._on_death(session.id)
            return
        try:
            again_s = await self._step_of(session)
        except SessionGone:
            await self._on_death(session.id)
            return
        except TmuxError as error:
            # No answer is no proof: hold and look again.
            self._tell(error)
            again_s = self.services.settings.busy_poll_ms / 1000
        if again_s is not None:
            self._box.look_in(again_s)

    async def _step_of(self, session: Session) -> float | None:
        """One step in a live session; while its context is shortened nothing is handed over."""
        if isinstance(session, TmuxSession) and self.controls.compacting:
            again_s = await self.controls.go_on(session)
            if again_s is not None:
                await self.journal.hold(HoldReason.BUSY)
                return again_s
        return await self._deliverer.step(session)

    # -- coming up --------------------------------------------------------------------------

    async def _wake(self) -> None:
        answer = await self.waking.ask(stopped=self.stopped)
        self.broken = isinstance(answer, Hold) and answer.reason == HoldReason.BROKEN
        if isinstance(answer, Beginning):
            await self.boot(answer)
            await self.journal.hold(self._boot.reason)
            return
        await self.journal.hold(answer.reason)
        if answer.retry_s is not None:
            self._box.look_in(answer.retry_s)

    async def boot(self, beginning: Beginning) -> None:
        """Start the child that brings a session up; only with none of our own."""
        await self._former.bury_leftovers()
        self.phase = Phase.BOOTING
        self._boot.begin(beginning)

    async def _cancel_boot(self) -> None:
        """Take a boot back. One that is ready already is ended like a live session."""
        await self._boot.cancel()
        if self.phase == Phase.BOOTING:
            self.phase = Phase.ASLEEP
        for report in [r for r in self._box.reports if isinstance(r, Booted)]:
            self._box.reports.remove(report)
            await self.services.launcher.end(report.session, "boot:cancelled")

    async def _adopt(self) -> None:
        await self._former.bury_older()
        row = self._former.newest
        if row is None:
            self.phase = Phase.ASLEEP
            return
        try:
            session = await self._former.find()
        except IapeerError as error:
            self._tell(error)
            await self.journal.hold(HoldReason.BUSY)
            self._box.look_in(ADOPT_RETRY_S)
            return
        if session is None:
            self.phase = Phase.ASLEEP
            await self._former.bury_newest()
            if self.wakers:
                await self.boot(await self.waking.wish())
        else:
            self.services.log("adopt", identity=self.identity.address, session=session.id)
            if session.mode == "fresh" and not row.heard:
                session.preface = self.waking.preface()
            await self._go_live(session)
            self._former.newest = None
            self.wakers.woke()
        self._box.work = True

    async def _go_live(self, session: Session) -> None:
        """Watch the session's life and record, and begin to deliver."""
        if isinstance(session, TmuxSession):
            try:
                await watch(session, self.services, self._box.report)
            except StorageError:
                await session.release()
                raise
        self.session, self.phase = session, Phase.LIVE
        self.services.by_session[session.id] = self
        self._deliverer.forget()
        self._box.work = True

    # -- letters ----------------------------------------------------------------------------

    async def _on_report(self, report: Report) -> None:
        match report:
            case BootBegan():
                self._boot.reason = HoldReason.WAKING
            case Booted(session):
                await self._on_booted(session)
            case BootFailed(error):
                self.phase = Phase.ASLEEP
                self.services.log("wake", **self._names(), mode="fail", reason=error.message)
                self.waking.conversation.lose(self._boot.beginning.native_id)
                if not self._boot.beginning.native_id:
                    # A conversation that is gone is no fault of the program: the next is fresh.
                    await self.journal.fault("boot", error.message)
                self.wakers.failed(error)
            case Died(session_id):
                await self._on_death(session_id)
            case Observed():
                await self._on_observed(report)
        self._box.work = True

    async def _on_booted(self, session: TmuxSession) -> None:
        begun = self._boot.beginning
        cause = begun.start.cause
        if begun.native_id and session.mode == "fresh":
            cause = f"{cause.removesuffix('-resume')}-no-resume"
        self.services.log(
            "wake",
            **self._names(),
            mode=session.mode,
            cause=cause,
            ref=begun.native_id,
            session=session.id,
        )
        await self.waking.conversation.began(fresh=session.mode == "fresh", topic=begun.topic)
        await self._go_live(session)
        self.wakers.woke()

    async def _on_observed(self, observed: Observed) -> None:
        """Take evidence; a hook is ahead of the record, which tells where the last turn ended."""
        session = self.session
        if observed.offset is None and isinstance(session, TmuxSession) and session.follower:
            session.follower.read_new()
            await self._drain_evidence(session.id)
        await self._deliverer.observed(observed)
        if isinstance(session, TmuxSession) and session.id == observed.session_id:
            for fact in observed.facts:
                if fact.kind == "compacted":
                    self.controls.compacted()
                await follow(session, fact, self.journal, self.services, self._box.report)

    async def _on_control(self, control: Control) -> None:
        match control:
            case Order():
                await self._orders.carry_out(control)
            case Attached(session):
                await self._on_attached(session)
            case Detached(session_id):
                if self.session is not None and self.session.id == session_id:
                    await self.end("stream closed")
        self._box.work = True

    async def _on_attached(self, session: InboxSession) -> None:
        if self.stopped or session.closed:
            session.end()
            return
        if self.session is not None or self._former.newest is not None:
            await self.end("replaced by a newer stream")
        await self._former.bury_leftovers()
        await self.journal.open_stream(session)
        await self._go_live(session)

    async def _on_death(self, session_id: str) -> None:
        session = self.session
        if session is None or session.id != session_id or not isinstance(session, TmuxSession):
            return
        self._suspect = session_id
        try:
            obituary = await endings.examine(session)
        except TmuxError as error:
            # Unknown is not dead: asked again at the next step.
            self._tell(error)
            self._box.look_in(ADOPT_RETRY_S)
            return
        if obituary is None:
            self._suspect = None
            return
        await self._leave(session, obituary.cause, obituary)
        self.services.exits(obituary.log_fields(self.identity.address))
        await self.journal.fault("death", obituary.describe())

    async def end(self, cause: str) -> None:
        """End what runs or boots, deliberately."""
        await self._cancel_boot()
        self.wakers.failed(LaunchFailed(f"{self.identity.address}: {cause}", code="stopped"))
        await self._former.bury_older()
        if self._former.newest is not None:
            await self._former.bury_newest()
            self.phase = Phase.ASLEEP
        if self.session is not None:
            await self._leave(self.session, cause, None)

    async def _leave(self, session: Session, cause: str, obituary: endings.Obituary | None) -> None:
        """Read the last evidence, give back what is unproven, clear the rest.

        Every step may be done twice: when the ledger fails in between, the session is still ours.
        """
        if isinstance(session, TmuxSession) and session.follower is not None:
            session.follower.read_new()
            await self._drain_evidence(session.id)
        await endings.give_back(session, self.journal, cause, obituary)
        await endings.clear(session, self.journal, self.services, cause)
        self.session, self.phase, self._suspect = None, Phase.ASLEEP, None
        self.controls.over(cause)
        self.services.log("end", **self._names(), session=session.id, cause=cause)

    async def _drain_evidence(self, session_id: str) -> None:
        mine = self._box.take_observed(session_id)
        while mine:
            try:
                await self._deliverer.observed(mine[0])
            except StorageError:
                self._box.reports.extendleft(reversed(mine))
                raise
            del mine[0]

    def _names(self) -> dict[str, str]:
        return {
            "personality": self.identity.personality,
            "identity": self.identity.address,
            "runtime": self.identity.runtime,
        }

    def _tell(self, error: Exception) -> None:
        tell(self.services.log, self.identity, error)
