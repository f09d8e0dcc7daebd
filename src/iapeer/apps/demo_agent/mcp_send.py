"""Sends through the daemon's `send_to_peer` tool with the official MCP client, beside the screen.

The client (70 MiB, 1.3 s to import) is loaded by the worker thread at its first job, so an agent
that never sends stays small and the screen stays responsive while one does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from .values import Value

CALL_S = 60.0
"""Longest wait for the answer of one call."""
RETRY_S = 20.0
"""How long a daemon that can't be reached is tried again, from the first failure of a call."""
PAUSE_S = 0.3
KEY = "iapeer/key"
"""Idempotency key in `_meta`: a repeated call after a lost connection is not a second message."""
TOOL = "send_to_peer"


class Outcome(Value):
    """The end of one call: what came back, and how long it took."""

    __slots__ = ("is_error", "ms", "number", "result")

    def __init__(self, number: int, result: dict[str, Any], *, is_error: bool, ms: int) -> None:
        self.number = number
        self.result = result
        self.is_error = is_error
        self.ms = ms


class _Job:
    def __init__(self, number: int, arguments: dict[str, str]) -> None:
        self.number = number
        self.arguments = arguments
        self.key = uuid.uuid4().hex
        self.started = time.monotonic()
        self.failing_since: float | None = None

    def outcome(self, result: dict[str, Any], *, is_error: bool) -> Outcome:
        ms = int((time.monotonic() - self.started) * 1000)
        return Outcome(self.number, result, is_error=is_error, ms=ms)


class Sender:
    """One connection kept across calls; `done` is called from the worker thread, once per job."""

    def __init__(self, url: str, headers: dict[str, str], done: Callable[[Outcome], None]) -> None:
        self._url = url
        self._headers = headers
        self._done = done
        self._loop = asyncio.new_event_loop()
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._call: asyncio.Task[Any] | None = None
        self._job: _Job | None = None
        threading.Thread(target=self._run, name="mcp", daemon=True).start()

    def submit(self, number: int, arguments: dict[str, str]) -> None:
        """Start a call; the caller has at most one open."""
        job = _Job(number, arguments)
        self._loop.call_soon_threadsafe(self._jobs.put_nowait, job)

    def cancel(self) -> None:
        """Give up the open call; the message itself may have been accepted already."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._job = None
        if self._call is not None:
            self._call.cancel()

    def _run(self) -> None:
        # The client's log lines must not land on the screen.
        logging.getLogger().addHandler(logging.NullHandler())
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        while True:
            if self._job is None:
                self._job = await self._jobs.get()
            job = self._job
            if not self._url:
                self._finish(job, {"error": "no daemon: PEER_MCP_URL is not set"}, is_error=True)
                continue
            try:
                await self._connected()
            # A broken connection cancels what runs inside it; nobody cancels this task itself.
            except (Exception, BaseExceptionGroup, asyncio.CancelledError) as error:  # noqa: BLE001
                await self._failed(error)

    async def _connected(self) -> None:
        """Connect and make calls until the connection breaks, which raises."""
        from mcp.client.session import ClientSession
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        async with (
            create_mcp_http_client(headers=self._headers) as http,
            streamable_http_client(self._url, http_client=http, terminate_on_close=False) as (
                read,
                write,
            ),
            ClientSession(read, write) as session,
        ):
            await asyncio.wait_for(session.initialize(), RETRY_S)
            while True:
                if self._job is None:
                    self._job = await self._jobs.get()
                await self._make_call(session, self._job)

    async def _make_call(self, session: Any, job: _Job) -> None:
        self._call = asyncio.ensure_future(
            session.call_tool(TOOL, job.arguments, meta={KEY: job.key})
        )
        try:
            ended, _ = await asyncio.wait({self._call}, timeout=CALL_S)
        finally:
            self._call.cancel()
        if self._job is not job or self._call.cancelled():
            return
        if not ended:
            self._finish(job, {"error": f"no answer within {CALL_S:.0f} s"}, is_error=True)
            return
        answer = self._call.result()
        self._finish(job, _plain(answer), is_error=bool(answer.is_error))

    async def _failed(self, error: BaseException) -> None:
        job, now = self._job, time.monotonic()
        if job is None:
            return
        if job.failing_since is None:
            job.failing_since = now
        if _is_final(error) or now - job.failing_since >= RETRY_S:
            self._finish(job, {"error": _words(error)}, is_error=True)
        else:
            await asyncio.sleep(PAUSE_S)

    def _finish(self, job: _Job, result: dict[str, Any], *, is_error: bool) -> None:
        if self._job is job:
            self._job = None
            self._done(job.outcome(result, is_error=is_error))


def _plain(answer: Any) -> dict[str, Any]:
    if answer.structured_content:
        return dict(answer.structured_content)
    return {"text": "\n".join(part.text for part in answer.content if part.type == "text")}


def _is_final(error: BaseException) -> bool:
    """Tell whether the daemon itself said no; anything else may be a lost connection."""
    from mcp.shared.exceptions import MCPError
    from mcp_types import CONNECTION_CLOSED

    if isinstance(error, BaseExceptionGroup):
        return any(_is_final(inner) for inner in error.exceptions)
    return isinstance(error, MCPError) and error.error.code != CONNECTION_CLOSED


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
