"""Sends through the daemon's `send_to_peer` tool, beside the screen.

The HTTP client is loaded by the worker thread at its first job, so an agent that never sends stays
small and the screen stays responsive while one does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iapeer.core.errors import IapeerError

from .values import Value

if TYPE_CHECKING:
    import httpx2

CALL_S = 60.0
"""Longest wait for the answer of one call."""
RETRY_S = 20.0
"""How long a daemon that can't be reached is tried again, from the first failure of a call."""
PAUSE_S = 0.3
KEY = "iapeer/key"
"""Idempotency key in `_meta`: a repeated call after a lost connection is not a second message."""
TOOL = "send_to_peer"
VERSION = "2025-11-25"
"""Of the protocol: the newest with a handshake, as the agent programs of its time have one."""


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
            # An answer that is none of a daemon's can fail in any way; the call must still end.
            except Exception as error:  # noqa: BLE001 - the root of this thread's work
                await self._failed(error)

    async def _connected(self) -> None:
        """Connect and make calls until the connection breaks, which raises."""
        import httpx2

        # How long a call may take is decided in one place, below.
        limits = httpx2.Timeout(None, connect=RETRY_S)
        # A loopback address is never asked through the environment's proxy.
        async with httpx2.AsyncClient(
            headers=self._headers, timeout=limits, trust_env=False
        ) as http:
            session = _Session(http, self._url)
            await asyncio.wait_for(session.initialize(), RETRY_S)
            while True:
                if self._job is None:
                    self._job = await self._jobs.get()
                await self._make_call(session, self._job)

    async def _make_call(self, session: _Session, job: _Job) -> None:
        self._call = asyncio.ensure_future(session.call(job.arguments, job.key))
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
        self._finish(job, _plain(answer), is_error=bool(answer.get("isError")))

    async def _failed(self, error: Exception) -> None:
        job, now = self._job, time.monotonic()
        if job is None:
            return
        if job.failing_since is None:
            job.failing_since = now
        if isinstance(error, _Refused) or now - job.failing_since >= RETRY_S:
            self._finish(job, {"error": _words(error)}, is_error=True)
        else:
            await asyncio.sleep(PAUSE_S)

    def _finish(self, job: _Job, result: dict[str, Any], *, is_error: bool) -> None:
        if self._job is job:
            self._job = None
            self._done(job.outcome(result, is_error=is_error))


class _Refused(IapeerError):
    """The daemon itself said no; anything else may be a lost connection."""

    code = "mcp"


class _Session:
    """MCP over one kept connection; its answers are JSON, as the daemon gives them."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._version = ""
        self._number = 0

    async def initialize(self) -> None:
        """Shake hands. Raises as `call`."""
        hello = {
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "iapeer-demo", "version": "1"},
        }
        agreed = await self._request("initialize", hello)
        self._version = str(agreed["protocolVersion"])
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, arguments: dict[str, str], key: str) -> dict[str, Any]:
        """Return the tool's result.

        Raises _Refused when the daemon answers with an error, httpx2.HTTPError or ValueError when
        no answer of a daemon comes.
        """
        params = {"name": TOOL, "arguments": arguments, "_meta": {KEY: key}}
        return await self._request("tools/call", params)

    async def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        body = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        answer = (await self._post(body)).json()
        if "error" in answer:
            raise _Refused(str(answer["error"].get("message", "")))
        return dict(answer["result"])

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        headers = {"Accept": "application/json, text/event-stream"}
        if self._version:
            headers["MCP-Protocol-Version"] = self._version
        answer = await self._http.post(self._url, json=body, headers=headers)
        if answer.is_server_error:
            answer.raise_for_status()
        return answer


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("structuredContent"):
        return dict(answer["structuredContent"])
    parts = answer.get("content") or []
    return {"text": "\n".join(part["text"] for part in parts if part["type"] == "text")}


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, _Refused) else f"{type(error).__name__}: {error}"
