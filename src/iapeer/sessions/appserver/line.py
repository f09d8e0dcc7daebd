"""A connection to an app-server that comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from .wire import Heard, NotSent, Wire, WireError, connect

BACK_OFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between two tries to connect; the last one repeats. A server is up after 0.12 s (measured)."""


class Line:
    """Holds one connection at a time to the socket `endpoint`, from `start` to `close`.

    Each connection is served by `serve`, which ends by WireError only; `lost` is called after its
    end. Notifications go to `heard` in both.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        serve: Callable[[Wire], Awaitable[None]],
        heard: Heard,
        lost: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._serve = serve
        self._heard = heard
        self._lost = lost
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.trouble = ""
        """Why there is, or was, no connection; for people."""

    @property
    def connected(self) -> bool:
        """Whether requests can be made now."""
        return self._wire is not None and not self._wire.ended.is_set()

    @property
    def wire(self) -> Wire:
        """The connection; raises NotSent when there is none."""
        if self._wire is None or self._wire.ended.is_set():
            raise NotSent("not connected to the app-server")
        return self._wire

    def start(self) -> None:
        """Begin to connect, in the background, and go on for ever; idempotent."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(tell_defect)

    async def close(self) -> None:
        """Disconnect for good; idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        tries = 0
        while True:
            try:
                wire = await connect(self._endpoint, self._heard)
            except WireError as error:
                self.trouble = str(error)
            else:
                tries, self.trouble = 0, ""
                await self._use(wire)
            await asyncio.sleep(BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)])
            tries += 1

    async def _use(self, wire: Wire) -> None:
        """Serve one connection until its end."""
        self._wire = wire
        serving = asyncio.ensure_future(self._serve(wire))
        ended = asyncio.create_task(wire.failure())
        try:
            await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, ended):
                if task.done():
                    self.trouble = str(_trouble_of(task) or "the connection ended")
        finally:
            for task in (serving, ended):
                task.cancel()
            await asyncio.gather(serving, ended, return_exceptions=True)
            self._wire = None
            self._lost()
            await wire.close()


def tell_defect(task: asyncio.Task[None]) -> None:
    """Hand a defect to the event loop's handler: nobody awaits these tasks."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "a channel to an app-server failed", "exception": error, "task": task}
        )


def _trouble_of(task: asyncio.Future[Any]) -> BaseException | None:
    """Return what ended a connection; raises what is a defect of ours."""
    found = task.exception()
    error = found if found is not None else task.result()
    if error is None or isinstance(error, WireError | OSError | msgspec.DecodeError):
        return error
    if isinstance(error, BaseException):
        raise error
    return None
