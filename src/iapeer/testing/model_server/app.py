"""The HTTP surface: which path asks what, and how an answer is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import ModuleType
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from iapeer.core.errors import InvalidInput

from . import chat, messages, responses
from .asks import Ask, Protocol, read_ask
from .director import Director, Wait
from .errors import kind_of, used_up
from .record import RecordedRequest, Recorder, clean_headers
from .rules import Fail, Script
from .wire import CREATED, Job

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of one request's body; more is answered with 413."""

_PROTOCOLS: dict[str, Protocol] = {
    "/messages": "messages",
    "/responses": "responses",
    "/chat/completions": "chat",
}
_WRITERS: dict[Protocol, ModuleType] = {"messages": messages, "responses": responses, "chat": chat}
_LOOK_S = 0.02
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

Seen = Callable[[RecordedRequest], Awaitable[None]]


class ModelApp:
    """Answers requests by a script and tells `seen` of each before its answer begins."""

    def __init__(self, script: Script, recorder: Recorder, seen: Seen) -> None:
        self._script = script
        self._director = Director(script)
        self._recorder = recorder
        self._seen = seen
        self._closing = asyncio.Event()
        self.asgi = Starlette(routes=[Route("/{path:path}", self._handle, methods=_METHODS)])

    def close(self) -> None:
        """Cut slow answers short: their waits end and their streams break off."""
        self._closing.set()

    async def _handle(self, request: Request) -> Response:
        # A base URL may or may not end in /v1, depending on the CLI.
        path = request.url.path.removeprefix("/v1")
        protocol = _PROTOCOLS.get(path) if request.method == "POST" else None
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)
        record = RecordedRequest(
            number=self._recorder.next_number(),
            method=request.method,
            path=request.url.path,
            query=request.url.query,
            headers=clean_headers(request.headers.raw),
            body=body or b"",
            protocol=protocol,
        )
        self._recorder.add(record)
        await self._seen(record)
        vendor = "messages" if path.startswith("/messages") else protocol
        if body is None:
            return _error(413, vendor, f"the body is larger than {BODY_LIMIT} bytes")
        if request.headers.get("content-encoding", "identity") != "identity":
            return _error(415, vendor, "the body is compressed; this server reads plain bodies")
        if protocol is not None:
            return await self._answer(protocol, record)
        return _other(request.method, path, body)

    async def _answer(self, protocol: Protocol, record: RecordedRequest) -> Response:
        try:
            ask = read_ask(protocol, record.body)
            answer = self._director.answer(ask, record.credentials)
        except InvalidInput as error:
            return _error(400, protocol, error.message)
        fail = answer.fail
        if fail is not None and not (fail.mid_stream and ask.stream):
            await self._wait(answer.waits)
            await self._pause(answer.delay_s)
            return _failure(fail, protocol)
        job = Job(ask, answer, len(record.body) // 4 + 1, self._script.chunk_chars)
        if ask.stream:
            return self._streamed(job)
        if not (await self._wait(answer.waits) and await self._pause(answer.delay_s * job.chunks)):
            return _error(503, protocol, "the server is stopping")
        return _json(_WRITERS[protocol].whole(job))

    def _streamed(self, job: Job) -> StreamingResponse:
        return StreamingResponse(
            self._stream(job),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache"},
        )

    async def _stream(self, job: Job) -> AsyncIterator[bytes]:
        waits, sent = job.answer.waits, 0
        for event in _WRITERS[job.ask.protocol].events(job):
            due = [wait for wait in waits if job.chunks_of(wait.texts) <= sent]
            waits = waits[len(due) :]
            if not await self._wait(due):
                return
            if event.chunk and not await self._pause(job.answer.delay_s):
                return
            yield event.encode()
            sent += event.chunk

    async def _wait(self, waits: Iterable[Wait]) -> bool:
        """Wait until all these files are there; False when the server stops meanwhile."""
        for wait in waits:
            while not await asyncio.to_thread(wait.until.exists):
                if not await self._pause(_LOOK_S):
                    return False
        return not self._closing.is_set()

    async def _pause(self, seconds: float) -> bool:
        """Wait; False when the server stops meanwhile."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)
        return not self._closing.is_set()


async def _read(request: Request) -> bytes | None:
    """Read the whole body; None when it is over the limit.

    The rest is read and dropped: a client that is cut off while it sends never sees the answer.
    """
    held = bytearray()
    too_large = False
    async for chunk in request.stream():
        too_large = too_large or len(held) + len(chunk) > BODY_LIMIT
        if too_large:
            held.clear()
        else:
            held += chunk
    return None if too_large else bytes(held)


def _other(method: str, path: str, body: bytes) -> Response:
    """Answer what asks no model: token counts, the list of models, a look at the root."""
    if method == "POST" and path == "/messages/count_tokens":
        return _count(body)
    if method in {"GET", "HEAD"} and path == "/models":
        return _json(_models())
    if method in {"GET", "HEAD"} and path in {"", "/"}:
        return Response(status_code=200)
    return _error(404, "messages" if path.startswith("/messages") else None, "no such path")


def _count(body: bytes) -> Response:
    try:
        ask: Ask = read_ask("messages", body)
    except InvalidInput as error:
        return _error(400, "messages", error.message)
    return _json({"input_tokens": 1 + sum(len(entry.text) for entry in ask.entries) // 4})


def _models() -> dict[str, Any]:
    """Return a list both vendors' clients can read."""
    model = {
        "id": "fake-model",
        "object": "model",
        "type": "model",
        "display_name": "Fake model",
        "created": CREATED,
        "created_at": "2026-01-01T00:00:00Z",
        "owned_by": "iapeer",
    }
    page = {"has_more": False, "first_id": model["id"], "last_id": model["id"]}
    return {"object": "list", "data": [model], **page}


def _failure(fail: Fail, protocol: Protocol) -> Response:
    if fail.resets_in_s is not None and protocol != "messages":
        document, headers = used_up(time.time(), fail.resets_in_s, fail.message)
        return _json(document, fail.status, headers)
    return _error(fail.status, protocol, fail.message, fail.retry_after)


def _error(
    status: int, protocol: Protocol | None, message: str, retry_after: int | None = None
) -> Response:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    document = kind_of(status, protocol, message).document
    return _json(document, status, headers)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer in ASCII: a text may hold half of a surrogate pair."""
    return Response(json.dumps(document), status, headers, "application/json")
