"""A program as a peer: send messages, and read an inbox of its own.

    peer = Peer("ci-bot")
    await peer.send("alice", "the build is green")
    async for message in peer.inbox():
        await message.reply("on it")

Needs a daemon on this host, reached over its unix socket.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from iapeer.client.hot import SEND_TIMEOUT_S, socket_path
from iapeer.core import env, errors
from iapeer.core.errors import (
    CallerError,
    DaemonDown,
    IapeerError,
    InvalidInput,
    PeerNotFound,
    SendRefused,
)
from iapeer.core.identity import parse_identity

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
"""Waits between reconnects: doubled each time, with jitter, back to the first after a message."""
SILENCE_S = 45.0
"""The daemon pings every 15 s; a stream silent for three pings is dead."""
_CALL_S = 10.0
_REMEMBERED = 1000
"""Acknowledged ids that are remembered, so that a repeated one is not shown twice."""

_RETRIED = frozenset({"too_many_streams", "internal"})

_BY_STATUS: dict[int, type[IapeerError]] = {
    400: InvalidInput,
    403: CallerError,
    404: PeerNotFound,
    409: SendRefused,
    429: SendRefused,
}
"""What an error is whose code says more than its class, as the daemon's table has it."""


class _Delivery(msgspec.Struct, frozen=True):
    """An inbox event as it comes over the wire; keys added later are ignored."""

    id: str
    sender: str
    intelligence: str
    body: str
    topic: str | None = None
    attachments: tuple[str, ...] = ()
    ts: str = ""
    dup: str = ""


class Incoming:
    """A message of the inbox. `dup` is `maybe` when it may have been shown to a reader before."""

    def __init__(self, peer: Peer, delivery: _Delivery, *, auto_ack: bool) -> None:
        self._peer = peer
        self._auto_ack = auto_ack
        self.id = delivery.id
        self.sender = delivery.sender
        self.intelligence = delivery.intelligence
        self.body = delivery.body
        self.topic = delivery.topic
        self.attachments = delivery.attachments
        self.ts = delivery.ts
        self.dup = delivery.dup
        self.acked = False

    def __repr__(self) -> str:
        """Show who and which, never the body."""
        return f"Incoming(id={self.id!r}, sender={self.sender!r}, topic={self.topic!r})"

    async def reply(self, text: str, **options: Any) -> dict[str, Any]:
        """Send `text` to the sender, on the runtime and topic it wrote from unless told otherwise.

        Options are those of `Peer.send`. When the reply was accepted and auto-ack is on, the
        message is acknowledged too. Raises as `Peer.send` and `ack`.
        """
        identity = parse_identity(self.sender)
        if identity is None:
            raise InvalidInput(f"{self.sender!r} is no address to reply to")
        options.setdefault("runtime", identity.runtime)
        options.setdefault("topic", self.topic)
        result = await self._peer.send(identity.personality, text, **options)
        if self._auto_ack:
            await self.ack()
        return result

    async def ack(self) -> None:
        """Tell the daemon that the message has arrived for good; again is harmless.

        Raises DaemonDown when nobody answers: the message then comes again.
        """
        if not self.acked:
            await self._peer._acknowledge(self.id)  # noqa: SLF001 - the other half of one noun
            self.acked = True


