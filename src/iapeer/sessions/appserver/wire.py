"""JSON-RPC with a Codex app-server: one object per text frame of a WebSocket on a unix socket.

There is no `jsonrpc` member. Replies may come in any order; the server also sends requests (to
approve a command, for instance), which are left to the terminal that is attached to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from iapeer.core.errors import IapeerError

from .frames import Frame

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

REQUEST_S = 1.5
"""Longest wait for one reply (measured: 3 to 12 ms, also while a tool call blocks)."""
CONNECT_S = 1.0
MAX_FRAME_BYTES = 16 << 20
"""A command's whole output can stand in one frame; a larger one ends the connection."""
MAX_WAITING = 64
"""Requests without a reply; there are never more than a few."""

_Reply = TypeVar("_Reply")
Heard = Callable[[str, msgspec.Raw], None]
"""Takes the method and the parameters of each notification, in order; never blocks."""


class WireError(IapeerError):
    """No answer of the app-server: nobody can tell whether it took the request."""

    code = "appserver"


class NotSent(WireError):
    """The request has provably not been written: there was no connection."""


class Refused(WireError):
    """The app-server has answered, with an error."""


class Wire:
    """One connection; not reused after its end.

    Raises WireError from every method when the connection ends or time runs out.
    """

    def __init__(self, connection: ClientConnection, heard: Heard) -> None:
        self._connection = connection
        self._heard = heard
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._decoder = msgspec.json.Decoder(Frame)
        self.ended = asyncio.Event()
        """Set at the connection's end, whoever ended it."""
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(lambda _task: self._finish())

    async def call(
        self,
        method: str,
        params: dict[str, Any],
        reply: type[_Reply],
        timeout_s: float = REQUEST_S,
    ) -> _Reply:
        """Ask, and return the decoded reply.

        Raises:
            NotSent: nothing was written.
            Refused: the server answered with an error.
            WireError: the request may have been taken.
        """
        if self.ended.is_set() or len(self._waiting) >= MAX_WAITING:
            raise NotSent(f"{method}: not connected")
        number = next(self._numbers)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send({"id": number, "method": method, "params": params})
                frame = await answer
        except TimeoutError:
            raise WireError(f"{method}: no answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[number]
        if frame.error is not None:
            raise Refused(f"{method}: {frame.error.message}")
        try:
            return msgspec.json.decode(frame.result, type=reply)
        except msgspec.DecodeError as error:
            raise WireError(f"{method}: an answer of another shape ({error})") from error

    async def notify(self, method: str) -> None:
        """Tell something that has no answer."""
        async with asyncio.timeout(REQUEST_S):
            await self._send({"method": method})

    async def close(self) -> None:
        """End the connection; waits at most a second for the server's goodbye."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._connection.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _send(self, frame: dict[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - see `connect`

        try:
            await self._connection.send(msgspec.json.encode(frame), text=True)
        except ConnectionClosed as error:
            raise WireError(f"the connection ended: {error}") from error

    async def _read(self) -> None:
        """Give replies to those who wait, and notifications to the listener, until the end."""
        async for data in self._connection:
            frame = self._decoder.decode(data)
            if frame.method:
                if frame.id is None:
                    self._heard(frame.method, frame.params)
                continue
            answer = self._waiting.get(frame.id) if isinstance(frame.id, int) else None
            if answer is not None and not answer.done():
                answer.set_result(frame)

    def _finish(self) -> None:
        self.ended.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WireError("the connection ended before the answer"))

    async def failure(self) -> BaseException | None:
        """Wait for the end and return what went wrong; None for an ordinary end."""
        await self.ended.wait()
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - see `connect`

        if self._reader.cancelled():
            return None
        error = self._reader.exception()
        return None if isinstance(error, ConnectionClosed) else error


def decode(params: msgspec.Raw, kind: type[_Reply]) -> _Reply:
    """Read what a notification tells; raises WireError, which ends the connection."""
    try:
        return msgspec.json.decode(params, type=kind)
    except msgspec.DecodeError as error:
        raise WireError(f"a notification of another shape: {error}") from error


async def connect(path: str, heard: Heard) -> Wire:
    """Open a connection to the socket at `path`; raises WireError when nobody answers there.

    The library is loaded at the first connection: 30 ms that a daemon without such a runtime
    does not spend.
    """
    from websockets.asyncio.client import unix_connect  # noqa: PLC0415
    from websockets.exceptions import WebSocketException  # noqa: PLC0415

    try:
        connection = await unix_connect(
            path,
            uri="ws://localhost/",
            compression=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=16,
            open_timeout=CONNECT_S,
            close_timeout=CONNECT_S,
            # The end of a local server is the end of the stream; a ping would only wake us up.
            ping_interval=None,
        )
    except (OSError, TimeoutError, WebSocketException) as error:
        raise WireError(f"no app-server at {path}: {error}") from error
    return Wire(connection, heard)
