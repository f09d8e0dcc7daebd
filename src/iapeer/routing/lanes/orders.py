"""What a lane does when somebody orders it: one function per verb, each one short step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iapeer.core.errors import ControlRefused, IapeerError, LaunchFailed, SendRefused
from iapeer.core.states import HoldReason

from .letters import Order, Verb
from .presence import Phase

if TYPE_CHECKING:
    from .lane import Lane


class Orders:
    """Carries out orders on one lane."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def carry_out(self, order: Order) -> None:
        """Do it; whoever gave it hears of every failure, the lane's own root of defects too."""
        try:
            await self._obey(order.verb, order.done)
        except Exception as error:
            if not order.done.done():
                order.done.set_exception(error)
            if not isinstance(error, IapeerError):
                raise

    async def _obey(self, verb: Verb, done: asyncio.Future[str]) -> None:
        lane = self._lane
        match verb:
            case Verb.WAKE:
                await self._wake(done)
            case Verb.STOP:
                await lane.journal.mark_stopped()
                lane.stopped = True
                await lane.waking.conversation.park()
                await lane.end("stopped")
                await lane.journal.hold(HoldReason.STOPPED)
                _answer(done, "stopped")
            case Verb.START:
                await lane.journal.clear_stopped()
                lane.stopped = lane.broken = False
                _answer(done, "started")
            case Verb.END:
                await lane.end("removed")
                _answer(done, "ended")
            case Verb.INTERRUPT:
                _answer(done, await lane.controls.interrupt(lane.session))
            case Verb.COMPACT:
                await self._compact(done)

    async def _wake(self, done: asyncio.Future[str]) -> None:
        """Answer when the session is up; a person who asks is not made to wait for a back-off."""
        lane = self._lane
        if lane.stopped:
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
        if lane.phase == Phase.ASLEEP:
            await lane.boot(await lane.waking.wish())
        lane.wakers.add(done)

    async def _compact(self, done: asyncio.Future[str]) -> None:
        """Compact a live session, or one that was parked: that one is gone on with first."""
        lane = self._lane
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
        await lane.boot(beginning)
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
