"""The `inbox` door over HTTP: one server-sent event per message, until either side goes.

A stream pulls: the next message is asked for only when the last one was written, so a slow
reader holds up nobody but itself, and is cut when one event can't be written in time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from iapeer.core.errors import IapeerError, SendRefused
from iapeer.daemon.answers import error_body, internal_error, log_crash, status_of
from iapeer.registry.caller import Caller
from iapeer.routing.ports import Inbox, InboxMessage

if TYPE_CHECKING:
    from sse_starlette.event import ServerSentEvent

MAX_STREAMS = 256
PING_S = 15.0
SEND_TIMEOUT_S = 10.0
_FAREWELL_S = 0.5
"""How long the last bytes of a stream may take when the daemon stops."""


class InboxStreams:
    """All open streams; bounded, and ended together when the daemon stops."""

    def __init__(
        self, inbox: Inbox, *, ping_s: float = PING_S, send_timeout_s: float = SEND_TIMEOUT_S
    ) -> None:
        self._inbox = inbox
        self._ping_s = ping_s
        self._send_timeout_s = send_timeout_s
        self._open: set[anyio.CancelScope] = set()
        self._closing = False

    def stream(self, caller: Caller) -> ASGIApp:
        """Return the response that streams `caller`'s messages.

        Events: `message` (id and JSON of an InboxMessage), `ping` every `PING_S` seconds, `error`
        (an error body and its `status`, for the answer has begun with 200), and `end` when another
        reader took the identity over.

        Raises SendRefused when the identity has no inbox or too many streams are open.
        """
        if self._closing or len(self._open) >= MAX_STREAMS:
            raise SendRefused(
                f"{len(self._open)} inbox streams are open (limit {MAX_STREAMS})",
                hint="close one, or try again later",
                code="too_many_streams",
                retry_after_s=5.0,
            )
        from sse_starlette.sse import EventSourceResponse  # noqa: PLC0415 - by the first stream

        events = self._events(self._inbox.open(caller))
        response = EventSourceResponse(
            events,
            ping=self._ping_s,
            ping_message_factory=lambda: _event("ping", "{}"),
            send_timeout=self._send_timeout_s,
        )

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            with anyio.CancelScope() as cancel:
                self._open.add(cancel)
                try:
                    await response(scope, receive, send)
                finally:
                    self._open.discard(cancel)
            if cancel.cancelled_caught:
                with anyio.move_on_after(_FAREWELL_S):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

        return serve

    def close(self) -> None:
        """End every stream and take no new one."""
        self._closing = True
        for cancel in list(self._open):
            cancel.cancel()

    async def _events(
        self, messages: AsyncIterator[InboxMessage]
    ) -> AsyncIterator[ServerSentEvent]:
        try:
            async for message in messages:
                yield _event("message", msgspec.json.encode(message).decode(), message.id)
            yield _event("end", '{"reason":"replaced"}')
        except IapeerError as error:
            yield _error_event(error)
        except Exception as error:  # noqa: BLE001 - the root of this stream
            log_crash("inbox", error)
            yield _error_event(internal_error())
        finally:
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()


def _error_event(error: IapeerError) -> ServerSentEvent:
    body = {**error_body(error), "status": status_of(error)}
    return _event("error", msgspec.json.encode(body).decode())


def _event(name: str, data: str, number: str | None = None) -> ServerSentEvent:
    from sse_starlette.event import ServerSentEvent  # noqa: PLC0415 - as in `stream`

    return ServerSentEvent(data, event=name, id=number)
