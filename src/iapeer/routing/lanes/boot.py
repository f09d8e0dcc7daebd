"""The boot child of a lane: brings one session up and reports, or is taken back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from iapeer.core.errors import IapeerError, LaunchFailed
from iapeer.core.identity import Identity
from iapeer.core.states import HoldReason
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.sessions.model import LaunchRequest

from .letters import BootBegan, Booted, BootFailed, BootPutOff, Report
from .presence import Start
from .waking import Beginning

if TYPE_CHECKING:
    from .services import LaneServices


class Boot:
    """At most one boot at a time; `reason` says why work waits meanwhile."""

    def __init__(
        self,
        uid: str,
        identity: Identity,
        services: LaneServices,
        report: Callable[[Report], None],
    ) -> None:
        self.reason = HoldReason.WAKING
        self._uid = uid
        self._identity = identity
        self._s = services
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self.beginning = Beginning(Start())
        """How the newest boot begins its session."""

    def begin(self, beginning: Beginning, began: Callable[[], None] = lambda: None) -> None:
        """Start the child; it posts `BootBegan` when the host lets it, then how it ended.

        `began` is called in that moment, before anything is started; never for one that is put off.
        """
        self.beginning = beginning
        free = self._s.launcher.boot_slot_free
        self.reason = HoldReason.WAKING if free else HoldReason.BOOT_LIMIT
        self._task = asyncio.create_task(
            self._run(beginning, began), name=f"boot {self._identity.address}"
        )

    async def cancel(self) -> None:
        """Take the boot back and wait until nothing of it is left; harmless without one.

        A child that was ready in that moment has posted `Booted`.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._s.budget.taken_back(self._identity.runtime, self._uid)

    async def _run(self, beginning: Beginning, began: Callable[[], None]) -> None:
        """Post exactly one of `Booted`, `BootFailed`, `BootPutOff`, unless cancelled."""
        try:
            spec, request = self._prepare(beginning)
            async with self._s.launcher.permit():
                if not beginning.forced and self._s.budget.refuses(spec.id, self._uid):
                    self._report(BootPutOff())
                    return
                began()
                self._report(BootBegan())
                session = await self._s.launcher.launch(request, spec)
        except LaunchFailed as error:
            self._report(BootFailed(error))
        except IapeerError as error:
            why = f"{self._identity.address}: {error.message}"
            self._report(BootFailed(LaunchFailed(why, hint=error.hint, code=error.code)))
        except Exception as error:  # noqa: BLE001 - the root of this task
            why = f"{self._identity.address}: defect in the launch: {error!r}"
            self._report(BootFailed(LaunchFailed(why, code="defect")))
        else:
            self._report(Booted(session))

    def _prepare(self, beginning: Beginning) -> tuple[RuntimeSpec, LaunchRequest]:
        """Look up what to start. Raises PeerNotFound, RuntimeUnknown, LaunchFailed."""
        record = self._s.registry.snapshot(allow_stale=True).require(self._identity.personality)
        if record.uid != self._uid:
            raise LaunchFailed(f"{self._identity.address} is another peer of that name now")
        spec = self._s.catalog.get(self._identity.runtime)
        request = LaunchRequest(
            uid=self._uid,
            identity=self._identity,
            cwd=Path(record.cwd),
            resume=beginning.native_id,
            preface=beginning.preface,
        )
        return spec, request
