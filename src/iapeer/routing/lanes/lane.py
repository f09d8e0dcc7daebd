"""One identity's lane: an actor that takes one short step at a time and never waits.

Boots, deaths and evidence are watched by children that post reports; orders from outside overtake
work. Only the lane changes the state of its messages after they were accepted, so no two steps
can disagree about one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iapeer.core.errors import (
    ControlRefused,
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
        self._s = services
        self._journal = Journal(uid, identity, services)
        self._waking = Waking(self._journal, identity, services)
        self._controls = Controls(identity, services)
        self._deliverer = Deliverer(self._journal, services, self._waking.conversation)
        self._box = Mailbox(services.clock)
        self._boot = Boot(uid, identity, services, self._box.report)
        self._adoptee: SessionRow | None = None
        self._older: list[SessionRow] = []
        self._wakers = Wakers()
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
        if len(self._box.control) >= self._s.settings.lane_mailbox:
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
        if self._adoptee is not None:
            self._older.append(self._adoptee)
        self._adoptee = row
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
                    wait = self._s.settings.busy_poll_ms / 1000 * 2 ** min(self._failures, 6)
                    self._box.look_in(wait)
                    if self._box.control or self._box.reports:
                        await asyncio.sleep(min(wait, LETTER_RETRY_S))
        finally:
            await self._cancel_boot()
            self._wakers.failed(LaunchFailed(f"{self.identity.address}: the daemon is stopping"))
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
            await self._bury_leftovers()
        if self.stopped:
            await self._journal.hold(HoldReason.STOPPED)
        elif self.phase == Phase.ADOPTING:
            await self._adopt()
        elif self.phase == Phase.BOOTING:
            await self._journal.hold(self._boot.reason)
        elif self.phase == Phase.LIVE and self.session is not None:
            await self._deliver(self.session)
        elif await self._journal.wants_reader():
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
            again_s = self._s.settings.busy_poll_ms / 1000
        if again_s is not None:
            self._box.look_in(again_s)

    async def _step_of(self, session: Session) -> float | None:
        """One step in a live session; while its context is shortened nothing is handed over."""
        if isinstance(session, TmuxSession) and self._controls.compacting:
            again_s = await self._controls.go_on(session)
            if again_s is not None:
                await self._journal.hold(HoldReason.BUSY)
                return again_s
        return await self._deliverer.step(session)

    # -- coming up --------------------------------------------------------------------------

    async def _wake(self) -> None:
        answer = await self._waking.ask(stopped=self.stopped)
        self.broken = isinstance(answer, Hold) and answer.reason == HoldReason.BROKEN
        if isinstance(answer, Beginning):
            await self._boot_now(answer)
            await self._journal.hold(self._boot.reason)
            return
        await self._journal.hold(answer.reason)
        if answer.retry_s is not None:
            self._box.look_in(answer.retry_s)

    async def _boot_now(self, beginning: Beginning) -> None:
        await self._bury_leftovers()
        self.phase = Phase.BOOTING
        self._boot.begin(beginning)

    async def _bury_leftovers(self) -> None:
        """Settle sessions that ended while the ledger took no writes; only with none of our own.

        Until then their messages are nobody's, and a second row would be a second session.
        """
        for row in await self._journal.open_sessions():
            await endings.bury(row, self._journal, self._s)

    async def _cancel_boot(self) -> None:
        """Take a boot back. One that is ready already is ended like a live session."""
        await self._boot.cancel()
        if self.phase == Phase.BOOTING:
            self.phase = Phase.ASLEEP
        for report in [r for r in self._box.reports if isinstance(r, Booted)]:
            self._box.reports.remove(report)
            await self._s.launcher.end(report.session, "boot:cancelled")

    async def _adopt(self) -> None:
        await self._bury_older()
        row = self._adoptee
        if row is None:
            self.phase = Phase.ASLEEP
            return
        try:
            spec = self._s.catalog.get(self.identity.runtime)
            session = await self._s.launcher.adopt(row, spec) if row.socket else None
        except IapeerError as error:
            self._tell(error)
            await self._journal.hold(HoldReason.BUSY)
            self._box.look_in(ADOPT_RETRY_S)
            return
        if session is None:
            self._adoptee, self.phase = None, Phase.ASLEEP
            await endings.bury(row, self._journal, self._s)
            if self._wakers:
                await self._boot_now(await self._waking.wish())
        else:
            self._s.log("adopt", identity=self.identity.address, session=session.id)
            if session.mode == "fresh" and not row.heard:
                session.preface = self._waking.preface()
            await self._go_live(session)
            self._adoptee = None
            self._wakers.woke()
        self._box.work = True

    async def _bury_older(self) -> None:
        """Settle rows that were left behind by a session before the newest."""
        while self._older:
            await endings.bury(self._older[0], self._journal, self._s, is_newest=False)
            del self._older[0]

    async def _go_live(self, session: Session) -> None:
        """Watch the session's life and record, and begin to deliver."""
        if isinstance(session, TmuxSession):
            try:
                await watch(session, self._s, self._box.report)
            except StorageError:
                await session.release()
                raise
        self.session, self.phase = session, Phase.LIVE
        self._s.by_session[session.id] = self
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
                self._s.log("wake", **self._names(), mode="fail", reason=error.message)
                self._waking.conversation.lose(self._boot.beginning.native_id)
                if not self._boot.beginning.native_id:
                    # A conversation that is gone is no fault of the program: the next is fresh.
                    await self._journal.fault("boot", error.message)
                self._wakers.failed(error)
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
        self._s.log(
            "wake",
            **self._names(),
            mode=session.mode,
            cause=cause,
            ref=begun.native_id,
            session=session.id,
        )
        await self._waking.conversation.began(fresh=session.mode == "fresh", topic=begun.topic)
        await self._go_live(session)
        self._wakers.woke()

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
                    self._controls.compacted()
                await follow(session, fact, self._journal, self._s, self._box.report)

    async def _on_control(self, control: Control) -> None:
        match control:
            case Order(verb, done):
                try:
                    await self._obey(verb, done)
                except Exception as error:
                    if not done.done():
                        done.set_exception(error)
                    if not isinstance(error, IapeerError):
                        raise
            case Attached(session):
                await self._on_attached(session)
            case Detached(session_id):
                if self.session is not None and self.session.id == session_id:
                    await self._end("stream closed")
        self._box.work = True

    async def _obey(self, verb: Verb, done: asyncio.Future[str]) -> None:
        match verb:
            case Verb.WAKE:
                await self._on_wake(done)
            case Verb.STOP:
                await self._journal.mark_stopped()
                self.stopped = True
                action = "stopped"
                await self._waking.conversation.park()
                await self._end("stopped")
                await self._journal.hold(HoldReason.STOPPED)
                done.set_result(action)
            case Verb.START:
                await self._journal.clear_stopped()
                self.stopped = self.broken = False
                done.set_result("started")
            case Verb.END:
                await self._end("removed")
                done.set_result("ended")
            case Verb.INTERRUPT:
                done.set_result(await self._controls.interrupt(self.session))
            case Verb.COMPACT:
                await self._on_compact(done)

    async def _on_wake(self, done: asyncio.Future[str]) -> None:
        """Answer when the session is up; a person who asks is not made to wait for a back-off."""
        if self.stopped:
            raise SendRefused(
                f'"{self.identity.personality}" ({self.identity.runtime}) is stopped',
                hint=f"iapeer start {self.identity.personality}",
                code="stopped",
            )
        if self.phase == Phase.LIVE:
            done.set_result("live")
            return
        if self._s.catalog.get(self.identity.runtime).kind == "service":
            raise LaunchFailed(
                f"{self.identity.address} connects by itself; there is no screen to attach to",
                code="no_screen",
            )
        if self.phase == Phase.ASLEEP:
            await self._boot_now(await self._waking.wish())
        self._wakers.add(done)

    async def _on_compact(self, done: asyncio.Future[str]) -> None:
        """Compact a live session, or one that was parked: that one is gone on with first."""
        if self.session is not None:
            await self._controls.ask_compact(self.session, done)
            return
        beginning = await self._waking.wish()
        if self.stopped or self.phase != Phase.ASLEEP or not beginning.native_id:
            raise ControlRefused(
                f"{self.identity.address} has nothing to compact", code="nothing_to_compact"
            )
        woken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        woken.add_done_callback(lambda _: self._compact_woken(woken, done))
        await self._boot_now(beginning)
        self._wakers.add(woken)

    def _compact_woken(self, woken: asyncio.Future[str], done: asyncio.Future[str]) -> None:
        """The parked session is up, or will not come up."""
        if done.done():
            return
        failed = woken.exception() if not woken.cancelled() else None
        if failed is not None:
            done.set_exception(failed)
        else:
            self.post(Order(Verb.COMPACT, done))

    async def _on_attached(self, session: InboxSession) -> None:
        if self.stopped or session.closed:
            session.end()
            return
        if self.session is not None or self._adoptee is not None:
            await self._end("replaced by a newer stream")
        await self._bury_leftovers()
        await self._journal.open_stream(session)
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
        self._s.exits(obituary.log_fields(self.identity.address))
        await self._journal.fault("death", obituary.describe())

    async def _end(self, cause: str) -> None:
        """End what runs or boots, deliberately."""
        await self._cancel_boot()
        self._wakers.failed(LaunchFailed(f"{self.identity.address}: {cause}", code="stopped"))
        await self._bury_older()
        if self._adoptee is not None:
            await endings.bury(self._adoptee, self._journal, self._s)
            self._adoptee = None
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
        await endings.give_back(session, self._journal, cause, obituary)
        await endings.clear(session, self._journal, self._s, cause)
        self.session, self.phase, self._suspect = None, Phase.ASLEEP, None
        self._controls.over(cause)
        self._s.log("end", **self._names(), session=session.id, cause=cause)

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
        tell(self._s.log, self.identity, error)
