"""What a lane does when somebody orders it: one function per verb, each one short step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from iapeer.core.errors import ControlRefused, IapeerError, LaunchFailed, SendRefused
from iapeer.core.states import HoldReason
from iapeer.registry.units import UNIT, Unit
from iapeer.storage.faults import fault

from .letters import Order, Verb
from .presence import Cause, Phase
from .waking import Beginning

if TYPE_CHECKING:
    from .lane import Lane


class Orders:
    """Carries out orders on one lane."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def carry_out(self, order: Order) -> None:
        """Do it; whoever gave it hears of every failure, the lane's own root of defects too."""
        try:
            await self._obey(order)
        except Exception as error:
            if not order.done.done():
                order.done.set_exception(error)
            if not isinstance(error, IapeerError):
                raise

    async def _obey(self, order: Order) -> None:
        lane, verb, done = self._lane, order.verb, order.done
        match verb:
            case Verb.WAKE:
                await self._start(done, lane.waking.wish)
            case Verb.STOP:
                self._check_ours("stop")
                await lane.journal.mark_stopped()
                fault("stop.marked")
                lane.stopped = True
                await lane.waking.conversation.park()
                await lane.leaving.end("stopped", Cause.STOPPED)
                await lane.journal.hold(HoldReason.STOPPED)
                _answer(done, "stopped")
            case Verb.START:
                self._check_ours("start")
                await lane.journal.clear_stopped()
                lane.stopped = lane.broken = False
                lane.services.budget.forgive(lane.identity.runtime)
                _answer(done, "started")
            case Verb.NEW:
                await self._new(done)
            case Verb.LAUNCH:
                await self._start(done, lane.waking.fresh)
            case Verb.SELF_FRESH:
                await self._leave_for_fresh(order.session_id)
                _answer(done, "ended")
            case Verb.END:
                await lane.leaving.end("removed")
                _answer(done, "ended")
            case Verb.INTERRUPT:
                before = lane.given_back.before_key
                _answer(done, await lane.controls.interrupt(lane.session, before))
            case Verb.COMPACT:
                await self._compact(done)

    async def _new(self, done: asyncio.Future[str]) -> None:
        """End whatever is there, forget why it was not, and answer when a fresh one is up."""
        lane = self._lane
        self._check_ours("new")
        await lane.journal.clear_stopped()
        lane.stopped = lane.broken = False
        await lane.waking.conversation.forget()
        await lane.leaving.end("new")
        fault("new.ended")
        await self._start(done, lane.waking.fresh)

    async def _start(
        self, done: asyncio.Future[str], begin: Callable[[], Awaitable[Beginning]]
    ) -> None:
        """Answer when the session is up; a person who asks is not made to wait for a back-off."""
        lane = self._lane
        if lane.stopped:
            self._refused("stopped", "is stopped and not accepting messages; start it to resume")
            raise SendRefused(
                f'"{lane.identity.personality}" ({lane.identity.runtime}) is stopped',
                hint=f"iapeer start {lane.identity.personality}",
                code="stopped",
            )
        if lane.phase == Phase.LIVE:
            _answer(done, "live")
            return
        if lane.services.catalog.get(lane.identity.runtime).kind == "service":
            raise LaunchFailed(
                f"{lane.identity.address} connects by itself; there is no screen to attach to",
                code="no_screen",
            )
        self._check_ours("wake")
        if lane.phase == Phase.ASLEEP:
            await lane.arriving.boot(await begin())
        lane.wakers.add(done)

    async def _leave_for_fresh(self, session_id: str) -> None:
        """End the session that asked to be replaced, unless it is gone already."""
        lane = self._lane
        former = lane.former.newest
        if (lane.session and lane.session.id == session_id) or (
            former is not None and former.id == session_id
        ):
            await lane.leaving.end("self-fresh")
            lane.services.log(
                "supervise",
                identity=lane.identity.address,
                action="needs-eager-fresh",
                outcome="eager-fresh",
            )

    def _check_ours(self, what: str) -> None:
        """Leave a peer alone whose sessions the service manager starts and ends.

        Raises ControlRefused.
        """
        lane = self._lane
        unit = lane.waking.unit()
        if unit == Unit.NONE:
            return
        self._refused("launchd-managed", "is launchd-managed")
        whose = "another program's" if unit == Unit.FOREIGN else "the service manager's"
        raise ControlRefused(
            f'"{lane.identity.personality}" is launchd-managed: its unit file is {whose}; '
            f"{what} is not for us to do",
            hint=f"systemctl --user status {UNIT.format(personality=lane.identity.personality)}",
            code="foreign_unit" if unit == Unit.FOREIGN else "service_managed",
        )

    def _refused(self, cause: str, reason: str) -> None:
        lane = self._lane
        lane.services.log("wake", **lane.names(), mode="refused", cause=cause, reason=reason)

    async def _compact(self, done: asyncio.Future[str]) -> None:
        """Compact a live session, or one that was parked: that one is gone on with first."""
        lane = self._lane
        self._check_ours("compact")
        if lane.session is not None:
            await lane.controls.ask_compact(lane.session, done)
            return
        beginning = await lane.waking.wish()
        if lane.stopped or lane.phase != Phase.ASLEEP or not beginning.native_id:
            raise ControlRefused(
                f"{lane.identity.address} has nothing to compact", code="nothing_to_compact"
            )
        woken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        woken.add_done_callback(lambda _: self._compact_woken(woken, done))
        await lane.arriving.boot(beginning)
        lane.wakers.add(woken)

    def _compact_woken(self, woken: asyncio.Future[str], done: asyncio.Future[str]) -> None:
        """The parked session is up, or will not come up."""
        if done.done():
            return
        failed = woken.exception() if not woken.cancelled() else None
        if failed is not None:
            done.set_exception(failed)
        else:
            self._lane.post(Order(Verb.COMPACT, done))


def _answer(done: asyncio.Future[str], what: str) -> None:
    """Answer whoever gave the order, unless they have gone away."""
    if not done.done():
        done.set_result(what)
