"""One identity's lane: an actor that takes one short step at a time and never waits.

Boots, deaths and evidence are watched by children that post reports; orders from outside overtake
work. Only the lane changes the state of its messages after they were accepted, so no two steps
can disagree about one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iapeer.core.errors import (
    LaunchFailed,
    SendRefused,
    SessionGone,
    StorageError,
    TmuxError,
)
from iapeer.core.identity import Identity
from iapeer.core.states import HoldReason
from iapeer.registry.units import Unit
from iapeer.sessions.doors.inbox import InboxSession
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger.rows import SessionRow

from .arriving import Arriving
from .boot import Boot
from .controls import Controls
from .delivery import Deliverer
from .former import Former
from .givenback import GivenBack
from .journal import Journal
from .leaving import Leaving
from .letters import (
    Attached,
    BootBegan,
    Booted,
    BootFailed,
    BootPutOff,
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
from .presence import Cause, Phase, Reap, Settled
from .rest import Rest
from .waking import Waking
from .watching import follow, observe, tell

if TYPE_CHECKING:
    from .services import LaneServices

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
        self.deliverer = Deliverer(self.journal, services, self.waking.conversation)
        self.box = Mailbox(services.clock)
        self.booting = Boot(uid, identity, services, self.box.report)
        self.former = Former(self.journal, self.waking)
        self.rest = Rest(self.journal, self.waking, self.deliverer)
        self.arriving = Arriving(self)
        self.leaving = Leaving(self)
        self.given_back = GivenBack(self)
        self._orders = Orders(self)
        self.stopped = False
        self.broken = False
        """Whether so many sessions failed that the next try is put off."""
        self._finishing = False
        self._failures = 0
        self._steps = 0

    # -- what others may call: never waits, never fails -------------------------------------

    def work(self) -> None:
        """There may be something to deliver."""
        self.box.poke()

    def order(self, verb: Verb, session_id: str = "") -> asyncio.Future[str]:
        """Post an order; the future holds what came of it. Overtakes all work."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if len(self.box.control) >= self.services.settings.lane_mailbox:
            done.set_exception(
                SendRefused(
                    f"{self.identity.address} has too many orders waiting",
                    hint="try again in a moment",
                    code="busy",
                )
            )
            return done
        self.post(Order(verb, done, session_id))
        return done

    def post(self, control: Control) -> None:
        """Post an order or a change of an inbox stream."""
        self.box.post(control)

    def observe(self, observed: Observed) -> None:
        """Post evidence of this session's own hook or reader."""
        observe(self.session, observed, self.box.report)

    def audit(self) -> None:
        """Hear of a death that nobody told; nothing is asked but the kernel."""
        session = self.session
        if isinstance(session, TmuxSession):
            if not all(is_alive(*process) for process in session.processes):
                self.box.report(Died(session.id))
            elif self.services.settings.supervise_log_verbose:
                managed = self.waking.unit() != Unit.NONE
                self.services.log(
                    "supervise",
                    identity=self.identity.address,
                    action="skipped-launchd" if managed else "alive",
                    age=f"{int(self.rest.idle_s)}s",
                    outcome="read-only-h4" if managed else None,
                )

    @property
    def settled(self) -> Settled | None:
        """Why a message that comes now waits; None where only a step of the lane can tell.

        True until the lane takes another step: an order, a report or its alarm brings that about,
        and one more message changes nothing.
        """
        reason, box = self.journal.held, self.box
        if reason is None or self.rest.ephemeral or box.work or box.control or box.reports:
            return None
        return Settled(reason, self._steps)

    @property
    def depth(self) -> int:
        """Causal depth of what its session read last in the running turn; -1 without one."""
        return self.deliverer.depth

    def adopt(self, row: SessionRow) -> None:
        """Before `run`: the ledger says that this session lives."""
        self.former.add(row)
        self.phase = Phase.ADOPTING

    def finish(self) -> None:
        """End after the step that is being taken; the session runs on."""
        self._finishing = True
        self.box.ring()

    # -- the actor --------------------------------------------------------------------------

    async def run(self) -> None:
        """Take steps until `finish`; an error in one step is told and the lane goes on."""
        try:
            while not self._finishing:
                try:
                    await self._step()
                    self._failures = 0
                except Exception as error:  # noqa: BLE001 - the root of this task
                    self.tell(error)
                    self._failures += 1
                    wait = self.services.settings.busy_poll_ms / 1000 * 2 ** min(self._failures, 6)
                    self.box.look_in(wait)
                    if self.box.control or self.box.reports:
                        await asyncio.sleep(min(wait, LETTER_RETRY_S))
        finally:
            await self.arriving.cancel_boot()
            self.wakers.failed(LaunchFailed(f"{self.identity.address}: the daemon is stopping"))
            match self.session:
                case TmuxSession() as session:
                    await session.release()
                    await session.tmux.close()
                case InboxSession() as session:
                    session.release()

    async def _step(self) -> None:
        box = self.box
        if not self._finishing:
            await box.wait()
        self.journal.held = None
        self._steps += 1
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
            await self.former.bury_leftovers()
        if self.stopped:
            if self.former.newest is not None or self.session is not None:
                # A stop that was cut short by a kill is finished.
                await self.leaving.end("stopped", Cause.STOPPED)
            await self.journal.hold(HoldReason.STOPPED)
        elif self.phase == Phase.ADOPTING:
            await self.arriving.adopt()
        elif self.phase == Phase.BOOTING:
            await self.hold(self.booting.reason)
        elif self.phase == Phase.LIVE and self.session is not None:
            await self._deliver(self.session)
        elif await self.journal.wants_reader():
            await self.arriving.wake()

    async def _deliver(self, session: Session) -> None:
        if self.leaving.suspect == session.id:
            await self.leaving.on_death(session.id)
            return
        try:
            again_s = await self._step_of(session)
        except SessionGone:
            await self.leaving.on_death(session.id)
            return
        except TmuxError as error:
            # No answer is no proof: hold and look again.
            self.tell(error)
            again_s = self.services.settings.busy_poll_ms / 1000
        if again_s is not None:
            self.box.look_in(again_s)
        if again_s == 0.0:
            self.rest.touch()
        elif isinstance(session, TmuxSession) and self.session is session:
            await self._mind_rest(session)

    async def _mind_rest(self, session: TmuxSession) -> None:
        """End the session if nobody needs it any more, else set the alarm for the next look."""
        working = self.controls.compacting or self.deliverer.seeding
        try:
            answer = await self.rest.step(session, working=working)
        except SessionGone:
            await self.leaving.on_death(session.id)
            return
        if isinstance(answer, Reap):
            await self.leaving.reap(session, answer)
            self.box.work = True
        elif answer is not None:
            self.box.look_in(answer)

    async def _step_of(self, session: Session) -> float | None:
        """One step in a live session; while its context is shortened nothing is handed over."""
        if self.rest.ephemeral and isinstance(session, TmuxSession) and session.follower:
            # What somebody has just typed is its task: it is known before another is handed over.
            session.follower.read_new()
            if self.box.reports:
                return 0.0
        if isinstance(session, TmuxSession) and self.controls.compacting:
            again_s = await self.controls.go_on(session)
            if again_s is not None:
                await self.journal.hold(HoldReason.BUSY)
                return again_s
        if isinstance(session, TmuxSession):
            again_s = await self.given_back.go_on(session)
            if again_s is not None:
                return again_s
        return await self.deliverer.step(session)

    # -- coming up --------------------------------------------------------------------------

    async def hold(self, reason: HoldReason) -> None:
        """Hold what waits; behind the next task of an ephemeral worker all others wait serially."""
        head = await self.journal.next() if self.rest.ephemeral else None
        if head is None:
            await self.journal.hold(reason)
        else:
            await self.journal.hold_serially(reason, head.id)

    # -- letters ----------------------------------------------------------------------------

    async def _on_report(self, report: Report) -> None:
        match report:
            case BootBegan():
                self.booting.reason = HoldReason.WAKING
            case Booted(session):
                await self.arriving.on_booted(session)
            case BootFailed(error):
                await self.arriving.on_boot_failed(error)
            case BootPutOff():
                self.phase = Phase.ASLEEP
            case Died(session_id):
                await self.leaving.on_death(session_id)
            case Observed():
                await self._on_observed(report)
        self.box.work = True

    async def _on_observed(self, observed: Observed) -> None:
        """Take facts in their order, with everything that follows from them."""
        await self.deliverer.observed(observed)
        session = self.session
        if isinstance(session, TmuxSession) and session.id == observed.session_id:
            self.rest.heard(session, observed.facts)
            for fact in observed.facts:
                if fact.kind == "compacted":
                    self.controls.compacted()
                await follow(session, fact, self.journal, self.services, self.box.report)

    async def _on_control(self, control: Control) -> None:
        match control:
            case Order():
                await self._orders.carry_out(control)
            case Attached(session):
                await self._on_attached(session)
            case Detached(session_id):
                if self.session is not None and self.session.id == session_id:
                    await self.leaving.end("stream closed")
        self.box.work = True

    async def _on_attached(self, session: InboxSession) -> None:
        if self.stopped or session.closed:
            session.end()
            return
        if self.session is not None or self.former.newest is not None:
            await self.leaving.end("replaced by a newer stream")
        await self.former.bury_leftovers()
        await self.journal.open_stream(session)
        await self.arriving.go_live(session)

    def names(self) -> dict[str, str]:
        """Return what a line of the log says of whose lane this is."""
        return {
            "personality": self.identity.personality,
            "identity": self.identity.address,
            "runtime": self.identity.runtime,
        }

    def tell(self, error: Exception) -> None:
        """Write down what went wrong in this lane."""
        tell(self.services.log, self.identity, error)