class Peer:
    """A registered peer as this program speaks for it.

    `name` is an address (`service-ci-bot`) or a personality (`ci-bot`), which stands for its
    default runtime; where both readings are registered the personality wins. `token` is a session
    token and decides who is speaking; without one the session's own (PEER_TOKEN) is sent if the
    environment has it, so a program in an agent's session speaks for that agent only. Else the
    daemon takes the word of this account.
    """

    def __init__(
        self, name: str, *, socket: str | Path | None = None, token: str | None = None
    ) -> None:
        self._name = name
        self._socket = str(socket) if socket is not None else socket_path(os.environ)
        self._token = token if token is not None else os.environ.get(env.SESSION_TOKEN, "")
        self._bearer = os.environ.get(env.BEARER_TOKEN, "")
        self._address = ""
        self._acked: OrderedDict[str, None] = OrderedDict()

    async def send(  # noqa: PLR0913 - the fields of one message
        self,
        to: str,
        text: str,
        *,
        runtime: str | None = None,
        topic: str | None = None,
        attachments: tuple[str, ...] = (),
        key: str | None = None,
    ) -> dict[str, Any]:
        """Send a message and return the daemon's result (`ok`, `state`, `message_id`, ...).

        `key` makes the call safe to repeat: for 24 h the same key with the same message returns
        the first result. Raises the error the daemon names, DaemonDown when nobody answers; after
        that one without a key, whether it was accepted is unknown.
        """
        body = {
            "to": to,
            "message": text,
            "runtime": runtime,
            "topic": topic,
            "attachments": attachments,
            "key": key,
            "from": await self.address(),
        }
        return await self._call("POST", "/api/v1/send", body, SEND_TIMEOUT_S)

    async def inbox(self, *, auto_ack: bool = True) -> AsyncGenerator[Incoming]:
        """Yield the peer's messages, for ever; the connection is made again when it breaks.

        A message counts as read when it is acknowledged. With `auto_ack` that happens when the
        loop asks for the next message, or earlier by a successful `reply` or by `ack`. If the loop
        body raises, or leaves the loop, the message is not acknowledged and comes again, marked
        `dup="maybe"`, to the next reader. Without `auto_ack` only `ack` counts. A message that
        this object has acknowledged is not shown twice.

        Raises SendRefused when another reader took the inbox over or the peer has none, and
        CallerError; a daemon that is down is waited for.
        """
        wait_s = BACKOFF_FIRST_S
        while True:
            try:
                async with aclosing(self._stream()) as stream:
                    async for delivery in stream:
                        wait_s = BACKOFF_FIRST_S
                        if delivery.id in self._acked:
                            await self._acknowledge(delivery.id)
                            continue
                        message = Incoming(self, delivery, auto_ack=auto_ack)
                        yield message
                        if auto_ack:
                            await self._ack_until_heard(message)
            except DaemonDown:
                pass
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait_s = min(wait_s * 2, BACKOFF_MAX_S)

    async def address(self) -> str:
        """Return the address this program speaks as; a personality is looked up once.

        Raises PeerNotFound, DaemonDown.
        """
        if not self._address:
            answer = await self._call("GET", "/api/v1/peers", None, _CALL_S)
            self._address = _resolve(self._name, answer.get("peers", []))
        return self._address

    async def _ack_until_heard(self, message: Incoming) -> None:
        """Acknowledge across a restart of the daemon: the loop body's work is done and counts."""
        wait_s = BACKOFF_FIRST_S
        while True:
            try:
                await message.ack()
            except DaemonDown:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_MAX_S)
            else:
                return

    async def _acknowledge(self, message_id: str) -> None:
        body = {"id": message_id, "from": await self.address()}
        await self._call("POST", "/api/v1/inbox/ack", body, _CALL_S)
        self._acked[message_id] = None
        while len(self._acked) > _REMEMBERED:
            self._acked.popitem(last=False)

    async def _stream(self) -> AsyncGenerator[_Delivery]:
        """Yield deliveries of one connection; ends with it. Raises DaemonDown to be retried."""
        headers = {"X-IAPeer-Identity": await self.address()}
        async with (
            self._client(httpx2.Timeout(_CALL_S, read=SILENCE_S)) as client,
            client.sse("/api/v1/inbox", headers=headers) as source,
        ):
            if source.response.status_code != 200:
                await source.response.aread()
                raise _retried(_error_of(source.response))
            async for event in source:
                if event.event == "message":
                    yield msgspec.json.decode(event.data, type=_Delivery)
                elif event.event == "error":
                    raise _retried(_error_from(event.data.encode()))
                elif event.event == "end":
                    raise SendRefused(
                        f"another reader took over the inbox of {self._address}",
                        hint="run one reader per peer",
                        code="inbox_taken",
                    )

    async def _call(self, method: str, path: str, body: Any, timeout_s: float) -> dict[str, Any]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        async with self._client(httpx2.Timeout(timeout_s)) as client:
            response = await client.request(method, path, content=content, headers=headers)
        if response.status_code != 200:
            raise _error_of(response)
        answer: dict[str, Any] = msgspec.json.decode(response.content)
        return answer

    @asynccontextmanager
    async def _client(self, limits: httpx2.Timeout) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {}
        if self._token:
            headers["X-IAPeer-Token"] = self._token
        if self._bearer:
            headers["Authorization"] = f"Bearer {self._bearer}"
        try:
            async with httpx2.AsyncClient(
                transport=httpx2.AsyncHTTPTransport(uds=self._socket),
                base_url="http://localhost",
                headers=headers,
                timeout=limits,
                trust_env=False,
            ) as client:
                yield client
        except httpx2.TransportError as error:
            raise DaemonDown(
                f"no daemon answers at {self._socket}: {type(error).__name__}",
                hint="start it: iapeer daemon",
            ) from error


def _resolve(name: str, peers: list[dict[str, Any]]) -> str:
    for peer in peers:
        if peer["personality"] == name:
            return f"{peer['default_runtime']}-{name}"
    if parse_identity(name) is None:
        raise PeerNotFound(f"no peer {name!r}", hint="iapeer list shows who is there")
    return name


def _error_of(response: httpx2.Response) -> IapeerError:
    return _error_from(response.content, response.status_code)


def _error_from(content: bytes, status: int = 0) -> IapeerError:
    """Return the error a daemon's answer names, as the class its code or its status stands for."""
    try:
        answer = msgspec.json.decode(content)
        found, status = answer["error"], status or int(answer["status"])
        code, message = str(found["code"]), str(found["message"])
        hint, retry = str(found.get("hint") or ""), found.get("retry_after_s")
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
        return IapeerError(f"the daemon answered {status} without a reason", code="bad_answer")
    kind = _kinds().get(code) or _BY_STATUS.get(status, IapeerError)
    return kind(message, hint=hint, code=code, retry_after_s=retry)


def _retried(error: IapeerError) -> IapeerError:
    """Return a DaemonDown in place of an error that passes by itself."""
    if error.code in _RETRIED:
        return DaemonDown(error.message, hint=error.hint, retry_after_s=error.retry_after_s)
    return error


def _kinds() -> dict[str, type[IapeerError]]:
    """Return the error classes by code; those with a constructor of their own stay out."""
    return {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, IapeerError)
        and kind.__init__ is IapeerError.__init__
    }
